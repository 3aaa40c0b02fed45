"""tune-repo for several models and for an ensemble, as a user runs it: the real server and the real tool."""

import json
import shutil

import pytest
import yaml

from perf.cli_tune import app
from serving.terminal import run

pytestmark = pytest.mark.xdist_group("perf")


@pytest.fixture
def models(repository, tmp_path):
    """A repository with ``scale``, ``tokens`` and ``twice``, an ensemble of ``scale`` after ``scale``."""
    for name in ("scale", "tokens", "twice", "counter"):
        shutil.copytree(repository / name, tmp_path / "repo" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "repo"


@pytest.fixture
def tune(tmp_path, monkeypatch, capsys):
    """``tune(*arguments)``: exit status, stdout, stderr; in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = run(app, [str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.mark.server
@pytest.mark.slow
def test_two_models_at_their_rates_at_the_same_time(tune, models, tmp_path):
    asked = ("scale", "tokens", "--repository", models, "--rate", "scale=120", "--rate", "tokens=60")
    limits = ("--latency-limit", "p90=900ms", "--latency-limit", "tokens:p50=800ms")
    status, out, err = tune(*asked, *limits, "--minutes", "0.05", "--format", "json")
    assert status == 0, out + err
    result = json.loads(out)
    assert result["schema"] == "triton-repo/tune-joint" and result["models"] == ["scale", "tokens"]
    assert result["limits"] == {"scale": "p90=900ms", "tokens": "p50=800ms"} and result["carried"]["factor"] > 1
    rows = {row["model"]: row for row in result["default"]["models"]}
    assert rows["scale"]["inferences_per_s"] == pytest.approx(120, rel=0.25)
    assert rows["tokens"]["inferences_per_s"] == pytest.approx(60, rel=0.25) and rows["tokens"]["percentile"] == 50
    data = yaml.safe_load((tmp_path / "overrides.yaml").read_text())
    assert set(data["evidence"]) == {"scale", "tokens"} and data["models"] == result["fields"]
    kept = [json.loads(line) for line in (tmp_path / ".tune" / "scale+tokens.jsonl").read_text().splitlines()]
    assert sum("plan" in entry for entry in kept) == result["measurements"] >= 3


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.big
def test_the_steps_of_an_ensemble_are_tuned_together(tune, models, tmp_path):
    asked = ("twice", "--repository", models, "--concurrency", "2", "--minutes", "0.05")
    status, out, err = tune(*asked)
    assert status == 0, out + err
    assert out.startswith("twice: ") and "concurrency 2" in out and "inferences/s  p99" in out, out
    data = yaml.safe_load((tmp_path / "overrides.yaml").read_text())
    assert set(data["evidence"]) == {"scale"} and data["evidence"]["scale"]["together_with"] == ["twice"]


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.big
def test_the_rate_limiter_is_tried_on_a_server_that_has_it(tune, models):
    asked = ("scale", "tokens", "--repository", models, "--rate", "scale=100", "--rate", "tokens=50")
    status, out, err = tune(*asked, "--rate-limiter", "--minutes", "0.5", "--format", "json")
    assert status == 0, out + err
    assert any(row["limited"] and row["rounds"] for row in json.loads(out)["rows"])


@pytest.mark.server
@pytest.mark.big
def test_a_model_of_another_kind_is_refused(tune, models):
    rates = ("--rate", "scale=5", "--rate", "counter=5")
    status, _, err = tune("scale", "counter", "--repository", models, *rates)
    assert status == 2 and "stateful (sequence batching) models are not tuned" in err, err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("scale", "tokens"), "a model without a rate"),
        (("scale", "tokens", "--rate", "scale=5"), "--rate tokens=R"),
        (("scale", "tokens", "--rate", "5"), "not the rate of a model"),
        (("scale", "tokens", "--rate", "scale=5", "--rate", "token=5"), "a rate for a model that is not named"),
        (
            ("scale", "tokens", "--rate", "scale=5", "--rate", "scale=6", "--rate", "tokens=1"),
            "two rates for one model",
        ),
        (("scale", "scale", "--rate", "scale=5"), "a model is named twice"),
        (("scale", "tokens", "--rate", "scale=0", "--rate", "tokens=1"), "not the rate of a model"),
        (("scale", "tokens", "--latency-limit", "digits:p99=2ms"), "a limit for a model that is not named"),
        (("scale", "tokens", "--latency-limit", "p99=2ms", "--latency-limit", "p50=1ms"), "two limits for all models"),
        (("scale", "tokens", "--latency-limit", "scale:20"), "not a latency limit"),
        (("scale", "tokens", "--concurrency", "4"), "several models are tuned at a rate each"),
        (("scale", "tokens", "--capacity", "4"), "the machines needed are told for one plain model"),
        (("scale", "tokens", "--goal", "throughput"), "with fixed rates every configuration that keeps up"),
        (("scale", "nonesuch", "--rate", "scale=5", "--rate", "nonesuch=5"), "no such model"),
        (("scale", "--rate", "tokens=5"), "a rate for a model that is not named"),
        (("scale", "--rate-limiter"), "the rate limiter shares a machine out between models"),
        (("twice", "--capacity", "4"), "the machines needed are told for one plain model"),
    ],
)
def test_unusable_arguments_are_refused_at_once(tune, models, arguments, what):
    status, out, err = tune(*arguments, "--repository", models)
    assert status == 2 and out == "" and what in err and "Traceback" not in err, err
