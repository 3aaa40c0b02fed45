"""A repository listed, rolled back, pruned, compared and checked; what is not ours is named and left alone."""

import json
import os
import shutil

import pytest

from builder.errors import ManifestError, PublishError, RepositoryError
from builder.repository.managing import diff, keep, list_models, rollback, verify_hashes
from builder.repository.publish import activate, newest_content, publish
from serving.errors import UsageError


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path, staged):
    """Three versions of ``m``, one of ``n``."""
    folder = tmp_path / "repository"
    for content in ("one", "two", "three"):
        publish(staged(content), folder)
    publish(staged("else", name="n"), folder)
    return folder


def strange(repository):
    """What others may have put into a repository of ours."""
    (repository / "theirs/1").mkdir(parents=True)
    (repository / "theirs/1/model.py").write_text("theirs")
    (repository / "m/7").mkdir()
    (repository / "m/7/model.onnx").write_text("theirs")
    (repository / "m/notes.txt").write_text("theirs")
    (repository / "README.md").write_text("theirs")
    (repository / "link").symlink_to(repository / "m")
    return {name: data for name, data in contents(repository).items() if data == b"theirs"}


# -- list -------------------------------------------------------------------------------------------------------------


def test_a_listing_says_what_is_there_and_what_is_served(repository, staged):
    strange(repository)
    rollback(repository, "m")
    accuracy = {"metric": "data.py:accuracy", "reference": 0.9, "value": 0.875, "max_drop": 0.1}
    verification = {"parity": None, "accuracy": accuracy, "serve": None}
    publish(staged("more", name="n", verification=verification), repository)
    listing = list_models(repository)
    rows = [(row.model, row.version, row.served, row.accuracy) for row in listing.versions]
    assert rows == [
        ("m", 3, False, None), ("m", 2, True, None), ("m", 1, False, None), ("n", 2, True, 0.875), ("n", 1, False, None)
    ]  # fmt: skip
    assert (listing.versions[0].variant, listing.versions[0].precision) == ("onnx-fp32", "fp32")
    assert listing.versions[0].published.endswith("+00:00")
    assert listing.others == ("link", "m/7", "theirs")
    json.dumps(listing.as_dict())


def test_a_listing_says_what_is_unusual(repository, staged):
    publish(staged("four"), repository, activate=False)
    manifest = repository / "m/1/manifest.json"
    manifest.write_text(manifest.read_text().replace("fp32", "fp16"))
    (repository / "n/config.pbtxt").unlink()
    notes = {(row.model, row.version): row.note for row in list_models(repository).versions}
    assert notes["m", 4] == "waits to be served"
    assert notes["m", 1] == "manifest.json was edited by hand"
    assert notes["n", 1] == "config.pbtxt of the model is missing or not readable"
    served = {(row.model, row.version): row.served for row in list_models(repository).versions}
    assert served["m", 3] is True
    assert served["n", 1] is None


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", {3}),
        ("version_policy { latest { num_versions: 2 } }", {2, 3}),
        ("version_policy { all { } }", {1, 2, 3}),
        ("version_policy { specific { versions: [1, 2, 9] } }", {1, 2}),
        ("version_policy { specific { versions: [1] } }  # by hand", {1}),
        ("version_policy { nonsense }", None),
    ],
)
def test_what_is_served_is_what_the_configuration_in_place_says(repository, policy, served):
    (repository / "m/config.pbtxt").write_text(f'name: "m"\n{policy}\n')
    rows = [row for row in list_models(repository).versions if row.model == "m"]
    if served is None:
        assert {row.served for row in rows} == {None}
    else:
        assert {row.version for row in rows if row.served} == served


def test_a_repository_that_is_not_there(tmp_path):
    for action in (list_models, verify_hashes, lambda folder: keep(folder, 1), lambda folder: rollback(folder, "m")):
        with pytest.raises(UsageError, match="there is no such repository") as caught:
            action(tmp_path / "nothing")
        assert "--repository DIR" in caught.value.fix


# -- rollback ---------------------------------------------------------------------------------------------------------


def test_a_rollback_goes_one_version_down_and_again(repository):
    versions = {version: contents(repository / "m" / str(version)) for version in (1, 2, 3)}
    done = rollback(repository, "m")
    assert (done.before, done.version, done.warnings) == (3, 2, ())
    assert (repository / "m/config.pbtxt").read_bytes() == (repository / "m/2/config.pbtxt").read_bytes()
    assert rollback(repository, "m").version == 1
    with pytest.raises(RepositoryError, match="m has no version to roll back to") as caught:
        rollback(repository, "m")
    assert caught.value.got == "none"
    assert rollback(repository, "m", 3).version == 3
    assert {version: contents(repository / "m" / str(version)) for version in (1, 2, 3)} == versions


def test_a_rollback_to_what_is_served_changes_nothing(repository):
    before = (repository / "m/config.pbtxt").stat().st_ino
    done = rollback(repository, "m", 3)
    assert (done.before, done.version) == (3, 3)
    assert (repository / "m/config.pbtxt").stat().st_ino == before


