from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from serving.errors import RuntimeUnavailableError
from serving.provision import MARKER, cache_dir, content_key, location, problems, provisioned


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path / "cache"))


def install(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/file").write_text("content")
    (folder / "link").symlink_to("sub/file")
    with (location("calls", "log").with_suffix(".txt")).open("a") as calls:
        calls.write(f"{os.getpid()}\n")


def calls() -> int:
    return len(location("calls", "log").with_suffix(".txt").read_text().splitlines())


@pytest.fixture(autouse=True)
def _call_log(_own_cache: None) -> None:
    (cache_dir() / "calls").mkdir(parents=True)


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_REPO_CACHE", "/somewhere")
    assert cache_dir() == Path("/somewhere")
    monkeypatch.delenv("TRITON_REPO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/triton-repo")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_dir() == Path("/home/me/.cache/triton-repo")


def test_installs_once() -> None:
    folder = provisioned("thing", "1.0", install)
    assert (folder / "link").read_text() == "content"
    assert provisioned("thing", "1.0", install) == folder
    assert calls() == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == [".1.0.lock", "1.0"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "sub/file").unlink(),
        lambda folder: (folder / "sub/file").write_text("truncat"[:3]),
        lambda folder: (folder / MARKER).unlink(),
        lambda folder: (folder / MARKER).write_text("{"),
        lambda folder: (folder / "link").unlink(),
    ],
    ids=["file gone", "file changed", "marker gone", "marker broken", "link gone"],
)
def test_what_is_half_there_is_repaired(damage) -> None:
    folder = provisioned("thing", "1.0", install)
    damage(folder)
    assert problems(folder)
    assert provisioned("thing", "1.0", install) == folder
    assert problems(folder) == []
    assert calls() == 2


def test_bytecode_is_no_damage() -> None:
    folder = provisioned("thing", "1.0", install)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/x.pyc").write_text("x")
    assert problems(folder) == []


def test_a_whole_folder_needs_no_writing() -> None:
    folder = provisioned("thing", "1.0", install)
    (folder.parent / ".1.0.lock").unlink()
    provisioned("thing", "1.0", install)
    assert not (folder.parent / ".1.0.lock").exists()


def test_a_failed_installation_leaves_nothing() -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeUnavailableError("no network")

    with pytest.raises(RuntimeUnavailableError, match="no network"):
        provisioned("thing", "1.0", fail)
    assert [path.name for path in (cache_dir() / "thing").iterdir()] == [".1.0.lock"]


def test_the_leftover_of_a_killed_process_is_removed_and_a_neighbour_kept() -> None:
    parent = cache_dir() / "thing"
    for name in (".1.0.staging-dead", ".1.0.broken-dead", ".1.0.1.staging-alive"):
        (parent / name).mkdir(parents=True)
    provisioned("thing", "1.0", install)
    assert sorted(path.name for path in parent.iterdir()) == [".1.0.1.staging-alive", ".1.0.lock", "1.0"]


def _provide(barrier) -> None:
    barrier.wait()
    provisioned("thing", "1.0", install)


def test_many_processes_at_once_install_once() -> None:
    context = multiprocessing.get_context("spawn")  # of a process with gRPC's threads a fork may hang
    barrier = context.Barrier(4)
    processes = [context.Process(target=_provide, args=(barrier,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert calls() == 1


def test_an_unusable_cache_says_how_to_choose_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRITON_REPO_CACHE", str(tmp_path / "file"))
    with pytest.raises(RuntimeUnavailableError, match=r"the cache folder cannot be used: Not a directory") as caught:
        provisioned("thing", "1.0", install)
    assert "TRITON_REPO_CACHE" in caught.value.fix


def test_content_key_tells_parts_apart() -> None:
    assert content_key("ab", "c") != content_key("a", "bc")
    assert content_key("a", b"b") == content_key("a", "b")
