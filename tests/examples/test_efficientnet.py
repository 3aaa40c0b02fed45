"""examples/efficientnet: real photographs are what they are, through the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_labels_are_the_thousand_classes(module_of: Any) -> None:
    data = module_of("efficientnet", "data")
    names = data.labels()
    assert len(names) == len(set(names)) == 1000
    # Well-known places in ILSVRC2012's order.
    known = {0: "tench", 207: "golden retriever", 281: "tabby", 417: "balloon", 817: "sports car", 985: "daisy"}
    assert {index: names[index] for index in known} == known
    assert set().union(*data.PHOTOGRAPHS.values()) <= set(names)


def test_preparation_keeps_the_middle_and_normalises(module_of: Any) -> None:
    from PIL import Image

    prepare = module_of("efficientnet", "data").prepare
    white = prepare(Image.new("RGB", (640, 427), "white"))
    assert white.shape == (3, 224, 224)
    assert white.dtype == np.float32
    assert np.unique(white).tolist() == [1.0]  # (255 - 127) / 128
    image = Image.new("RGB", (800, 400))
    image.paste((255, 0, 0), (400, 0, 800, 400))  # the right half is red
    red, green, _ = prepare(image)
    assert red[:, :100].max() < -0.9
    assert red[:, 124:].min() > 0.9
    assert green.max() < -0.9


def test_samples_are_different_views_of_all_photographs(module_of: Any) -> None:
    data = module_of("efficientnet", "data")
    samples = data.samples()
    assert len(samples) == 70
    assert len({sample["image"].tobytes() for sample in samples}) == 70
    assert {(sample["image"].shape, str(sample["image"].dtype)) for sample in samples} == {((3, 224, 224), "float32")}


@pytest.mark.server
def test_photographs_are_recognised(module_of: Any, url: str) -> None:
    data, client = module_of("efficientnet", "data"), module_of("efficientnet", "client")
    names = list(data.PHOTOGRAPHS)
    answers = client.ask(url, [data.jpeg(data.photograph(name)) for name in names])
    right = [answer[0][0] in data.PHOTOGRAPHS[name] for name, answer in zip(names, answers, strict=True)]
    assert sum(right) >= len(names) - 1, answers  # JPEG and a resize in the graph are not quite what it was trained on
    for answer in answers:
        scores = [score for _, score in answer]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 5 and 0 < sum(scores) <= 1.0001


@pytest.mark.server
def test_what_is_no_photograph_is_the_requests_own_error(url: str) -> None:
    from serving import Client
    from serving.errors import InferenceError

    with Client(url) as client, pytest.raises(InferenceError, match="UnidentifiedImageError"):
        client.infer("efficientnet_jpeg", {"jpeg": np.array([[b"GIF?"]], dtype=object)})


@pytest.mark.server
def test_labels_are_published_with_the_model(module_of: Any, repository: Path) -> None:
    folder = repository / "efficientnet"
    published = (folder / "1" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert published == module_of("efficientnet", "data").labels()
    assert 'label_filename: "1/labels.txt"' in (folder / "config.pbtxt").read_text(encoding="utf-8")


@pytest.mark.server
def test_client_takes_an_image_file(
    module_of: Any, addresses: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cup.png"
    module_of("efficientnet", "data").photograph("coffee").save(file)
    assert module_of("efficientnet", "client").main([*addresses, str(file), "flower"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{file}") and "espresso" in lines[0]
    assert "daisy" in lines[1]
