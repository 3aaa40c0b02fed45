"""What one writes instead of a model server: FastAPI in front of onnxruntime, with the KServe v2 protocol.

As in the tutorials, and with what a careful author adds: tensors travel as bytes, the sessions run in a pool of threads
beside the event loop, as many as the served model has instances, and there is no per-request validation of a million
floats. Without what a server has: nothing is batched.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import fastapi
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from perf.baselines.kserve import LENGTH, RequestError, read_request, write_answer
from perf.baselines.loops import Runner

_STAGES = ("success", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Counters:
    """What the server knows of its own time, nanoseconds; the names are those of Triton's statistics."""

    requests: int = 0
    failures: int = 0
    inferences: int = 0
    ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_STAGES, 0))

    def add(self, samples: int, **ns: int) -> None:
        """A request that was answered."""
        self.requests += 1
        self.inferences += samples
        for name, value in ns.items():
            self.ns[name] += value


class App:
    """One model behind the protocol.

    Args:
        name: that it is served under.
        config: name, ``max_batch_size``, inputs and outputs, as Triton gives them.
        runners: one for each request that is worked on at once.
    """

    def __init__(self, name: str, version: str, config: Mapping[str, Any], runners: Sequence[Runner]) -> None:
        self.name, self.version, self.config = name, version, dict(config)
        self._types = {str(io["name"]): _datatype(io) for io in (*config["input"], *config["output"])}
        self._batches = int(config.get("max_batch_size") or 0) > 0
        self._counters = Counters()
        self._free: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in runners:
            self._free.put(runner)
        self._pool = ThreadPoolExecutor(len(runners), thread_name_prefix="infer")

    def create(self) -> FastAPI:
        """The application."""
        app = FastAPI(title=self.name, openapi_url=None)
        model = f"/v2/models/{self.name}"
        version = f"{model}/versions/{self.version}"
        app.add_api_route("/v2", self.about, methods=["GET"])
        app.add_api_route("/v2/models/stats", self.statistics, methods=["GET"])
        for path in ("/v2/health/live", "/v2/health/ready", f"{model}/ready", f"{version}/ready"):
            app.add_api_route(path, self.well, methods=["GET"])
        for place in (model, version):
            app.add_api_route(place, self.metadata, methods=["GET"])
            app.add_api_route(f"{place}/config", self.configuration, methods=["GET"])
            app.add_api_route(f"{place}/stats", self.statistics, methods=["GET"])
            app.add_api_route(f"{place}/infer", self.infer, methods=["POST"])
        return app

    async def well(self) -> Response:
        """It lives, and the model is loaded."""
        return Response()

    async def about(self) -> Any:
        """The server."""
        extensions = ["binary_tensor_data", "model_configuration", "statistics"]
        return JSONResponse({"name": "fastapi", "version": fastapi.__version__, "extensions": extensions})

    async def metadata(self) -> Any:
        """The model's tensors."""
        batch = [-1] if self._batches else []

        def tensors(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
            return [
                {"name": io["name"], "datatype": _datatype(io), "shape": batch + [int(dim) for dim in io["dims"]]}
                for io in entries
            ]

        inputs, outputs = tensors(self.config["input"]), tensors(self.config["output"])
        about = {"name": self.name, "versions": [self.version], "platform": "onnxruntime_onnx"}
        return JSONResponse({**about, "inputs": inputs, "outputs": outputs})

    async def configuration(self) -> Any:
        """The model's configuration."""
        return JSONResponse(self.config)

    async def statistics(self) -> Any:
        """What became of all requests so far."""
        counted = self._counters
        stages = {name: {"count": counted.requests, "ns": ns} for name, ns in counted.ns.items()}
        entry = {
            "name": self.name,
            "version": self.version,
            "inference_count": counted.inferences,
            "execution_count": counted.requests,
            "inference_stats": {**stages, "fail": {"count": counted.failures, "ns": 0}},
            "batch_stats": [],
        }
        return JSONResponse({"model_stats": [entry]})

    async def infer(self, request: Request) -> Response:
        """Answer one request."""
        begin = time.perf_counter_ns()
        try:
            length = request.headers.get(LENGTH)
            body = await request.body()
            inputs, asked = read_request(body, int(length) if length is not None else None)
            read = time.perf_counter_ns()
            outputs, started, ended = await asyncio.get_running_loop().run_in_executor(self._pool, self._run, inputs)
            content, header = write_answer((self.name, self.version), outputs, self._types, asked)
        except RequestError as exc:
            return self._failed(400, str(exc))
        except Exception as exc:  # onnxruntime's errors have no common base
            return self._failed(500, f"{type(exc).__name__}: {exc}")
        done = time.perf_counter_ns()
        samples = len(next(iter(inputs.values()))) if self._batches and inputs else 1
        spent = {"queue": started - read, "compute_input": read - begin, "compute_infer": ended - started}
        self._counters.add(samples, success=done - begin, compute_output=done - ended, **spent)
        if header is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={LENGTH: str(header)})

    def _run(self, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Any], int, int]:
        runner = self._free.get()
        try:
            started = time.perf_counter_ns()
            return runner(inputs), started, time.perf_counter_ns()
        finally:
            self._free.put(runner)

    def _failed(self, status: int, message: str) -> Response:
        self._counters.failures += 1
        return JSONResponse({"error": message}, status_code=status)


def _datatype(io: Mapping[str, Any]) -> str:
    name = str(io["data_type"]).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name
