"""The server under test: one that runs somewhere, or one that is started on a repository for the measurement."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.about import about_model
from perf.errors import AnalyzerError, WorkloadError
from perf.failures import in_words
from perf.inputs import ModelSpec, RequestData, model_spec, request_data
from perf.parse import newest
from perf.usage import metrics
from perf.workload import Workload
from serving.errors import ModelLoadError, Problem, ServerUnavailableError, TritonRepoError
from serving.progress import SILENT, Reporter
from serving.server_log import is_alarming, tail

if TYPE_CHECKING:
    from serving import Client, Server

READY = "READY"
METRICS_PORT = 8002
ENDING_S = 3.0
"""How long it takes at most until it is known how a server ended."""


@dataclass(frozen=True)
class Target:
    """A server that answers.

    Attributes:
        address: ``host:port`` of the protocol that is measured.
        facts: what is written into the result about it.
        metrics_url: of its metrics, None where there are none.
        local: it runs on this machine.
        ended: how the server that was started here has ended, in words; empty while it runs. None for another's.
        python: the interpreter of its backends, where it is an embedded server; ``env``: what they are given.
    """

    client: Client
    address: str
    facts: Mapping[str, str]
    metrics_url: str | None = None
    local: bool = True
    python: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    ended: Callable[[], str] | None = None

    def gone(self) -> ServerUnavailableError | None:
        """What to say where the server is no more: nothing else can be measured then. None while it answers."""
        ended = self.ended or (lambda: "")
        how = ended()
        if not how and self.client.is_live():
            return None
        until_s = time.monotonic() + (ENDING_S if self.ended is not None else 0.0)
        while not how and time.monotonic() < until_s:  # it may be gone a moment before that is heard of
            time.sleep(ENDING_S / 20)
            how = ended()
        killed = "SIGKILL" in how
        return ServerUnavailableError(
            "the server died while it was measured",
            where=self.facts["url"],
            expected="a server that runs until all is measured",
            got=how or "it does not answer any more",
            fix="SIGKILL is mostly the kernel for want of memory: measure fewer models at once, or smaller batches"
            if killed
            else "see its log; what was measured before is kept",
        )

    def statistics(self, models: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Each model's statistics (of its newest version) at one moment; models that have none are left out."""
        said = self.client.statistics(models[0] if len(models) == 1 else "")
        entries = {model: newest(said, model) for model in models}
        return {model: entry for model, entry in entries.items() if entry is not None}


@dataclass(frozen=True)
class Subject:
    """A model that can be measured, with the requests it will get; or the reason why it cannot be.

    Attributes:
        config: as the server gave it.
        about: what its manifest says of what was built.
    """

    name: str
    spec: ModelSpec | None = None
    data: RequestData | None = None
    error: TritonRepoError | None = None
    problems: tuple[Problem, ...] = field(default=())
    config: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def open_target(workload: Workload, *, reporter: Reporter = SILENT) -> Iterator[Target]:
    """Attach to the workload's URL, or serve its repository until the block ends.

    Raises:
        ServerUnavailableError: nothing answers at the URL.
        ServerStartError, RuntimeUnavailableError: no server could be started.
    """
    from serving import Client

    if workload.address is not None:
        url = f"{workload.protocol}{'s' if workload.tls else ''}://{workload.address}"
        with Client(url, ca_file=workload.ca_file) as client:
            _must_answer(client, url, workload.protocol)
            about = client.server()
            facts = {"kind": "url", "url": url, "version": str(about.get("version", ""))}
            yield Target(client, workload.address, facts, _metrics_url(workload), _is_local(workload.address))
        return
    from serving import Server, find_runtime

    assert workload.repository is not None, "load_workload asks for one of the two"
    runtime = find_runtime(reporter=reporter)
    server = Server(
        workload.repository,
        runtime=runtime,
        model_control_mode="explicit" if workload.models else "none",
        load=_existing(workload.repository, workload.models),
        exit_on_error=False,  # a model that does not load is reported, the others are measured
        reporter=reporter,
    )
    with server:
        address = server.http_url if workload.protocol == "http" else server.grpc_url
        with Client(f"{workload.protocol}://{address}") as client:
            facts = {"kind": runtime.kind, "url": address, "runtime": runtime.describe(), "version": runtime.version}
            yield Target(
                client,
                address,
                facts,
                server.metrics_url,
                python=runtime.python,
                env=runtime.env,
                ended=lambda: how_it_ended(server),
            )


def how_it_ended(server: Server) -> str:
    """How a server has ended, with the last warnings and errors that it wrote; empty while it runs."""
    status = server.poll()
    if status is None:
        return ""
    said = [line for line in tail(server.log(), 20).splitlines() if is_alarming(line)][-5:]
    return "\n".join([in_words(status) + ("; its log:" if said else ", and nothing in its log says why"), *said])


def _metrics_url(workload: Workload) -> str | None:
    """Where the metrics of a running server are: as asked, or at Triton's usual port if something is there.

    Raises:
        WorkloadError: nothing answers at the address that was given.
    """
    assert workload.address is not None
    url = workload.metrics_url or f"http://{workload.address.rpartition(':')[0]}:{METRICS_PORT}/metrics"
    if metrics(url) is not None:
        return url
    if workload.metrics_url is None:
        return None
    fix = "the port is tritonserver's --metrics-port; leave it out to measure without"
    raise WorkloadError(
        [Problem("no metrics at this address", where="metrics_url", expected="Triton's metrics", got=url, fix=fix)]
    )


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _must_answer(client: Client, url: str, protocol: str) -> None:
    """Live is enough: with one model that failed to load, a server is never "ready", and the others can be measured."""
    if client.is_live():
        return
    other = "grpc" if protocol == "http" else "http"
    if url.startswith(("https:", "grpcs:")):
        raise ServerUnavailableError(
            "no server answers, or not with a certificate that is trusted",
            where=url,
            expected=f"a Triton behind TLS that speaks {protocol} at this port",
            fix=f"--ca-file with the certificate that signed the server's; without TLS it is {protocol}://",
        )
    raise ServerUnavailableError(
        "no server answers",
        where=url,
        expected=f"a Triton that speaks {protocol} at this port",
        fix=f"start one with serve-repo, or, if this is the port for the other protocol, use {other}://",
    )


