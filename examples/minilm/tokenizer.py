"""Text into tokens, inside the server: a class without Triton in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Tokenizer:
    """The tokens of all-MiniLM-L6-v2.

    Args:
        vocabulary: a file beside this one, a word piece on each line.
        max_length: longer texts are cut.
    """

    def __init__(self, vocabulary: str = "vocab.txt", max_length: int = 128) -> None:
        from tokenizers import BertWordPieceTokenizer

        self._tokenizer = BertWordPieceTokenizer(str(Path(__file__).parent / vocabulary), lowercase=True)
        self._tokenizer.enable_truncation(max_length=max_length)
        self._tokenizer.enable_padding()  # to the longest of a batch

    def execute(self, text: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """``string[batch, 1]`` -> ``input_ids`` and ``attention_mask``, both ``int64[batch, seq]``."""
        encoded = self._tokenizer.encode_batch([each.decode() for each in text[:, 0]])
        return {
            "input_ids": np.array([entry.ids for entry in encoded], dtype=np.int64),
            "attention_mask": np.array([entry.attention_mask for entry in encoded], dtype=np.int64),
        }
