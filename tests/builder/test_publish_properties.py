"""Any interleaving of publish, activate, rollback, keep and being killed keeps a repository whole.

A killed step runs in a forked process that ends without a word at the n-th line of our code that it executes.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from builder.errors import PublishError, RepositoryError
from builder.repository import durable
from builder.repository.managing import keep, rollback, verify_hashes
from builder.repository.publish import activate, newest_content, publish, withdraw
from builder.repository.published import ModelFolder
from serving.errors import UsageError

NAMES = ("m", "n")
BUILDER = Path(durable.__file__).parent
WRITERS = [
    *(str(BUILDER / name) for name in ("durable.py", "publish.py", "pruning.py", "places.py", "hosts.py")),
    shutil.__file__,
]
QUIET = ("sync", "sync_tree", "files_below", "_settle", "<genexpr>", "<dictcomp>", "<listcomp>")  # they change nothing
KILLED = 77
# At which line it dies, or not at all; beyond what it executes it comes to its end.
PUBLISH_DIES, SWAP_DIES, KEEP_DIES = (st.none() | st.integers(1, lines) for lines in (90, 25, 130))


def with_samples(stage):
    """What is staged has a sample for warmup, in a folder of its own."""

    def make(root, content, **of):
        files = {"model.onnx": content, "golden.npz": "golden", "labels.txt": "north", "warmup/0_0_x": "sample"}
        return stage(
            root, content, files=files, hosts={"numa": {"parameters": {"for": {"string_value": content}}}}, **of
        )

    return make


def snapshot(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def run_until_line(action, last_line):
    """Run something in a forked process that dies at a line that may write; False if it came to its end before."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _die_at(last_line)
            action()
            status = 0
        except (PublishError, RepositoryError, UsageError):
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def _die_at(last_line):
    left = last_line

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in WRITERS or frame.f_code.co_name in QUIET:
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                os._exit(KILLED)
        return trace

    sys.settrace(trace)


