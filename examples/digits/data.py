"""scikit-learn's handwritten digits: 1797 real images of 8 x 8 pixels, in a fixed split of training and test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray[Any, Any]]

TEST_IMAGES = 450
SAMPLES = 256


def split(part: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The images ``float32[n, 1, 8, 8]`` (grey, 0..16) and labels ``int64[n]`` of ``"train"`` or ``"test"``."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    rows = {"train": order[TEST_IMAGES:], "test": order[:TEST_IMAGES]}[part]
    return images[rows], labels[rows]


def samples() -> list[dict[str, np.ndarray[Any, Any]]]:
    """Real images for calibration and verification: training images only, so that the test split stays unseen."""
    images, _ = split("train")
    return [{"image": image} for image in images[:SAMPLES]]


def accuracy(predict: Callable[[Arrays], Arrays]) -> float:
    """The share of test images that are read as the digit they are."""
    images, labels = split("test")
    batches = [images[start : start + 64] for start in range(0, len(images), 64)]
    logits = np.concatenate([predict({"image": batch})["logits"] for batch in batches])
    return float((logits.argmax(axis=-1) == labels).mean())