def subjects(target: Target, workload: Workload) -> list[Subject]:
    """Every model to measure, in order, with its requests.

    Raises:
        WorkloadError: with all problems of all models that were asked for: unknown names, batches that are too large,
            shapes that are missing or do not fit.
    """
    index = {str(entry["name"]): entry for entry in target.client.index()}
    asked = list(dict.fromkeys(workload.models))
    problems = [_unknown(name, index) for name in asked if name not in index]
    found: list[Subject] = []
    for name in asked or sorted(index):
        if name in index:
            found.append(_subject(target, workload, name, index[name]))
    problems += [problem for subject in found for problem in subject.problems]
    if problems:
        raise WorkloadError(problems)
    if not found:
        where = target.facts["url"]
        fix = "serve a repository that holds models: see its log"
        raise WorkloadError([Problem("the server has no models", where=where, expected="at least one", fix=fix)])
    unused = set(workload.shapes) - {spec.name for subject in found if subject.spec for spec in subject.spec.inputs}
    if unused and all(subject.spec is not None for subject in found):
        names = sorted({spec.name for subject in found if subject.spec for spec in subject.spec.inputs})
        raise WorkloadError(
            [
                Problem(
                    f"no model has an input {name}",
                    where=f"shapes.{name}",
                    expected=", ".join(names),
                    got=name,
                    fix="give a shape of one of these, or none",
                )
                for name in sorted(unused)
            ]
        )
    return found


def _existing(repository: Path, models: Sequence[str]) -> list[str]:
    """Those that are there: the server would refuse to start for the others, which are reported by name later."""
    return [name for name in dict.fromkeys(models) if (repository / name).is_dir()]


def _unknown(name: str, index: Mapping[str, Any]) -> Problem:
    close = difflib.get_close_matches(name, index, n=1)
    fix = f"did you mean {close[0]}?" if close else "leave --model out to measure all"
    return Problem("no such model", where=name, expected=", ".join(sorted(index)) or "none is there", got=name, fix=fix)


def _subject(target: Target, workload: Workload, name: str, entry: Mapping[str, Any]) -> Subject:
    state = str(entry.get("state") or "UNAVAILABLE")
    if state != READY:
        reason = str(entry.get("reason") or state)
        fix = (
            "mend it (check-repo looks for reasons, serve-repo shows the server's log), or leave it out: --model OTHER"
        )
        unready = ModelLoadError("the model is not ready", where=name, expected=READY, got=reason, fix=fix)
        return Subject(name, error=unready)
    config = target.client.config(name)
    statistics = target.statistics([name]).get(name)
    spec = model_spec(config, str(statistics["version"]) if statistics is not None else "")
    known = Subject(name, spec, config=config, about=about_model(workload.repository, name, spec.version))
    if error := _unmeasurable(spec, workload):
        return replace(known, error=error)
    if workload.batch_size > max(1, spec.max_batch_size):
        return replace(known, problems=(_too_large_batch(spec, workload.batch_size),))
    try:
        data = request_data(
            spec, repository=workload.repository, shapes=workload.shapes, batch_size=workload.batch_size
        )
    except WorkloadError as error:
        return replace(known, problems=error.problems)
    return replace(known, data=data)


def unsupported(spec: ModelSpec, config: Mapping[str, Any]) -> TritonRepoError | None:
    """Why a model of this kind is not compared with others; None where it is."""
    kind = "decoupled" if spec.decoupled else "stateful (sequence batching)" if config.get("sequence_batching") else ""
    if not kind:
        return None
    return AnalyzerError(
        f"{kind} models are not compared",
        where=spec.name,
        expected="one answer to each request, requests that do not depend on each other",
        fix="measure it with bench-repo",
    )


def _unmeasurable(spec: ModelSpec, workload: Workload) -> TritonRepoError | None:
    """Why a model cannot be measured in the way that is asked; None where it can."""
    if spec.decoupled and workload.protocol != "grpc":
        return AnalyzerError(
            "a decoupled model answers in streams, which only gRPC has",
            where=spec.name,
            expected="grpc",
            got=workload.protocol,
            fix="--protocol grpc",
        )
    if spec.stateful and (workload.rate or workload.intervals):
        return AnalyzerError(
            "a stateful model is not measured at a rate",
            where=spec.name,
            expected="a concurrency: so many sequences at once",
            got="in a sequence each request waits for the answer to the one before, whatever the rate",
            fix="--concurrency 4, without --rate",
        )
    return None


def _too_large_batch(spec: ModelSpec, batch_size: int) -> Problem:
    return Problem(
        "the batch size is larger than the model takes",
        where=f"model {spec.name}",
        expected=f"at most {spec.max_batch_size} (max_batch_size)" if spec.max_batch_size else "1: it does not batch",
        got=str(batch_size),
        fix=f"--batch-size {max(1, spec.max_batch_size)}",
    )
