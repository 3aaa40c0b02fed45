"""A run that is cut short (by a signal, by the death of its server) keeps what was measured: real tool, real server."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from perf.cli import app
from perf.compare import compare
from perf.history import History
from perf.references import Side, find_side
from perf.report import read_result
from serving.terminal import run
from tests.perf import results

pytestmark = pytest.mark.xdist_group("perf")

COMMAND = [sys.executable, "-c", "from perf.cli import main; main()"]


def result_in(folder):
    (file,) = folder.glob("*/result.json")
    return read_result(file)


@pytest.mark.server
@pytest.mark.parametrize(("number", "how"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_ends_it_with_what_was_measured(server, tmp_path, capsys, until, number, how):
    loads, out, history = "1,2,3,4,5,6,7,8", tmp_path / "out", tmp_path / "h.sqlite"
    asked = ["--url", server.http_url, "--model", "scale", "--concurrency", loads, "--seconds", "0.3"]
    asked += ["--output", str(out), "--history", str(history), "--format", "json", "--html", str(tmp_path / "p.html")]
    with subprocess.Popen([*COMMAND, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bench:
        try:
            until(lambda: list(out.glob("*/raw/scale/concurrency-2/stdout.txt")), timeout_s=60)
            bench.send_signal(number)
            printed, said = bench.communicate(timeout=60)
        finally:
            bench.kill()
    assert bench.returncode == 128 + number and "Traceback" not in said, said
    assert f"interrupted ({how}): what was measured so far is kept" in said
    kept = result_in(out)
    assert kept.interrupted == how and not kept.ok and 1 <= len(kept.points) < 8 and kept.points[0].ok
    assert kept.doubts[0].code == "interrupted"
    assert json.loads(printed)["id"] == kept.id and how in (tmp_path / "p.html").read_text()
    # The history has it, and says what it is.
    assert History(history).interrupted() == {"scale": 1}
    assert run(app, ["history", "--history", str(history)]) == 0
    assert capsys.readouterr().out == "scale: 1 run, 1 of them interrupted\n"
    assert run(app, ["history", "scale", "--history", str(history)]) == 0
    assert f"interrupted: {how}" in capsys.readouterr().out
    assert run(app, ["history", "scale", "--history", str(history), "--format", "json"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert [point["interrupted"] for point in points] == [how] * len(kept.points)


@pytest.mark.server
def test_a_server_that_is_killed_ends_it_with_what_was_measured(repository, tmp_path, capsys, until):
    one = tmp_path / "repository"
    one.mkdir()
    for name in ("scale", "nobatch"):
        (one / name).symlink_to(repository / name)
    out, history = tmp_path / "out", tmp_path / "h.sqlite"

    def kill():
        until(lambda: list(out.glob("*/raw/scale/concurrency-1-round-1/stdout.txt")), timeout_s=60)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "tritonserver" and str(one) in " ".join(child.cmdline()):
                    child.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    asked = ["--repository", str(one), "--concurrency", "1,2", "--seconds", "0.5", "--rounds", "2"]
    status = run(app, [*asked, "--output", str(out), "--history", str(history)])
    assert status == 1
    killer.join()
    printed, said = capsys.readouterr()
    assert "Traceback" not in said
    assert "interrupted (the server died): what was measured so far is kept" in said
    kept = result_in(out)
    assert kept.interrupted == "the server died"
    points = {(point.model, point.concurrency): point for point in kept.points}
    measured = points["nobatch", 1]
    assert measured.ok and "cut_short" in {doubt.code for doubt in measured.doubts}  # one round of two
    # What was left is not tried one after the other: it says what happened, and what the server said last.
    for key in (("scale", 2), ("nobatch", 2)):
        assert points[key].error["what"] == "the server died while it was measured"
        assert "SIGKILL" in points[key].error["got"] and "memory" in points[key].error["fix"]
    assert "the server died" in printed and History(history).interrupted() == {"scale": 1, "nobatch": 1}


def test_what_was_interrupted_is_compared_only_for_want_of_others(tmp_path):
    history = History(tmp_path / "h.sqlite")
    whole, cut = (results.result(results.point(rates=(100, 101, 99)), number=n, revision="a" * 40) for n in (1, 2))
    history.append(whole)
    history.append(cut.model_copy(update={"interrupted": "Ctrl-C"}))
    assert find_side("a" * 40, history).newest.id == whole.id  # though it is the older one
    side = find_side(cut.id, history)
    assert side.newest.interrupted == "Ctrl-C"
    other = Side("B", (results.result(results.point(rates=(100, 101, 99)), number=3),))
    assert any("A was interrupted (Ctrl-C)" in line for line in compare(side, other).caveats)
    old = json.loads((whole).model_dump_json(by_alias=True))
    del old["interrupted"]  # a file from before the field
    assert type(whole).model_validate(old).interrupted is None


def test_a_history_from_before_is_read_as_it_is(tmp_path, capsys):
    import sqlite3

    file = tmp_path / "h.sqlite"
    History(file).append(results.result(results.point(), number=1))
    with sqlite3.connect(file) as database:
        for trigger in ("runs_are_not_changed",):
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("UPDATE runs SET result = json_remove(result, '$.interrupted')")
    database.close()
    assert run(app, ["history", "digits", "--history", str(file)]) == 0
    assert "interrupted" not in capsys.readouterr().out


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 300 kB; there only for root."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is made with mount, which takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.server
def test_a_disk_that_fills(server, small_disk, tmp_path, capsys):
    asked = ["--url", server.http_url, "--model", "scale", "--concurrency", "1,8", "--seconds", "0.5"]
    history = tmp_path / "h.sqlite"
    status = run(app, [*asked, "--output", str(small_disk), "--history", str(history)])
    printed, said = capsys.readouterr()
    assert status == 1 and "Traceback" not in said
    assert "full" in printed or "No space left on device" in printed, printed + said
    assert "free space" in printed
    assert History(history).models() == {"scale": 1}  # what there is of it is kept where there is room
    full = small_disk / "h.sqlite"
    for path in small_disk.iterdir():
        shutil.rmtree(path)
    History(full).prepare()
    (small_disk / "rest").write_bytes(bytes(small_disk_free(small_disk)))
    status = run(app, [*asked, "--history", str(full)])
    printed, said = capsys.readouterr()
    assert status == 0 and "concurrency" in printed  # the run was paid for
    assert f"warning: this run is not in the history {full}: " in said and "full" in said


def small_disk_free(place):
    room = os.statvfs(place)
    return room.f_bavail * room.f_bsize
