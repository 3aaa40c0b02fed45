"""Call the served ``digits``: test images over HTTP and over gRPC, drawn in the terminal with what was answered."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from data import split

from serving import Client
from serving.errors import TritonRepoError

SHADES = " .:-=+*%@"
PER_ROW = 4


def ask(url: str, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The digits ``int64[n]`` that the server behind ``url`` reads in ``images`` (``float32[n, 1, 8, 8]``, 0..16)."""
    with Client(url) as client:
        # 64 images fill one batch: config.pbtxt says max_batch_size 64.
        batches = [images[start : start + 64] for start in range(0, len(images), 64)]
        logits = np.concatenate([client.infer("digits", {"image": batch})["logits"] for batch in batches])
    return logits.argmax(axis=-1)


def draw(images: np.ndarray[Any, Any], captions: Sequence[str]) -> str:
    """The images as text, ``PER_ROW`` beside each other, each over its caption."""
    lines = []
    for start in range(0, len(images), PER_ROW):
        row = images[start : start + PER_ROW, 0]
        lines += [""] if start else []
        for y in range(8):
            lines.append("   ".join("".join(_shade(value) * 2 for value in image[y]) for image in row).rstrip())
        lines.append("   ".join(f"{caption:<16}" for caption in captions[start : start + PER_ROW]).rstrip())
    return "\n".join(lines)


def _shade(value: float) -> str:
    return SHADES[round(float(value) / 16 * (len(SHADES) - 1))]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a few images with the answers, and how many of all test images were read right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--grpc", default="127.0.0.1:8001", help="host:port of the server's gRPC endpoint")
    parser.add_argument("--show", type=int, default=4, help="how many digits to draw, and how many of those misread")
    args = parser.parse_args(argv)

    images, labels = split("test")
    over_http = ask(f"http://{args.http}", images)
    over_grpc = ask(f"grpc://{args.grpc}", images)
    captions = [f"read {read}, is {label}" for read, label in zip(over_http, labels, strict=True)]
    one_of_each = np.unique(labels, return_index=True)[1]
    misread = np.flatnonzero(over_http != labels)
    chosen = np.concatenate([one_of_each[: args.show], misread[: args.show]])
    print(draw(images[chosen], [captions[index] for index in chosen]))
    print()
    for protocol, answers in (("HTTP", over_http), ("gRPC", over_grpc)):
        print(f"{protocol}: {(answers == labels).sum()} of {len(labels)} test images read right")
    if not np.array_equal(over_http, over_grpc):
        print("HTTP and gRPC answered differently", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TritonRepoError as error:  # no server, no such model: the message says what to do
        sys.exit(f"error: {error}")
