"""What a class needs beside Python and numpy: packed for the server's Python, or looked up where the server will look.

Packages lie in ``packages/<version of Python>/`` of a version folder, for each Python that may serve it: the embedded
server's, which verifies it, and that of the release it is for.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import PythonModelError
from builder.python_model.code_files import CodeFiles
from builder.releases import image_of, release_of
from serving.errors import RuntimeUnavailableError
from serving.provision import pip_install
from serving.runtime import find_runtime

_GLIBC_OF_PYTHON = {"3.10": (2, 35), "3.12": (2, 39)}  # Ubuntu 22.04 and 24.04, which the images stand on
_PINNED = re.compile(r"\s*[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?\s*==\s*[A-Za-z0-9][A-Za-z0-9.!+_-]*\s*(;.*)?\Z")
_PROBE = """
import json, sys
try:
    import numpy
except ImportError:
    numpy = None
version = "%d.%d" % sys.version_info[:2]
print(json.dumps([version, numpy and numpy.__version__, [entry for entry in sys.path if entry]]))
"""


@dataclass(frozen=True)
class ServerPython:
    """The Python that will run a class.

    Attributes:
        version: ``3.11``.
        origin: whose it is, in words.
        numpy: its version; None where it is not known.
        site: where it finds packages; empty where that is not known.
        glibc: of its machine, where that is another than this one.
    """

    version: str
    origin: str
    numpy: str | None = None
    site: tuple[Path, ...] = ()
    glibc: tuple[int, int] | None = None


def server_pythons(release: str | None) -> tuple[ServerPython, ...]:
    """Every Python that may run a model of a repository: the one that verifies it first, then that of its release.

    Args:
        release: of Triton; None for the pinned one.

    Raises:
        PythonModelError: the server here has no Python that can be asked, or that of the release is not known.
    """
    here = server_python()
    row = release_of(release)
    if row.python is None:
        if release is None:
            return (here,)
        raise PythonModelError(
            f"which Python is in {image_of(row.name)} is in no public table",
            where="server",
            expected="a release whose Python is known: packages are made for one Python",
            got=row.name,
            fix=f"docker run --rm {image_of(row.name)} python3 --version says it; name the release before or after it",
        )
    if row.python == here.version:
        return (here,)
    theirs = ServerPython(row.python, image_of(row.name), glibc=_GLIBC_OF_PYTHON[row.python])
    return (here, theirs)


def server_python() -> ServerPython:
    """The Python of the server that verifies on this machine.

    Raises:
        PythonModelError: it cannot be asked.
    """
    runtime = find_runtime()
    program = runtime.python or shutil.which("python3", path=runtime.environment().get("PATH"))
    command = [str(program), "-I", "-c", _PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise PythonModelError(
            "the Python of the server cannot be asked what it has",
            where=str(program),
            expected="a Python that starts",
            got=getattr(exc, "stderr", "") or str(exc),
            fix="serve-repo doctor",
        ) from exc
    version, numpy, path = json.loads(done.stdout)
    return ServerPython(version, runtime.describe(), numpy, tuple(Path(entry) for entry in path))


def pack(requirements: Sequence[str], to: Path, servers: Sequence[ServerPython], *, dependencies: bool = True) -> None:
    """Put packages into ``to/<version of Python>/`` for each server; nothing but wheels.

    numpy is left out: the server has its own, and another one in its process corrupts tensors without a word.

    Args:
        requirements: with their versions: ``tokenizers==0.22.1``.
        to: a folder, kept by the caller as long as requirements and servers stay the same.
        servers: from :func:`server_pythons`.
        dependencies: whether what the packages say they need comes along.

    Raises:
        PythonModelError: a requirement has no version or is numpy, or pip could not install it.
    """
    for requirement in requirements:
        _check_requirement(requirement)
    for server in servers:
        folder = to / server.version
        try:
            pip_install(
                folder,
                sorted(requirements),
                python_version=server.version,
                needed_for="the model",
                dependencies=dependencies,
                constraints=[f"numpy=={server.numpy}"] if server.numpy else [],
                glibc=server.glibc,
            )
        except RuntimeUnavailableError as exc:
            held = f", with numpy {server.numpy}, which the server has" if server.numpy else ""
            raise PythonModelError(
                f"the requirements cannot be packed for Python {server.version} ({server.origin})",
                where="requirements",
                expected=f"wheels for Linux and Python {server.version} of {', '.join(requirements)}{held}",
                got=exc.got or exc.what,
                fix=f"see that the version exists, has a wheel, and that the index can be reached\n{exc.fix}",
            ) from exc
        _tidy(folder)


def _check_requirement(requirement: str) -> None:
    if not _PINNED.match(requirement) and not requirement.endswith(".whl"):
        raise PythonModelError(
            f"{requirement!r} does not say which version",
            where="requirements",
            expected="NAME==VERSION, or the path of a wheel: the same spec gives the same model",
            got=requirement,
            fix="write the version that you have: pip show NAME",
        )
    if re.match(r"\s*numpy\s*(\[|==)", requirement, re.IGNORECASE):
        raise PythonModelError(
            "numpy cannot be packed beside a model",
            where="requirements",
            expected="what the class needs beside numpy",
            got=requirement,
            fix="leave it out: the server has one, and a second one in its process corrupts tensors without a word",
        )


def _tidy(folder: Path) -> None:
    """Leave what is imported: no numpy, no programs, no byte code of the Python that installed."""
    for name in ("numpy", "numpy.libs", "bin"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for found in (*folder.glob("numpy-*.dist-info"), *list(folder.rglob("__pycache__"))):
        shutil.rmtree(found, ignore_errors=True)


def check_imports(code: CodeFiles, servers: Sequence[ServerPython], packages: Path | None = None) -> tuple[str, ...]:
    """Whether each server has what the user's files import.

    Args:
        code: the files.
        servers: from :func:`server_pythons`.
        packages: what :func:`pack` filled, if anything was packed.

    Returns:
        Notes: what could not be looked up.

    Raises:
        PythonModelError: something is missing.
    """
    notes = []
    for server in servers:
        places = [*server.site, *([packages / server.version] if packages else [])]
        absent = {name: line for name, line in code.imports.items() if not any(_has(place, name) for place in places)}
        if absent and not server.site:
            notes.append(
                f"not looked up: whether {server.origin} has {', '.join(absent)}; pack it under `requirements`"
            )
        elif absent:
            first = next(iter(absent))
            raise PythonModelError(
                f"the server has no {first}, which the class needs",
                where=absent[first],
                expected=f"a package of Python {server.version} in {server.origin}",
                got=", ".join(f"{name} ({line})" for name, line in absent.items()) + ": not there",
                fix="name what it needs under `requirements`, with versions: it is packed beside the model; what only "
                "other code of that file needs belongs in a file of its own",
            )
    return tuple(notes)


def _has(place: Path, name: str) -> bool:
    """Whether a folder of ``sys.path`` has a module or a package of this name."""
    if (place / name).is_dir() or (place / f"{name}.py").is_file():
        return True
    return place.is_dir() and any(place.glob(f"{name}.*.so"))
