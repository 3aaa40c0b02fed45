"""Is everything here that a server needs? Each check says what was found and, if it is not enough, what mends it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from serving import runtime
from serving.errors import TritonRepoError
from serving.interpreter import find_interpreter
from serving.ports import can_bind, listeners
from serving.progress import SILENT, Reporter
from serving.provision import cache_dir, problems
from serving.status import ask

DEFAULT_PORTS = (("--http-port", 8000), ("--grpc-port", 8001), ("--metrics-port", 8002))

_MIB = 1 << 20
_FETCH_BYTES = 500 * _MIB  # the embedded runtime unpacked, and room to stage it
_SHM_FREE_BYTES = 16 * _MIB
_SHM_COMFORT_BYTES = 256 * _MIB

# Every element through the Python backend and back: numpy 2 would return another tensor, silently.
_MODEL = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor + 1)]) for tensor in tensors]
"""
_CONFIG = """
backend: "python"
input [{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }]
"""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: ``ok``, ``warning`` (it works, with a limit), ``missing`` (it will not work).
        found: what is there.
        fix: the command that mends it; empty when nothing is to be done.
    """

    name: str
    status: Literal["ok", "warning", "missing"]
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For ``--format json``."""
        return asdict(self)


def examine(*, reporter: Reporter = SILENT, provide: bool = False) -> list[Check]:
    """Every check, in the order in which a start would need them.

    Args:
        reporter: told about what takes time.
        provide: fetch the embedded runtime now if it is not here.
    """
    checks = [_server()]
    if checks[0].status == "ok" and checks[0].name == "server on this machine":
        embedded = False
    else:
        embedded = True
        checks += [_platform(), _python(), _installer(), _disk()]
    checks.append(_shared_memory())
    usable = all(check.status != "missing" for check in checks)
    if embedded and usable and provide:
        checks.append(_attempt("embedded runtime", lambda: runtime.embedded_runtime(reporter=reporter).describe()))
        usable = checks[-1].status != "missing"
        checks[0] = _server()
    if usable and (not embedded or not _absent()):
        with reporter.step("try a request through a real server"):
            checks.append(_attempt("a request through the server", _try_request))
    checks += _ports()
    checks.append(_client())
    return checks


def _attempt(name: str, what: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", what())
    except TritonRepoError as error:
        found = f"{error.what}: {error.got}" if error.got else error.what
        return Check(name, "missing", found, error.fix)


def _server() -> Check:
    try:
        local = runtime.local_tritonserver()
    except TritonRepoError as error:
        return Check("server on this machine", "missing", f"{error.where}: {error.got}", error.fix)
    if local is not None:
        return Check("server on this machine", "ok", str(local))
    place = runtime.embedded_location()
    found = problems(place)
    described = f"Triton {runtime.TRITON} (release {runtime.TRITON_RELEASE})"
    if not found:
        return Check("embedded server", "ok", f"{described} in {place}")
    state = "not here yet: fetched at the first start" if found == ["absent"] else "not whole: mended at the next start"
    return Check("embedded server", "warning", f"{described}, {state}", "serve-repo doctor --provide")


def _absent() -> bool:
    return bool(problems(runtime.embedded_location()))


def _platform() -> Check:
    def found() -> str:
        runtime.check_platform()
        return "glibc {}.{}".format(*(runtime.glibc_version() or ("?", "?")))

    return _attempt("C library", found)


def _python() -> Check:
    def found() -> str:
        python = find_interpreter()
        return f"Python {python.release} at {python.executable}, libpython in {python.library_dir}"

    return _attempt("Python for the backends (3.10 to 3.12)", found)


def _installer() -> Check:
    name = "pip or uv"
    if importlib.util.find_spec("pip") is not None:
        return Check(name, "ok", f"pip of {sys.executable}")
    for tool in ("uv", "pip3", "pip"):
        if path := shutil.which(tool):
            return Check(name, "ok", path)
    fix = f"{sys.executable} -m ensurepip"
    return Check(name, "missing" if _absent() else "warning", "neither, to provide the embedded server", fix)


def _disk() -> Check:
    folder = cache_dir()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    fix = "set TRITON_REPO_CACHE to a folder on a disk with space that you may write to"
    free = shutil.disk_usage(existing).free
    found = f"{folder}, {free / (1 << 30):.1f} GiB free"
    if not _absent():
        return Check("cache folder", "ok", found)
    if not os.access(existing, os.W_OK):
        return Check("cache folder", "missing", f"{folder} cannot be written", fix)
    return Check("cache folder", "ok" if free > _FETCH_BYTES else "missing", found, "" if free > _FETCH_BYTES else fix)


def _shared_memory() -> Check:
    name, folder = "shared memory", Path("/dev/shm")
    fix = "docker run --shm-size=1g ... (compose: shm_size: 1g); elsewhere: mount -o remount,size=1g /dev/shm"
    if not os.access(folder, os.W_OK):
        return Check(name, "missing", f"{folder} cannot be written; the backends exchange tensors there", fix)
    usage = shutil.disk_usage(folder)
    found = f"{usage.free // _MIB} of {usage.total // _MIB} MiB free"
    if usage.free < _SHM_FREE_BYTES:
        return Check(name, "missing", f"{found}; every model instance needs some", fix)
    if usage.total < _SHM_COMFORT_BYTES:
        return Check(name, "warning", f"{found}; large tensors or many instances may not fit", fix)
    return Check(name, "ok", found)


def _ports() -> Iterator[Check]:
    for option, port in DEFAULT_PORTS:
        if can_bind("127.0.0.1", port):
            yield Check(f"port {port}", "ok", "free")
        else:
            holders = ", ".join(f"{name} (process {pid})" for pid, name in listeners(port).items())
            yield Check(f"port {port}", "warning", f"held by {holders or 'another user'}", f"serve-repo {option} 0")


def _client() -> Check:
    name = "tritonclient (for serving.Client)"
    if importlib.util.find_spec("tritonclient") is None:
        return Check(name, "warning", "not installed", "pip install 'triton-repo[serve]'")
    return Check(name, "ok", "installed")


def _try_request() -> str:
    """A golden request through a real server; an answer that differs is an error like any other."""
    from serving.server import Server

    values = [0.0, 1.5, -2.0, 1e6]
    with tempfile.TemporaryDirectory(prefix="triton-doctor-") as folder:
        model = Path(folder) / "golden"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(_CONFIG)
        (model / "1/model.py").write_text(_MODEL)
        with Server(folder, startup_timeout_s=60) as server:
            tensor: dict[str, Any] = {"name": "IN", "datatype": "FP32", "shape": [len(values)], "data": values}
            answer = ask(server.http_url, "/v2/models/golden/infer", post={"inputs": [tensor]})
            described = server.runtime.describe()
    got = answer["outputs"][0]["data"]
    if got != [value + 1 for value in values]:
        raise TritonRepoError(
            "the server answers with wrong numbers",
            expected=str([value + 1 for value in values]),
            got=json.dumps(got),
            fix=f"rm -r {cache_dir()}   (it is made again on the next start)",
        )
    return f"right answer from {described}"
