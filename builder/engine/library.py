"""The two libraries that build engines: which is installed, in which version, and what this machine lacks for it.

Everything here is cheap: metadata and device files, no import of the libraries.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from builder.engine.device import driver_version, has_gpu
from builder.errors import EngineError, UnavailableError
from builder.host import tool_versions


@dataclass(frozen=True)
class Library:
    """One of the libraries.

    Attributes:
        title: what NVIDIA calls it.
        modules: Python modules of which the first that is there is imported.
        before: a module that has to be imported first: it brings the shared libraries.
        distributions: where its version is written, the first that is installed.
        oldest: the oldest version that is good for it.
        ahead_of_time: whether it builds without a GPU.
        extra: the extra of this package that brings it.
    """

    title: str
    modules: tuple[str, ...]
    before: str | None
    distributions: tuple[str, ...]
    oldest: tuple[int, int]
    ahead_of_time: bool
    extra: str


LIBRARIES: dict[str, Library] = {
    "tensorrt": Library(
        title="TensorRT",
        modules=("tensorrt",),
        before=None,
        distributions=(
            "tensorrt",
            "tensorrt-cu13",
            "tensorrt-cu12",
            "tensorrt-cu13-bindings",
            "tensorrt-cu12-bindings",
        ),
        oldest=(10, 0),
        ahead_of_time=False,
        extra="tensorrt",
    ),
    "tensorrt-rtx": Library(
        title="TensorRT-RTX",
        modules=("tensorrt_rtx", "tensorrt_rtx_bindings"),
        before="tensorrt_rtx_libs",
        distributions=("tensorrt-rtx", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu12-bindings"),
        oldest=(1, 0),
        ahead_of_time=True,
        extra="tensorrt-rtx",
    ),
}


@dataclass(frozen=True)
class Missing:
    """What this machine lacks to build one kind of engine.

    Attributes:
        kind: ``tensorrt`` or ``tensorrt-rtx``.
        lacks: what is not there, each as a phrase.
        fix: what to install, where that is all there is to do.
    """

    kind: str
    lacks: tuple[str, ...]
    fix: str = ""

    def text(self) -> str:
        """``no NVIDIA GPU, no module named tensorrt``."""
        return ", ".join(self.lacks)

    def command(self, spec: str = "SPEC", model: str = "") -> str:
        """What builds it: here after an installation, or elsewhere."""
        build = f"build-repo {spec}" + (f" --only {model}" if model else "")
        library = LIBRARIES[self.kind]
        if library.ahead_of_time:
            return f"{self.fix} && {build}"
        return (
            f"{build}, on a machine with an NVIDIA GPU and {library.title} {_dotted(library.oldest)} or newer\n"
            f"{build} --in-container, on a machine with an NVIDIA GPU and docker or podman: in the server's own image"
        )

    def error(self, variant: str, *, spec: str = "SPEC", model: str = "") -> UnavailableError:
        """The error for a variant that cannot be built here."""
        library = LIBRARIES[self.kind]
        gpu = "" if library.ahead_of_time else ", an NVIDIA GPU and its driver"
        return UnavailableError(
            f"{variant} cannot be built on this machine",
            where=f"{model}: {variant}".removeprefix(": "),
            expected=f"{library.title} {_dotted(library.oldest)} or newer, polygraphy{gpu}",
            got=self.text(),
            fix=self.command(spec, model),
        )


def library_version(kind: str) -> str | None:
    """The installed version of the library, by its metadata; None where it is not installed so."""
    for name in LIBRARIES[kind].distributions:
        if found := tool_versions(name):
            return found[name]
    return None


def available(kind: str) -> Missing | None:
    """What is missing here to build engines of this kind, or None where all is there."""
    library = LIBRARIES[kind]
    lacks = []
    modules = [name for name in library.modules if _is_there(name)]
    if not modules or (modules[0] == library.modules[-1] and library.before and not _is_there(library.before)):
        lacks.append(f"no module named {library.modules[0]} ({library.title})")
    elif old := too_old(kind, library_version(kind)):
        lacks.append(old)
    if not _is_there("polygraphy"):
        lacks.append("no module named polygraphy")
    install = f"pip install 'triton-repo[{library.extra}]'" if lacks else ""
    if not library.ahead_of_time and not has_gpu():
        lacks.append("no NVIDIA GPU" if driver_version() is None else "no device of the NVIDIA driver (/dev/nvidia0)")
    return Missing(kind, tuple(lacks), install) if lacks else None


def too_old(kind: str, version: str | None) -> str:
    """A phrase that says so if this version of the library is too old, else nothing."""
    library = LIBRARIES[kind]
    if version is None or numbers(version)[:2] >= library.oldest:
        return ""
    return f"{library.title} {version} is older than {_dotted(library.oldest)}"


def check_version(kind: str, version: str) -> None:
    """Refuse a library that is too old.

    Raises:
        EngineError: it is; with both versions.
    """
    if phrase := too_old(kind, version):
        library = LIBRARIES[kind]
        raise EngineError(
            f"{library.title} is too old: precision lies in the graph here, which needs strongly typed networks",
            where=f"{library.modules[0]} {version}",
            expected=f"{library.title} {_dotted(library.oldest)} or newer",
            got=phrase,
            fix=f"pip install 'triton-repo[{library.extra}]', or build in the server's image: --in-container",
        )


def numbers(version: str) -> tuple[int, ...]:
    """``10.13.3.9+cuda13.0`` -> ``(10, 13, 3, 9)``."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
