"""Call the served ``minilm_text``: sentences, as they are, over HTTP and over gRPC, and what they are nearest to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from data import sentences

from serving import Client
from serving.errors import TritonRepoError

QUERIES = (
    "I can't sign in, my password is wrong",
    "The kitten dozes on the window ledge",
    "Our build server tests every push",
)
BATCH = 16


def ask(url: str, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """The unit vectors ``float32[n, 384]`` that the server behind ``url`` gives to ``texts``."""
    vectors = []
    with Client(url) as client:
        for start in range(0, len(texts), BATCH):
            batch = np.array(texts[start : start + BATCH], dtype=object)[:, None]
            vectors.append(client.infer("minilm_text", {"text": batch})["embedding"])
    return np.concatenate(vectors)


def nearest(query: np.ndarray[Any, Any], known: np.ndarray[Any, Any], count: int) -> list[tuple[int, float]]:
    """Indices of the vectors in ``known`` nearest to ``query`` with their cosine similarity, the nearest first."""
    cosine = known @ query
    return [(int(index), float(cosine[index])) for index in np.argsort(-cosine)[:count]]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the nearest known sentences of each query, and whether both protocols agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queries", nargs="*", default=list(QUERIES), help="sentences to look up")
    parser.add_argument("--http", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--grpc", default="127.0.0.1:8001", help="host:port of the server's gRPC endpoint")
    parser.add_argument("--count", type=int, default=2, help="how many neighbours to print")
    args = parser.parse_args(argv)

    texts = sentences()
    known = ask(f"http://{args.http}", texts)
    over_http = ask(f"http://{args.http}", args.queries)
    over_grpc = ask(f"grpc://{args.grpc}", args.queries)
    for query, vector in zip(args.queries, over_http, strict=True):
        print(query)
        for index, cosine in nearest(vector, known, args.count):
            print(f"  {cosine:.2f}  {texts[index]}")
    difference = float(np.abs(over_http - over_grpc).max())
    print(f"\nHTTP and gRPC: vectors differ by {difference:.1e} at most")
    if difference > 1e-4:
        print("HTTP and gRPC answered differently", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TritonRepoError as error:  # no server, no such model: the message says what to do
        sys.exit(f"error: {error}")
