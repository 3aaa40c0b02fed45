"""Fingerprints of files, folders, packages and modules: equal only where the thing is."""

import hashlib
import json
import os
import sys

import pytest

from builder.incremental import file_memory, packages
from builder.incremental.fingerprint import ABSENT, FileMemory, Fingerprints
from builder.incremental.packages import installed, version_of


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that were hashed."""
    done = []

    def counted(path):
        done.append(path.name)
        return sha(path)

    monkeypatch.setattr(file_memory, "sha256_of", counted)
    return done


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(file_memory, "_SETTLED_NS", -1)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"0123456789")
    return path


# -- files ---------------------------------------------------------------------------------------------------------


def test_a_settled_file_is_read_once_over_runs(tmp_path, file, reads, settled):
    memory = FileMemory(tmp_path / "cache" / "files.json")
    assert memory.sha256(file) == memory.sha256(file) == sha(file)
    memory.save()
    assert FileMemory(tmp_path / "cache" / "files.json").sha256(file) == sha(file)
    assert reads == ["a.bin"]


def test_a_file_that_changed_moments_ago_is_read_again_every_time(tmp_path, file, reads):
    """A second change within the same tick of the file system's clock would not be seen otherwise."""
    memory = FileMemory(tmp_path / "files.json")
    assert memory.sha256(file) == memory.sha256(file)
    assert reads == ["a.bin", "a.bin"]
    memory.save()
    assert not (tmp_path / "files.json").exists()


def test_a_file_dated_into_the_past_that_changed_moments_ago_is_read_again(file, reads):
    """Its content is new though its time says otherwise: what is copied keeps the time of the original."""
    os.utime(file, (1, 1))
    memory = FileMemory(None)
    memory.sha256(file)
    memory.sha256(file)
    assert reads == ["a.bin", "a.bin"]


def test_what_is_settled_is_decided_before_it_is_read(file, reads, monkeypatch):
    """Reading 10 GB takes longer than settling does: a change right before would be forgotten."""
    clock = iter([file.stat().st_ctime_ns, file.stat().st_ctime_ns + 10**12])
    monkeypatch.setattr(file_memory.time, "time_ns", lambda: next(clock))
    memory = FileMemory(None)
    memory.sha256(file)
    memory.sha256(file)
    assert reads == ["a.bin", "a.bin"]


def test_a_change_that_hides_behind_the_same_size_and_time_is_seen(file, settled):
    memory = FileMemory(None)
    before, facts = memory.sha256(file), file.stat()
    file.write_bytes(b"9876543210")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert memory.sha256(file) == sha(file) != before


def test_another_file_in_its_place_is_seen_whatever_its_times(tmp_path, file, settled, monkeypatch):
    memory = FileMemory(None)
    memory.sha256(file)
    other = tmp_path / "b.bin"
    other.write_bytes(b"9876543210")
    times = file_memory.facts_of(file)[1:3]
    other.replace(file)
    real = file_memory.facts_of
    monkeypatch.setattr(
        file_memory, "facts_of", lambda path: (real(path)[0], *times, real(path)[3])
    )  # the inode is left
    assert memory.sha256(file) == sha(file)


def test_a_link_counts_as_what_it_leads_to(tmp_path, file, settled):
    link, memory = tmp_path / "link", FileMemory(None)
    link.symlink_to("a.bin")
    assert memory.sha256(link) == sha(file)
    (tmp_path / "b.bin").write_bytes(b"other")
    link.unlink()
    link.symlink_to("b.bin")
    assert memory.sha256(link) == sha(tmp_path / "b.bin")
    link.unlink()
    link.symlink_to("nowhere")
    assert memory.sha256(link) == ABSENT


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '"x"', "\x00\xff", '{"%s": 3}', '{"%s": [1]}', '{"%s": {}}']
)
def test_a_damaged_memory_is_an_empty_one(tmp_path, file, content, settled):
    kept = tmp_path / "files.json"
    kept.write_bytes(content.replace("%s", str(file)).encode("latin-1"))
    memory = FileMemory(kept)
    assert memory.sha256(file) == sha(file)
    memory.save()
    assert json.loads(kept.read_text())[str(file)][4] == sha(file)


