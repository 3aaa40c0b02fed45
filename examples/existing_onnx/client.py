"""Call the served ``magika``: what is in a file, asked over HTTP and over gRPC."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data import features, files, labels

from serving import Client
from serving.errors import TritonRepoError

BATCH = 32


def ask(url: str, paths: Sequence[Path]) -> np.ndarray[Any, Any]:
    """The scores ``float32[n, 214]`` that the server behind ``url`` gives to the content types of files."""
    rows = np.stack([features(path.read_bytes()) for path in paths])
    with Client(url) as client:
        batches = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        return np.concatenate([client.infer("magika", {"bytes": batch})["target_label"] for batch in batches])


def default_files() -> list[Path]:
    """This example's own files, and one file of each type that ``data.files`` knows."""
    here = Path(__file__).parent
    first: dict[str, Path] = {}
    for path, kind in files():
        first.setdefault(kind, path)
    return [here / "README.md", here / "models.yaml", here / "client.py", *first.values()]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the type of each file with its score, and whether both protocols agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="files to look at; some of this machine's where left out")
    parser.add_argument("--http", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--grpc", default="127.0.0.1:8001", help="host:port of the server's gRPC endpoint")
    args = parser.parse_args(argv)

    names = labels()
    paths = args.files or default_files()
    over_http = ask(f"http://{args.http}", paths)
    over_grpc = ask(f"grpc://{args.grpc}", paths)
    shown = [f"{path.parent.name}/{path.name}" for path in paths]
    for name, scores in zip(shown, over_http, strict=True):
        print(f"{name:<{max(map(len, shown))}}  {names[scores.argmax()]:<10} {scores.max():>4.0%}")
    difference = float(np.abs(over_http - over_grpc).max())
    print(f"\nHTTP and gRPC: scores differ by {difference:.1e} at most")
    if difference > 1e-4:
        print("HTTP and gRPC answered differently", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TritonRepoError as error:  # no server, no such model: the message says what to do
        sys.exit(f"error: {error}")
