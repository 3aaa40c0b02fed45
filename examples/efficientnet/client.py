"""Call the served ``efficientnet``: photographs over HTTP and over gRPC, and the five most likely ImageNet classes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data import labels, photograph, prepare
from PIL import Image

from serving import Client
from serving.errors import TritonRepoError


def ask(url: str, images: Sequence[Image.Image]) -> np.ndarray[Any, Any]:
    """The probabilities ``float32[n, 1000]`` that the server behind ``url`` gives to the classes of RGB photographs."""
    with Client(url) as client:
        logits = client.infer("efficientnet", {"image": np.stack([prepare(image) for image in images])})["logits"]
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: np.ndarray[Any, Any] = powers / powers.sum(axis=-1, keepdims=True)
    return probabilities


def top(probabilities: np.ndarray[Any, Any], count: int = 5) -> list[tuple[str, float]]:
    """The most likely classes of one photograph with their probabilities, the likeliest first."""
    names = labels()
    return [(names[index], float(probabilities[index])) for index in np.argsort(-probabilities)[:count]]


def open_photograph(name: str) -> Image.Image:
    """A photograph by the name that ``data.PHOTOGRAPHS`` knows, or any image file of yours."""
    path = Path(name)
    return Image.open(path).convert("RGB") if path.is_file() else photograph(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the top five of each photograph, and whether both protocols agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", nargs="*", default=["flower", "chelsea", "china"], help="names or image files")
    parser.add_argument("--http", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--grpc", default="127.0.0.1:8001", help="host:port of the server's gRPC endpoint")
    args = parser.parse_args(argv)

    images = [open_photograph(name) for name in args.photographs]
    over_http = ask(f"http://{args.http}", images)
    over_grpc = ask(f"grpc://{args.grpc}", images)
    for name, probabilities in zip(args.photographs, over_http, strict=True):
        print(f"{name:<12}" + "   ".join(f"{label} {share:.0%}" for label, share in top(probabilities)))
    difference = float(np.abs(over_http - over_grpc).max())
    print(f"\nHTTP and gRPC: probabilities differ by {difference:.1e} at most")
    if difference > 1e-4:
        print("HTTP and gRPC answered differently", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TritonRepoError as error:  # no server, no such model: the message says what to do
        sys.exit(f"error: {error}")
