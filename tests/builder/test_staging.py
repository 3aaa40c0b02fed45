"""The staging folder: there for as long as its process, never somebody else's, never left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import PublishError
from builder.workers.staging import staging_for, sweep

HOLD = """
import sys
from pathlib import Path
from builder.workers.staging import staging_for

with staging_for(Path(sys.argv[1])) as folder:
    (folder / "model.onnx").write_text("half written")
    print(folder, flush=True)
    sys.stdin.read()
"""


class Other:
    """Another process with a staging folder."""

    def __init__(self, build_dir):
        command = [sys.executable, "-c", HOLD, str(build_dir)]
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        self.folder = Path(self.process.stdout.readline().strip())

    def end(self, number):
        self.process.send_signal(number)
        self.process.communicate(timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.communicate(timeout=30)


def test_it_is_empty_beside_the_repository_and_gone_afterwards(tmp_path):
    with staging_for(tmp_path / ".build") as folder:
        assert folder.parent == tmp_path / ".build" / "staging"
        assert list(folder.iterdir()) == []
        (folder / "deep" / "er").mkdir(parents=True)
        (folder / "deep" / "er" / "model.onnx").write_text("x")
    assert list((tmp_path / ".build" / "staging").iterdir()) == []


def test_it_is_gone_after_a_failure_too(tmp_path):
    with pytest.raises(KeyError), staging_for(tmp_path / ".build") as folder:
        raise KeyError
    assert not folder.exists()


def test_two_in_one_process_have_folders_of_their_own(tmp_path):
    with staging_for(tmp_path) as one, staging_for(tmp_path) as two:
        assert one != two
        assert one.exists()


def test_what_a_killed_process_left_is_removed_and_what_a_running_one_has_is_not(tmp_path):
    with Other(tmp_path) as killed, Other(tmp_path) as running:
        killed.end(signal.SIGKILL)
        assert (killed.folder / "model.onnx").exists()
        with staging_for(tmp_path) as folder:
            assert sorted(folder.parent.iterdir()) == sorted([folder, running.folder])
        assert (running.folder / "model.onnx").exists()
        assert sweep(tmp_path) == []


def test_a_process_that_is_stopped_in_order_leaves_nothing(tmp_path):
    with Other(tmp_path) as other:
        other.end(signal.SIGINT)
        assert not other.folder.exists()


def test_what_is_no_staging_folder_is_let_be(tmp_path):
    """A link is not followed: what it leads to is not ours."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    base = tmp_path / ".build" / "staging"
    base.mkdir(parents=True)
    (base / "note.txt").write_text("x")
    (base / "link").symlink_to(outside)
    with staging_for(tmp_path / ".build"):
        pass
    assert (outside / "precious").exists()
    assert (base / "note.txt").exists()


@pytest.mark.parametrize("obstacle", [".build", ".build/staging"])
def test_where_it_cannot_be_made_it_says_so(tmp_path, obstacle):
    (tmp_path / obstacle).parent.mkdir(exist_ok=True)
    (tmp_path / obstacle).write_text("a file")
    with (
        pytest.raises(PublishError, match="the staging folder cannot be made") as caught,
        staging_for(tmp_path / ".build"),
    ):
        pass
    error = caught.value
    assert error.where == str(tmp_path / ".build" / "staging")
    assert error.expected == "a folder beside the repository that can be written"
    assert "Error" in error.got
    assert error.fix == "give the repository a parent folder that you may write to"


def test_there_is_nothing_to_sweep_where_there_is_no_folder(tmp_path):
    assert sweep(tmp_path / "nowhere") == []
