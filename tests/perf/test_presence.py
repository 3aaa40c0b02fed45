"""Two benchmarks at once, a disk that is full, and shared memory that is not there."""

import subprocess
import sys

import pytest

from perf import bench
from perf.errors import WorkloadError
from perf.presence import Presence
from perf.workload import workload_from

OTHER = "from perf.presence import Presence\nwith Presence():\n    print('here', flush=True)\n    input()\n"


def test_another_benchmark_is_seen_as_long_as_it_runs():
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "here\n"
        with Presence() as presence:
            assert other.pid in presence.look()
            other.communicate("\n")
            (doubt,) = presence.doubts()  # it is gone, but it was there
            assert doubt.code == "two_benches" and str(other.pid) in doubt.message
    with Presence() as presence:
        assert other.pid not in presence.look()


def test_cuda_shared_memory_needs_a_gpu(monkeypatch):
    monkeypatch.setattr("perf.workload.Path.glob", lambda self, pattern: iter(()))
    with pytest.raises(WorkloadError, match="CUDA shared memory without a GPU") as caught:
        workload_from(url="h:1", shared_memory="cuda")
    assert "--shared-memory system" in caught.value.fix


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_a_full_disk_is_an_error_of_the_point(server, tmp_path, monkeypatch):
    import errno

    from perf.schedule import Schedule

    def full(self, path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Schedule, "write", full)
    result = bench(url=server.http_url, models=["scale"], concurrency=[1], rate=[20], seconds=0.3, output=tmp_path)
    measured, failed = result.points
    assert measured.ok and not result.ok
    assert failed.error["what"] == "the files of a measurement cannot be written"
    assert failed.error["got"] == "No space left on device" and "--output" in failed.error["fix"]
    assert (result.folder / "result.json").is_file()
