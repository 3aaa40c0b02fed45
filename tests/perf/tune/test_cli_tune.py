"""tune-repo as a user runs it: a search with the real server and the real tool, what it keeps, what is refused."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from typer.main import get_command

from builder.spec.overrides import KEYS
from perf.cli_tune import app
from perf.tune import running
from perf.tune.curve import measure_curve
from perf.tune.request import TuneRequest
from perf.tune.result import TuneResult
from serving.errors import TritonRepoError
from serving.progress import SILENT
from serving.terminal import run

pytestmark = pytest.mark.xdist_group("perf")


@pytest.fixture
def one_model(repository, tmp_path):
    """A repository of its own with ``scale``: rolled back from a version that does not load, warmed up from a file."""
    folder = tmp_path / "repo" / "scale"
    shutil.copytree(repository / "scale", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "2").mkdir()
    (folder / "2/model.py").write_text("this is no Python\n")
    (folder / "warmup").mkdir()
    (folder / "warmup/x.bin").write_bytes(bytes(16))
    sample = 'input_data_file: "x.bin"'
    with (folder / "config.pbtxt").open("a") as config:
        config.write('version_policy { specific { versions: [ 1 ] } }\nmodel_warmup [{ name: "w" batch_size: 1\n')
        config.write(f'inputs {{ key: "x" value {{ data_type: TYPE_FP32 dims: [ 4 ] {sample} }} }} }}]\n')
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
def test_a_search_writes_overrides_that_can_be_applied(tune, one_model, tmp_path):
    before = sorted(one_model.rglob("*.*"))
    asked = ("scale", "--repository", one_model, "--minutes", "0.1", "--concurrency", "4")
    status, out, err = tune(*asked, "--capacity", "5000", "--format", "json")
    assert status == 0, err
    result = json.loads(out)
    assert result["schema"] == "triton-repo/tune" and result["status"] in ("found", "default")
    assert result["default"]["rounds"] >= 3 and result["default"]["inferences_interval"][0] > 0
    assert result["capacity"]["machines"] >= 1 and result["predicted"] >= 1
    data = yaml.safe_load((tmp_path / "overrides.yaml").read_text())
    assert data["models"] == ({"scale": result["fields"]} if result["fields"] else {})
    assert set(result["fields"]) <= set(KEYS) and data["evidence"]["scale"]["measurements"] == result["measurements"]
    assert [each for each in sorted(one_model.rglob("*.*")) if each.suffix != ".pyc"] == before  # Python's own apart
    # The same search goes on; a limit that nothing keeps is said with what comes nearest, and writes nothing.
    (tmp_path / "overrides.yaml").unlink()
    status, out, err = tune(*asked, "--resume", "--latency-limit", "p99=1us", "--minutes", "0.05")
    assert status == 1 and "nothing surely keeps p99=1us: the nearest has" in out, out + err
    assert "resuming: curves 1, measurements" in err and not (tmp_path / "overrides.yaml").exists()
    status, _, err = tune("tokens", *asked[1:], "--resume", "--journal", tmp_path / ".tune" / "scale.jsonl")
    assert status == 2 and "no such model" in err


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.big  # joint/test_joint_cli.py does it for two models
def test_a_fixed_rate_is_offered_whatever_the_server_does(tune, one_model):
    asked = ("--rate", "200", "--minutes", "0.05", "--latency-limit", "p50=500ms", "--format", "json")
    status, out, err = tune("scale", "--repository", one_model, *asked)
    assert status == 0, out + err
    result = json.loads(out)
    assert result["goal"] == "latency" and result["load"] == "200 requests/s (poisson)" and result["percentile"] == 50
    assert result["default"]["inferences_per_s"] == pytest.approx(200, rel=0.25)


@pytest.mark.server
def test_the_curve_of_a_model_grows_with_the_batch(server):
    import numpy as np

    from perf.inputs import model_spec
    from serving import Client

    with Client(f"http://{server.http_url}") as client:
        spec = model_spec(client.config("scale"), "1")
        rows = [{"x": np.ones(4, dtype=np.float32)}] * 2
        curve = measure_curve(client, spec, rows, variant="v", threads=None, instances=1, seconds=0.5)
        assert {timing.batch for timing in curve.timings} == {1, 2, 8} and curve.rest_us > 0
        assert all(timing.us > 0 and timing.executions >= 2 for timing in curve.timings)
        again = type(curve).from_dict(json.loads(json.dumps(curve.as_dict())))
        assert again.time_us(8, 1) == pytest.approx(curve.time_us(8, 1), abs=0.1)
        assert curve.time_us(4, 3) > 0 and curve.time_us(64, 1) >= curve.time_us(8, 1)


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.big
def test_ctrl_c_keeps_the_journal_and_leaves_no_server(one_model, tmp_path, until):
    command = [sys.executable, "-c", "from perf.cli_tune import main; main()"]
    command += ["scale", "--repository", str(one_model), "--minutes", "0.3"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        journal = tmp_path / ".tune" / "scale.jsonl"
        until(lambda: journal.exists() and '"round"' in journal.read_text(), timeout_s=100)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    assert "the same command with --resume goes on" in err and str(journal.relative_to(tmp_path)) in err
    kept = [json.loads(line) for line in journal.read_text().splitlines()]
    assert "schema" in kept[0] and any("curve" in entry for entry in kept) and any("round" in entry for entry in kept)
    assert not (tmp_path / "overrides.yaml").exists()
    assert [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("tune-repo")] == []


def test_the_reference_names_every_flag_and_field():
    text = (Path(__file__).parents[3] / "docs/reference/tune-repo.md").read_text()
    flags = [option for parameter in get_command(app).params for option in parameter.opts if option.startswith("--")]
    fields = [name for name in TuneResult.model_fields if name in ("status", "decided", "rows", "knobs", "capacity")]
    missing = [name for name in (*flags, *fields) if name not in text]
    assert missing == ["--quiet", "--verbose"]  # there by their letters


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.big
def test_a_server_that_dies_is_said_with_how_to_go_on(one_model, tmp_path):
    class Killer:
        """Kills the server when the first round begins."""

        @contextlib.contextmanager
        def step(self, title):
            if title.startswith("round"):
                for child in psutil.Process().children(recursive=True):
                    if "tritonserver" in child.name():
                        child.kill()
            with SILENT.step(title) as step:
                yield step

        info = warn = output = lambda self, *said, **more: None

    request = TuneRequest(one_model, "scale", concurrency=4, minutes=0.3)
    with pytest.raises(TritonRepoError) as caught:
        running.tune(request, journal=tmp_path / "j.jsonl", reporter=Killer())
    assert "--resume" in caught.value.fix, caught.value
    assert (tmp_path / "j.jsonl").read_text().count('"round"') == 1  # the default, before


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("nonesuch",), "no such model"),
        (("scale", "--goal", "speed"), "no such goal"),
        (("scale", "--latency-limit", "20"), "not a latency limit"),
        (("scale", "--rate", "5", "--concurrency", "2", "--goal", "cost"), "two loads"),
        (("scale", "--minutes", "0"), "not a time"),
        (("scale", "--capacity", "-1"), "not a rate"),
        (("scale", "--repository", "nowhere"), "no such model repository"),
    ],
)
def test_unusable_arguments_are_refused_at_once(tune, one_model, arguments, what):
    repository = () if "--repository" in arguments else ("--repository", one_model)
    status, out, err = tune(*arguments, *repository)
    assert status == 2 and out == "" and what in err and "Traceback" not in err, err


def test_an_output_that_is_something_else_is_refused_before_minutes_are_spent(tune, one_model, tmp_path):
    (tmp_path / "models.yaml").write_text("repository: x\nmodels: [1]\n")
    status, _, err = tune("scale", "--repository", one_model, "--output", "models.yaml")
    assert status == 1 and "not written by tune-repo" in err
