"""Call the served ``efficientnet_jpeg``: photographs' files over HTTP and over gRPC, and the five likeliest classes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from data import jpeg, photograph

from serving import Client
from serving.errors import TritonRepoError

Answer = list[tuple[str, float]]


def ask(url: str, files: Sequence[bytes]) -> list[Answer]:
    """The five likeliest classes of each photograph with their probabilities, the likeliest first."""
    with Client(url) as client:
        answer = client.infer("efficientnet_jpeg", {"jpeg": np.array(files, dtype=object)[:, None]})
    return [
        [(label.decode(), float(score)) for label, score in zip(labels, scores, strict=True)]
        for labels, scores in zip(answer["labels"], answer["scores"], strict=True)
    ]


def file_of(name: str) -> bytes:
    """A photograph by the name that ``data.PHOTOGRAPHS`` knows, or any image file of yours."""
    path = Path(name)
    return path.read_bytes() if path.is_file() else jpeg(photograph(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the top five of each photograph, and whether both protocols agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", nargs="*", default=["flower", "chelsea", "china"], help="names or image files")
    parser.add_argument("--http", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--grpc", default="127.0.0.1:8001", help="host:port of the server's gRPC endpoint")
    args = parser.parse_args(argv)

    files = [file_of(name) for name in args.photographs]
    over_http = ask(f"http://{args.http}", files)
    over_grpc = ask(f"grpc://{args.grpc}", files)
    for name, answer in zip(args.photographs, over_http, strict=True):
        print(f"{name:<12}" + "   ".join(f"{label} {share:.0%}" for label, share in answer))
    pairs = [pair for both in zip(over_http, over_grpc, strict=True) for pair in zip(*both, strict=True)]
    difference = max(abs(first[1] - second[1]) for first, second in pairs)
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
