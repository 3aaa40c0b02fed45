"""The reference's answers come back from the cache as they went in."""

import numpy as np
import pytest

from builder.incremental.answers import Answers
from builder.verify.cases import Case


def _objects(*values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.zeros((0, 3), np.int64),
        np.array(True),
        _objects("Grüße", "", "\ud800"),
        _objects(b"ends in zeros\0\0", b"", b"\xff\xfe"),
        _objects(b"bytes", "and text"),
        _objects(b"a", b"b").reshape(2, 1),
        np.array(["ab", "c"]),
        np.array([b"ab", b"c"]),
        np.empty((0,), dtype=object),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_every_kind_of_tensor_comes_back(tmp_path, array):
    case = Case("batch 1", 1, {"a/b": array}, {"y": array})
    Answers([case], [case], []).save(tmp_path / "answers.npz")
    back = Answers.load(tmp_path / "answers.npz")
    found = back.cases[0].inputs["a/b"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tolist() == array.tolist()
    assert back.cases[0] is back.golden[0]
    assert list(back.together) == []


def test_the_bytes_depend_on_the_content_alone(tmp_path):
    for name in ("one", "two"):
        case = Case("batch 1", 1, {"x": np.ones(3)}, {"y": _objects("a", b"b")})
        Answers([case], [case], [case]).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
