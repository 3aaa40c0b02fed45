"""Last rung: the staged model in a real Triton, asked over HTTP and gRPC, one at a time and many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from builder.numerics import Difference, compare
from builder.verify.cases import Case
from builder.verify.parity import require, summary
from builder.verify.streamed import ask
from serving import Client
from serving.errors import ModelLoadError

CONCURRENT_REQUESTS = 64
_IN_FLIGHT = 16
_TIMEOUT_S = 300.0  # a large model may take long; a server that hangs is noticed by who owns it, and killed


@dataclass(frozen=True)
class Served:
    """What was seen through the server.

    Attributes:
        server: which Triton it was.
        load_s: how long it took to load the model.
        cases: how many requests were asked one at a time, over each protocol.
        concurrent: how many single requests were asked at once, over each protocol.
        mean_batch: inferences per execution while they were: above 1 the server did batch.
        outputs: per output, the worst difference over all of them.
    """

    server: str
    load_s: float
    cases: int
    concurrent: int
    mean_batch: float
    outputs: tuple[Difference, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Endpoint:
    """A running server in explicit model control mode, over the staging repository.

    Attributes:
        http_url, grpc_url: ``127.0.0.1:8000``, without a scheme.
        server: which Triton it is, for the manifest.
    """

    http_url: str
    grpc_url: str
    server: str


def check_served(
    endpoint: Endpoint,
    name: str,
    cases: Sequence[Case],
    together: Sequence[Case],
    precision: str,
    *,
    called: Sequence[str] = (),
    decoupled: bool = False,
) -> Served:
    """Load one model, ask everything over both protocols, compare, unload.

    Args:
        endpoint: the server.
        name: the model, a folder of the staging repository.
        cases: asked one at a time.
        together: requests of one sample each, asked all at once.
        precision: row of the tolerance table.
        called: models that it calls, which the server does not know of: loaded before it, in this order.
        decoupled: it answers in streams, which only gRPC has.

    Raises:
        ModelLoadError: the server refused it; with the server's reason.
        ParityError: an answer differs.
        InferenceError: a request failed; :class:`ServerUnavailableError` where the server is gone.
    """
    per_output: dict[str, list[Difference]] = {}
    batches = []
    with Client(f"http://{endpoint.http_url}", timeout_s=_TIMEOUT_S) as admin:
        loaded: list[str] = []
        try:
            for other in called:
                _load(admin, other)
                loaded.append(other)
            started = time.perf_counter()
            _load(admin, name)
            load_s = time.perf_counter() - started
            loaded.append(name)
            for scheme, address in (("http", endpoint.http_url), ("grpc", endpoint.grpc_url))[decoupled:]:
                with Client(f"{scheme}://{address}", timeout_s=_TIMEOUT_S) as client:
                    for case in cases:
                        answer = ask(client, name, case, decoupled=decoupled)
                        differences = compare(case.expected, answer, precision)
                        _require(case, differences, precision, f"{name} over {scheme}", per_output)
                    before = _counts(admin, name)
                    _ask_at_once(client, name, together, precision, per_output, decoupled=decoupled)
                    batches.append(_mean_batch(before, _counts(admin, name)))
        finally:
            if admin.is_live():
                for other in reversed(loaded):
                    admin.unload(other, with_steps=True)
    mean_batch = max(batches)
    return Served(endpoint.server, load_s, len(cases), len(together), mean_batch, summary(per_output))


def _load(admin: Client, name: str) -> None:
    try:
        admin.load(name)
    except ModelLoadError as exc:
        raise ModelLoadError(
            f"Triton refuses {name}",
            expected="a model that loads",
            got=exc.got or exc.what,
            fix="the reason above is the server's own; mend the spec or its `config`",
        ) from exc


def _ask_at_once(
    client: Client,
    name: str,
    together: Sequence[Case],
    precision: str,
    per_output: dict[str, list[Difference]],
    *,
    decoupled: bool,
) -> None:
    one_at_a_time = threading.Lock()  # answers may be large, and a comparison takes several times their memory

    def asked(case: Case) -> list[Difference]:
        try:
            got = ask(client, name, case, decoupled=decoupled)
        finally:
            client.leave_thread()  # the pool does not say when a thread ends
        with one_at_a_time:
            return compare(case.expected, got, precision)

    with ThreadPoolExecutor(_IN_FLIGHT) as pool:
        answers = list(pool.map(asked, together))
    for case, differences in zip(together, answers, strict=True):
        _require(
            case, differences, precision, f"{name} over {client.address.protocol}, {_IN_FLIGHT} at once", per_output
        )


def _require(
    case: Case, differences: list[Difference], precision: str, what: str, per_output: dict[str, list[Difference]]
) -> None:
    require(differences, case, precision, what=what, where="through the server", into=per_output)


def _counts(admin: Client, name: str) -> tuple[int, int]:
    row = admin.statistics(name)[0]
    return int(row.get("inference_count", 0)), int(row.get("execution_count", 0))


def _mean_batch(before: tuple[int, int], after: tuple[int, int]) -> float:
    executions = after[1] - before[1]
    return (after[0] - before[0]) / executions if executions else 0.0
