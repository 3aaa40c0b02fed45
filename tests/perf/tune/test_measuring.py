"""What a trial is as a run of perf_analyzer: how long it may take, and what it writes down."""

import numpy as np
import pytest

from perf.analyzer import WINDOWS
from perf.inputs import ModelSpec, RequestData, TensorSpec
from perf.target import Subject
from perf.tune.measuring import Meter, patience_s
from perf.tune.simulate import Arrivals
from serving.dtypes import BY_CONFIG

FP32 = BY_CONFIG["TYPE_FP32"]


class Kept:
    """In the place of a run: what it is given."""

    def __init__(self, *arguments, patience_s):
        self.patience_s = patience_s

    def point(self, subject, load, place):
        return load, self.patience_s(load)


class Stage:
    class target:
        address = "127.0.0.1:1"


@pytest.mark.parametrize(("side", "exported"), [(4, True), (400_000, False)])
def test_only_what_is_cheap_to_write_is_written(tmp_path, monkeypatch, side, exported):
    monkeypatch.setattr("perf.tune.measuring.Run", Kept)
    spec = ModelSpec("m", "1", 8, (TensorSpec("x", FP32, (side,)),), (TensorSpec("y", FP32, (4,)),))
    subject = Subject("m", spec, RequestData(({"x": np.ones(side, np.float32)},), "ones"))
    meter = Meter(Stage, None, tmp_path, 1.2, 99.0)
    load, patience = meter.point(subject, Arrivals(concurrency=8), 0, 20_000.0, "8-round-1")  # 400 answers/s
    assert load.export is exported and load.concurrency == 8 and load.windows == WINDOWS
    assert 10 < patience == patience_s(load) < 20  # not the minute that bench-repo waits
    load, patience = meter.point(subject, Arrivals(rate_per_s=50.0), 0, 20_000.0, "rate-round-1")
    assert load.export and patience > 8 + 4 * 1.2 - 1e-9  # at a rate every request is needed