class Repository(RuleBasedStateMachine):
    """The repository on disk, and what must be true of it."""

    stage = None  # set by the test: ``staged_version``

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="repository-"))
        self.repository = self.root / "repository"
        self.repository.mkdir()
        self.versions = {name: {} for name in NAMES}  # every version that is there: what it consists of
        self.contents = {name: {} for name in NAMES}  # what was asked to be published as it
        self.served = dict.fromkeys(NAMES)
        self.waiting = dict.fromkeys(NAMES, False)  # the newest version is in place, and was never served
        self.edited = {name: [] for name in NAMES}
        self.count = 0

    def teardown(self):
        try:
            for name in NAMES:  # whatever happened: the next publish works
                self.serve_new(name)
            assert verify_hashes(self.repository).ok
        finally:
            shutil.rmtree(self.root)

    def serve_new(self, name):
        done = publish(self.staged(name, "the last", 8), self.repository)
        assert done.served == done.version == max(ModelFolder(self.repository, name).versions())

    def staged(self, name, content, batch):
        return type(self).stage(self.root, content, name=name, batch=batch)

    @initialize(versions=st.integers(0, 3))
    def begin(self, versions):
        for _ in range(versions):
            self.publish("m", False, 8, True, None)

    # -- what may happen ------------------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(NAMES),
        again=st.booleans(),
        batch=st.sampled_from([4, 8]),
        serve=st.booleans(),
        die=PUBLISH_DIES,
    )
    def publish(self, name, again, batch, serve, die):
        model = ModelFolder(self.repository, name)
        newest = max(self.versions[name], default=None)
        self.count += 1
        content = self.contents[name][newest][0] if again and newest is not None else f"content {self.count}"
        staged = self.staged(name, content, batch)
        same = newest is not None and self.contents[name][newest] == (content, batch)
        version = newest if same else max(model.numbers(), default=0) + 1
        is_served_now = (
            newest is None or (serve and (not same or self.waiting[name])) or (same and self.served[name] is None)
        )
        served = version if is_served_now else self.served[name]
        waits = (self.waiting[name] if same else True) and not is_served_now
        action = lambda: publish(staged, self.repository, activate=serve)  # noqa: E731
        if die is None:
            done = action()
            assert (done.version, done.fresh, done.served, done.pending) == (version, not same, served, waits)
        elif run_until_line(action, die):
            self.either(name, version, (content, batch), served)
            return
        self.now(name, version, (content, batch), served)
        self.waiting[name] = waits

    @precondition(lambda self: any(self.versions.values()))
    @rule(name=st.sampled_from(NAMES), version=st.none() | st.integers(1, 6), die=SWAP_DIES)
    def rollback(self, name, version, die):
        before = self.served[name]
        action = lambda: rollback(self.repository, name, version)  # noqa: E731
        below = [number for number in self.versions[name] if before is None or number < before]
        target = version if version is not None else max(below, default=None)
        if die is None:
            try:
                done = action()
            except (RepositoryError, UsageError):
                assert target is None or target not in self.versions[name]
                return
            assert done.version == target
        elif run_until_line(action, die):
            found = ModelFolder(self.repository, name).served()
            assert found in (before, target)
            self.served[name] = found
            self.waiting[name] = ModelFolder(self.repository, name).pending() is not None
            return
        if target in self.versions[name]:
            self.served[name] = target
            self.waiting[name] = False

    @rule(count=st.integers(1, 3), die=KEEP_DIES)
    def keep(self, count, die):
        action = lambda: keep(self.repository, count)  # noqa: E731
        was_killed = run_until_line(action, die) if die is not None else bool(action()) and False
        for name in NAMES:
            if not self.versions[name]:
                continue
            newest = sorted(self.versions[name])[-count:]
            there = ModelFolder(self.repository, name).versions()
            gone = set(self.versions[name]) - set(there)
            unknown = self.served[name] is None
            assert not gone & {*newest, self.served[name]}
            may_go = set(self.versions[name]) - {*newest, self.served[name]}
            assert was_killed or gone == (set() if unknown else may_go)
            for version in gone:
                del self.versions[name][version], self.contents[name][version]

    @rule(name=st.sampled_from(NAMES))
    def withdraw(self, name):
        withdraw(self.repository, name)
        self.waiting[name] = False

    @rule(name=st.sampled_from(NAMES), version=st.integers(1, 6), die=SWAP_DIES)
    def activate(self, name, version, die):
        if version not in self.versions[name]:
            with pytest.raises(PublishError):
                activate(self.repository, name, version)
            return
        action = lambda: activate(self.repository, name, version)  # noqa: E731
        if die is not None and run_until_line(action, die):
            found = ModelFolder(self.repository, name).served()
            assert found in (self.served[name], version)
            self.served[name] = found
            self.waiting[name] = ModelFolder(self.repository, name).pending() is not None
            return
        if die is None:
            action()
        self.served[name] = version
        self.waiting[name] = False

    @precondition(lambda self: self.versions["m"] and not self.edited["m"])
    @rule()
    def edit_by_hand(self, name="m"):
        text = f'name: "{name}"\nversion_policy {{ nonsense }}\n'
        (self.repository / name / "config.pbtxt").write_text(text)
        self.edited[name].append(text.encode())
        self.served[name] = None

    @precondition(lambda self: self.versions["n"])
    @rule(number=st.integers(1, 9))
    def a_strangers_version(self, number):
        folder = self.repository / "n" / str(number)
        if not folder.exists():
            folder.mkdir()
            (folder / "model.onnx").write_bytes(b"theirs")

    @rule()
    def lose_the_build_folder(self):
        shutil.rmtree(self.root / ".build", ignore_errors=True)

    # -- what must be true ------------------------------------------------------------------------------------------

    def either(self, name, version, content, served):
        """After a kill: as before or as after, or the version is there and waits to be served."""
        model = ModelFolder(self.repository, name)
        found = model.served()
        assert found in (self.served[name], served)
        if model.folder(version).exists():
            was_settled = version in self.versions[name] and not self.waiting[name]  # nothing may have happened
            if found != served and not was_settled:
                assert model.pending() == version
            self.now(name, version, content, found)
        self.waiting[name] = model.pending() is not None

    def now(self, name, version, content, served):
        if version not in self.versions[name]:
            self.versions[name][version] = snapshot(self.repository / name / str(version))
            self.contents[name][version] = content
        self.served[name] = served

    @invariant()
    def the_configuration_names_a_version_that_is_whole(self):
        for name in NAMES:
            if not self.versions[name]:
                assert not (self.repository / name).exists()
                continue
            config = (self.repository / name / "config.pbtxt").read_bytes()
            if self.served[name] is None:
                assert config == self.edited[name][-1]
                continue
            version = self.repository / name / str(self.served[name])
            assert config == (version / "config.pbtxt").read_bytes()
            manifest = json.loads((version / "manifest.json").read_text())
            there = {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()}
            assert there == {*manifest["files"], "manifest.json"}
            for file, entry in manifest["files"].items():
                assert hashlib.sha256((version / file).read_bytes()).hexdigest() == entry["sha256"]

    @invariant()
    def no_version_changes_or_is_lost(self):
        for name in NAMES:
            for version, files in self.versions[name].items():
                assert snapshot(self.repository / name / str(version)) == files

    @invariant()
    def every_version_folder_is_one_of_ours_or_a_strangers(self):
        for name in NAMES:
            for number in ModelFolder(self.repository, name).numbers():
                if number not in self.versions[name]:
                    assert snapshot(self.repository / name / str(number)) == {"model.onnx": b"theirs"}

    @invariant()
    def what_was_edited_by_hand_is_somewhere(self):
        for name in NAMES:
            if not self.edited[name]:
                continue
            there = [path.read_bytes() for path in (self.repository / name).glob("config.pbtxt*")]
            current = self.edited[name][-1]
            assert current in there

    @invariant()
    def a_polling_server_finds_nothing_but_models(self):
        for entry in self.repository.iterdir():
            if entry.is_dir():
                assert entry.name in NAMES
                names = {path.name for path in entry.iterdir()}
                names -= {"warmup", "configs"}  # which Triton passes over; the samples are in the versions
                assert all(name.isdigit() or name.startswith("config.pbtxt") for name in names)

    @invariant()
    def a_server_with_a_configuration_of_its_own_finds_a_version_that_is_whole(self):
        for name in NAMES:
            if self.versions[name] and self.served[name] is not None:
                own = (self.repository / name / "configs" / "numa.pbtxt").read_bytes()
                there = [
                    self.repository / name / str(number) / "configs" / "numa.pbtxt" for number in self.versions[name]
                ]
                assert own in [path.read_bytes() for path in there]

    @invariant()
    def the_way_to_the_samples_of_a_version_is_there(self):
        for name in NAMES:
            if self.served[name] is not None:
                model = self.repository / name
                assert (model / "warmup" / ".." / str(self.served[name]) / "warmup" / "0_0_x").read_text() == "sample"

    @invariant()
    def the_cheap_look_says_the_same(self):
        for name in NAMES:
            content = newest_content(self.repository, name)
            if not self.versions[name] or self.served[name] is None or self.waiting[name]:
                assert content is None
            else:
                assert (content.version, content.served) == (max(self.versions[name]), self.served[name])


