"""Whether a server that loads everything when it starts says the same as one that is asked for each model by name."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.differential.case import MARK, Case
from benchmarks.differential.real import Verdict
from serving.client import Client
from serving.runtime import find_runtime
from serving.server import Server


def suited(case: Case, verdict: Verdict) -> bool:
    """Whether a case can share a repository with others: its folders are its own, the server survives."""
    silent = "preinitialize" in verdict.reason
    return not verdict.died and not silent and all(model.endswith(MARK) for model in case.models) and bool(case.models)


def at_startup(cases: Sequence[Case]) -> dict[str, bool]:
    """All cases in one repository, a server started on it: whether each case's models are ready, by its key."""
    with tempfile.TemporaryDirectory(prefix="differential-") as folder:
        repository = Path(folder, "repository")
        repository.mkdir()
        names = {case.key: case.write(repository) for case in cases}
        server = Server(
            repository,
            runtime=find_runtime(),
            exit_on_error=False,
            cache_size_bytes=1 << 20,
            extra_args=["--strict-readiness=true"],
            startup_timeout_s=300,
        )
        with server, Client(server.http_url) as client:
            return {key: all(client.is_ready(name) for name in models) for key, models in names.items()}
