"""Publishing: what appears, in what order, what is left alone, and every way it can be refused."""

import errno
import json
import os
import subprocess
import sys

import pytest

from builder import durable
from builder.config import ModelConfig, parse
from builder.errors import ManifestError, PublishError
from builder.manifest import Manifest, load
from builder.publish import (
    Content,
    Staged,
    activate,
    config_identity,
    newest_content,
    next_version,
    publish,
    same_as,
    versions_of,
    withdraw,
)

HEADER = ("m: written by build-repo",)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "repository"


def test_a_new_model_has_everything_its_version_needs(repository, staged):
    published = publish(staged(), repository)
    assert (published.version, published.fresh, published.served, published.pending) == (1, True, 1, False)
    assert sorted(contents(repository)) == [
        "m/1/config.pbtxt",
        "m/1/golden.npz",
        "m/1/labels.txt",
        "m/1/manifest.json",
        "m/1/model.onnx",
        "m/config.pbtxt",
    ]
    config = parse((repository / "m/config.pbtxt").read_text())
    assert list(config.version_policy.specific.versions) == [1]
    assert config.output[0].label_filename == "1/labels.txt"


def test_a_version_is_added_and_the_configuration_in_place_is_that_versions_own(repository, staged):
    publish(staged(), repository)
    before = contents(repository / "m" / "1")
    assert next_version(repository / "m") == 2
    assert publish(staged("other"), repository).version == 2
    assert versions_of(repository / "m") == [1, 2]
    assert contents(repository / "m" / "1") == before
    assert (repository / "m/config.pbtxt").read_bytes() == (repository / "m/2/config.pbtxt").read_bytes()


def test_the_manifest_lists_every_file_with_hash_and_size(repository, staged):
    publish(staged(), repository)
    manifest = load(repository / "m" / "1")
    assert isinstance(manifest, Manifest)
    assert (manifest.schema_version, manifest.model, manifest.version) == (2, "m", 1)
    assert sorted(manifest.files) == ["config.pbtxt", "golden.npz", "labels.txt", "model.onnx"]
    for name, entry in manifest.files.items():
        path = repository / "m" / "1" / name
        assert (entry.size_bytes, entry.sha256) == (path.stat().st_size, durable_sha(path))
    assert manifest.config_sha256 == manifest.files["config.pbtxt"].sha256


def durable_sha(path):
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_the_same_content_is_not_published_again(repository, staged):
    publish(staged(), repository)
    before = contents(repository)
    published = publish(staged(), repository)
    assert (published.version, published.fresh, published.served) == (1, False, 1)
    assert contents(repository) == before


def test_the_configuration_alone_makes_a_new_version(repository, staged):
    publish(staged(), repository)
    assert publish(staged(batch=16), repository).version == 2


def test_a_user_who_sets_version_policy_keeps_it(repository, staged):
    publish(staged(policy={"latest": {"num_versions": 2}}), repository)
    publish(staged("other", policy={"latest": {"num_versions": 2}}), repository)
    config = parse((repository / "m/config.pbtxt").read_text())
    assert config.version_policy.latest.num_versions == 2
    assert config.output[0].label_filename == "2/labels.txt"
    assert load(repository / "m" / "2").version_policy == {"latest": {"num_versions": 2}}


# -- the cheap look ---------------------------------------------------------------------------------------------------


