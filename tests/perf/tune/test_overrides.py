"""overrides.yaml: written whole, other models kept, and what is not ours is not written over."""

from datetime import datetime, timezone

import pytest
import yaml

from perf.tune.errors import TuneError
from perf.tune.overrides import read_overrides, write_overrides
from perf.tune.result import Capacity, Knob, Row, TuneResult
from perf.tune.text import to_text

MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def row(rate, **more):
    ends = {"inferences_interval": (rate * 0.9, rate * 1.1), "latency_interval_us": (900.0, 1100.0)}
    return Row(settings={}, title="1 instance", load="concurrency 4", rounds=3, requests=300,
               inferences_per_s=rate, latency_us=1000.0, **ends, **more)  # fmt: skip


def result(model="m", **more):
    tuned = row(200.0, gain=2.0, gain_interval=(1.8, 2.2), within_limit="yes")
    values = {
        "model": model, "goal": "throughput", "limit": "p99=2ms", "load": "concurrency 4", "percentile": 99.0,
        "status": "found", "reason": "faster", "decided": True, "default": row(100.0), "chosen": tuned,
        "rows": (tuned, row(100.0)), "predicted": 12, "measurements": 6, "seconds": 9.0, "machine": {"cpu": "x"},
        "fields": {"instances": {"count": 2}, "batch": {"preferred": []}},
        "knobs": (Knob(name="instances", before=1, after=2, factor=1.9), Knob(name="preferred", before=(4,), after=())),
    }  # fmt: skip
    return TuneResult(**{**values, **more})


def test_fields_and_evidence_are_written_and_other_models_kept(tmp_path):
    path = tmp_path / "new" / "overrides.yaml"
    write_overrides(path, result("other"), made=MADE)
    write_overrides(path, result(), made=MADE)
    data = yaml.safe_load(path.read_text())
    fields = {"instances": {"count": 2}, "batch": {"preferred": []}}
    assert data["models"] == {"other": fields, "m": fields}
    evidence = data["evidence"]["m"]
    assert evidence["made"] == "2026-01-02T03:04:05Z" and evidence["tuned"]["gain"] == [1.8, 2.2]
    assert evidence["default"]["inferences_interval"] == [90.0, 110.0] and evidence["default"]["p99_us"] == 1000.0
    assert evidence["knobs"]["instances"] == {"before": 1, "after": 2, "factor": 1.9, "known": "predicted"}
    assert path.read_text().startswith("# Written by tune-repo.") and list(path.parent.iterdir()) == [path]
    write_overrides(path, result(status="default", fields={}), made=MADE)
    assert list(read_overrides(path)["models"]) == ["other"] and "tuned" not in read_overrides(path)["evidence"]["m"]


@pytest.mark.parametrize(
    ("text", "what"), [("[1]", "not written by"), ("models: 3", "not written by"), ("a: [", "YAML")]
)
def test_another_file_is_left_as_it_is(tmp_path, text, what):
    path = tmp_path / "overrides.yaml"
    path.write_text(text)
    with pytest.raises(TuneError, match=what):
        write_overrides(path, result())
    assert path.read_text() == text


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TuneError) as caught:
        write_overrides(tmp_path / "file" / "overrides.yaml", result())
    assert "over" in caught.value.what and caught.value.where.endswith("overrides.yaml")


def test_the_report_shows_default_and_tuned_with_intervals_and_each_knob():
    capacity = Capacity(rate_per_s=1000.0, sustained_per_s=150.0, sustained_interval=(120.0, 180.0), machines=7,
                        machines_interval=(6, 9), busy=0.7)  # fmt: skip
    text = to_text(result(capacity=capacity, decided=False, notes=("something is left",)))
    lines = text.splitlines()
    assert lines[0] == "m: tuned: faster" and "under p99=2ms" in lines[1]
    assert any(line.startswith("default") and "100 (90" in line for line in lines)
    assert any(line.startswith("tuned") and "x 2.00 (1.80 to 2.20)" in line for line in lines)
    assert "  instances: 1 -> 2  x 1.90 (predicted)" in lines
    assert "  preferred sizes: 4 -> none  not known" in lines
    assert "1000 requests/s need 7 of this machine (6 to 9)" in text and "--minutes" in text
    assert max(map(len, to_text(result(), width=90).splitlines())) <= 90
    assert lines[-1] == "note: something is left"
