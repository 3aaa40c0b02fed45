"""Which Python the embedded server's backends run in: 3.10 to 3.12, with its shared library, and really working.

The server's Python backend links ``libpython3.X.so.1.0`` and reads tensors through numpy 1.26, which has no wheel for
3.13. The builder's own Python may be another one.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from serving.errors import RuntimeUnavailableError

VERSIONS = ("3.12", "3.11", "3.10")
VARIABLE = "TRITON_REPO_PYTHON"
_PROBE_TIMEOUT_S = 20.0

# Run by each candidate: what it is, without its virtual environment, and where its shared library lies.
_PROBE = """
import ctypes, json, os, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
libdir, multiarch = sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("MULTIARCH") or ""
base = sys.base_prefix
places = [libdir, os.path.join(libdir, multiarch), os.path.join(base, "lib"), os.path.join(base, "lib64")]
found = [place for place in places if place and os.path.exists(os.path.join(place, name))]
if not found:
    try:
        ctypes.CDLL(name)
        with open("/proc/self/maps") as maps:
            found = [os.path.dirname(line.split()[-1]) for line in maps if line.rstrip().endswith(name)]
    except OSError:
        pass
print(json.dumps({
    "executable": getattr(sys, "_base_executable", None) or sys.executable,
    "version": "%d.%d" % sys.version_info[:2], "release": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name, "library_dir": found[0] if found else None,
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can run the backends.

    Attributes:
        executable: the base interpreter, never one of a virtual environment.
        version: ``3.11``.
        release: ``3.11.7``.
        library_dir: the folder that holds ``libpython3.11.so.1.0``.
    """

    executable: Path
    version: str
    release: str
    library_dir: Path


def find_interpreter() -> Interpreter:
    """The first candidate that works: ``$TRITON_REPO_PYTHON`` alone if set, else this Python, PATH, pyenv, uv.

    Raises:
        RuntimeUnavailableError: none does; says what each lacks.
    """
    rejected = []
    for candidate in candidates():
        found = inspect(candidate)
        if isinstance(found, Interpreter):
            return found
        rejected.append(f"{candidate}: {found}")
    raise RuntimeUnavailableError(
        "no Python that can run the server's backends",
        expected=f"Python {VERSIONS[-1]} to {VERSIONS[0]} with its shared library (libpython3.X.so.1.0)",
        got="\n".join(rejected) or "none on PATH",
        fix=install_hint(),
    )


def install_hint() -> str:
    """The command that brings a usable Python on this machine."""
    if shutil.which("uv"):
        command = "uv python install 3.12"
    elif shutil.which("pyenv"):
        command = "PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.12"
    else:
        # Debian and Ubuntu ship one of the three, its shared library in a package of its own.
        mine = f"{sys.version_info.major}.{sys.version_info.minor}"
        version = mine if mine in VERSIONS else VERSIONS[0]
        command = f"apt-get install python{version} libpython{version}"
    return f"{command}   (or set {VARIABLE} to such a Python)"


def candidates() -> list[Path]:
    """Interpreters to try, best first, each once."""
    if chosen := os.environ.get(VARIABLE):
        return [Path(chosen)]
    found: list[Path] = []
    if _is_supported(f"{sys.version_info.major}.{sys.version_info.minor}"):
        found.append(Path(sys.executable))
    for version in VERSIONS:
        found += [Path(entry) / f"python{version}" for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python")
    for version in VERSIONS:
        found += sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
        found += sorted(uv.glob(f"cpython-{version}*/bin/python{version}"), reverse=True)
    return [path for path in dict.fromkeys(found) if os.access(path, os.X_OK)]


@functools.cache
def inspect(candidate: Path) -> Interpreter | str:
    """The interpreter behind a path, or the reason why it cannot be used."""
    try:
        answer = subprocess.run(
            [str(candidate), "-I", "-S", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"does not run ({exc})"
    if answer.returncode:  # a pyenv shim whose version is not selected, for one
        return f"does not run ({(answer.stderr.strip().splitlines() or ['no message'])[0]})"
    facts = json.loads(answer.stdout)
    if facts["implementation"] != "cpython" or not _is_supported(facts["version"]):
        return f"is {facts['implementation']} {facts['release']}"
    if facts["library_dir"] is None:
        return f"is built without its shared library libpython{facts['version']}.so.1.0"
    return Interpreter(
        executable=Path(facts["executable"]),
        version=facts["version"],
        release=facts["release"],
        library_dir=Path(facts["library_dir"]),
    )


def _is_supported(version: str) -> bool:
    return version in VERSIONS
