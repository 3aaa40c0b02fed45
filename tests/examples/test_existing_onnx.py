"""examples/existing_onnx: Magika's own file is served, and tells file types as its makers' library does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_labels_are_those_of_the_model(module_of: Any) -> None:
    data = module_of("existing_onnx", "data")
    config = json.loads((data.path().parent / "config.min.json").read_text())
    assert data.labels() == config["target_labels_space"]
    assert (config["beg_size"], config["mid_size"], config["end_size"]) == (data.PART, 0, data.PART)
    assert (config["block_size"], config["padding_token"]) == (data.BLOCK, data.PADDING)
    assert config["min_file_size_for_dl"] == data.SHORTEST


@pytest.mark.parametrize(
    "content", [b"  \n" * 50 + b"print('hello')\n" + b" \n" * 9, b"x" * 5000, b"12345678", b"\0" * 900]
)
def test_features_are_those_of_the_makers(module_of: Any, content: bytes) -> None:
    import io

    from magika import Magika
    from magika.types import Seekable

    data = module_of("existing_onnx", "data")
    theirs = Magika._extract_features_from_seekable(
        Seekable(io.BytesIO(content)), data.PART, 0, data.PART, data.PADDING, data.BLOCK, False
    )
    assert data.features(content).tolist() == [*theirs.beg, *theirs.end]


def test_too_few_bytes_are_refused(module_of: Any) -> None:
    with pytest.raises(ValueError, match="6 bytes are too few, 8 are needed after white space at the start"):
        module_of("existing_onnx", "data").features(b"   abc   ")


def test_files_cover_every_type(module_of: Any) -> None:
    data = module_of("existing_onnx", "data")
    assert {kind for _, kind in data.files()} == set(data.FILES)
    assert len(data.samples()) >= 32


@pytest.mark.server
def test_the_published_file_is_the_makers_file(module_of: Any, repository: Path) -> None:
    published = repository / "magika" / "1" / "model.onnx"
    assert published.read_bytes() == module_of("existing_onnx", "data").path().read_bytes()


@pytest.mark.server
def test_file_types_are_right(module_of: Any, url: str) -> None:
    data, client = module_of("existing_onnx", "data"), module_of("existing_onnx", "client")
    paths, kinds = zip(*data.files(), strict=True)
    names = data.labels()
    answers = [names[index] for index in client.ask(url, paths).argmax(axis=-1)]
    assert np.mean([answer == kind for answer, kind in zip(answers, kinds, strict=True)]) > 0.95


@pytest.mark.server
def test_client_judges_this_repository(
    module_of: Any, addresses: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(__file__).parents[2]
    files = {"pyproject.toml": "toml", "examples/digits/models.yaml": "yaml", "examples/minilm/README.md": "markdown"}
    assert module_of("existing_onnx", "client").main([*addresses, *(str(root / file) for file in files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:3]] == list(files.values())
