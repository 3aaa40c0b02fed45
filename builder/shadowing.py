"""Names that the user's folder must not take: a ``triton/`` beside the spec is not the compiler that torch looks for.

While the user's code runs, the spec's folder stands first on ``sys.path``, as it does for a script in it. So a folder
``triton`` or ``onnx`` there, even an empty one, would be imported by torch and its kin, which import each other late;
and ``templates`` by ourselves. For these names the installed package is taken, or none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OURS = frozenset({"builder", "perf", "serving", "templates"})
GUARDED = OURS | {
    "functorch", "google", "grpc", "huggingface_hub", "jinja2", "ml_dtypes", "mpmath", "networkx", "numpy", "onnx",
    "onnx_ir", "onnxruntime", "onnxscript", "polygraphy", "pydantic", "safetensors", "scipy", "sympy", "tensorrt",
    "tokenizers", "torch", "torchgen", "torchvision", "transformers", "triton", "tritonclient", "typing_extensions",
    "yaml",
}  # fmt: skip


class Guard:
    """A finder for ``sys.meta_path``: a guarded name is never found in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._real = os.path.realpath(folder)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The installed package of a guarded name; None for all others, which the next finder looks for.

        Raises:
            ModuleNotFoundError: the name is guarded, and nowhere but in the folder.
        """
        if path is not None or fullname not in GUARDED or not is_there(fullname, self._folder):
            return None
        elsewhere = [entry for entry in sys.path if os.path.realpath(entry or ".") != self._real]
        spec = PathFinder.find_spec(fullname, elsewhere, target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return spec


def is_there(name: str, folder: Path) -> bool:
    """True where the folder has a module or a folder of this name."""
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def taken_name(text: str, folder: Path) -> str:
    """The guarded name that the folder has, too, and that an import error speaks of; empty if there is none."""
    return next((name for name in sorted(GUARDED) if f"'{name}'" in text and is_there(name, folder)), "")
