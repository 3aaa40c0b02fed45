"""examples/minilm: embeddings through the server mean what PyTorch's mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def test_sentences_are_many_different_pairs(module_of: Any) -> None:
    data = module_of("minilm", "data")
    sentences = data.sentences()
    assert len(data.pairs()) >= 64
    assert len(set(sentences)) == len(sentences)
    lengths = {len(sample["input_ids"]) for sample in data.samples()}
    assert min(lengths) < 6
    assert max(lengths) > 30


def test_samples_are_unpadded_rows(module_of: Any) -> None:
    for sample in module_of("minilm", "data").samples():
        assert sample["input_ids"].dtype == sample["attention_mask"].dtype == np.int64
        assert sample["input_ids"].shape == sample["attention_mask"].shape == (len(sample["input_ids"]),)
        assert sample["attention_mask"].all()


def test_long_text_is_cut_at_the_limit_of_the_spec(module_of: Any) -> None:
    batch = module_of("minilm", "data").tokenize(["word " * 500, "word"])
    assert batch["input_ids"].shape == (2, 128)
    assert batch["attention_mask"].sum(axis=1).tolist() == [128, 3]


def test_accuracy_of_perfect_and_of_useless_vectors(module_of: Any) -> None:
    data = module_of("minilm", "data")
    seen = 0

    def perfect(batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal seen
        rows = len(batch["input_ids"])
        vectors = np.eye(len(data.pairs()), dtype=np.float32)[np.arange(seen, seen + rows) // 2]
        seen += rows
        return {"embedding": vectors}

    assert data.accuracy(perfect) == 1.0
    assert data.accuracy(lambda batch: {"embedding": np.ones((len(batch["input_ids"]), 384))}) < 0.05


@pytest.mark.server
def test_paraphrase_is_the_nearest_neighbour(module_of: Any, url: str) -> None:
    data, client = module_of("minilm", "data"), module_of("minilm", "client")
    vectors = client.ask(url, data.sentences())
    right = [client.nearest(vector, vectors, 2)[1][0] == index ^ 1 for index, vector in enumerate(vectors)]
    assert np.mean(right) > 0.95


@pytest.mark.server
def test_answers_are_unit_vectors_whatever_the_padding(module_of: Any, url: str) -> None:
    client = module_of("minilm", "client")
    texts = ["Hello!", "Although it is a good deal longer, this sentence must not change its neighbour in the batch."]
    together = client.ask(url, texts)
    alone = np.concatenate([client.ask(url, [text]) for text in texts])
    assert together.shape == (2, 384)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert together == pytest.approx(alone, abs=1e-5)


@pytest.mark.server
def test_client_finds_sentences_by_meaning(
    module_of: Any, addresses: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        module_of("minilm", "client").main([*addresses, "My mobile is always flat at lunchtime", "--count", "1"]) == 0
    )
    query, answer, *_ = capsys.readouterr().out.splitlines()
    assert query == "My mobile is always flat at lunchtime"
    assert answer.endswith("The battery of my phone is empty by noon.")
