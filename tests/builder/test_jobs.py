"""Models built side by side: how many at once, what each printed, and user code that does what nobody should."""

import importlib
import inspect
import os
import pickle
import pkgutil
import threading

import pytest
import yaml

import builder
import perf
import serving
from builder import build, load_spec
from builder.options import Options
from builder.workers import jobs
from builder.workers.jobs import Done, Job, default_jobs, run_jobs
from serving.errors import Problem, ProblemsError, TritonRepoError
from serving.progress import SILENT
from tests.builder.processes import Mark, Running, scale_onnx

GB = 1_000_000_000


def _jobs(*need_gb):
    return [Job(number, lambda repository, threads: None, int(need * GB)) for number, need in enumerate(need_gb)]


# -- how many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("processors", "memory_gb", "models", "expected"),
    [(8, 64, 100, 8), (8, 64, 3, 3), (8, 6.1, 100, 3), (8, 0.5, 100, 1), (1, 64, 100, 1)],
)
def test_as_many_at_once_as_processors_memory_and_models_allow(monkeypatch, processors, memory_gb, models, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    monkeypatch.setattr(jobs, "available_memory_bytes", lambda: int(memory_gb * GB))
    assert default_jobs(_jobs(*[1.5] * models)) == expected


class Work:
    """Stands in for the building of a model: it goes on until it is let go."""

    def __init__(self, monkeypatch, count):
        self.running, self.together = set(), []
        self.go = [threading.Event() for _ in range(count)]
        self.begun = threading.Condition()
        monkeypatch.setattr(jobs._Place, "_build", lambda place, job: self._build(job))

    def _build(self, job):
        with self.begun:
            self.running.add(job.key)
            self.together.append(frozenset(self.running))
            self.begun.notify_all()
        self.go[job.key].wait(30)
        with self.begun:
            self.running.discard(job.key)
            self.begun.notify_all()
        return Done(job)

    def wait_for(self, *keys):
        with self.begun:
            assert self.begun.wait_for(lambda: self.running == set(keys), timeout=30), self.running


def test_two_big_models_are_not_begun_together_when_memory_is_short(monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "available_memory_bytes", lambda: int(10 * GB))  # of which 8 may be taken
    todo, work, done = _jobs(5, 5, 2, 20), Work(monkeypatch, 4), []
    consumer = threading.Thread(
        target=lambda: done.extend(run_jobs(todo, places=3, preload=[], staging=tmp_path, reporter=SILENT))
    )
    consumer.start()
    work.wait_for(0, 2)  # the second big one waits, the small one does not
    work.go[2].set()
    work.wait_for(0)
    work.go[0].set()
    work.wait_for(1)
    work.go[1].set()
    work.wait_for(3)  # more than there is: alone, if at all
    work.go[3].set()
    consumer.join(30)
    assert [each.job.key for each in done] == [2, 0, 1, 3]
    assert not any({0, 1} <= together or (3 in together and len(together) > 1) for together in work.together)


# -- errors cross the border of the process ---------------------------------------------------------------------------


def _error_classes():
    for package in (builder, serving, perf):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".backends." not in module.name and not module.name.endswith(".backends"):
                importlib.import_module(module.name)
    found, todo = {TritonRepoError}, [TritonRepoError]
    while todo:
        for child in todo.pop().__subclasses__():
            if child not in found and not child.__module__.startswith("tests"):
                found.add(child)
                todo.append(child)
    return sorted(found, key=lambda kind: kind.__qualname__)


def _example(kind):
    if issubclass(kind, ProblemsError):
        return kind([Problem("one", "here", "a", "b", "c"), Problem("two")])
    values = {"failures": {"m": "no"}, "package": "p", "extra": "e", "needed_for": "to do it"}
    names = list(inspect.signature(kind.__init__).parameters)[1:]
    return kind(**{name: values.get(name, f"some {name}") for name in names})


def test_every_error_of_ours_arrives_whole():
    classes = _error_classes()
    assert len(classes) > 20
    for kind in classes:
        error = _example(kind)
        error.__cause__ = ValueError("of somebody else's")
        arrived = pickle.loads(pickle.dumps(error))
        assert type(arrived) is kind
        assert str(arrived) == str(error)
        assert arrived.as_dict() == error.as_dict()
        assert vars(arrived) == vars(error)
        assert arrived.exit_code == error.exit_code


# -- what the user's code does ----------------------------------------------------------------------------------------

BAD = """
import os, pathlib, signal, subprocess, sys, threading, time
HERE = pathlib.Path(__file__).parent

def good():
    return HERE / "scale.onnx"

def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)

def exits():
    print("goodbye", flush=True)
    os._exit(3)

def exits_well():
    os._exit(0)

def system_exit():
    sys.exit("enough")

def interrupts():
    raise KeyboardInterrupt

def memory():
    raise MemoryError("no room for 80 GB")

def killed():
    os.kill(os.getpid(), signal.SIGKILL)

def forks():
    if os.fork() == 0:
        time.sleep(600)          # one that stays
    os.fork()                    # one that goes on as if it were the build
    return good()

def leaves():
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    return good()

def threads():
    threading.Thread(target=time.sleep, args=[600]).start()
    return good()

def closes():
    for fd in (0, 1, 2):
        os.close(fd)
    return good()

def closes_all():
    os.closerange(0, 1000)
    time.sleep(600)

def replaces():
    sys.stdout = sys.stderr = None
    return good()

def prints():
    for number in range(60_000):
        print(f"line {number} of very many that nobody will ever want to read")
    return good()

def moves():
    os.chdir("/")
    os.environ.clear()
    return good()
"""
GOOD = ["good", "forks", "leaves", "threads", "closes", "replaces", "prints", "moves"]
CRASHES = {
    "segfault": ("crashed", "SIGSEGV"),
    "exits": ("ended before the build was done", "exit status 3"),
    "exits_well": ("ended before the build was done", "exit status 0"),
    "system_exit": ("source bad.py:system_exit raised", "SystemExit: enough"),
    "interrupts": ("raised KeyboardInterrupt, which ends a program", "KeyboardInterrupt"),
    "memory": ("building memory ran out of memory", "no room for 80 GB"),
    "killed": ("building killed ran out of memory", "SIGKILL"),
    "closes_all": ("ended before the build was done", "it closed its connection to build-repo"),
}


class Printed:
    """A reporter that remembers what the models printed."""

    def __init__(self):
        self.step, self.info, self.warn = SILENT.step, SILENT.info, SILENT.warn
        self.by_model = {}

    def output(self, text, *, of=""):
        self.by_model[of] = self.by_model.get(of, "") + text


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Every model of the two lists in one build: the report, what was printed, and the mark of the processes."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "bad.py").write_text(BAD)
    scale_onnx(folder / "scale.onnx", 2)
    models = {
        name: {"source": {"onnx": {"python": f"bad.py:{name}"}}, "batch": {"max": 4}} for name in [*GOOD, *CRASHES]
    }
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": models}, sort_keys=False))
    printed, mark = Printed(), Mark()
    with pytest.MonkeyPatch.context() as patch:
        mark.put(patch)
        report = build(load_spec(folder / "models.yaml"), reporter=printed, options=Options(jobs=2))
    return report, printed.by_model, mark


server = [pytest.mark.server, pytest.mark.xdist_group("test_jobs")]


class TestUserCode:
    pytestmark = server

    @pytest.mark.parametrize("name", GOOD)
    def test_code_that_takes_liberties_is_built(self, bad, name):
        result = next(result for result in bad[0].models if result.model == name)
        assert result.error is None
        assert result.status == "built"

    @pytest.mark.parametrize("name", CRASHES)
    def test_a_process_that_ends_fails_its_model_alone_and_says_how(self, bad, name):
        result = next(result for result in bad[0].models if result.model == name)
        what, got = CRASHES[name]
        assert (result.status, result.stage) == ("failed", "source")
        assert what in result.error.what
        assert got in result.error.got
        assert result.error.fix
        assert "Traceback" not in str(result.error)

    @pytest.mark.parametrize(("name", "function"), [("segfault", "segfault"), ("system_exit", "system_exit")])
    def test_the_line_of_the_users_code_is_named(self, bad, name, function):
        result = next(result for result in bad[0].models if result.model == name)
        assert "bad.py:" in result.error.where
        assert result.error.where.endswith(f"in {function}")

    def test_what_was_printed_before_the_end_is_shown(self, bad):
        assert bad[1]["exits"].startswith("goodbye")

    def test_very_much_output_is_cut_in_the_middle(self, bad):
        text = bad[1]["prints"]
        assert text.startswith("line 0 of")
        assert "bytes left out" in text
        assert "line 59999 of" in text
        assert len(text) < 1.1 * (1 << 20)

    def test_nothing_that_it_started_is_left(self, bad):
        assert bad[2].processes() == {}
        assert bad[2].segments() == []
        assert list((bad[0].repository.parent / ".build" / "staging").iterdir()) == []


CHATTY = """
import pathlib, time
HERE = pathlib.Path(__file__).parent

def _meet(mine, other):
    (HERE / mine).touch()
    while not (HERE / other).exists():
        time.sleep(0.01)

def load(me, other):
    for number in range(20):
        print(f"{number} from {me}", flush=True)
        _meet(f"{me}.{number}", f"{other}.{number}")
    return HERE / "scale.onnx"

def a():
    return load("a", "b")

def b():
    return load("b", "a")
"""


@pytest.mark.server
@pytest.mark.xdist_group("test_jobs")
def test_what_models_print_at_the_same_time_comes_in_one_block_each(tmp_path):
    (tmp_path / "chatty.py").write_text(CHATTY)
    scale_onnx(tmp_path / "scale.onnx", 2)
    models = {name: {"source": {"onnx": {"python": f"chatty.py:{name}"}}, "batch": {"max": 4}} for name in ("a", "b")}
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    with Running(tmp_path / "models.yaml", "--jobs", "2", mark=Mark()) as running:
        status, _ = running.wait(120)
        lines = running.lines
    assert status == 0, "\n".join(lines)
    for name in ("a", "b"):  # they did print at the same time: each waited for the other after every line
        first = lines.index(f"{name}: 0 from {name}")
        assert lines[first : first + 20] == [f"{name}: {number} from {name}" for number in range(20)]


@pytest.mark.server
@pytest.mark.xdist_group("test_jobs")
def test_the_process_that_starts_the_builds_is_replaced_when_it_dies(tmp_path):
    """As the kernel does when memory runs out; the model that was being built is the only one that fails."""
    (tmp_path / "bad.py").write_text(
        "import os, pathlib, signal, time\n"
        "def kills():\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(600)\n"
        "def good():\n    return pathlib.Path(__file__).parent / 'scale.onnx'\n"
    )
    scale_onnx(tmp_path / "scale.onnx", 2)
    models = {
        name: {"source": {"onnx": {"python": f"bad.py:{name}"}}, "batch": {"max": 4}} for name in ("kills", "good")
    }
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}, sort_keys=False))
    report = build(load_spec(tmp_path / "models.yaml"), options=Options(jobs=1))
    assert [result.status for result in report.models] == ["failed", "built"]
    assert "ran out of memory" in report.models[0].error.what
