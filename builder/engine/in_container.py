"""Building inside the server's own image: what is built there, that server can load.

The command is made as a list of words and can be shown instead of run. The folder of the spec is mounted under its own
path, so that every path means the same inside and outside; a ``requirements.txt`` in it is what the models' own code
needs there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import builder
from builder.errors import EngineError, UnavailableError
from builder.releases import image_of

ENGINES = ("docker", "podman")
_SOURCE = "/triton-repo"
_HOME = "/tmp/home"
_EXTRAS = "torch,serve,tensorrt"
# The image has TensorRT's libraries without its Python package; it says its version in TRT_VERSION, or dpkg does.
_INSTALL = (
    "set -eu; mkdir -p {home}; "
    "v=${{TRT_VERSION:-$(dpkg-query -W -f '${{Version}}\\n' 'libnvinfer1[0-9]' | head -n 1)}}; "
    'python3 -m pip install --quiet --disable-pip-version-check --user {packages} "tensorrt==${{v%%[+-]*}}"; '
    "exec {home}/.local/bin/build-repo {arguments}"
)


def container_command(
    spec: Path,
    release: str,
    names: Sequence[str] = (),
    *,
    engine: str = "docker",
    mounts: Sequence[Path] = (),
    arguments: Sequence[str] = (),
) -> list[str]:
    """The command that builds a spec inside the image of a release.

    Args:
        spec: the spec; its folder is mounted.
        release: of Triton, ``26.09``.
        names: models to build (``--only``); all by default.
        engine: ``docker`` or ``podman``.
        mounts: more folders that the build reads or writes: the one the repository is put into, the cache, data.
        arguments: more of them for ``build-repo``.

    Raises:
        EngineError: there is no such engine.
    """
    if engine not in ENGINES:
        raise EngineError(f"no way to run a container with {engine!r}", expected=" or ".join(ENGINES), got=engine)
    spec = spec.resolve()
    command = [engine, "run", "--rm", "--init", *_flags(engine)]
    for place in _outermost([spec.parent, *(mount.resolve() for mount in mounts)]):
        command += ["--volume", f"{place}:{place}"]
    source = _source_folder()
    if source is not None:
        command += ["--volume", f"{source}:{_SOURCE}:ro"]
    command += ["--workdir", str(spec.parent)]
    command += [image_of(release), "bash", "-c", _script(spec, names, arguments, source)]
    return command


def run_in_container(command: Sequence[str]) -> None:
    """Run what :func:`container_command` made, its output going where ours goes.

    Raises:
        UnavailableError: docker or podman is not here.
        EngineError: it failed.
    """
    if shutil.which(command[0]) is None:
        other = next((engine for engine in ENGINES if engine != command[0] and shutil.which(engine)), None)
        raise UnavailableError(
            f"{command[0]} is not installed, and the build is to run in a container",
            where="--in-container",
            expected=f"{command[0]} with NVIDIA's container toolkit",
            got=f"no command {command[0]} on PATH",
            fix=f"use {other}, which is here" if other else shell_text(command, "install it, or run elsewhere: "),
        )
    status = subprocess.run(list(command)).returncode
    if status != 0:
        raise EngineError(
            "the build in the container failed",
            where=shell_text(command),
            expected="exit status 0",
            got=f"exit status {status}" + (": the container did not start" if status in (125, 126, 127) else ""),
            fix="its own message is above; 125 to 127 are docker's or podman's: the image, the GPU, or a mount",
        )


def container_engine() -> str | None:
    """The container engine that is here: docker before podman; None for neither."""
    return next((engine for engine in ENGINES if shutil.which(engine)), None)


def shell_text(command: Sequence[str], before: str = "") -> str:
    """A command as it is typed, for ``--dry-run``."""
    return before + shlex.join(command)


def _flags(engine: str) -> list[str]:
    gpu = (
        ["--gpus", "all"]
        if engine == "docker"
        else ["--device", "nvidia.com/gpu=all", "--security-opt", "label=disable"]
    )
    user = ["--user", f"{os.getuid()}:{os.getgid()}"]
    if engine == "podman" and os.getuid() != 0:
        user += ["--userns", "keep-id"]  # rootless: else our files would belong to somebody else inside
    limits = ["--shm-size", "1g", "--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
    names = {"HOME": _HOME, "PIP_BREAK_SYSTEM_PACKAGES": "1", "PYTHONUNBUFFERED": "1"}
    return [*gpu, *user, *limits, *(word for name, value in names.items() for word in ("--env", f"{name}={value}"))]


def _outermost(folders: Sequence[Path]) -> list[Path]:
    """Each folder once, without those that lie inside another."""
    alone = dict.fromkeys(folders)
    return [folder for folder in alone if not any(other in folder.parents for other in alone)]


def _script(spec: Path, names: Sequence[str], arguments: Sequence[str], source: Path | None) -> str:
    words = [str(spec), *(word for name in names for word in ("--only", name)), *arguments]
    package = f"{_SOURCE}[{_EXTRAS}]" if source is not None else f"triton-repo[{_EXTRAS}]{_pinned()}"
    packages = [package]
    if (own := spec.parent / "requirements.txt").is_file():
        packages += ["--requirement", str(own)]
    return _INSTALL.format(home=_HOME, packages=shlex.join(packages), arguments=shlex.join(words))


def _source_folder() -> Path | None:
    """The folder of this package's source, where that is what runs; None for an installed one."""
    root = Path(builder.__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else None


def _pinned() -> str:
    try:
        return f"=={version('triton-repo')}"
    except PackageNotFoundError:
        return ""
