"""Call the served ``scene``: words, a picture and a sound in one request, over HTTP and over gRPC."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from data import scene

from serving import Client
from serving.errors import TritonRepoError

SCENES = 4


def ask(url: str, number: int) -> np.ndarray[Any, Any]:
    """The scores ``float32[4]`` that the server behind ``url`` gives to a scene."""
    with Client(url) as client:
        answer = client.infer("scene", {name: array[None] for name, array in scene(number).items()})
    return np.asarray(answer["scores"][0])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the scores of a few scenes, and whether both protocols agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--grpc", default="127.0.0.1:8001", help="host:port of the server's gRPC endpoint")
    args = parser.parse_args(argv)

    difference = 0.0
    for number in range(SCENES):
        over_http, over_grpc = ask(f"http://{args.http}", number), ask(f"grpc://{args.grpc}", number)
        print(f"scene {number}: " + "  ".join(f"{score:.3f}" for score in over_http))
        difference = max(difference, float(np.abs(over_http - over_grpc).max()))
    print(f"\nHTTP and gRPC: scores differ by {difference:.1e} at most")
    if difference > 1e-5:
        print("HTTP and gRPC answered differently", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TritonRepoError as error:  # no server, no such model: the message says what to do
        sys.exit(f"error: {error}")
