"""Finds perf_analyzer, or provides it once per machine.

Order: ``$PERF_ANALYZER``, PATH, then the cache: with glibc 2.38 or newer NVIDIA's ``perf-analyzer`` wheel, otherwise
the program inside an older ``tritonclient`` wheel, which needs two libraries that the embedded server brings along.
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

from perf.errors import AnalyzerUnavailableError
from serving.progress import SILENT, Reporter
from serving.provision import pip_install, provisioned
from serving.runtime import glibc_version, provide_tritonserver

VARIABLE = "PERF_ANALYZER"
NEWEST = "2.60.0"
NEWEST_GLIBC = (2, 38)
OLDER = "2.50.0"
OLDER_GLIBC = (2, 35)
OLDEST = (2, 46)
"""The first that takes ``--request-count``, which a rate is measured with (its ``--help``, release by release)."""
_BORROWED = {"libb64.so.0d": "libb64-*.so*", "libcudart.so.12": "libcudart-*.so*"}


@dataclass(frozen=True)
class Binary:
    """A perf_analyzer that runs.

    Attributes:
        path: the program.
        version: of the package it came in; for one found on the machine what it says itself, which may be little.
        origin: where it came from, in words.
        env: what to add to its environment.
    """

    path: Path
    version: str
    origin: str
    env: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """The whole environment for the process."""
        return {**os.environ, **self.env}


def find_binary(*, reporter: Reporter = SILENT) -> Binary:
    """A perf_analyzer that was seen to run here.

    Raises:
        AnalyzerUnavailableError: ``$PERF_ANALYZER`` does not run, or none can be provided for this machine.
    """
    if chosen := os.environ.get(VARIABLE):
        return _chosen(chosen)
    if (on_path := shutil.which("perf_analyzer")) is not None:
        answer = _try(Path(on_path), {})
        if answer.runs and not answer.too_old:
            return Binary(Path(on_path), answer.text, "PATH")
        why = "is too old" if answer.runs else "does not run"
        reporter.warn(f"{on_path} {why} ({answer.text}); another perf_analyzer is used")
    return provided_binary(reporter=reporter)


def provided_binary(*, reporter: Reporter = SILENT) -> Binary:
    """The perf_analyzer of the cache, fetched on first use; touches no network after that."""
    system, machine, glibc = platform.system(), platform.machine(), glibc_version()
    older_runs = system == "Linux" and machine == "x86_64" and glibc is not None and glibc >= OLDER_GLIBC
    if system == "Linux" and machine in ("x86_64", "aarch64") and glibc is not None and glibc >= NEWEST_GLIBC:
        try:
            return _newest(reporter)
        except AnalyzerUnavailableError as error:  # it wants libraries that a small image may lack
            if not older_runs:
                raise
            reporter.warn(f"perf-analyzer {NEWEST} does not run here ({error.got}); {OLDER} is used")
    if older_runs:
        return _older(reporter)
    raise AnalyzerUnavailableError(
        "there is no perf_analyzer for this kind of machine",
        where=platform.node() or "this machine",
        expected="Linux with glibc 2.38 or newer, or 2.35 and newer on x86_64",
        got=f"{system} on {machine}" + (f" with glibc {glibc[0]}.{glibc[1]}" if glibc else ""),
        fix=f"set {VARIABLE} to a perf_analyzer that runs here, or run bench-repo in NVIDIA's SDK container",
    )


def _chosen(chosen: str) -> Binary:
    found = shutil.which(chosen)
    if found is None:
        raise AnalyzerUnavailableError(
            f"the perf_analyzer named by {VARIABLE} cannot be run",
            where=f"{VARIABLE}={chosen}",
            expected="an executable file",
            got="a folder" if Path(chosen).is_dir() else "nothing there that can be executed",
            fix=f"set {VARIABLE} to the program, or unset it to have one provided",
        )
    answer = _try(Path(found), {})
    if not answer.runs:
        raise AnalyzerUnavailableError(
            f"the perf_analyzer named by {VARIABLE} does not run",
            where=found,
            expected="a program that answers --version",
            got=answer.text,
            fix=f"set LD_LIBRARY_PATH so that it finds its libraries, or unset {VARIABLE} to have one provided",
        )
    if answer.too_old:
        raise AnalyzerUnavailableError(
            f"the perf_analyzer named by {VARIABLE} is too old",
            where=found,
            expected=f"{OLDEST[0]}.{OLDEST[1]} or newer",
            got=answer.text,
            fix=f"set {VARIABLE} to a newer one, or unset it to have {OLDER} or {NEWEST} provided",
        )
    return Binary(Path(found).absolute(), answer.text, VARIABLE)


def _newest(reporter: Reporter) -> Binary:
    def install(folder: Path) -> None:
        pip_install(
            folder,
            [f"perf-analyzer=={NEWEST}"],
            python_version=platform.python_version().rpartition(".")[0],
            needed_for="bench-repo",
        )
        program = folder / "perf_analyzer/bin/perf_analyzer"
        _must_exist(program, f"perf-analyzer {NEWEST}")
        program.chmod(0o755)
        _must_run(program, {})

    folder = provisioned("perf_analyzer", f"perf-analyzer-{NEWEST}", install, reporter=reporter)
    return Binary(folder / "perf_analyzer/bin/perf_analyzer", NEWEST, f"perf-analyzer {NEWEST}")


def _older(reporter: Reporter) -> Binary:
    def install(folder: Path) -> None:
        wheel = folder / "wheel"
        pip_install(
            wheel,
            [f"tritonclient=={OLDER}"],
            python_version=platform.python_version().rpartition(".")[0],
            needed_for="bench-repo",
        )
        _must_exist(wheel / "bin/perf_analyzer", f"tritonclient {OLDER}")
        (folder / "bin").mkdir()
        program = (wheel / "bin/perf_analyzer").rename(folder / "bin/perf_analyzer")
        program.chmod(0o755)
        shutil.rmtree(wheel)
        _borrow_libraries(folder / "lib", reporter)
        _must_run(program, _library_env(folder))

    folder = provisioned("perf_analyzer", f"tritonclient-{OLDER}", install, reporter=reporter)
    return Binary(folder / "bin/perf_analyzer", OLDER, f"tritonclient {OLDER}", _library_env(folder))


def _borrow_libraries(target: Path, reporter: Reporter) -> None:
    """Copies of two of the embedded server's libraries, under the names perf_analyzer asks for."""
    source = provide_tritonserver(reporter=reporter) / "nvidia_pytriton.libs"
    target.mkdir()
    for name, pattern in _BORROWED.items():
        found = sorted(source.glob(pattern))
        if not found:
            raise AnalyzerUnavailableError(
                f"the embedded server brings no {name}, which perf_analyzer needs",
                where=str(source),
                expected=pattern,
                got="no file of that name",
                fix=f"set {VARIABLE} to a perf_analyzer that runs here, or see serve-repo doctor",
            )
        shutil.copyfile(found[-1], target / name)


