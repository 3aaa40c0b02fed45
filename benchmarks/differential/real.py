"""What the embedded Triton says of a case: loaded by name in a server that runs, with its reason where it refuses.

A server is started once for each thread, with explicit model control; each case is put into its repository under names
of its own, loaded, unloaded and taken away. Models that are steps of ensembles stay loaded for the cases that follow, a
few at a time. What was once answered is kept in a file, by the case's content.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.differential.case import Case
from serving import server_log
from serving.errors import TritonRepoError
from serving.runtime import Runtime, find_runtime, identity
from serving.server import Server

KEPT_LOADED = 8
_TIMEOUT_S = 180.0
_CACHE_BYTES = 1 << 20  # a response cache, so that models may ask for it
_LONGEST = 600
_DYING_S = 5.0
_SILENT_S = 1.5
_LOST_STUB = "Failed to preinitialize Python stub"  # after which a load is never answered
_TELLING = re.compile(r"what\(\)|terminate called|Signal \(|Failed to preinitialize|Check failed|CHECK")


@dataclass(frozen=True)
class Verdict:
    """What became of a case in the server.

    Attributes:
        loads: True where every model of the repository was loaded.
        model: the first one that was not.
        reason: the server's words.
        died: whether the server ended over it.
    """

    loads: bool
    model: str = ""
    reason: str = ""
    died: bool = False


class Judge:
    """One server with a repository of its own; not to be shared by threads."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._folder = folder
        self._runtime = runtime
        self._repository = folder / "repository"
        self._repository.mkdir(parents=True)
        self._loaded: list[str] = []
        self._server: Server | None = None
        self._read = 0

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop(at_once=True)
            self._server = None
            self._loaded.clear()

    def verdict(self, case: Case) -> Verdict:
        """Load the case; whatever becomes of it, nothing of it is left, except steps that load.

        A server that dies of it is asked once more: now and then one dies of a lock between it and a model's process.
        """
        first = self._verdict(case)
        return self._verdict(case) if first.died else first

    def _verdict(self, case: Case) -> Verdict:
        names = case.names()
        ensembles = [names[model] for model in case.models if case.is_ensemble(model)]
        steps = [(model, names[model]) for model in case.models if names[model] not in ensembles]
        try:
            for model, name in steps:
                if name not in self._loaded:
                    case.write(self._repository, only=model)
                    reason = self._load(name)
                    if reason:
                        return Verdict(False, model, _short(reason, name, model))
                    self._loaded.append(name)
            for model in case.models:
                if names[model] in ensembles:
                    case.write(self._repository, only=model)
                    reason = self._load(names[model])
                    if reason:
                        return Verdict(False, model, _short(reason, names[model], model))
            return Verdict(True)
        except (OSError, http.client.HTTPException, TritonRepoError) as error:
            silent = isinstance(error, TimeoutError)
            died = not silent and (self._server is None or self._server.wait(_DYING_S) is not None)
            text = self._server.log()[self._read :] if self._server else str(error)
            self.close()
            return Verdict(False, case.target, _last_words(text, names) or str(error), died)
        finally:
            self._clear(ensembles, steps, keep=bool(ensembles))

    def _clear(self, ensembles: Sequence[str], steps: Sequence[tuple[str, str]], *, keep: bool) -> None:
        loaded = [name for _, name in steps if name in self._loaded]
        if keep:
            loaded = self._loaded[: max(0, len(self._loaded) - KEPT_LOADED)]
        if self._server is not None:
            for name in [*ensembles, *loaded]:
                self._try_unload(name)
        self._loaded = [name for name in self._loaded if name not in loaded]
        for path in self._repository.iterdir():
            if path.name not in self._loaded:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _try_unload(self, name: str) -> None:
        try:
            self._post(f"/v2/repository/models/{name}/unload")
        except (OSError, http.client.HTTPException):
            self.close()

    def _load(self, name: str) -> str:
        """Why the server refuses the model; empty where it does not."""
        server = self._running()
        self._read = len(server.log())
        status, body = self._post(f"/v2/repository/models/{name}/load")
        if status != 200:
            said = server_log.load_failures(server.log()[self._read :])
            return said.get(name) or str(json.loads(body).get("error", body))
        if self._post(f"/v2/models/{name}/ready", "GET")[0] != 200:
            return f"loaded, and not ready: {self._index(name)}"
        return ""

    def _index(self, name: str) -> str:
        rows = json.loads(self._post("/v2/repository/index")[1])
        return "; ".join(
            f"{row.get('version')} {row.get('state')} {row.get('reason')}" for row in rows if row["name"] == name
        )

    def _running(self) -> Server:
        if self._server is None or self._server.poll() is not None:
            self.close()
            self._server = Server(
                self._repository,
                runtime=self._runtime,
                model_control_mode="explicit",
                cache_size_bytes=_CACHE_BYTES,
                exit_on_error=False,
                extra_args=["--strict-readiness=true"],
                log_path=self._folder / "server.log",
            ).start()
        return self._server

    def _post(self, path: str, method: str = "POST") -> tuple[int, str]:
        host, _, port = self._running().http_url.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, body=b"{}" if method == "POST" else None)
            self._await(connection)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        finally:
            connection.close()

    def _await(self, connection: http.client.HTTPConnection) -> None:
        """Wait for an answer; not for one that never comes, as of a Python backend without its ``model.py``."""
        deadline = time.monotonic() + _TIMEOUT_S
        lost_at: float | None = None
        while not select.select([connection.sock], [], [], 1.0)[0]:
            assert self._server is not None
            now = time.monotonic()
            if _LOST_STUB in self._server.log()[self._read :]:
                lost_at = lost_at or now
            if now > deadline or (lost_at and now > lost_at + _SILENT_S):
                raise TimeoutError("the server does not answer")


