"""A running build-repo for tests: what it says, every process that came from it, and the shared memory of those."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

_VARIABLE = "TRITON_REPO_TEST_MARK"


class Mark:
    """Put into an environment, it is found again in every process that has this environment, wherever that moved."""

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self._seen: set[int] = set()

    def environment(self) -> dict[str, str]:
        return {**os.environ, _VARIABLE: self.token}

    def put(self, monkeypatch) -> None:
        """Into our own environment: what we start has it, we ourselves are not found."""
        monkeypatch.setenv(_VARIABLE, self.token)

    def processes(self) -> dict[int, str]:
        """The name of every living process, by process id."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    ours = self.token.encode() in (entry / "environ").read_bytes()
                    if ours and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                        found[int(entry.name)] = (entry / "comm").read_text().strip()
                except OSError:
                    continue
        self._seen |= set(found)
        return found

    def named(self, name: str) -> list[int]:
        return [pid for pid, comm in self.processes().items() if comm == name]

    def segments(self) -> list[str]:
        """Shared memory of the processes that were seen: its name holds the process id of the server's watchdog."""
        names = [segment.name for segment in Path("/dev/shm").glob("triton_repo_*")]
        return [name for name in names if int(name.split("_")[3]) in self._seen]


class Running:
    """``build-repo`` in a process group of its own, as a shell starts it."""

    def __init__(self, spec: Path, *arguments: str, mark: Mark) -> None:
        self.mark = mark
        self.spec = spec
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "builder.cli", "-v", *arguments, str(spec)],
            cwd=spec.parent,
            env=mark.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def wait(self, timeout_s: float) -> tuple[int, float]:
        """Its exit status, and after how many seconds."""
        started = time.monotonic()
        status = self.process.wait(timeout_s)
        seconds = time.monotonic() - started
        self._reader.join(timeout_s)
        return status, seconds

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()


def scale_onnx(path: Path, factor: float, *, width: int = 4) -> Path:
    """A small ONNX file: y = factor * x, with ``x`` of float32[n, width]."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.full((width,), factor, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path
