"""examples/digits: trained the same every time, and read right through the server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def test_training_gives_the_same_weights_every_time(module_of: Any) -> None:
    model = module_of("digits", "model")
    first, second = model.load().state_dict(), model.load().state_dict()
    assert all(first[name].numpy().tobytes() == second[name].numpy().tobytes() for name in first)


def test_training_leaves_torch_as_it_was(module_of: Any) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    module = module_of("digits", "model").load()
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads
    assert not module.training


def test_split_is_disjoint_and_whole(module_of: Any) -> None:
    data = module_of("digits", "data")
    (train, _), (test, labels) = data.split("train"), data.split("test")
    assert train.shape == (1347, 1, 8, 8)
    assert test.shape == (450, 1, 8, 8)
    assert set(labels.tolist()) == set(range(10))
    assert len(data.samples()) == 256
    assert data.samples()[0]["image"].dtype == np.float32


def test_drawing_puts_captions_under_images(module_of: Any) -> None:
    client = module_of("digits", "client")
    images = np.zeros((5, 1, 8, 8), dtype=np.float32)
    images[0, 0, 0, 0] = 16
    lines = client.draw(images, [f"number {k}" for k in range(5)]).splitlines()
    assert len(lines) == 19
    assert lines[0] == "@@"
    assert lines[8].split("   ")[0].strip() == "number 0"
    assert lines[9:11] == ["", ""]  # a blank line, then the fifth image's first row
    assert lines[18] == "number 4"


@pytest.mark.server
def test_served_model_reads_the_test_split(module_of: Any, url: str) -> None:
    images, labels = module_of("digits", "data").split("test")
    answers = module_of("digits", "client").ask(url, images)
    assert (answers == labels).mean() > 0.97


@pytest.mark.server
def test_build_reports_the_accuracy(reports: dict[str, Any]) -> None:
    assert reports["digits"]["accuracy"] > 0.97
    assert reports["digits"]["accuracy"] == reports["digits"]["accuracy_reference"]


@pytest.mark.server
def test_client_draws_and_counts(module_of: Any, addresses: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert module_of("digits", "client").main([*addresses, "--show", "2"]) == 0
    out = capsys.readouterr().out
    assert "read 0, is 0" in out
    assert out.count("read ") == 2 + 2 + 2  # two digits, two misread, two totals
    assert "HTTP: 448 of 450 test images read right" in out
    assert "gRPC: 448 of 450 test images read right" in out
