"""Scenes: a few words, a small picture and a second of sound that belong together. Made up, and the same each time."""

from __future__ import annotations

from typing import Any

import numpy as np

VOCABULARY = 512
CLASSES = 4
SAMPLE_RATE = 8000
SIDE = 64
WORDS = ("a red square hums low", "a green square whistles", "one blue square beeps high and loud", "silence in grey")
_COLOURS = ((0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (0.1, 0.2, 0.9), (0.5, 0.5, 0.5))
_TONES_HZ = (110.0, 880.0, 2000.0, 0.0)

Array = np.ndarray[Any, Any]


def ids(words: str) -> Array:
    """``int64[words]``: a number for every word, by its letters; 0 is kept for padding."""
    numbers = [1 + sum(ord(letter) * 31**place for place, letter in enumerate(word)) % 511 for word in words.split()]
    return np.array(numbers, dtype=np.int64)


def scene(number: int) -> dict[str, Array]:
    """One scene, without the batch dimension; every fourth is of the same kind, none is like another."""
    rng = np.random.default_rng(number)
    kind = number % CLASSES
    image = np.tile(np.array(_COLOURS[kind], np.float32)[:, None, None], (1, SIDE, SIDE))
    image += rng.normal(scale=0.05, size=image.shape).astype(np.float32)
    seconds = np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    audio = np.sin(2 * np.pi * _TONES_HZ[kind] * seconds) + rng.normal(scale=0.05, size=SAMPLE_RATE)
    return {"ids": ids(WORDS[kind]), "image": image, "audio": audio.astype(np.float32)}


def samples() -> list[dict[str, Array]]:
    """Sixteen scenes, for the ensemble."""
    return [scene(number) for number in range(16)]


def texts() -> list[dict[str, Array]]:
    """The words alone."""
    return [{"ids": sample["ids"]} for sample in samples()]


def images() -> list[dict[str, Array]]:
    """The pictures alone."""
    return [{"image": sample["image"]} for sample in samples()]


def sounds() -> list[dict[str, Array]]:
    """The sounds alone."""
    return [{"audio": sample["audio"]} for sample in samples()]


def vectors() -> list[dict[str, Array]]:
    """What the encoders could say: samples for what puts them together."""
    rng = np.random.default_rng(7)
    names = ("text_vector", "image_vector", "audio_vector")
    return [{name: np.tanh(rng.normal(size=32)).astype(np.float32) for name in names} for _ in range(16)]