def _library_env(folder: Path) -> dict[str, str]:
    # In front, as they are named exactly as this program wants them; an older CUDA on the machine must not shadow them.
    rest = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": str(folder / "lib") + (os.pathsep + rest if rest else "")}


@dataclass(frozen=True)
class _Answer:
    runs: bool
    text: str

    @property
    def too_old(self) -> bool:
        """It says a version, and one that lacks what is asked of it."""
        match = re.match(r"(\d+)\.(\d+)", self.text)
        return self.runs and match is not None and (int(match[1]), int(match[2])) < OLDEST


def _try(program: Path, env: Mapping[str, str]) -> _Answer:
    """``--version``: whether it runs at all, and what it says of itself."""
    try:
        answer = subprocess.run(
            [str(program), "--version"],
            capture_output=True,
            text=True,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return _Answer(False, str(exc))
    said = f"{answer.stdout}\n{answer.stderr}".strip()
    # Neither the stream nor the exit status can be relied on: they differ between releases.
    if (match := re.search(r"Perf Analyzer Version *(.*)", said)) is not None:
        return _Answer(True, match[1].strip() or "unknown")
    return _Answer(False, said.splitlines()[0] if said else f"exit status {answer.returncode}")


def _must_exist(program: Path, package: str) -> None:
    if not program.is_file():
        # pip takes an older, empty release where no wheel fits this machine.
        raise AnalyzerUnavailableError(
            f"{package} holds no perf_analyzer for this machine",
            where=str(program.parent),
            expected=program.name,
            got="no such file",
            fix=f"set {VARIABLE} to a perf_analyzer that runs here",
        )


def _must_run(program: Path, env: Mapping[str, str]) -> None:
    answer = _try(program, env)
    if not answer.runs:
        raise AnalyzerUnavailableError(
            "the perf_analyzer that was fetched does not run on this machine",
            where=str(program),
            expected="a program that answers --version",
            got=answer.text,
            fix=f"set {VARIABLE} to one that runs here",
        )
