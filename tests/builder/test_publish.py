"""Publishing: what appears, in what order, what is left alone, and every way it can be refused."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from builder.config import ModelConfig, parse
from builder.errors import ManifestError, PublishError
from builder.repository.managing import rollback, verify_hashes
from builder.repository.manifest import Manifest, load
from builder.repository.publish import (
    Content,
    Staged,
    activate,
    config_identity,
    newest_content,
    next_version,
    publish,
    versions_of,
    withdraw,
)

FILES = ["config.pbtxt", "golden.npz", "labels.txt", "manifest.json", "model.onnx"]
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


def test_a_policy_that_leaves_the_new_version_out_is_said(repository, staged):
    policy = {"specific": {"versions": [1]}}
    assert publish(staged(policy=policy), repository).warnings == ()
    assert publish(staged("other", policy=policy), repository).warnings == (
        "version 2 is not served: the spec's version_policy serves 1",
    )


@pytest.mark.parametrize("different", [True, False])
def test_several_processes_publish_at_once(repository, staged, different):
    made = [staged(f"content {number * different}") for number in range(6)]
    children = []
    for each in made:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                publish(each, repository)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
    assert versions_of(repository / "m") == (list(range(1, 7)) if different else [1])
    assert newest_content(repository, "m").served == (6 if different else 1)
    assert verify_hashes(repository).ok


def test_a_reader_finds_the_version_that_the_configuration_names_whole(repository, staged):
    publish(staged("0"), repository)
    stop, problems, seen = threading.Event(), [], set()

    def read():
        while not stop.is_set():
            text = (repository / "m/config.pbtxt").read_text()
            version = int(re.search(r"versions: \[(\d+)\]", text)[1])
            seen.add(version)
            folder = repository / "m" / str(version)
            manifest = json.loads((folder / "manifest.json").read_text())
            for name, entry in manifest["files"].items():
                if hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry["sha256"]:
                    problems.append((version, name))
            for number in versions_of(repository / "m"):
                if sorted(path.name for path in (repository / "m" / str(number)).iterdir()) != FILES:
                    problems.append(number)

    reader = threading.Thread(target=lambda: _collect(read, problems))
    reader.start()
    for number in range(1, 30):
        publish(staged(f"{number}"), repository)
        if number % 3 == 0:
            rollback(repository, "m")
    stop.set()
    reader.join()
    assert problems == []
    assert len(seen) > 3


def _collect(action, problems):
    try:
        action()
    except Exception as error:
        problems.append(error)


# -- the cheap look ---------------------------------------------------------------------------------------------------


def test_newest_content_knows_the_content_without_anything_heavy(repository, staged):
    made = staged()
    publish(made, repository)
    code = (
        "import sys; from pathlib import Path; from builder.repository.publish import newest_content;"
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
    assert content.same_as(Content(None, content.files, identity))


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
    assert data["copies"] == {"l.txt": "a/l.txt"}
    assert ModelConfig.from_dict(data, tmp_path) == config


def test_a_staged_version_can_be_sent_to_another_process(staged):
    import pickle

    made = staged()
    assert pickle.loads(pickle.dumps(made)) == made
    assert isinstance(made, Staged)