def test_a_memory_that_cannot_be_written_costs_time_only(tmp_path, file, settled):
    (tmp_path / "files.json").mkdir()
    memory = FileMemory(tmp_path / "files.json")
    assert memory.sha256(file) == sha(file)
    memory.save()
    assert list(tmp_path.glob("files.json?*")) == []


def test_what_is_no_file_has_no_content(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    memory = FileMemory(None)
    assert memory.sha256(tmp_path / "pipe") == memory.sha256(tmp_path / "missing") == ABSENT


# -- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda f: (f / "deep/a").write_text("changed"), True),
        (lambda f: (f / "deep/b").write_text("new"), True),
        (lambda f: (f / "deep/a").rename(f / "a"), True),
        (lambda f: (f / "deep/a").unlink(), True),
        (lambda f: (f / "linked/x").write_text("changed"), True),
        (lambda f: (f / "__pycache__").mkdir(), False),
        (lambda f: (f / ".git/HEAD").write_text("another commit"), False),
        (lambda f: (f / "env/lib").write_text("a newer library"), False),
        (lambda f: (f / "ours/model.onnx").write_text("published"), False),
        (lambda f: os.utime(f / "deep/a"), False),
    ],
    ids=["content", "new", "moved", "gone", "behind a link", "byte code", "git", "environment", "ours", "touched"],
)
def test_a_folder_is_all_that_is_in_it_but_for_what_is_none_of_it(tmp_path, change, seen):
    folder = tmp_path / "folder"
    for name in ("deep/a", ".git/HEAD", "env/pyvenv.cfg", "env/lib", "ours/x", "../outside/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "deep/round").symlink_to(folder)  # a circle ends
    before = Fingerprints(tmp_path, ours=[folder / "ours"]).of("file:folder")
    change(folder)
    assert (Fingerprints(tmp_path, ours=[folder / "ours"]).of("file:folder") != before) is seen


# -- fingerprints --------------------------------------------------------------------------------------------------


def test_names_are_relative_below_the_folder_so_that_a_project_can_be_moved(tmp_path):
    now = Fingerprints(tmp_path / "a")
    assert now.named("file", tmp_path / "a" / "x" / "y") == "file:x/y"
    assert now.named("folder", tmp_path / "a") == "folder:."
    assert now.named("file", tmp_path / "ab") == f"file:{tmp_path}/ab"


def test_a_fingerprint_is_taken_once_and_knows_whether_it_still_holds(tmp_path, file):
    now = Fingerprints(tmp_path)
    keys = ["file:a.bin", "file:missing", "folder:.", "file:folder", "env:HOME", "package:numpy", "cwd:", "spec:x"]
    (tmp_path / "folder").mkdir()
    for key in keys[:-1]:
        now.of(key)
    assert all(now.holds(key) for key in keys)
    before = now.of("file:a.bin")
    file.write_bytes(b"0123456789+")
    (tmp_path / "missing").touch()
    (tmp_path / "folder" / "x").touch()
    assert now.of("file:a.bin") == before
    assert [key for key in keys if not now.holds(key)] == keys[:4]


def test_a_variable_is_what_it_was_when_the_fingerprints_were_begun_and_its_value_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "hunter2")
    now = Fingerprints(tmp_path)
    monkeypatch.setenv("TOKEN", "changed by the user's code")
    assert now.of("env:TOKEN") == hashlib.sha256(b"hunter2").hexdigest()[:16]
    assert now.of("env:NOT_SET_ANYWHERE") == ABSENT
    monkeypatch.setenv("TOKEN", "")
    assert Fingerprints(tmp_path).of("env:TOKEN") != ABSENT