def _last_words(log: str, names: Mapping[str, str]) -> str:
    """What the server said before it died or fell silent."""
    telling = [line for line in log.splitlines() if _TELLING.search(line)]
    text = "\n".join(telling) or server_log.tail(log, 3)
    for model, name in names.items():
        text = text.replace(name, model)
    return text[:_LONGEST]


def _short(reason: str, name: str, model: str) -> str:
    return reason.replace(name, model).split("\n\nAt:")[0].strip()[:_LONGEST]


class Memory:
    """Verdicts by content, in a file that grows; those of another server do not count.

    Args:
        path: made if absent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._server = identity()
        self._lock = threading.Lock()
        self.known: dict[str, Verdict] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                if row.pop("server") == self._server:
                    key = row.pop("key")
                    self.known[key] = Verdict(**row)
        path.parent.mkdir(parents=True, exist_ok=True)

    def keep(self, case: Case, verdict: Verdict) -> None:
        """Remember it, now and for the next run."""
        with self._lock, self._path.open("a") as file:
            self.known[case.key] = verdict
            file.write(json.dumps({"key": case.key, "server": self._server, **asdict(verdict)}) + "\n")


def verdicts(
    cases: Iterable[Case], memory: Memory, *, servers: int = 2, tell: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, Verdict]:
    """The server's verdict on each case by its key; only those not in ``memory`` are loaded."""
    wanted = {case.key: case for case in cases}
    missing = [case for key, case in wanted.items() if key not in memory.known]
    runtime = find_runtime() if missing else None
    done = [0]

    def work(share: Sequence[Case]) -> None:
        assert runtime is not None
        with tempfile.TemporaryDirectory(prefix="differential-") as folder:
            judge = Judge(Path(folder), runtime)
            try:
                for case in share:
                    memory.keep(case, judge.verdict(case))
                    done[0] += 1
                    tell(done[0], len(missing))
            finally:
                judge.close()

    if missing:
        missing.sort(key=lambda case: case.seed)  # so that the steps of an ensemble stay loaded
        half = -(-len(missing) // servers)
        shares = [missing[start : start + half] for start in range(0, len(missing), half)]
        with ThreadPoolExecutor(len(shares)) as pool:
            for future in [pool.submit(work, share) for share in shares]:
                future.result()
    return {key: memory.known[key] for key in wanted}
