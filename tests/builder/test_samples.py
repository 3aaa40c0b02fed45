import numpy as np
import pytest

from builder.errors import SampleError
from builder.samples import Samples, random_samples
from builder.tensors import Interface, parse_tensor

IDS = Interface((parse_tensor("ids", "int64[batch, seq: 2..6]"), parse_tensor("w", "float32[batch, 2]")), ())


def _samples(*lengths):
    rows = tuple({"ids": np.arange(n), "w": np.float32([n, n])} for n in lengths)
    return Samples(rows, IDS, "test")


def test_a_batch_stacks_samples_cut_or_repeated_to_one_length():
    batch = _samples(3, 5).batch(3)
    assert batch["ids"].tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert batch["w"].tolist() == [[3, 3], [5, 5], [3, 3]]
    assert _samples(3).batch(1, {"seq": 6})["ids"].tolist() == [[0, 1, 2, 0, 1, 2]]


def test_a_batch_of_none_has_the_right_shape():
    assert _samples(3).batch(0)["ids"].shape == (0, 3)


def test_random_samples_are_the_same_every_time_and_fit():
    first, again = random_samples(IDS), random_samples(IDS)
    assert all(np.array_equal(a["w"], b["w"]) for a, b in zip(first.rows, again.rows, strict=True))
    assert first.rows[0]["ids"].shape == (4,)  # the middle of 2..6
    assert set(np.unique(first.batch(8)["ids"])) <= {0, 1}
    assert not first.are_real


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return []", "gave no sample"),
        ("return None", "gave no list"),
        ("raise OSError('no disk')", "raised"),
        ("return [{'y': 1}]", "wrong names"),
        ("return [{'x': np.zeros(8)}]", r"astype\('float32'\)"),
        ("return [{'x': np.zeros((1, 8), np.float32)}]", "return single samples"),
        ("return [{'x': np.zeros(9, np.float32)}]", "size 9 where the spec has 8"),
        ("return [{'x': np.full(8, np.nan, np.float32)}]", "NaN or Inf"),
    ],
)
def test_samples_that_do_not_fit_are_refused(stages, tmp_path, body, message):
    (tmp_path / "data.py").write_text(f"import numpy as np\ndef samples():\n    {body}\n")
    made = stages(
        "Echo",
        inputs={"x": "float32[batch, 8]"},
        outputs={"a": "float32[batch, 8]", "b": "float32[batch, 8]"},
        samples={"python": "data.py:samples"},
    )
    with pytest.raises(SampleError, match=message):
        made.samples(made.load())
