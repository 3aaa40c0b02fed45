"""Numbers of classes into their names, inside the server: a class without Triton in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Names:
    """The names of the classes.

    Args:
        file: beside this one, a name on each line.
    """

    def __init__(self, file: str = "labels.txt") -> None:
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        self._names = np.array(text.splitlines(), dtype=object)

    def execute(self, classes: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """``int64[batch, 5]`` -> ``labels``, ``string[batch, 5]``."""
        return {"labels": self._names[classes]}
