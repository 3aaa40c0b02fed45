"""The files of a version: ``model.py``, the boilerplate, the user's files as they are, and their packages."""

from __future__ import annotations

import functools
import importlib.resources
import pprint
import shutil
from pathlib import Path
from typing import Any

from builder.python_model.code_files import BOILERPLATE, CodeFiles
from builder.python_model.step import PythonStep

MODEL_FILE = "model.py"
CODE = "code"
PACKAGES = "packages"
_WIDTH = 110


def write_version(step: PythonStep, code: CodeFiles, to: Path, *, name: str, packages: Path | None = None) -> list[str]:
    """Write what Triton's Python backend loads; the same arguments give the same bytes.

    Args:
        step: what is asked for.
        code: the user's files.
        to: the version folder.
        name: of the model.
        packages: a folder made by :func:`builder.python_model.pack`, copied beside.

    Returns:
        The files written, relative to ``to``, sorted.

    Raises:
        PythonModelError: an argument is no plain data.
    """
    text = model_text(step, name=name, packed=packages is not None)
    to.mkdir(parents=True, exist_ok=True)
    (to / MODEL_FILE).write_text(text, encoding="utf-8")
    boilerplate = importlib.resources.files("builder.python_model").joinpath("served.py").read_bytes()
    (to / f"{BOILERPLATE}.py").write_bytes(boilerplate)
    written = [MODEL_FILE, f"{BOILERPLATE}.py"]
    for relative, source in code.files.items():
        target = to / CODE / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        written.append(f"{CODE}/{relative}")
    if packages is not None:
        shutil.copytree(packages, to / PACKAGES, dirs_exist_ok=True)
        inside = sorted(path for path in packages.rglob("*") if path.is_file())
        written += [f"{PACKAGES}/{path.relative_to(packages).as_posix()}" for path in inside]
    return sorted(written)


def model_text(step: PythonStep, *, name: str, packed: bool) -> str:
    """The text of ``model.py``.

    Raises:
        PythonModelError: an argument is no plain data.
    """
    kind = step.reference.rpartition(":")[2]
    return str(
        _template().render(
            title=f"The model {name}: {kind} behind Triton's Python backend.",
            packed=packed,
            step=pprint.pformat(step.description(), width=_WIDTH, sort_dicts=False),
        )
    )


@functools.cache
def _template() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda file: importlib.resources.files("templates").joinpath(file).read_text()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    ).get_template("python_model.py.j2")