def test_a_rollback_settles_what_waits(repository, staged):
    publish(staged("four"), repository, activate=False)
    assert rollback(repository, "m", 3).version == 3
    assert publish(staged("four"), repository).served == 3


HARMS = [
    (lambda version: (version / "model.onnx").write_bytes(b"TWO"), "model.onnx is not what was published"),
    (lambda version: (version / "labels.txt").unlink(), "labels.txt is missing"),
    (
        lambda version: (version / "manifest.json").write_text((version / "manifest.json").read_text() + " "),
        "",  # white space is no edit
    ),
    (
        lambda version: (version / "manifest.json").write_text(
            (version / "manifest.json").read_text().replace("fp32", "fp16")
        ),
        "manifest.json was edited by hand",
    ),
    (lambda version: (version / "manifest.json").unlink(), "build-repo did not publish it"),
    (
        lambda version: (version / "config.pbtxt").unlink(),
        "it has no config.pbtxt of its own: an earlier release published it",
    ),
]


@pytest.mark.parametrize(("harm", "why"), HARMS)
def test_a_version_that_is_not_as_it_was_published_is_passed_over(repository, harm, why):
    harm(repository / "m/2")
    done = rollback(repository, "m")
    assert done.version == (1 if why else 2)
    assert done.warnings == ((f"version 2 ({why}) was passed over",) if why else ())
    if why:
        rollback(repository, "m", 3)
        with pytest.raises(RepositoryError, match="version 2 of m cannot be served") as caught:
            rollback(repository, "m", 2)
        assert caught.value.got == why
        assert "what is served is as it was: version 3" in caught.value.fix


def test_a_rollback_under_the_users_own_version_policy_is_refused(tmp_path, staged):
    repository = tmp_path / "repository"
    for content in ("one", "two"):
        publish(staged(content, policy={"latest": {"num_versions": 1}}), repository)
    with pytest.raises(RepositoryError, match="no version to roll back to") as caught:
        rollback(repository, "m")
    assert "under which Triton would serve version 2" in caught.value.got
    publish(staged("three"), repository)
    with pytest.raises(RepositoryError, match="version 1 of m cannot be served"):
        rollback(repository, "m", 1)


def test_a_rollback_keeps_a_configuration_that_was_edited(repository):
    (repository / "m/config.pbtxt").write_text((repository / "m/3/config.pbtxt").read_text() + "# by hand\n")
    done = rollback(repository, "m")
    assert (done.before, done.version) == (3, 2)
    assert "was edited by hand: it is kept as config.pbtxt.edited" in done.warnings[0]
    assert (repository / "m/config.pbtxt.edited").read_text().endswith("# by hand\n")


@pytest.mark.parametrize(
    ("model", "version", "what", "more"),
    [
        ("mm", None, "has no model 'mm'", "did you mean m?"),
        ("theirs", None, "has no model 'theirs'", "did not make"),
        ("m", 9, "m has no version 9", "one of 1, 2, 3"),
        ("m", 9, "m has no version 9", "build-repo --list shows every version"),
    ],
)
def test_a_rollback_of_what_is_not_there(repository, model, version, what, more):
    (repository / "theirs").mkdir()
    with pytest.raises(UsageError, match=what) as caught:
        rollback(repository, model, version)
    assert more in str(caught.value)


# -- keep -------------------------------------------------------------------------------------------------------------


def test_the_newest_are_kept_and_the_rest_removed_whole(repository):
    others = strange(repository)
    size = sum(path.stat().st_size for path in (repository / "m/1").iterdir())
    done = keep(repository, 2)
    assert (done.removed, done.freed_bytes, done.left) == ((("m", 1),), size, ())
    assert [row.version for row in list_models(repository).versions if row.model == "m"] == [3, 2]
    assert others.items() <= contents(repository).items()
    assert list((repository.parent / ".build/trash").iterdir()) == []
    assert verify_hashes(repository).ok


def test_what_is_served_is_never_removed(repository):
    rollback(repository, "m", 1)
    assert keep(repository, 1).removed == (("m", 2),)
    assert newest_content(repository, "m").served == 1
    rollback(repository, "m", 3)
    assert keep(repository, 1).removed == (("m", 1),)


def test_what_a_configuration_by_hand_serves_is_never_removed(repository):
    (repository / "m/config.pbtxt").write_text('name: "m"\nversion_policy { specific { versions: [1] } }\n')
    assert keep(repository, 1).removed == (("m", 2),)
    (repository / "m/config.pbtxt").write_text("name: ")
    done = keep(repository, 1)
    assert done.removed == ()
    assert done.left == (("m", 1, "config.pbtxt does not say which version is served"),)


def test_what_is_not_wholly_ours_is_not_removed(repository):
    (repository / "m/1/notes.txt").write_text("theirs")
    manifest = repository / "m/2/manifest.json"
    manifest.write_text(manifest.read_text().replace("fp32", "fp16"))
    done = keep(repository, 1, ["m"])
    assert done.removed == ()
    assert done.left == (
        ("m", 1, "it holds notes.txt, which build-repo did not put there"),
        ("m", 2, "manifest.json was edited by hand"),
    )


