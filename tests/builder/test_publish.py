import numpy as np
import pytest

from builder.errors import PublishError
from builder.golden import write_golden
from builder.publish import next_version, publish, staging_for, versions_of
from builder.verify.cases import Case, batch_sizes


def _staged(tmp_path, version, content=b"onnx"):
    staged = tmp_path / "staging" / "m"
    (staged / str(version)).mkdir(parents=True)
    (staged / str(version) / "model.onnx").write_bytes(content)
    (staged / "config.pbtxt").write_text(f'name: "m" # {version}')
    (staged / "labels.txt").write_text("a")
    return staged


def test_versions_are_added_and_the_configuration_replaced(tmp_path):
    repository = tmp_path / "repository"
    for version in (1, 2):
        assert next_version(repository / "m") == version
        published = publish(_staged(tmp_path, version), repository, version)
        assert published.path == repository / "m" / str(version)
    assert versions_of(repository / "m") == [1, 2]
    assert (repository / "m" / "config.pbtxt").read_text().endswith("# 2")
    assert (repository / "m" / "labels.txt").exists()


def test_a_version_is_never_overwritten(tmp_path):
    repository = tmp_path / "repository"
    publish(_staged(tmp_path, 1), repository, 1)
    with pytest.raises(PublishError, match="is there already"):
        publish(_staged(tmp_path, 1, b"other"), repository, 1)
    assert (repository / "m" / "1" / "model.onnx").read_bytes() == b"onnx"


def test_a_repository_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "repository").write_text("")
    with pytest.raises(PublishError, match="cannot be published"):
        publish(_staged(tmp_path, 1), tmp_path / "repository", 1)


def test_staging_is_outside_the_repository_and_goes_away(tmp_path):
    repository = tmp_path / "repository"
    with staging_for(repository) as staging:
        assert staging.is_dir()
        assert not staging.is_relative_to(repository)
    assert not staging.exists()


def test_golden_requests_have_the_same_bytes_every_time(tmp_path):
    case = Case("c", 1, {"x": np.zeros((1, 2), np.float32)}, {"y": np.array([["a"]], object)})
    assert write_golden(tmp_path / "a.npz", [case] * 20) == 8
    write_golden(tmp_path / "b.npz", [case] * 20)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz") as golden:
        assert golden["outputs/y/7"].tolist() == [[b"a"]]


@pytest.mark.parametrize(
    ("largest", "sizes"), [(0, [1]), (1, [1]), (2, [1, 2]), (3, [1, 3]), (8, [1, 5, 8]), (64, [1, 33, 64])]
)
def test_batches_of_one_an_odd_size_and_the_largest(largest, sizes):
    assert batch_sizes(largest) == sizes
