"""The FastAPI baseline: a server of its own, measured by the very same client at the very same loads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from perf.analyzer import Load
from perf.baselines.child import Child, python_command
from perf.failures import unwritable
from perf.points import Measured
from perf.runner import Run, safe_name
from perf.target import Subject, Target

_START_S = 30.0


@dataclass
class OverHttp:
    """Starts the server for one model, and measures it as :class:`perf.runner.Run` measures Triton.

    A context manager: the server is started by :meth:`warm_up` and ends with the block.

    Attributes:
        model: the served model that it is held against.
        arguments: for :func:`perf.baselines.onnx_session.open_sessions`.
    """

    run: Run
    model: str
    arguments: Mapping[str, Any]
    instances: int
    facts: dict[str, str] = field(default_factory=dict)
    _own: Run | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> OverHttp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def warm_up(self, subject: Subject) -> Load:
        """Start the server and run the largest load for a moment.

        Raises:
            BaselineError: a package is missing, or it does not start.
            AnalyzerError, ServerUnavailableError: it does not answer.
        """
        from serving import Client

        assert subject.spec is not None
        raw = self.run.folder / "raw"
        try:
            raw.mkdir(exist_ok=True)
            log = raw / f"{safe_name(subject.name)}.log"
            child = self._stack.enter_context(Child(python_command("perf.baselines.fastapi_server"), log, subject.name))
        except OSError as exc:
            raise unwritable(exc, raw) from exc
        config = {key: self.arguments["config"].get(key, []) for key in ("input", "output")}
        config |= {"name": subject.name, "backend": "onnxruntime", "max_batch_size": subject.spec.max_batch_size}
        order = {"name": subject.name, "version": subject.spec.version, "config": config, "instances": self.instances}
        child.order({**order, "arguments": dict(self.arguments)})
        ready = child.hear()["ready"]
        address = f"127.0.0.1:{ready.pop('port')}"
        self.facts.update(ready)
        client = self._stack.enter_context(Client(f"http://{address}"))
        client.wait_ready(_START_S, subject.name)
        target = Target(client, address, {"kind": "fastapi", "url": address}, None)
        workload = self.run.workload.model_copy(update={"protocol": "http", "shared_memory": "none"})
        right = {subject.name: self.run.right[self.model]} if self.model in self.run.right else {}
        self._own = replace(self.run, workload=workload, target=target, sample_bytes={}, right=right)
        return self._own.warm_up(subject)

    def measure(self, subject: Subject, load: Load, place_name: str) -> Measured:
        """Measure it once."""
        assert self._own is not None
        return self._own.measure(subject, load, place_name)
