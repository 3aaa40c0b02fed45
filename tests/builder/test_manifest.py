"""The manifest: its provenance, its layout as a JSON schema, and that an edit by hand is told from white space."""

import json
import os
import subprocess
from types import SimpleNamespace

import pytest

from builder.errors import ManifestError
from builder.repository.manifest import Manifest, completed, digest_of, load, manifest_of, parse
from builder.repository.provenance import _git_state, git_state
from builder.repository.publish import publish
from builder.variants import VARIANTS


def _git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path):
    """A git work tree with a spec in a folder of it."""
    _git_state.cache_clear()
    folder = tmp_path / "tree" / "models"
    folder.mkdir(parents=True)
    (folder / "models.yaml").write_text("models: {}")
    _git(folder.parent, "init", "-q")
    _git(folder.parent, "add", ".")
    _git(folder.parent, "commit", "-q", "-m", "first")
    return folder


def test_the_commit_of_the_specs_folder(tree):
    state = git_state(tree)
    assert (state.commit, state.dirty) == (_git(tree, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("models.yaml", True),
        ("new.py", True),
        ("ignored.log", False),
        ("model_repository/m/config.pbtxt", False),
        (".build/cache/x", False),
        ("../elsewhere.py", False),
    ],
)
def test_what_makes_it_dirty(tree, path, dirty):
    (tree.parent / ".git/info/exclude").write_text("*.log\n")
    (tree / path).parent.mkdir(parents=True, exist_ok=True)
    (tree / path).write_text("changed")
    assert git_state(tree, without=[tree / "model_repository", tree / ".build"]).dirty is dirty


def test_a_folder_in_no_work_tree_or_without_a_commit(tmp_path, tree):
    assert git_state(tmp_path) is None
    _git(tmp_path, "init", "-q")
    _git_state.cache_clear()
    assert git_state(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give the folder to somebody else")
def test_a_work_tree_of_somebody_else_is_read_too(tree, monkeypatch):
    for path in (tree.parent, tree, tree.parent / ".git"):
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("HOME", str(tree))  # no safe.directory of this machine's
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    refused = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True)
    assert "dubious ownership" in refused.stderr
    assert git_state(tree) is not None


def test_variables_of_git_around_us_do_not_mislead(tree, monkeypatch):
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert git_state(tree) is not None


def test_no_git_is_no_error(tree, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_state(tree) is None


def test_the_schema_describes_every_field():
    schema = Manifest.model_json_schema()
    assert {"schema_version", "model", "version", "files", "spec", "provenance", "verification"} <= set(
        schema["properties"]
    )
    assert schema["properties"]["files"]["description"]
    json.dumps(schema)


@pytest.fixture
def data(tmp_path, staged):
    publish(staged(), tmp_path / "repository")
    return json.loads((tmp_path / "repository/m/1/manifest.json").read_text())


def test_a_manifest_is_what_its_class_describes(data):
    known = set(Manifest.model_fields)
    assert set(data) == known
    assert parse(data, "here").model_dump(mode="json") == data


def test_order_and_white_space_are_no_edit(data):
    assert parse(dict(reversed(data.items())), "here") == parse(json.loads(json.dumps(data, indent=8)), "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp16"}, "was edited by hand"),
        ({"digest": None}, "was edited by hand"),
        ({"schema_version": 3}, "a layout that this release does not know"),
        ({"schema_version": "2"}, "a layout that this release does not know"),
    ],
)
def test_an_edit_is_told(data, change, message):
    with pytest.raises(ManifestError, match=message) as caught:
        parse(data | change, "m/1/manifest.json")
    assert caught.value.where == "m/1/manifest.json"


def test_a_manifest_with_a_right_digest_and_wrong_content_is_refused(data):
    data["files"] = {"model.onnx": {"size_bytes": 1}}
    data["digest"] = digest_of(data)
    with pytest.raises(ManifestError, match="is not what build-repo writes") as caught:
        parse(data, "here")
    assert caught.value.where == "here, files.model.onnx.sha256"
    assert caught.value.expected
    assert "bring back the file as it was published" in caught.value.fix


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "\xff", "[" * 100_000])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ManifestError) as caught:
        load(tmp_path)
    assert caught.value.fix


def test_text_of_any_kind_goes_into_a_manifest(data):
    notes = ["ü \u2028 \ud800", "a\nb"]
    known = {key: value for key, value in data.items() if key not in ("version", "published", "digest")}
    rest = {key: known.pop(key) for key in ("files", "config_sha256", "config_identity", "version_policy", "signature")}
    text = completed({**known, "notes": notes}, version=1, **rest)
    assert parse(json.loads(text), "here").notes == notes


def test_what_is_known_before_publishing_comes_from_the_stages(tree):
    _git_state.cache_clear()
    spec = SimpleNamespace(path=tree / "models.yaml", folder=tree, repository=tree / "out")
    model = SimpleNamespace(served="onnx-fp32", model_dump=lambda **options: {"source": {}})
    interface = SimpleNamespace(inputs=(), outputs=())
    artifact = SimpleNamespace(
        format="onnx", precision="fp32", size_bytes=3, interface=interface, notes=("n",), tools={"torch": "2.13"}
    )
    kept = {
        "samples": SimpleNamespace(data={"origin": "o", "count": 1, "real": True, "sizes": {}}, seconds=0.12345),
        "parity": SimpleNamespace(data={"cases": ["batch 1"], "outputs": []}, seconds=1.0),
    }
    known = manifest_of("m", spec, model, VARIANTS["onnx-fp32"], artifact, kept)
    assert known["samples"] == {"origin": "o", "count": 1, "real": True}
    assert known["verification"] == {
        "parity": {"cases": ["batch 1"], "outputs": []},
        "accuracy": None,
        "agreement": None,
        "serve": None,
    }
    assert (known["recipe"], known["search"], known["engine"], known["choice"]) == (None, None, None, None)
    verdict = {"scores": {"cosine": 0.9}, "limits": {"cosine": 0.99}, "failed": ["too low"], "margin": -1.0}
    kept_of_int8 = kept | {
        "accuracy": SimpleNamespace(data={"agreement": verdict, "allowed": ["too low"]}, seconds=1.0),
        "precision": SimpleNamespace(data={"recipe": {"method": "static"}, "search": {"complete": True}}, seconds=2.0),
        "choose": SimpleNamespace(data={"variant": "onnx-int8", "table": "a table"}, seconds=3.0),
    }
    int8 = manifest_of("m", spec, model, VARIANTS["onnx-int8"], artifact, kept_of_int8)
    assert (int8["variant"], int8["choice"]) == ("onnx-int8", {"variant": "onnx-int8"})
    assert int8["verification"]["agreement"] == verdict and int8["verification"]["accuracy"] is None
    assert int8["accuracy_drop_allowed"] == ["too low"] and int8["recipe"] == {"method": "static"}
    assert known["seconds"] == {"samples": 0.123, "parity": 1.0}
    assert known["provenance"]["git"] == {"commit": _git(tree, "rev-parse", "HEAD"), "dirty": False}
