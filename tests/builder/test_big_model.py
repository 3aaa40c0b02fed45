"""A model above 2 GB, for real: `make big-test`. What can be shown with small files is in the other files here."""

import shutil
from pathlib import Path

import onnx
import pytest

from benchmarks.builder import big
from builder.golden import read_golden
from builder.numerics import compare
from serving import Client, Server

GIGABYTES = 2.2
LIMIT = 2.5
DISK_BYTES = 8_000_000_000
MEMORY_BYTES = 7_000_000_000

pytestmark = [pytest.mark.big, pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(1500)]


@pytest.fixture
def room(tmp_path):
    """An empty folder with enough disk below it, on a machine with enough memory; emptied afterwards."""
    free = shutil.disk_usage(tmp_path).free
    if free < DISK_BYTES:
        pytest.skip(f"{tmp_path} has {free / 1e9:.1f} GB free; this needs {DISK_BYTES / 1e9:.0f}")
    available = _available_memory_bytes()
    if available < MEMORY_BYTES:
        pytest.skip(f"{available / 1e9:.1f} GB of memory are available; this needs {MEMORY_BYTES / 1e9:.0f}")
    yield tmp_path
    shutil.rmtree(tmp_path)


def _available_memory_bytes():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def test_a_model_above_2_gb_is_built_in_little_memory_and_serves(room):
    results = list(big(room, GIGABYTES, 16))
    assert [result.source for result in results] == ["a torch module", "an existing ONNX file"]
    for result in results:
        assert result.size_bytes > 2**31
        assert [model["status"] for model in result.run.models] == ["built"]
        assert result.ratio < LIMIT, f"{result.source}: {result.run.stages}"
    versions = [room / place / "model_repository/wide/1" for place in ("module", "file")]
    for version in versions:
        assert (version / "model.onnx").stat().st_size < 1_000_000
        assert (version / "model.onnx.data").stat().st_size > 2**31
        onnx.checker.check_model(str(version / "model.onnx"))
    _answers_as_golden(versions[0])


def _answers_as_golden(version):
    """A server started on the published repository, as a user would."""
    with Server(version.parent.parent) as server, Client(f"http://{server.http_url}", timeout_s=120) as client:
        for case in read_golden(version / "golden.npz"):
            differences = compare(case.expected, client.infer("wide", case.inputs), "fp32")
            assert all(difference.ok for difference in differences), differences
