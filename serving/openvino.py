"""ONNX Runtime's build with OpenVINO, for models that ask for it; fetched once per machine, when the first one does.

It is a package of its own under the name ``onnxruntime``, older than the one beside it. So it lies in a folder apart,
and a backend process whose model names the ``openvino`` accelerator imports it from there (``load_onnxruntime`` in the
backend's ``sessions.py``).
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from serving.errors import RuntimeUnavailableError
from serving.interpreter import Interpreter, find_interpreter
from serving.progress import SILENT, Reporter
from serving.provision import location, pip_install, problems, provisioned

ONNXRUNTIME_OPENVINO = "1.24.1"
PYTHONS = ("3.11", "3.12")
"""Versions that its wheels are for, of those that the backends run in."""

VARIABLE = "TRITON_REPO_OPENVINO"
"""Tells the backends where it is, or would be."""

_NAME = "openvino"


def openvino_location(interpreter: Interpreter | None = None) -> Path:
    """Where it is, or would be; looks at nothing."""
    version = (interpreter or find_interpreter()).version
    return location(_NAME, f"onnxruntime-{ONNXRUNTIME_OPENVINO}-{version}")


def openvino_available() -> bool:
    """True where it is here already, whole; touches no network."""
    return not problems(openvino_location())


def provide_openvino(interpreter: Interpreter | None = None, *, reporter: Reporter = SILENT) -> Path:
    """The folder to put on Python's path; fetched on first use (about 85 MB).

    Raises:
        RuntimeUnavailableError: there is none for this machine or this Python, or it could not be fetched.
    """
    interpreter = interpreter or find_interpreter()
    machine = f"{platform.system()} on {platform.machine()} with Python {interpreter.version}"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or interpreter.version not in PYTHONS:
        raise RuntimeUnavailableError(
            "there is no ONNX Runtime with OpenVINO for the embedded server on this machine",
            expected=f"Linux on x86_64 with Python {' or '.join(PYTHONS)}",
            got=machine,
            fix="take the openvino variants out, or set TRITON_REPO_PYTHON to such a Python",
        )

    def install(folder: Path) -> None:
        wanted = f"onnxruntime-openvino=={ONNXRUNTIME_OPENVINO}"
        pip_install(folder, [wanted], python_version=interpreter.version, needed_for="the openvino accelerator")
        _must_offer_openvino(folder, interpreter)

    found = openvino_location(interpreter)
    return provisioned(found.parent.name, found.name, install, reporter=reporter)


def asks_for_openvino(repositories: Iterable[Path]) -> bool:
    """True where the configuration of any model names the accelerator."""
    for repository in repositories:
        for config in repository.glob("*/config.pbtxt"):
            try:
                text = config.read_text(encoding="utf-8", errors="replace")
            except OSError:  # it is being replaced just now
                continue
            if "cpu_execution_accelerator" in text and '"openvino"' in text:
                return True
    return False


def _must_offer_openvino(folder: Path, interpreter: Interpreter) -> None:
    """The library must load here; the Python module above it would want numpy, which lies elsewhere."""
    library = folder / "onnxruntime/capi/libonnxruntime_providers_openvino.so"
    code = f"import ctypes; ctypes.CDLL({str(folder / 'onnxruntime/capi/libopenvino.so')!r})"
    answer = subprocess.run(
        [str(interpreter.executable), "-I", "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if not library.is_file() or answer.returncode:
        raise RuntimeUnavailableError(
            "the ONNX Runtime with OpenVINO that was fetched does not work on this machine",
            where=str(folder),
            expected=library.name,
            got=(answer.stderr.strip().splitlines() or ["no such file"])[-1],
            fix="take the openvino variants out",
        )
