"""A judge that knows every size of the spec, beside the samples that have one."""

import numpy as np

from builder.agreement import AgreementJudge
from builder.judging import NetJudge
from builder.verify.cases import Case


def _total(inputs):
    return {"y": inputs["x"].sum(axis=1, keepdims=True)}


def _overflowing(inputs):
    """Right up to 127, and around the corner beyond it."""
    return {"y": ((_total(inputs)["y"] + 128) % 256 - 128).astype(np.float32)}


def _judge():
    requests = [{"x": np.full((1, 3), index, np.float32)} for index in range(1, 9)]  # sums 3 to 24
    samples = AgreementJudge(requests, [_total(row) for row in requests], {"cosine": 0.999})
    long = {"x": np.full((1, 64), 3, np.float32)}  # 192
    return samples, NetJudge(samples, [Case("batch 1, seq 64", 1, long, _total(long))], "cases", "int8")


def test_what_is_right_at_every_size_passes():
    samples, netted = _judge()
    assert netted(_total) == samples(_total)
    assert netted.digest != samples.digest


def test_what_the_samples_do_not_show_fails():
    samples, netted = _judge()
    assert samples(_overflowing).ok
    verdict = netted(_overflowing)
    assert not verdict.ok
    assert verdict.margin == -1
    assert verdict.failed[0].startswith("it: output 'y' is not what PyTorch answers (batch 1, seq 64): ")


def test_the_sizes_are_not_asked_where_the_samples_fail():
    _, netted = _judge()
    asked = []

    def zero(inputs):
        asked.append(inputs["x"].shape)
        return {"y": np.ones((len(inputs["x"]), 1), np.float32) * -1}

    assert not netted(zero).ok
    assert (1, 64) not in asked
