"""What publishing does not touch, and what it says where the system refuses: permissions, full disks, other people."""

import errno
import os
import subprocess

import pytest

from builder.errors import PublishError
from builder.repository import durable
from builder.repository.publish import newest_content, publish


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path):
    return tmp_path / "repository"


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


def test_a_version_is_never_overwritten(repository, staged, monkeypatch):
    publish(staged(), repository)
    before = contents(repository)
    monkeypatch.setattr("builder.repository.publish.next_version", lambda folder: 1)  # somebody was faster
    with pytest.raises(PublishError, match="m cannot be published") as caught:
        publish(staged("other"), repository)
    assert "a version is never overwritten" in caught.value.expected
    assert contents(repository) == before


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


def test_a_repository_that_is_a_mount_of_its_own(small_disk, staged):
    with pytest.raises(PublishError, match="m cannot be published") as caught:
        publish(staged(), small_disk)
    assert "on the same filesystem as the .build folder" in caught.value.expected
    assert "mount the folder above the repository" in caught.value.fix
    assert contents(small_disk) == {}