def test_newest_content_knows_the_content_without_anything_heavy(repository, staged):
    made = staged()
    publish(made, repository)
    code = (
        "import sys; from pathlib import Path; from builder.publish import newest_content;"
        f"c = newest_content(Path({str(repository)!r}), 'm'); print(c.version, c.served, c.signed, sorted(c.files));"
        "heavy = 'jinja2', 'google.protobuf', 'numpy', 'torch', 'tritonclient', 'onnx', 'rich';"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout.splitlines() == [
        "1 1 False ['config.pbtxt', 'golden.npz', 'labels.txt', 'model.onnx']",
        "[]",
    ], done.stderr
    content = newest_content(repository, "m")
    identity = config_identity(made.config, HEADER)
    assert content.same_as(Content(None, {"model.onnx": content.files["model.onnx"]}, identity))
    assert not content.same_as(Content(None, {"model.onnx": "0" * 64}, identity))
    assert not content.same_as(Content(None, {"model.onnx.data": content.files["model.onnx"]}, identity))
    assert not content.same_as(Content(None, {}, "0" * 64))
    assert same_as(repository, "m", content.files, made.config, HEADER) == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda model: (model / "1/model.onnx").unlink(),
        lambda model: (model / "1/labels.txt").write_text("longer than it was"),
        lambda model: (model / "config.pbtxt").write_text('name: "m"'),
        lambda model: (model / "config.pbtxt").unlink(),
        lambda model: (model / "1/config.pbtxt").unlink(),
        lambda model: (model / "1/manifest.json").write_text("{}"),
        lambda model: (model / "1/manifest.json").write_text("[1"),
        lambda model: (model / "1/manifest.json").write_text(
            (model / "1/manifest.json").read_text().replace('"fp32"', '"fp16"')
        ),
    ],
)
def test_newest_content_is_none_where_anything_is_not_as_it_was_left(repository, staged, harm):
    publish(staged(), repository)
    assert newest_content(repository, "m") is not None
    harm(repository / "m")
    assert newest_content(repository, "m") is None


def test_newest_content_of_nothing(repository, staged):
    assert newest_content(repository, "m") is None
    publish(staged(), repository)
    assert newest_content(repository, "n") is None


# -- rolled back, cut short, damaged ----------------------------------------------------------------------------------


def test_a_rollback_is_respected(repository, staged):
    publish(staged(), repository)
    publish(staged("other"), repository)
    activate(repository, "m", 1)
    content = newest_content(repository, "m")
    assert (content.version, content.served) == (2, 1)
    published = publish(staged("other"), repository)
    assert (published.version, published.fresh, published.served, published.pending) == (2, False, 1, False)
    assert publish(staged("third"), repository).served == 3


def test_a_version_that_waits_is_served_by_the_next_build(repository, staged):
    publish(staged(), repository)
    published = publish(staged("other"), repository, activate=False)
    assert (published.version, published.fresh, published.served, published.pending) == (2, True, 1, True)
    assert newest_content(repository, "m") is None
    again = publish(staged("other"), repository, activate=False)
    assert (again.version, again.fresh, again.served, again.pending) == (2, False, 1, True)
    last = publish(staged("other"), repository)
    assert (last.version, last.fresh, last.served, last.pending) == (2, False, 2, False)
    assert [entry.name for entry in repository.iterdir()] == ["m"]


def test_a_version_that_waits_can_be_activated_or_withdrawn(repository, staged):
    publish(staged(), repository)
    publish(staged("other"), repository, activate=False)
    withdraw(repository, "m")
    assert newest_content(repository, "m").served == 1
    assert publish(staged("other"), repository).served == 1
    publish(staged("third"), repository, activate=False)
    assert activate(repository, "m", 3) == []
    assert newest_content(repository, "m").served == 3


def test_a_damaged_version_is_left_and_a_new_one_published_beside_it(repository, staged):
    publish(staged(), repository)
    model = repository / "m/1/model.onnx"
    model.write_bytes(b"x" * model.stat().st_size)
    published = publish(staged(), repository)
    assert (published.version, published.served) == (2, 2)
    assert "version 1: model.onnx is not what was published" in published.warnings[0]


def test_an_edited_manifest_is_left_and_a_new_version_published_beside_it(repository, staged):
    publish(staged(), repository)
    manifest = repository / "m/1/manifest.json"
    manifest.write_text(manifest.read_text().replace('"fp32"', '"fp16"'))
    with pytest.raises(ManifestError, match=r"manifest\.json was edited by hand") as caught:
        load(repository / "m/1")
    assert "publishes a new version" in caught.value.fix
    published = publish(staged(), repository)
    assert published.version == 2
    assert "version 1: manifest.json was edited by hand" in published.warnings[0]


def test_an_edited_configuration_is_kept(repository, staged):
    publish(staged(), repository)
    for number, name in ((1, "config.pbtxt.edited"), (2, "config.pbtxt.edited.2")):
        (repository / "m/config.pbtxt").write_text(f'name: "m" # by hand {number}')
        published = publish(staged(f"other {number}"), repository)
        assert f"m/config.pbtxt was edited by hand: it is kept as {name}" in published.warnings[0]
        assert (repository / "m" / name).read_text() == f'name: "m" # by hand {number}'
    assert newest_content(repository, "m").served == 3


