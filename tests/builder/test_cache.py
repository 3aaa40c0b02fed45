"""The cache: what is kept comes back or is made anew; it is never wrong, too large or in the way."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from builder.errors import CacheError
from builder.incremental import cache as cache_module
from builder.incremental.cache import KEPT_PER_STEP, SCHEMA_VERSION, Cache, Record, digest_of

RECORD = Record({"spec:batch": "8"}, {"file:a.py": "1"}, "d1", {"model.onnx": "ab12"}, {"size": 3}, 1.5)


@pytest.fixture
def cache(tmp_path):
    made = Cache(tmp_path / ".build", "models")
    made.prepare()
    return made


def put(cache, tmp_path, content):
    path = tmp_path / "made"
    path.write_bytes(content)
    return cache.put(path)


def objects(cache):
    return sorted(path for path in cache.folder.joinpath("objects").rglob("*") if path.is_file())


def object_of(cache, digest):
    return cache.folder / "objects" / digest[:2] / digest


# -- objects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"weights", os.urandom((1 << 22) + 1)], ids=["empty", "small", "in pieces"])
def test_what_is_put_is_fetched(cache, tmp_path, content):
    digest = put(cache, tmp_path, content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert cache.has(digest)
    assert cache.fetch(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert [path.name for path in objects(cache)] == [digest]


def test_equal_files_are_kept_once(cache, tmp_path):
    assert put(cache, tmp_path, b"same") == put(cache, tmp_path, b"same")
    assert len(objects(cache)) == 1
    assert cache.size_bytes() == 4


def test_what_was_never_put_is_not_there(cache, tmp_path):
    assert not cache.has("0" * 64)
    assert not cache.fetch("0" * 64, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def a_folder(path):
    path.unlink()
    (path / "inside").mkdir(parents=True)


DAMAGES = {
    "a flipped bit": flipped,
    "cut short": lambda path: os.truncate(path, 3),
    "emptied": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a folder": a_folder,
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "gone": lambda path: path.unlink(),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_is_not_given_out_and_can_be_put_again(cache, tmp_path, damage):
    content = b"weights" * 100
    digest = put(cache, tmp_path, content)
    DAMAGES[damage](object_of(cache, digest))
    assert not cache.fetch(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    cache.evict()
    assert put(cache, tmp_path, content) == digest
    assert cache.fetch(digest, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content


def test_an_object_that_the_disk_cannot_read_is_made_anew(cache, tmp_path, monkeypatch):
    digest = put(cache, tmp_path, b"weights")

    class Broken:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            self.stream.close()

        def read(self, size):
            raise OSError(errno.EIO, "Input/output error")

    real = Path.open
    source = object_of(cache, digest)
    monkeypatch.setattr(Path, "open", lambda p, *a: Broken(real(p, *a)) if p == source else real(p, *a))
    assert not cache.fetch(digest, tmp_path / "out")
    monkeypatch.undo()
    assert not cache.has(digest)


def test_a_target_that_cannot_be_written_is_an_error_and_the_object_stays(cache, tmp_path):
    digest = put(cache, tmp_path, b"weights")
    with pytest.raises(CacheError, match="a file from the cache cannot be copied") as caught:
        cache.fetch(digest, tmp_path / "no such folder" / "out")
    assert "FileNotFoundError" in caught.value.got
    assert cache.has(digest)


def test_what_killed_builds_left_half_written_is_removed(cache, tmp_path):
    digest = put(cache, tmp_path, b"whole")
    left = [cache.folder / name for name in ("objects/.tmpabc", "models/models/.m.json.77", "files.json.77")]
    for path in left:
        path.write_bytes(b"half")
    Cache(tmp_path / ".build", "models").prepare()
    assert not any(path.exists() for path in left)
    assert cache.has(digest)


# -- eviction ------------------------------------------------------------------------------------------------------


def aged(cache, *digests):
    """Used one after another, the first the longest ago."""
    for age, digest in enumerate(digests):
        os.utime(object_of(cache, digest), (1_000_000 + age, 1_000_000 + age))


def limited(cache, limit_bytes):
    return Cache(cache.folder.parent, "models", limit_bytes)


def test_what_was_used_longest_ago_goes_first(cache, tmp_path):
    old, middle, new = (put(cache, tmp_path, bytes([n]) * 100) for n in range(3))
    aged(cache, old, middle, new)
    assert limited(cache, 300).evict() == 0
    assert limited(cache, 299).evict() == 100
    assert [cache.has(digest) for digest in (old, middle, new)] == [False, True, True]


@pytest.mark.parametrize("use", ["fetch", "touch", "put"])
def test_whatever_uses_an_object_makes_it_the_last_to_go(cache, tmp_path, use):
    first, second = put(cache, tmp_path, b"1" * 100), put(cache, tmp_path, b"2" * 100)
    aged(cache, first, second)
    if use == "fetch":
        assert cache.fetch(first, tmp_path / "out")
    elif use == "touch":
        cache.touch(first)
    else:
        put(cache, tmp_path, b"1" * 100)
    limited(cache, 100).evict()
    assert [cache.has(first), cache.has(second)] == [True, False]


def test_a_limit_of_nothing_keeps_nothing_but_the_records(cache, tmp_path):
    put(cache, tmp_path, b"x")
    cache.add("m", "export", RECORD)
    assert limited(cache, 0).evict() == 1
    assert objects(cache) == []
    assert limited(cache, 0).evict() == 0
    assert cache.records("m") == {"export": [RECORD]}


def test_strange_things_among_the_objects_are_no_error(cache, tmp_path):
    put(cache, tmp_path, b"x")
    (cache.folder / "objects/zz/a folder").mkdir(parents=True)
    (cache.folder / "objects/zz/link").symlink_to("nowhere")
    assert limited(cache, 0).evict() == 1


# -- records -------------------------------------------------------------------------------------------------------


def test_records_come_back_newest_first_and_no_more_than_a_few(cache):
    rows = [Record({"n": str(n)}, {}, f"d{n}") for n in range(KEPT_PER_STEP + 2)]
    for row in rows:
        cache.add("m", "export", row)
    cache.add("m", "config", RECORD)
    newest = rows[::-1][:KEPT_PER_STEP]
    assert cache.records("m") == {"export": newest, "config": [RECORD]}
    cache.add("m", "export", newest[2])  # used again
    assert cache.records("m")["export"] == [newest[2], newest[0], newest[1], *newest[3:]]
    assert cache.records("other") == {}


def test_models_of_two_repositories_are_kept_apart(cache):
    cache.add("m", "export", RECORD)
    assert Cache(cache.folder.parent, "other").records("m") == {}


def record_file(cache):
    return cache.folder / "models" / "models" / "m.json"


def edited(**changes):
    def edit(path):
        outer = json.loads(path.read_text())
        outer["records"]["export"][0] |= changes
        path.write_text(json.dumps(outer))

    return edit


def rehashed(change):
    """Edited by somebody who knows how the hash is taken."""

    def edit(path):
        outer = json.loads(path.read_text())
        change(outer)
        outer["sha256"] = digest_of(outer["records"])
        path.write_text(json.dumps(outer))

    return edit


RECORD_DAMAGES = {
    "emptied": lambda path: path.write_text(""),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 5),
    "a flipped bit": flipped,
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "no JSON": lambda path: path.write_text("records"),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "nothing in it": lambda path: path.write_text("{}"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "an edited digest": edited(digest="d2"),
    "an edited input": edited(inputs={}),
    "without its hash": lambda path: path.write_text(path.read_text().replace('"sha256"', '"sha1"')),
    "an unknown field": rehashed(lambda outer: outer["records"]["export"][0].update(extra=1)),
    "a missing field": rehashed(lambda outer: outer["records"]["export"][0].pop("digest")),
    "a step that is no list": rehashed(lambda outer: outer["records"].update(export=3)),
    "records that are none": rehashed(lambda outer: outer.update(records=[1])),
    "a version that is none": lambda path: path.write_text('{"schema_version": "new"}'),
    "a folder": a_folder,
}


@pytest.mark.parametrize("damage", RECORD_DAMAGES)
def test_damaged_records_are_none_and_are_written_anew(cache, damage):
    cache.add("m", "export", RECORD)
    RECORD_DAMAGES[damage](record_file(cache))
    assert cache.damaged("m")
    assert cache.records("m") == {}
    cache.add("m", "export", RECORD)
    assert not cache.damaged("m")
    assert cache.records("m") == {"export": [RECORD]}


@pytest.mark.parametrize("version", [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_records_of_another_release_are_none_but_not_damaged(cache, version):
    cache.add("m", "export", RECORD)
    rehashed(lambda outer: outer.update(schema_version=version))(record_file(cache))
    assert cache.records("m") == {}
    assert not cache.damaged("m")


def test_no_records_are_not_damaged(cache):
    assert not cache.damaged("m")


def test_a_write_that_is_cut_short_leaves_the_records_as_they_were(cache, monkeypatch):
    cache.add("m", "export", RECORD)

    def fails(self, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(CacheError, match="the cache cannot be written"):
        cache.add("m", "config", RECORD)
    monkeypatch.undo()
    assert cache.records("m") == {"export": [RECORD]}
    assert [path.name for path in record_file(cache).parent.iterdir()] == ["m.json"]


def test_digests_do_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})


# -- trouble -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_loses_nothing(small_disk, tmp_path):
    cache = Cache(small_disk / ".build", "models")
    cache.prepare()
    kept = put(cache, tmp_path, b"kept" * 1000)
    cache.add("m", "export", RECORD)
    with pytest.raises(CacheError, match="the cache cannot be written") as caught:
        put(cache, tmp_path, b"x" * 2_000_000)
    assert caught.value.expected == "room and permission to write"
    assert "No space left on device" in caught.value.got
    assert "--cache-size" in caught.value.fix
    assert [path.name for path in objects(cache)] == [kept]

    with (small_disk / "fills it").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(b"x" * 4096)
    with pytest.raises(CacheError, match="No space left on device"):
        cache.add("m", "config", Record({"x": "y" * 10_000}, {}, "d"))
    assert cache.records("m") == {"export": [RECORD]}
    with pytest.raises(CacheError, match="a file from the cache cannot be copied"):
        cache.fetch(kept, small_disk / "out")
    cache.files.save()

    (small_disk / "fills it").unlink()
    (small_disk / "out").unlink(missing_ok=True)
    assert cache.fetch(kept, small_disk / "out")
    cache.add("m", "config", RECORD)
    assert set(cache.records("m")) == {"export", "config"}


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / ".build").write_text("a file")
    with pytest.raises(CacheError, match="the cache cannot be made") as caught:
        Cache(tmp_path / ".build", "models").prepare()
    assert caught.value.where == str(tmp_path / ".build" / "cache")


def test_everything_may_be_deleted_in_the_middle(cache, tmp_path):
    digest = put(cache, tmp_path, b"weights")
    cache.add("m", "export", RECORD)
    shutil.rmtree(tmp_path / ".build")
    assert not cache.has(digest)
    assert not cache.fetch(digest, tmp_path / "out")
    assert cache.records("m") == {}
    assert cache.evict() == cache.size_bytes() == 0
    cache.touch(digest)
    cache.files.save()
    assert put(cache, tmp_path, b"weights") == digest
    cache.add("m", "export", RECORD)
    assert cache.records("m") == {"export": [RECORD]}
    shutil.rmtree(tmp_path / ".build")
    cache.add("m", "export", RECORD)
    cache.prepare()
    assert (tmp_path / ".build" / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert (tmp_path / ".build" / ".gitignore").read_text() == "*\n"


def _put_and_fetch(build_dir, file, times, failures):
    cache = Cache(build_dir, "models")
    for _ in range(times):
        digest = cache.put(file)
        if not cache.fetch(digest, file.with_name(f"out-{os.getpid()}")):
            failures.put(os.getpid())


def test_two_processes_that_put_the_same_object_do_not_disturb_each_other(cache, tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(100_000))
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    work = [context.Process(target=_put_and_fetch, args=(tmp_path / ".build", file, 200, failures)) for _ in range(2)]
    for process in work:
        process.start()
    for process in work:
        process.join()
    assert [process.exitcode for process in work] == [0, 0]
    assert failures.empty()
    assert len(objects(cache)) == 1
    assert cache_module._copy(objects(cache)[0], tmp_path / "copy") == objects(cache)[0].name
