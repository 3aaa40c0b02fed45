"""What is built again and what is not, by real builds: nothing stale is published, nothing is done twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from builder import build, load_spec
from builder.building import Build, Work
from builder.incremental.cache import Cache
from builder.incremental.keys import Subject, fingerprints_of
from builder.options import Options
from builder.pipeline import STAGES
from builder.repository.publish import versions_of
from builder.usercode import user_code
from serving.progress import SILENT
from tests.builder.processes import Mark, Running

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("test_incremental")]

STEPS = ("source", "samples", "reference", "export", "parity", "config", "contract", "serve")
AFTER_CONFIG = ("config", "contract", "serve")
# The file that decides the result is named nowhere in the spec: the code opens it.
MAKE = """
from pathlib import Path
import numpy as np
import onnx
from onnx import helper, numpy_helper
from shapes import ROWS

HERE = Path(__file__).parent

def write(factor):
    value = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", ROWS])
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    weights = numpy_helper.from_array(np.full((ROWS,), factor, np.float32), "w")
    graph = helper.make_graph([node], "scale", [value("x")], [value("y")], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, HERE / "made.onnx")
    return HERE / "made.onnx"

def path():
    return write(float((HERE / "factor.txt").read_text()))
"""


def _spec(**model):
    plain = {"source": {"onnx": {"python": "make.py:path"}}, "batch": {"max": 8, "preferred": [2]}}
    return json.dumps({"repository": "models", "models": {"m": plain | model}})


class Project:
    """A spec's folder with one model."""

    def __init__(self, folder):
        self.folder = folder
        self.repository = folder / "models"
        self.versions = self.repository / "m"

    def write(self, name, content):
        (self.folder / name).write_text(content)

    def build(self, **options):
        self.reporter = Listening()
        (result,) = build(
            load_spec(self.folder / "models.yaml"), options=Options(**options), reporter=self.reporter
        ).models
        assert result.status != "failed", result.error
        return result

    def answer(self, version):
        """What the published file gives for 1."""
        session = onnxruntime.InferenceSession(self.versions / str(version) / "model.onnx")
        return float(session.run(None, {"x": np.ones((1, 4), np.float32)})[0][0, 0])

    def preferred(self):
        config = text_format.Parse((self.versions / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        return list(config.dynamic_batching.preferred_batch_size)

    def cache(self, limit_bytes=0):
        return Cache(self.folder / ".build", "models", limit_bytes)

    def object_of(self, step):
        (digest,) = self.cache().records("m")[step][0].objects.values()
        return self.folder / ".build/cache/objects" / digest[:2] / digest

    def published(self):
        return {path: path.stat().st_mtime_ns for path in self.repository.rglob("*") if path.is_file()}


class Listening:
    """A reporter that keeps what it was warned of."""

    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)

    def __getattr__(self, name):
        return getattr(SILENT, name)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A project that was built once."""
    project = Project(tmp_path_factory.mktemp("incremental") / "base")
    project.folder.mkdir()
    project.write("make.py", MAKE)
    project.write("factor.txt", "2")
    project.write("models.yaml", _spec())
    # The user's folder is on the path of the process that runs their code, and not of the one that plans: what
    # setuptools leaves there when their project is installed for development must not make a difference.
    project.write("shapes.py", "ROWS = 4\n")
    (project.folder / "shapes-1.0.egg-info").mkdir()
    project.write("shapes-1.0.egg-info/PKG-INFO", "Metadata-Version: 2.1\nName: shapes\nVersion: 1.0\n")
    project.write("shapes-1.0.egg-info/top_level.txt", "shapes\n")
    result = project.build()
    assert (result.status, result.version, result.cached) == ("built", 1, ())
    return project


@pytest.fixture
def project(base, tmp_path):
    """A copy of it: what is kept of a project moves with it."""
    shutil.copytree(base.folder, tmp_path / "copy", symlinks=True)
    return Project(tmp_path / "copy")


def test_nothing_changed_and_nothing_is_done(project, monkeypatch):
    before = project.published()
    monkeypatch.setattr("builder.workers.jobs.run_jobs", None)  # no process is begun, no server
    result = project.build()
    assert (result.status, result.version, result.cached) == ("up to date", 1, STEPS)
    assert project.published() == before


def test_only_the_configuration_changes_and_back(project):
    project.write("models.yaml", _spec(batch={"max": 8, "preferred": [4]}))
    result = project.build()
    assert (result.status, result.version) == ("built", 2)
    assert result.cached == tuple(step for step in STEPS if step not in AFTER_CONFIG)
    assert project.preferred() == [4]
    one, two = ((project.versions / version / "model.onnx").read_bytes() for version in "12")
    assert one == two

    project.write("models.yaml", _spec())
    result = project.build()
    assert (result.status, result.version, result.cached) == ("built", 3, STEPS)  # published, and nothing else
    assert project.preferred() == [2]


@pytest.mark.parametrize("damage", ["deleted", "records edited"])
def test_what_is_kept_may_be_lost(project, damage):
    before = project.published()
    if damage == "deleted":
        shutil.rmtree(project.folder / ".build")
    else:
        records = project.folder / ".build/cache/models/models/m.json"
        records.write_text(records.read_text().replace("float32", "float16"))
    result = project.build()
    assert (result.status, result.version, result.cached) == ("up to date", 1, ())
    assert project.published() == before
    expected = ["m: what the cache holds of it is damaged and is made anew"] if damage != "deleted" else []
    assert [warning for warning in project.reporter.warnings if "cache" in warning] == expected


def test_a_corrupted_artifact_is_made_anew_and_right(project):
    kept = project.object_of("export")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    assert project.build().status == "up to date"  # nobody wanted it
    project.write("models.yaml", _spec(batch={"max": 8, "preferred": [4]}))
    result = project.build()
    assert result.cached == ("source", "samples", "reference", "parity")
    assert project.answer(2) == 2.0
    one, two = ((project.versions / version / "model.onnx").read_bytes() for version in "12")
    assert one == two
    assert project.object_of("export").read_bytes() == one


def test_corrupted_answers_are_asked_again(project):
    kept = project.object_of("reference")
    os.truncate(kept, kept.stat().st_size // 2)
    project.write("models.yaml", _spec(batch={"max": 8, "preferred": [4]}))
    assert project.build().cached == ("source", "samples", "export", "parity")
    golden = [np.load(project.versions / version / "golden.npz")["outputs/y/0"] for version in "12"]
    np.testing.assert_array_equal(*golden)


def test_a_cache_that_may_hold_nothing_is_no_error(project):
    assert project.cache().evict() > 0
    assert project.build(cache_size_bytes=0).status == "up to date"
    project.write("models.yaml", _spec(batch={"max": 8, "preferred": [4]}))
    result = project.build(cache_size_bytes=0)
    assert (result.status, result.version) == ("built", 2)
    assert result.cached == ("source", "samples", "parity")  # the files that went are made again, and nothing else
    assert project.cache().size_bytes() == 0


def test_a_file_that_the_code_opens_changes(project):
    project.write("factor.txt", "3")
    result = project.build()
    assert (result.status, result.version) == ("built", 2)
    assert project.answer(2) == 3.0
    assert "source" not in result.cached


def test_a_file_that_nobody_reads_changes_and_another_appears(project):
    project.write("README.md", "new")
    project.write("made.onnx", "what the code made last time")
    assert project.build().status == "up to date"
    project.write("README.md", "changed")
    assert project.build().status == "up to date"


def test_force_does_everything_and_publishes_nothing_anew(project):
    before = project.published()
    result = project.build(force=True)
    assert (result.status, result.version, result.cached) == ("up to date", 1, ())
    assert project.published() == before


def test_a_published_file_that_is_deleted_by_hand_is_published_again_without_an_export(project):
    (project.versions / "1" / "model.onnx").unlink()
    result = project.build()
    assert (result.status, result.version, result.cached) == ("built", 2, STEPS)
    assert project.answer(2) == 2.0
    assert versions_of(project.versions) == [1, 2]


def test_a_build_that_is_killed_after_the_export_is_gone_on_with(project, until):
    project.write("factor.txt", "5")
    with Running(project.folder / "models.yaml", mark=Mark()) as running:
        until(lambda: running.said("m: export  done") or running.process.poll() is not None, 60)
        os.kill(running.pid, signal.SIGKILL)
        assert running.process.wait(30) == -signal.SIGKILL, running.lines
    assert versions_of(project.versions) == [1]
    result = project.build()
    assert (result.status, result.version) == ("built", 2)
    assert set(STEPS[:4]) <= set(result.cached)
    assert project.answer(2) == 5.0
    assert list((project.folder / ".build" / "staging").iterdir()) == []


def test_a_file_that_changes_while_it_is_read_makes_a_result_that_is_used_and_not_kept(project):
    changes = """
        import subprocess, sys
        def path():
            factor = float((HERE / "factor.txt").read_text())
            change = f"open({str(HERE / 'factor.txt')!r}, 'a').write(' ')"
            subprocess.run([sys.executable, "-c", change], check=True)
            return write(factor)
        """
    project.write("make.py", MAKE.partition("def path")[0] + textwrap.dedent(changes))
    result = project.build()
    assert result.status == "up to date"
    warned = "m: source: factor.txt changed while it ran; its result is used, but not kept"
    assert warned in project.reporter.warnings
    assert project.cache().records("m")["source"][0].inputs != result  # the one from before is all there is
    assert len(project.cache().records("m")["source"]) == 1


# -- build-repo --plan ---------------------------------------------------------------------------------------------


def _plan(project):
    command = [sys.executable, "-m", "builder.cli", "--plan", str(project.folder / "models.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(str(project.folder), "PROJECT")


CACHED = """\
m
  source     cached  load make.py:path (onnx)
  samples    cached  make random samples
  reference  cached  ask the original module for the right answers
  export     cached  take the ONNX file as it is
  parity     cached  hold the artifact's answers against the original's
  config     cached  decide and write config.pbtxt
  contract   cached  hold config.pbtxt against the artifact
  serve      cached  load it in Triton, ask over HTTP and gRPC, one at a time and many at once
  publish    cached  version 1 is up to date
"""
CHANGED = """\
m
  source     run     load make.py:path (onnx)
                     because factor.txt changed
  samples    run     make random samples
                     because source will run
  reference  run     ask the original module for the right answers
                     because source and samples will run
  export     run     take the ONNX file as it is
                     because source and samples will run
  parity     run     hold the artifact's answers against the original's
                     because export and reference will run
  config     run     decide and write config.pbtxt
                     because export and samples will run
  contract   run     hold config.pbtxt against the artifact
                     because export and config will run
  serve      run     load it in Triton, ask over HTTP and gRPC, one at a time and many at once
                     because export and config and reference will run
  publish    run     as PROJECT/models/m/2, unless the newest version is the same
                     because its content may have changed
"""
CONFIGURED = """\
m
  source     cached  load make.py:path (onnx)
  samples    cached  make random samples
  reference  cached  ask the original module for the right answers
  export     run     take the ONNX file as it is
                     because what it made is no more in the cache
  parity     cached  hold the artifact's answers against the original's
  config     run     decide and write config.pbtxt
                     because the spec: batch.preferred [2] -> [4]
  contract   run     hold config.pbtxt against the artifact
                     because config will run
  serve      run     load it in Triton, ask over HTTP and gRPC, one at a time and many at once
                     because config will run
  publish    run     as PROJECT/models/m/2, unless the newest version is the same
                     because its content may have changed
"""


def test_the_plan_says_what_is_cached_and_what_will_run_and_why(project):
    assert _plan(project) == CACHED
    project.object_of("export").unlink()
    assert _plan(project) == CACHED  # nobody needs it
    project.write("models.yaml", _spec(batch={"max": 8, "preferred": [4]}))
    assert _plan(project) == CONFIGURED
    project.write("models.yaml", _spec())
    project.write("factor.txt", "3")
    assert _plan(project) == CHANGED
    project.write("factor.txt", "2")
    shutil.rmtree(project.versions)
    assert _plan(project).endswith(
        "  publish    run     as PROJECT/models/m/1\n                     because it is not in the repository\n"
    )


# -- lots ----------------------------------------------------------------------------------------------------------

LOTS = """
import random
import numpy as np
import torch

def load():
    return torch.nn.Linear(2, 2)

def samples():
    return [{"x": np.random.rand(2).astype("float32")}]

def score(predict):
    return random.random()
"""


def test_code_that_draws_lots_without_a_seed_gives_the_same_every_time(tmp_path):
    """Otherwise what is kept of one build does not fit what another one makes, and the export is blamed for it."""
    (tmp_path / "lots.py").write_text(LOTS)
    model = {"source": {"python": "lots.py:load"}, "samples": {"python": "lots.py:samples"}}
    model |= {"inputs": {"x": "float32[batch, 2]"}, "outputs": {"y": "float32[batch, 2]"}}
    (tmp_path / "models.yaml").write_text(_spec(**model, evaluate={"python": "lots.py:score"}))
    spec = load_spec(tmp_path / "models.yaml")
    seen = []
    for number in range(2):
        subject = Subject("m", spec, spec.models["m"], fingerprints_of(spec))
        work = Work(tmp_path / f"{number}/r", {"m": 1})
        made = Build(subject, Cache(tmp_path / ".build", "models"), work, lambda: None)
        with user_code(tmp_path):
            values = [made.loaded.module.weight.tolist(), made.samples.rows[0]["x"].tolist()]
            seen.append([*values, STAGES["baseline"](made, "").data["value"]])
    assert seen[0] == seen[1]