def test_an_edited_configuration_is_kept_where_there_are_no_links(repository, staged, monkeypatch):
    def no_links(self, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(type(repository), "hardlink_to", no_links)
    publish(staged(), repository)
    (repository / "m/config.pbtxt").write_text("by hand")
    publish(staged("other"), repository)
    assert (repository / "m/config.pbtxt.edited").read_text() == "by hand"


def test_a_repository_of_the_first_schema_goes_on(repository, staged):
    version = repository / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"old")
    (version.parent / "config.pbtxt").write_text('name: "m"')
    old = {
        "schema_version": 1, "model": "m", "version": 1, "variant": "onnx-fp32", "format": "onnx", "precision": "fp32",
        "created": "2026-01-01T00:00:00+00:00", "files": {"model.onnx": durable_sha(version / "model.onnx")},
        "size_bytes": 3, "config_sha256": durable_sha(version.parent / "config.pbtxt"), "inputs": {}, "outputs": {},
        "notes": [], "spec": {"file": "models.yaml", "sha256": "0" * 64, "model": {}}, "tools": {"torch": "2.13"},
        "host": {}, "samples": {"origin": "random", "count": 1, "real": False},
        "verification": {"parity": None, "accuracy": None, "serve": None}, "seconds": {},
    }  # fmt: skip
    (version / "manifest.json").write_text(json.dumps(old))
    manifest = load(version)
    assert (manifest.files["model.onnx"].size_bytes, manifest.provenance.tools) == (None, {"torch": "2.13"})
    assert newest_content(repository, "m") is None
    published = publish(staged(), repository)
    assert (published.version, published.served, published.warnings) == (2, 2, ())
    with pytest.raises(PublishError, match=r"version 1 of m has no config\.pbtxt of its own") as caught:
        activate(repository, "m", 1)
    assert "build it again" in caught.value.fix


# -- what is not ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda path: path.mkdir(), "a folder without a version"),
        (lambda path: (path / "1").mkdir(parents=True), "1/manifest.json is missing"),
        (
            lambda path: [
                (path / "1").mkdir(parents=True),
                (path / "1/manifest.json").write_text('{"model": "other"}'),
            ],
            "1/manifest.json names the model 'other'",
        ),
        (
            lambda path: [(path / "1").mkdir(parents=True), (path / "1/manifest.json").write_text("{")],
            "1/manifest.json cannot be read",
        ),
        (lambda path: path.write_text(""), "a file"),
        (lambda path: path.symlink_to("/nowhere"), "a link to /nowhere"),
    ],
)
def test_what_is_not_ours_is_not_touched(repository, staged, make, got):
    repository.mkdir()
    make(repository / "m")
    before = contents(repository)
    with pytest.raises(PublishError, match="was not made by build-repo, and is not touched") as caught:
        publish(staged(), repository)
    assert got in caught.value.got
    assert "another name in the spec" in caught.value.fix
    assert contents(repository) == before


def test_strange_things_inside_our_model_are_stepped_around(repository, staged):
    publish(staged(), repository)
    (repository / "m/7").mkdir()
    (repository / "m/7/model.onnx").write_bytes(b"theirs")
    (repository / "m/9").write_text("a file")
    (repository / "m/0012").mkdir()
    (repository / "m/notes").mkdir()
    assert publish(staged("other"), repository).version == 10
    assert (repository / "m/7/model.onnx").read_bytes() == b"theirs"
    assert newest_content(repository, "m").version == 10


# -- what the system refuses ------------------------------------------------------------------------------------------


