"""The history: whole runs, two writers, killed writers, files that are something else."""

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from perf.cli import app
from perf.cli_results import keep
from perf.commits import commit_of
from perf.history import History, HistoryError
from perf.history_text import to_markdown, to_text
from perf.machines import differences, facts_that_count, fingerprint
from perf.result import Doubt
from perf.revision import revision
from serving.errors import UsageError
from serving.terminal import run
from tests.perf.results import point, result

ROOT = Path(__file__).parents[2]
WRITER = """
import sys
from perf.history import History
from tests.perf.results import point, result
history, first, count = History(__import__("pathlib").Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
points = [point(f"model{n}", rates=(100.0, 101.0)) for n in range(4)]
for number in range(first, first + count):
    history.append(result(*points, number=number))
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept" / "history.sqlite"


def start_writer(path, first, count):
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def stored(path):
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return dict(database.execute("SELECT run, COUNT(*) FROM points GROUP BY run").fetchall())


def test_a_run_is_kept_whole_and_read_back(path):
    doubts = (Doubt(code="unstable", message="m"), Doubt(code="few_requests", message="m"))
    one = result(point(rates=(99.0, 100.0, 101.0), doubts=doubts), number=1, revision="a" * 40)
    history = History(path)
    assert history.append(one) and not history.append(one)
    assert history.by_id("0001") == [one] == history.by_revision("aaaa")
    (row,) = history.rows("digits")
    assert (row.inferences_per_s, row.p50_us, row.p99_us, row.requests) == (100.0, 1000.0, 2000.0, 2000)
    low, high = row.interval
    assert low < 99 and high > 101 and row.doubts == ("unstable", "few_requests")
    assert str(row.load) == "concurrency 4" and row.p99_interval_us[0] < 2000 < row.p99_interval_us[1]


def test_what_could_not_be_measured_is_kept_too(path):
    failed = point(inferences_per_s=None, latency=None, rates=(1.0,), error={"what": "no answer"})
    broken = result(failed)
    unready = broken.models[0].model_copy(update={"model": "other", "points": (), "error": {"what": "not ready"}})
    History(path).append(broken.model_copy(update={"models": (*broken.models, unready)}))
    assert [History(path).rows(name)[0].error for name in ("digits", "other")] == ["no answer", "not ready"]
    assert "failed" in to_text(History(path).rows("digits"))


def test_it_only_grows(path):
    History(path).append(result(point()))
    with sqlite3.connect(path) as database:
        for statement in ("DELETE FROM runs", "UPDATE points SET p99_us = 1", "DELETE FROM points"):
            with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                database.execute(statement)


def test_two_writers_at_once_lose_nothing(path):
    writers = [start_writer(path, first, 12) for first in (0, 100)]
    for writer in writers:
        _, error = writer.communicate(timeout=60)
        assert writer.returncode == 0, error
    runs = stored(path)
    assert len(runs) == 24 and set(runs.values()) == {4}


def test_a_killed_writer_leaves_whole_runs(path):
    writer = start_writer(path, 0, 10_000)
    said = [writer.stdout.readline() for _ in range(5)]
    writer.send_signal(signal.SIGKILL)
    said += writer.communicate(timeout=60)[0].splitlines()
    runs = stored(path)
    assert len(runs) >= len(said) >= 5 and set(runs.values()) == {4}
    History(path).append(result(point(), number=60_000))  # and it can be written again
    assert len(History(path).by_id("ea60")) == 1


@pytest.mark.parametrize("content", [b"text, no database", b"", "other", "newer"])
def test_a_file_that_is_something_else(path, content):
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE runs (id)" if content == "other" else "PRAGMA user_version = 0")
        if content == "newer":
            History(path).append(result(point()))
            with sqlite3.connect(path) as database:
                database.execute("PRAGMA user_version = 9")
    if content == b"":  # an empty file is an empty history: what a killed first writer may leave
        assert History(path).append(result(point()))
        return
    before = path.read_bytes()
    with pytest.raises(HistoryError) as caught:
        History(path).append(result(point()))
    assert "--history FILE" in caught.value.fix and path.read_bytes() == before
    words = {b"text, no database": "not a database", "other": "something else", "newer": "newer release (form 9"}
    assert words[content] in caught.value.got


def test_a_place_that_cannot_be_written_is_said_before_measuring(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "history.sqlite"
    assert run(app, ["--url", "127.0.0.1:1", "--history", str(place)]) == 1
    error = capsys.readouterr().err
    assert "the history cannot be used" in error and str(place) in error and "no server" not in error


def test_a_run_that_cannot_be_kept_is_a_warning(tmp_path, capsys):
    path = tmp_path / "h.sqlite"
    path.write_text("no database at all")
    keep(result(point()), History(path))
    assert "warning: this run is not in the history" in capsys.readouterr().err


def test_no_history_and_no_such_model(path, capsys):
    assert run(app, ["history", "digits", "--history", str(path)]) == 1
    assert "there is no history here" in capsys.readouterr().err
    History(path).append(result(point()))
    with pytest.raises(UsageError) as caught:
        History(path).rows("digit")
    assert caught.value.fix == "did you mean digits?" and "digits" in caught.value.expected


def test_revisions_are_found_by_their_first_digits_and_changed_ones_only_when_asked(path):
    history = History(path)
    history.append(result(point(), number=1, revision="abc1" * 10))
    history.append(result(point(), number=2, revision="abc1" * 10 + "+"))
    history.append(result(point(), number=3, revision="abc1" * 10))
    assert [each.id[:4] for each in history.by_revision("abc1a")] == ["0003", "0001"]
    assert [each.id[:4] for each in history.by_revision("abc1+")] == ["0002"]
    assert history.by_revision("%") == []


def test_figures_over_time(path, capsys):
    history = History(path)
    history.append(result(point(), point(concurrency=16), number=1, revision="f" * 40))
    history.append(result(point(rates=(90.0, 100.0, 110.0)), number=2, revision="e" * 40 + "+"))
    history.append(result(point(rates=(200.0,)), number=3, machine={"cores_usable": 8}))
    assert run(app, ["history", "digits", "--history", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["load", "when", "(UTC)"]
    assert [line.split()[4:7] for line in lines[1:4]] == [
        ["fffffffff", "00010001", "A"],
        ["eeeeeeeee+", "00020002", "A"],
        ["-", "00030003", "B"],
    ]
    assert lines[4] == "" and lines[5].startswith("concurrency 16") and "100 [" in lines[2]
    assert "machine B: processor A CPU, cores 8, memory 24 GiB" in "\n".join(lines)
    assert "not to be compared" in lines[-1]
    assert run(app, ["history", "digits", "--runs", "1", "--history", str(path), "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["points"]
    assert (row["run"][:4], row["concurrency"], row["inferences_per_s"]) == ("0003", 4, 200.0)
    rows = [line for line in to_markdown(history.rows("digits")).splitlines() if line.startswith("|")]
    assert len(rows) == 6 and len({line.count("|") for line in rows}) == 1
    assert run(app, ["history", "--history", str(path)]) == 0
    assert capsys.readouterr().out == "digits: 3 runs\n"


def test_unlike_machines():
    one, same = (
        result(point()),
        result(point(), machine={"hostname": "there", "kernel": "6.2", "memory_bytes": 24 * 2**30 - 5}),
    )
    other = result(point(), machine={"gpus": ["NVIDIA H200"], "memory_bytes": 8 * 2**30})
    assert differences(one, same) == [] and fingerprint(facts_that_count(one)) == fingerprint(facts_that_count(same))
    found = [str(each) for each in differences(one, other)]
    assert found == ["memory: 24 GiB and 8 GiB", "GPU: none and NVIDIA H200"]
    assert fingerprint(facts_that_count(one)) != fingerprint(facts_that_count(other))


def test_the_revision_of_a_checkout(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)

    assert revision(tmp_path) is None
    git("init", "-q", "-b", "main")
    assert revision(tmp_path) is None
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "HEAD").stdout.strip()
    (tmp_path / "untracked").write_text("")
    assert revision(tmp_path) == commit == commit_of("main", tmp_path)
    (tmp_path / "file").write_text("two")
    assert revision(tmp_path) == commit + "+"
    assert commit_of("--help", tmp_path) is None and commit_of("nothing", tmp_path) is None


def test_the_default_command_stands_beside_the_others(capsys):
    for arguments in (["--help"], ["measure", "--help"]):
        assert run(app, arguments) == 0
        assert "--concurrency" in capsys.readouterr().out
    assert run(app, ["--help"]) == 0
    text = capsys.readouterr().out
    assert "[WORKLOAD] | COMMAND" in text and "history" in text and "--no-history" in text
    assert run(app, ["history", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: bench-repo history" in text and "--runs" in text and "--concurrency" not in text
    assert run(app, ["nothing.yaml"]) == 2
    assert "the workload cannot be read" in capsys.readouterr().err
    assert run(app, ["--nonsense"]) == 2