@pytest.mark.parametrize(
    ("files", "place"),
    [
        (["a/name.py"], "a/name.py"),
        (["a/name/__init__.py", "a/name.py"], "a/name"),
        (["a/name/x.py", "b/name.py"], "{b}/name.py"),  # a folder without __init__.py gives way
        (["a/name/x.py", "b/name/y.py"], "a/name"),
        (["b/name.so"], "{b}/name.so"),
        (["b/site-packages/name.py"], "installed"),
        ([], ABSENT),
    ],
)
def test_a_module_is_found_where_python_finds_it(tmp_path, monkeypatch, files, place):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for entry in ("b/site-packages", "b"):
        monkeypatch.syspath_prepend(str(tmp_path / entry))
    found = Fingerprints(tmp_path / "a").of("module:name")
    assert found.removeprefix("a/") == place.format(b=tmp_path / "b").removeprefix("a/")


def test_a_module_of_the_standard_library_is_pythons(tmp_path):
    assert Fingerprints(tmp_path).of("module:json") == "python"


def test_folders_that_the_users_code_puts_on_the_path_do_not_count(tmp_path, monkeypatch):
    """The process that plans does not run that code, and must find the same."""
    now = Fingerprints(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "name.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "b"))
    assert now.of("module:name") == ABSENT


# -- packages ------------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path, monkeypatch):
    """``site(name, **files)``: a place for packages, first on the path; the table is read anew."""

    def add(name, **files):
        (tmp_path / "site" / name).mkdir(parents=True)
        for file, content in files.items():
            (tmp_path / "site" / name / file).write_text(content)
        installed.cache_clear()

    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), str(tmp_path / "nowhere"), *sys.path])
    yield add
    installed.cache_clear()


def test_versions_are_read_from_the_names_of_folders(site):
    site("Some_Package-1.2.3+local.dist-info")
    site("old.thing-0.9-py3.10.egg-info")
    site("without.egg-info")
    assert version_of("some-package") == version_of("Some.Package") == "1.2.3+local"
    assert version_of("old-thing") == "0.9"
    assert version_of("without") == ""
    assert version_of("not-there") == "absent"


def test_what_lies_in_the_specs_own_folder_is_no_installed_package(site, tmp_path):
    """It is on the path when build-repo is started there by ``python -m``, and not when by its own name."""
    site("mine-1.0.egg-info")
    assert version_of("mine") == "1.0"
    assert Fingerprints(tmp_path / "site").of("package:mine") == ABSENT
    assert Fingerprints(tmp_path).of("package:mine") == "1.0"


def test_the_first_of_two_versions_on_the_path_counts(site):
    site("numpy-0.0.1.dist-info")
    assert version_of("numpy") == "0.0.1"


def test_a_package_installed_from_a_folder_of_the_users_counts_by_its_files(site, tmp_path):
    """Installed again under the same version it has other files: its list says so."""
    url = '{"dir_info": {"editable": true}, "url": "file:///home/me/thing"}'
    site("thing-1.0.dist-info", **{"direct_url.json": url, "RECORD": "thing.py,sha256=abc,10\n"})
    before = version_of("thing")
    assert before.startswith("1.0+")
    (tmp_path / "site" / "thing-1.0.dist-info" / "RECORD").write_text("thing.py,sha256=def,10\n")
    installed.cache_clear()
    assert version_of("thing") != before
    (tmp_path / "site" / "thing-1.0.dist-info" / "RECORD").unlink()
    installed.cache_clear()
    assert version_of("thing") == "1.0"


@pytest.mark.parametrize("name", ["onnxruntime_gpu", "onnxruntime_openvino"])
def test_onnx_runtime_counts_under_every_name_it_has(site, name):
    before = version_of("onnxruntime")
    site(f"{name}-9.9.dist-info")
    assert version_of("onnxruntime") == f"{before}, {packages.normal(name)} 9.9"