def test_a_repository_that_is_a_file_is_refused(repository, staged):
    repository.write_text("")
    with pytest.raises(PublishError, match="m cannot be published") as caught:
        publish(staged(), repository)
    assert caught.value.expected == "a repository that is a folder"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EACCES, "permission to write to the repository"),
        (errno.EROFS, "not mounted read-only"),
        (errno.EXDEV, "on the same filesystem"),
        (errno.EIO, "a repository that can be written"),
    ],
)
@pytest.mark.parametrize("new", [True, False])
def test_what_the_system_refuses_is_said_and_leaves_everything_as_it_was(
    repository, staged, monkeypatch, code, expected, new
):
    repository.mkdir()
    if not new:
        publish(staged(), repository)
    before = contents(repository)

    def refuse(source, target):
        raise OSError(code, os.strerror(code), str(target))

    made = staged("other")
    with monkeypatch.context() as patch:
        patch.setattr(durable, "move", refuse)
        with pytest.raises(PublishError, match="m cannot be published") as caught:
            publish(made, repository)
    assert expected in caught.value.expected
    assert "what is served is as it was" in caught.value.fix
    assert contents(repository) == before
    assert publish(made, repository).fresh  # what was staged is still there


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_without_write_permission(repository, staged):
    publish(staged(), repository)
    repository.chmod(0o755)
    (repository / "m").chmod(0o755)
    before = contents(repository)
    made = staged("other")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for folder in (made.folder, *made.folder.iterdir()):
                os.chown(folder, 65534, 65534)
            made.folder.chmod(0o777)
            for parent in list(repository.parents)[:4]:
                parent.chmod(parent.stat().st_mode | 0o011)
            os.setgid(65534)
            os.setuid(65534)
            publish(made, repository)
        except PublishError as error:
            code = 0 if "permission to write" in error.expected and "Permission denied" in error.got else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert contents(repository) == before


@pytest.fixture
def small_disk(tmp_path):
    """A filesystem of 256 KiB, and only so many files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=200", "tmpfs", folder], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("free", [0, 4096, 8192, 12288])
def test_a_full_disk_loses_nothing(small_disk, staged, new, free):
    repository = small_disk / "repository"
    repository.mkdir()
    if not new:
        publish(staged(on=small_disk), repository)
    made = staged("other", on=small_disk)
    before = contents(repository)
    filler = small_disk / "filler"
    _fill(filler, small_disk, free)
    try:
        published = publish(made, repository)
    except PublishError as error:
        assert "space on the disk" in error.expected
        assert "build-repo --keep 2" in error.fix
        assert contents(repository) == before
    else:
        assert published.fresh
        assert free
    filler.unlink()
    made = made if made.folder.exists() else staged("other", on=small_disk)
    assert publish(made, repository).served == (1 if new else 2)
    assert newest_content(repository, "m") is not None


def _fill(filler, disk, free):
    with filler.open("wb", buffering=0) as stream:
        while (left := os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize) > free:
            try:
                stream.write(b"x" * min(left - free, 65536))
            except OSError:
                return


def test_who_may_read_the_repository_may_read_a_version(repository, staged):
    repository.mkdir()
    repository.chmod(0o755)
    made = staged()
    made.folder.chmod(0o700)
    (made.folder / "model.onnx").chmod(0o600)
    publish(made, repository)
    assert (repository / "m").stat().st_mode & 0o777 == 0o755
    assert (repository / "m/1").stat().st_mode & 0o777 == 0o755
    assert (repository / "m/1/model.onnx").stat().st_mode & 0o777 == 0o644


# -- the configuration of a version -----------------------------------------------------------------------------------


def test_a_configuration_is_pinned_once():
    config = ModelConfig({"name": "m", "max_batch_size": 0, "output": []})
    assert config.is_pinned
    pinned = config.at(3)
    assert list(pinned.tree) == ["name", "max_batch_size", "version_policy", "output"]
    assert pinned.tree["version_policy"] == {"specific": {"versions": [3]}}
    with pytest.raises(ValueError, match="that of version 3 already"):
        pinned.at(4)


def test_a_configuration_goes_into_plain_data_and_back(tmp_path):
    config = ModelConfig({"name": "m"}, {"name": "a comment"}, {"l.txt": tmp_path / "a" / "l.txt"})
    data = json.loads(json.dumps(config.as_dict(tmp_path)))
    assert data["labels"] == {"l.txt": "a/l.txt"}
    assert ModelConfig.from_dict(data, tmp_path) == config


def test_a_staged_version_can_be_sent_to_another_process(staged):
    import pickle

    made = staged()
    assert pickle.loads(pickle.dumps(made)) == made
    assert isinstance(made, Staged)
