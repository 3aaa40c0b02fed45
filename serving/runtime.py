"""Finds a Triton to run: a URL, the machine's own ``tritonserver``, or the embedded runtime, provided on first use.

The embedded runtime is the server inside the ``nvidia-pytriton`` wheel (its Python API is not used), a small Python
environment for the backends, and our ONNX Runtime backend. numpy is pinned below 2 there: with numpy 2 the server's
Python backend misreads tensors without a word.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from serving.errors import RuntimeUnavailableError
from serving.interpreter import Interpreter, find_interpreter
from serving.openvino import ONNXRUNTIME_OPENVINO, openvino_location
from serving.openvino import VARIABLE as OPENVINO_VARIABLE
from serving.progress import SILENT, Reporter
from serving.provision import content_key, location, pip_install, provisioned

PYTRITON = "0.7.0"
TRITON = "2.51.0"
TRITON_RELEASE = "24.10"
NUMPY = "1.26.4"
ONNXRUNTIME = "1.31.1"
ONNXRUNTIME_PYTHON_310 = "1.23.2"  # the last one with wheels for Python 3.10
_PINNED_REST = ("flatbuffers==25.12.19", "packaging==26.3", "protobuf==7.36.2")
MINIMUM_GLIBC = (2, 35)

OUR_BACKENDS = Path(__file__).parent / "backends"


@dataclass(frozen=True)
class Runtime:
    """A Triton that can be run, or one that is running elsewhere.

    Attributes:
        kind: ``url`` (running elsewhere), ``local`` (a container's own), ``embedded`` (ours).
        version: the server's version, empty when not known before it runs.
        url: of the running server, for ``url`` only.
        tritonserver: the program; None for ``url``.
        env: what to add to, or replace in, the environment of the server; see :meth:`environment`.
        backend_dir: ``--backend-directory``; None leaves the server's own.
        cache_dir: ``--cache-directory`` (response caches); None leaves the server's own.
        libraries: the folder with the embedded server's shared libraries; None for others.
        python: interpreter of the backends' environment; None where it is the server's own business.
    """

    kind: Literal["url", "local", "embedded"]
    version: str = ""
    url: str = ""
    tritonserver: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    backend_dir: Path | None = None
    cache_dir: Path | None = None
    libraries: Path | None = None
    python: Path | None = None

    def describe(self) -> str:
        """One line for people."""
        if self.kind == "url":
            return f"the server at {self.url}"
        if self.kind == "local":
            return f"Triton at {self.tritonserver}" + (" with our onnxruntime backend" if self.backend_dir else "")
        return f"embedded Triton {TRITON} (release {TRITON_RELEASE}) at {self.tritonserver}"

    def environment(self) -> dict[str, str]:
        """The whole environment for the server process."""
        environment = dict(os.environ)
        if self.kind == "embedded":
            # The caller's Python must not leak in: its numpy 2 would be found before the pinned one.
            for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "__PYVENV_LAUNCHER__"):
                environment.pop(name, None)
        return {**environment, **self.env}


def find_runtime(url: str | None = None, *, reporter: Reporter = SILENT) -> Runtime:
    """The Triton to use: ``url``, else ``$TRITONSERVER`` or ``tritonserver`` on PATH, else the embedded one.

    The embedded runtime is fetched on first use (about 90 MB, once per machine); after that no network is touched.

    Raises:
        RuntimeUnavailableError: ``$TRITONSERVER`` leads nowhere, or the embedded runtime cannot work here.
    """
    if url:
        return Runtime(kind="url", url=url)
    if program := local_tritonserver():
        return _local(program, reporter)
    return embedded_runtime(reporter=reporter)


def local_tritonserver() -> Path | None:
    """``$TRITONSERVER``, else ``tritonserver`` on PATH, else None."""
    if chosen := os.environ.get("TRITONSERVER"):
        found = shutil.which(chosen)
        if found is None:
            raise RuntimeUnavailableError(
                "the server named by TRITONSERVER cannot be run",
                where=f"TRITONSERVER={chosen}",
                expected="an executable file",
                got="a folder" if Path(chosen).is_dir() else "nothing there that can be executed",
                fix="set TRITONSERVER to the tritonserver program, or unset it to use the embedded server",
            )
        return Path(found).absolute()
    on_path = shutil.which("tritonserver")
    return Path(on_path).absolute() if on_path else None


def embedded_runtime(*, reporter: Reporter = SILENT) -> Runtime:
    """The embedded runtime, provided if it is not there and mended if it is not whole."""
    check_platform()
    interpreter = find_interpreter()
    server = provide_tritonserver(interpreter, reporter=reporter)
    environment = _provide_python(interpreter, reporter)
    _assert_numpy(environment, interpreter)
    home = server / "pytriton/tritonserver"
    libraries = server / "nvidia_pytriton.libs"
    return Runtime(
        kind="embedded",
        version=TRITON,
        tritonserver=home / "bin/tritonserver",
        backend_dir=_provide_backends(home, interpreter, reporter),
        cache_dir=home / "caches",
        libraries=libraries,
        python=environment / "bin/python3",
        env={
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            # That Python's own library first: with another one the stub dies of missing attributes.
            "LD_LIBRARY_PATH": f"{interpreter.library_dir}{os.pathsep}{libraries}",
            "VIRTUAL_ENV": str(environment),
            "PYTHONNOUSERSITE": "1",
            OPENVINO_VARIABLE: str(openvino_location(interpreter)),
        },
    )


def identity() -> str:
    """Which Triton, backends and ONNX Runtime :func:`find_runtime` would give, as one text; provides nothing.

    Two texts are equal only where the servers are: a model that one of them was seen to serve is served by the other.
    """
    if program := local_tritonserver():
        facts = program.stat()
        return f"{program} {facts.st_size} {facts.st_mtime_ns} {content_key(*_flat(_our_backends()))}"
    onnxruntime = f"{ONNXRUNTIME} or {ONNXRUNTIME_PYTHON_310}"  # which of them, the Python decides
    backends = f"backends {content_key(*_flat(_our_backends()))}"
    return f"embedded {TRITON}, onnxruntime {onnxruntime}, with openvino {ONNXRUNTIME_OPENVINO}, {backends}"


def embedded_location() -> Path:
    """Where the embedded server is, or would be; looks at nothing and provides nothing."""
    return location("tritonserver", f"pytriton-{PYTRITON}")


def check_platform() -> None:
    """Raise unless the embedded server can run on this kind of machine."""
    machine, system = platform.machine(), platform.system()
    if system != "Linux" or machine not in ("x86_64", "aarch64"):
        raise RuntimeUnavailableError(
            "the embedded server does not run on this kind of machine",
            expected="Linux on x86_64 or aarch64",
            got=f"{system} on {machine}",
            fix="run inside NVIDIA's Triton container, or name a running server with --url",
        )
    glibc = glibc_version()
    if glibc is None or glibc < MINIMUM_GLIBC:
        raise RuntimeUnavailableError(
            "the C library is too old for the embedded server",
            expected=f"glibc {MINIMUM_GLIBC[0]}.{MINIMUM_GLIBC[1]} or newer (Debian 12, Ubuntu 22.04, RHEL 10)",
            got=f"glibc {glibc[0]}.{glibc[1]}" if glibc else "no glibc (musl?)",
            fix="use a newer distribution, run inside NVIDIA's Triton container, or name a running server with --url",
        )


def glibc_version() -> tuple[int, int] | None:
    """This machine's glibc, None where the C library is another one."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    match = re.match(r"glibc (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def provide_tritonserver(interpreter: Interpreter | None = None, *, reporter: Reporter = SILENT) -> Path:
    """The unpacked wheel: ``pytriton/tritonserver`` and ``nvidia_pytriton.libs`` below the folder returned."""
    check_platform()
    version = (interpreter or find_interpreter()).version

    def install(folder: Path) -> None:
        pip_install(folder, [f"nvidia-pytriton=={PYTRITON}"], python_version=version, needed_for="the embedded server")
        if not (folder / "pytriton/tritonserver/bin/tritonserver").exists():
            # pip takes a placeholder of the same name where no wheel fits this machine.
            raise RuntimeUnavailableError(
                f"nvidia-pytriton {PYTRITON} holds no server for this machine",
                expected="pytriton/tritonserver/bin/tritonserver in the wheel",
                fix="run inside NVIDIA's Triton container, or name a running server with --url",
            )

    return provisioned("tritonserver", f"pytriton-{PYTRITON}", install, reporter=reporter)


def _provide_python(interpreter: Interpreter, reporter: Reporter) -> Path:
    """A virtual environment of ``interpreter`` with the pinned numpy and onnxruntime."""
    onnxruntime = ONNXRUNTIME_PYTHON_310 if interpreter.version == "3.10" else ONNXRUNTIME
    pins = [f"numpy=={NUMPY}", f"onnxruntime=={onnxruntime}", *_PINNED_REST]
    key = f"{interpreter.release}-{content_key(str(interpreter.executable), *pins)}"

    def install(folder: Path) -> None:
        # Written by hand: unlike the venv module's, nothing in it holds its own path, so that it can be renamed.
        (folder / "bin").mkdir()
        for name in ("python", "python3", f"python{interpreter.version}"):
            (folder / "bin" / name).symlink_to(interpreter.executable)
        (folder / "pyvenv.cfg").write_text(
            f"home = {interpreter.executable.parent}\n"
            f"include-system-site-packages = false\nversion = {interpreter.release}\n"
        )
        site = folder / "lib" / f"python{interpreter.version}" / "site-packages"
        pip_install(site, pins, python_version=interpreter.version, needed_for="the embedded server's backends")
        _try_imports(folder, onnxruntime)

    return provisioned("python", key, install, reporter=reporter)


def _try_imports(environment: Path, onnxruntime: str) -> None:
    code = "import numpy, onnxruntime; print(numpy.__version__, onnxruntime.__version__)"
    command = [str(environment / "bin/python3"), "-I", "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode or answer.stdout.split() != [NUMPY, onnxruntime]:
        raise RuntimeUnavailableError(
            "the environment of the embedded server's backends does not work",
            expected=f"numpy {NUMPY} and onnxruntime {onnxruntime} to import",
            got=(answer.stderr.strip().splitlines() or [answer.stdout.strip()])[-1],
            fix="serve-repo doctor",
        )


def _assert_numpy(environment: Path, interpreter: Interpreter) -> None:
    """The last line of defence: never start with another numpy than the pinned one."""
    site = environment / "lib" / f"python{interpreter.version}" / "site-packages"
    found = sorted(path.name for path in site.glob("numpy-*.dist-info"))
    if found != [f"numpy-{NUMPY}.dist-info"]:
        raise RuntimeUnavailableError(
            "the embedded server's environment holds another numpy, with which it would misread tensors",
            where=str(site),
            expected=f"numpy {NUMPY}",
            got=", ".join(found) or "none",
            fix=f"rm -r {environment}   (it is made again on the next start)",
        )


def _provide_backends(home: Path, interpreter: Interpreter, reporter: Reporter) -> Path:
    """``--backend-directory``: the server's Python backend with the stub of our Python, and our own backends."""
    ours = _our_backends()
    stub = home / "python_backend_stubs" / interpreter.version / "triton_python_backend_stub"
    library = home / "backends/python"

    def install(folder: Path) -> None:
        (folder / "python").mkdir()
        for source in (*library.glob("*.so"), *library.glob("*.py"), stub):
            _link_or_copy(source, folder / "python" / source.name)
        _write_files(ours, folder)

    # Keyed by content, so that a new release of this package, or an edit, is picked up and the old one left alone.
    key = f"{PYTRITON}-{interpreter.version}-{content_key(*_flat(ours))}"
    return provisioned("backends", key, install, reporter=reporter)


def _local(program: Path, reporter: Reporter) -> Runtime:
    """A container's own server, with its own backends; ours is added only where it has no ``onnxruntime``."""
    theirs = program.resolve().parent.parent / "backends"
    if not theirs.is_dir():
        theirs = Path("/opt/tritonserver/backends")
    if not theirs.is_dir() or (theirs / "onnxruntime").is_dir():
        return Runtime(kind="local", tritonserver=program)
    ours = _our_backends()
    names = sorted(path.name for path in theirs.iterdir() if path.is_dir())

    def install(folder: Path) -> None:
        for name in names:
            (folder / name).symlink_to(theirs / name)
        _write_files(ours, folder)

    key = f"local-{content_key(str(theirs), *names, *_flat(ours))}"
    return Runtime(
        kind="local", tritonserver=program, backend_dir=provisioned("backends", key, install, reporter=reporter)
    )


def _our_backends() -> dict[str, bytes]:
    """Our backends' files by relative path; read once, so that key and copy cannot differ."""
    files = (path for path in sorted(OUR_BACKENDS.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(OUR_BACKENDS)): path.read_bytes() for path in files}


def _flat(files: Mapping[str, bytes]) -> list[str | bytes]:
    return [part for item in files.items() for part in item]


def _write_files(files: Mapping[str, bytes], folder: Path) -> None:
    for relative, content in files.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).write_bytes(content)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system
        shutil.copy2(source, target)