@pytest.mark.slow
def test_any_interleaving_keeps_a_repository_whole(staged_anywhere):
    Repository.stage = staticmethod(with_samples(staged_anywhere))
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    with mock.patch.object(os, "fsync", lambda descriptor: None):  # a killed process loses nothing that it wrote
        run_state_machine_as_test(
            Repository,
            settings=settings(max_examples=30, stateful_step_count=14, deadline=None, suppress_health_check=checks),
        )


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.big), 4])
def test_killed_at_every_line_a_publish_is_as_before_or_as_after(tmp_path, staged_anywhere, new, step):
    """Every line that writes, or every fourth, one after the other: the next build completes what is left."""
    staged_anywhere = with_samples(staged_anywhere)
    outcomes = {"before": 0, "waits": 0, "after": 0}
    line, killed = 0, True
    with mock.patch.object(os, "fsync", lambda descriptor: None):
        original = tmp_path / "original"
        (original / "repository").mkdir(parents=True)
        if not new:
            publish(staged_anywhere(original, "one"), original / "repository")
        while killed:
            line += step
            root = tmp_path / "copy"
            shutil.copytree(original, root)
            repository = root / "repository"
            staged = staged_anywhere(root, "two")
            killed = run_until_line(lambda: publish(staged, repository), line)  # noqa: B023 - called at once
            outcomes[_outcome(repository, new)] += 1
            done = publish(staged_anywhere(root, "two"), repository)
            assert done.served == done.version == (1 if new else 2)
            own = (repository / "m" / str(done.version) / "configs" / "numa.pbtxt").read_bytes()
            assert (repository / "m" / "configs" / "numa.pbtxt").read_bytes() == own
            assert verify_hashes(repository).ok
            assert [entry.name for entry in repository.iterdir()] == ["m"]
            shutil.rmtree(root)
    assert line > 60
    assert outcomes["before"] > 20 // step
    assert outcomes["after"] > 5 // step
    assert new or outcomes["waits"] > 5 // step


def _outcome(repository, new):
    model = ModelFolder(repository, "m")
    before, version = (None, 1) if new else (1, 2)
    assert not model.path.exists() or verify_hashes(repository).ok
    if model.served() == version:
        return "after"
    assert model.served() == before
    if model.folder(version).exists():
        assert model.pending() == version
        return "waits"
    return "before"
