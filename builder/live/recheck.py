"""A published version asked its golden requests on a running server: does it do as when it was verified?"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

from builder.errors import ReloadError, describe
from builder.golden import read_golden
from builder.numerics import TOLERANCES, Difference, compare, worst
from builder.repository.published import GOLDEN, ModelFolder
from builder.verify import Case, streamed
from serving import Client


class BadVersionError(ReloadError):
    """The version itself is at fault: it answers otherwise than when it was verified, or is not served at all."""


@dataclass(frozen=True)
class Answered:
    """How a version answered the golden requests.

    Attributes:
        requests: how many were asked.
        worst: the output that came nearest to its limit.
    """

    requests: int
    worst: Difference


def ask(clients: Sequence[Client], name: str, version: int, cases: Sequence[Case], precision: str) -> Answered:
    """Ask a version its golden requests, through every client, and compare.

    Args:
        clients: of one server, one for each protocol.
        name: the model, as the server knows it.
        version: asked for by number: another version never answers in its place.
        cases: requests with their right answers.
        precision: row of the tolerance table.

    Raises:
        BadVersionError: an answer differs; says which output, how far, and in which request.
        InferenceError: a request failed.
    """
    found: list[Difference] = []
    policy = clients[0].config(name, version=str(version)).get("model_transaction_policy") or {}
    decoupled = bool(policy.get("decoupled"))
    if decoupled:  # it answers in streams, which only gRPC has
        known, clients = clients, [client for client in clients if client.address.protocol == "grpc"]
        if not clients:
            raise ReloadError(
                f"{name} answers in streams, and cannot be checked over HTTP",
                where=", ".join(str(client.address) for client in known),
                expected="the server's gRPC address",
                got="HTTP alone",
                fix="give --reload grpc://HOST:PORT; nothing was changed",
            )
    for client in clients:
        for case in cases:
            got = streamed.ask(client, name, case, decoupled=decoupled, version=str(version))
            found += (differences := compare(case.expected, got, precision))
            bad = worst(differences)
            if not bad.ok:
                raise BadVersionError(
                    f"output {bad.output!r} of {name} {version} is not what it was when the version was verified",
                    where=f"{case.name}, through {client.address}",
                    expected=f"the answer in its golden.npz, within the tolerance of {precision}",
                    got=bad.problem,
                    fix="find out what differs between the server and the machine that built the version",
                )
    return Answered(len(cases) * len(clients), worst(found))


def golden_of(model: ModelFolder, version: int) -> tuple[list[Case], str]:
    """A version's golden requests, and the row of the tolerance table for them.

    Raises:
        ReloadError: it has none that can be read, or no tolerance.
        ManifestError: its manifest is not as it was written.
    """
    manifest = model.manifest(version)
    path = model.folder(version) / GOLDEN
    try:
        cases = read_golden(path)
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise ReloadError(
            f"version {version} of {model.name} has no golden requests that can be read",
            where=str(path),
            expected="requests with their right answers, as build-repo wrote them",
            got=describe(exc),
            fix="build it again: it becomes a new version; nothing was changed",
        ) from exc
    if not cases or manifest.precision not in TOLERANCES:
        raise ReloadError(
            f"version {version} of {model.name} cannot be checked on a server",
            where=str(path),
            expected=f"at least one golden request, and a precision that has a tolerance: {', '.join(TOLERANCES)}",
            got=f"{len(cases)} golden requests, precision {manifest.precision!r}",
            fix="build it again with this release: it becomes a new version; nothing was changed",
        )
    return cases, manifest.precision
