"""Things fetched or assembled once per machine: found complete, or made complete, whoever else is making them too.

A provisioned folder appears under its final name by one rename and carries a list of its files, so what is there is
either whole or repaired. The fast path opens no lock, writes nothing and touches no network: a read-only cache works.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from serving.errors import RuntimeUnavailableError
from serving.progress import SILENT, Reporter

CACHE_VARIABLE = "TRITON_REPO_CACHE"
MARKER = ".complete.json"


def cache_dir() -> Path:
    """``$TRITON_REPO_CACHE``, else ``$XDG_CACHE_HOME/triton-repo``, else ``~/.cache/triton-repo``; may not exist."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification: a relative path is to be ignored.
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return root / "triton-repo"


def location(name: str, key: str) -> Path:
    """Where :func:`provisioned` puts ``key`` of ``name``."""
    return cache_dir() / name / key


def provisioned(name: str, key: str, install: Callable[[Path], None], *, reporter: Reporter = SILENT) -> Path:
    """The complete folder ``cache_dir()/name/key``, made by ``install`` if it is not there or not whole.

    Args:
        name: what it is, in the singular (``python``, ``tritonserver``).
        key: everything that decides its content (versions, hashes); a path component.
        install: fills the empty folder it is given. The folder is renamed afterwards: nothing in it may hold its own
            absolute path. It runs in at most one process at a time per key.
        reporter: told while something is installed or waited for.

    Raises:
        RuntimeUnavailableError: the cache cannot be written; and whatever ``install`` raises.
    """
    final = location(name, key)
    if not problems(final):
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(final.parent / f".{key}.lock", reporter, title=f"wait for another process to provide {name}"):
            found = problems(final)  # again: the process we waited for may have done it
            if found:
                with reporter.step(f"provide {name} {key}") as step:
                    _replace(final, install)
                    step.done("repaired" if found[0] != "absent" else "done", str(final))
    except OSError as exc:
        raise RuntimeUnavailableError(
            f"the cache folder cannot be used: {exc.strerror or exc}",
            where=str(exc.filename or final),
            fix=f"set {CACHE_VARIABLE} to a folder on a disk with space that you may write to",
        ) from exc
    return final


def problems(folder: Path, *, limit: int = 5) -> list[str]:
    """What keeps a provisioned folder from being whole (``absent``, missing or changed files), at most ``limit``."""
    if not folder.is_dir():
        return ["absent"]
    try:
        listing = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return [f"{MARKER} is missing or unreadable"]
    found = []
    for relative, expected in listing.items():
        try:
            actual: int | str = _signature(folder / relative)
        except OSError:
            actual = "missing"
        if actual != expected:
            found.append(f"{relative}: expected {expected}, got {actual}")
            if len(found) == limit:
                break
    return found


def content_key(*parts: str | bytes) -> str:
    """A short hash over strings and file contents, for use in a key."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return digest.hexdigest()[:12]


def pip_install(
    target: Path,
    requirements: Sequence[str],
    *,
    python_version: str,
    needed_for: str,
    dependencies: bool = False,
    constraints: Sequence[str] = (),
    glibc: tuple[int, int] | None = None,
) -> None:
    """Install wheels, nothing but wheels, into a folder.

    Args:
        target: made if absent.
        requirements: pinned (``numpy==1.26.4``).
        python_version: ``3.11``; need not be the running one.
        needed_for: completes "pip could not install what ... needs".
        dependencies: whether to install what they need, too.
        constraints: versions of what may come along (``numpy==1.26.4``).
        glibc: of the machine that they are for, where it is another Linux than this one.

    Raises:
        RuntimeUnavailableError: no installer, or it failed; carries its last lines and the command to try by hand.
    """
    installer = _installer()
    command = [*installer, "install", "--only-binary=:all:", "--python-version", python_version]
    command += [] if dependencies else ["--no-deps"]
    command += _platform_options(installer, glibc) if glibc else []
    command += ["--target", str(target), *requirements]
    # A user's pip settings for the active environment must not steer this one.
    environment = {**os.environ, "PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environment.pop("PYTHONPATH", None)
    with tempfile.NamedTemporaryFile("w", prefix="constraints-", suffix=".txt") as limits:
        limits.write("\n".join(constraints))
        limits.flush()
        whole = [*command, "-c", limits.name] if constraints else command
        process = subprocess.run(whole, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if process.returncode:
        _, conflict, between = process.stdout.partition("The conflict is caused by:")
        lines = (conflict + between.split("\n\n")[0] + "\n" + (process.stderr or process.stdout)).strip().splitlines()
        raise RuntimeUnavailableError(
            f"pip could not install what {needed_for} needs",
            where=str(target),
            expected=" ".join(requirements),
            got="\n".join([line for line in lines if "WARNING" not in line][-8:]),
            fix=f"check the network, disk space and pip's settings, then run again; by hand: {' '.join(command)}",
        )


def _platform_options(installer: Sequence[str], glibc: tuple[int, int]) -> list[str]:
    """Wheels for a Linux of this C library; pip wants every tag that it takes, uv the newest."""
    machine = platform.machine().replace("arm64", "aarch64").replace("AMD64", "x86_64")
    if installer[-1] == "pip" and len(installer) == 2:  # uv pip
        return ["--python-platform", f"{machine}-manylinux_{glibc[0]}_{glibc[1]}"]
    tags = [f"manylinux_{glibc[0]}_{minor}_{machine}" for minor in range(glibc[1], 16, -1)]
    return [part for tag in (*tags, f"manylinux2014_{machine}") for part in ("--platform", tag)]


def _installer() -> list[str]:
    import importlib.util

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("uv", "pip3", "pip"):  # an environment made by uv has no pip of its own
        if path := shutil.which(name):
            return [path, "pip"] if name == "uv" else [path]
    raise RuntimeUnavailableError(
        "neither pip nor uv is here to provide the server runtime",
        expected=f"pip in the environment of {sys.executable}, or uv on PATH",
        fix=f"{sys.executable} -m ensurepip",
    )


def _replace(final: Path, install: Callable[[Path], None]) -> None:
    """Install beside, then swap by rename; leftovers of processes that died are removed (the lock is held)."""
    for kind in ("staging", "broken"):
        for leftover in final.parent.glob(f".{final.name}.{kind}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
    token = secrets.token_hex(4)
    staging = final.with_name(f".{final.name}.staging-{token}")
    staging.mkdir()
    try:
        install(staging)
        listing = {str(path.relative_to(staging)): _signature(path) for path in _files(staging)}
        (staging / MARKER).write_text(json.dumps(listing))
        if final.exists() or final.is_symlink():
            broken = final.with_name(f".{final.name}.broken-{token}")
            final.rename(broken)
            shutil.rmtree(broken, ignore_errors=True)
        staging.rename(final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _files(root: Path) -> list[Path]:
    """Every file and link below, sorted; bytecode comes and goes and does not count."""
    return [
        path
        for path in sorted(root.rglob("*"))
        if (path.is_symlink() or path.is_file()) and "__pycache__" not in path.parts and path.name != MARKER
    ]


def _signature(path: Path) -> int | str:
    """A file's size, or where a link leads (the target must exist): cheap enough to check thousands at each start."""
    if path.is_symlink():
        path.stat()
        return str(path.readlink())
    return path.stat().st_size


@contextlib.contextmanager
def _locked(path: Path, reporter: Reporter, *, title: str) -> Iterator[None]:
    """Hold the lock file; the system releases it when its holder dies, however it dies."""
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with reporter.step(title):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