def test_what_a_killed_run_left_in_the_trash_goes(repository):
    left = repository.parent / ".build/trash/m-0-abcd"
    left.mkdir(parents=True)
    keep(repository, 5)
    assert not left.exists()


def test_keeping_none_is_refused(repository):
    with pytest.raises(UsageError, match=r"too small(?s:.*)keep 1 at least"):
        keep(repository, 0)


def test_trash_that_cannot_be_made_is_said(repository):
    shutil.rmtree(repository.parent / ".build")
    (repository.parent / ".build").write_text("")
    with pytest.raises(PublishError, match="the old versions cannot be removed") as caught:
        keep(repository, 1)
    assert "what is served is as it was" in caught.value.fix
    assert len(list_models(repository).versions) == 4


# -- diff -------------------------------------------------------------------------------------------------------------


def test_a_diff_shows_what_differs_and_not_the_version_numbers(repository, staged):
    output = {"output": "y", "ok": True, "max_abs": 0.001, "max_rel": 0.0, "cosine": 1.0, "excess": 0.1}
    publish(
        staged(
            "three",
            batch=16,
            size_bytes=99,
            provenance={"git": {"commit": "a" * 40, "dirty": True}, "tools": {"torch": "2.14.0"}, "host": {}},
            verification={
                "parity": {"cases": ["batch 1"], "outputs": [output]},
                "accuracy": {"metric": "f", "reference": 1.0, "value": 0.5, "max_drop": 1.0},
                "serve": None,
            },
        ),
        repository,
    )
    found = diff(repository, "m", 3, 4)
    assert found.config[:2] == ("--- m/3/config.pbtxt", "+++ m/4/config.pbtxt")
    assert [line for line in found.config[2:] if line[0] in "+-"] == ["-max_batch_size: 8", "+max_batch_size: 16"]
    assert found.files == {}
    assert found.size_bytes == (5, 99)
    assert found.accuracy == (None, 0.5)
    assert found.parity == {"y": (None, 0.001)}
    assert found.facts == {"git commit": (None, "aaaaaaaaaaaa and changes"), "tool torch": ("2.13.0", "2.14.0")}
    assert not found.same
    json.dumps(found.as_dict())


def test_a_diff_of_files_alone(repository):
    found = diff(repository, "m", 1, 2)
    assert found.config == ()
    assert list(found.files) == ["model.onnx"]
    assert diff(repository, "m", 2, 2).same


def test_a_diff_of_what_is_not_there(repository):
    with pytest.raises(UsageError, match=r"m has no version 9(?s:.*)one of 1, 2, 3(?s:.*)build-repo --list shows"):
        diff(repository, "m", 1, 9)
    (repository / "m/1/manifest.json").write_text('{"model": "m"}')
    with pytest.raises(ManifestError, match="a layout that this release does not know"):
        diff(repository, "m", 1, 2)


# -- hashes -----------------------------------------------------------------------------------------------------------


def test_an_untouched_repository_verifies(repository):
    strange(repository)
    activate(repository, "m", 1)
    report = verify_hashes(repository)
    assert report.ok
    assert (report.models, report.versions, report.files) == (2, 4, 20)
    assert report.others == ("link", "m/7", "theirs")
    json.dumps(report.as_dict())


@pytest.mark.parametrize(
    ("harm", "found"),
    [
        (lambda m: (m / "1/model.onnx").write_bytes(b"ONE"), (1, "model.onnx", "is not what was published")),
        (lambda m: (m / "2/labels.txt").unlink(), (2, "labels.txt", "is missing")),
        (lambda m: (m / "2/more.txt").write_text(""), (2, "more.txt", "was not published with this version")),
        (lambda m: (m / "3/config.pbtxt").write_text(""), (3, "config.pbtxt", "is not what was published")),
        (
            lambda m: (m / "1/manifest.json").write_text((m / "1/manifest.json").read_text().replace("32", "16")),
            (1, "manifest.json", "manifest.json was edited by hand"),
        ),
        (
            lambda m: (m / "config.pbtxt").write_text("by hand"),
            (None, "config.pbtxt", "was edited by hand: it is that of none of its versions"),
        ),
        (lambda m: (m / "config.pbtxt").unlink(), (None, "config.pbtxt", "is missing")),
        (
            lambda m: [shutil.rmtree(m / "2"), shutil.copytree(m / "1", m / "2")],
            (2, "manifest.json", "says that it is version 1"),
        ),
    ],
)
def test_every_harm_is_found(repository, harm, found):
    harm(repository / "m")
    report = verify_hashes(repository)
    assert not report.ok
    mismatches = [(mismatch.version, mismatch.file, mismatch.problem) for mismatch in report.mismatches]
    assert found in mismatches
    assert {mismatch.model for mismatch in report.mismatches} == {"m"}


def test_a_file_of_the_same_size_and_time_is_found_by_its_hash(repository):
    path = repository / "m/1/model.onnx"
    times = path.stat()
    path.write_bytes(b"eno")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    mismatch = verify_hashes(repository).mismatches[0]
    assert mismatch.file == "model.onnx"
    assert len(mismatch.expected) == len(mismatch.got) == 64
