"""What the machine does meanwhile: from /proc, from a real Triton's metrics, and from those of one with two GPUs."""

import http.server
import os
import threading

import pytest

from perf import bench
from perf.errors import WorkloadError
from perf.result import Usage
from perf.usage import Meter, Ticks, cpu_seconds, metrics, ticks, usage_doubts

GPUS = """# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.5
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.7
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 1000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} 2e3
nv_gpu_power_usage{gpu_uuid="GPU-1"} 90.5
nv_cpu_utilization 0.25
nv_cpu_memory_used_bytes 4096
nv_inference_count{model="m",version="1"} 3
"""


@pytest.fixture
def endpoint():
    """An HTTP server with the metrics of a Triton with two GPUs, of which this machine has none."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(GPUS.encode())
            asked.set()

        def log_message(self, *arguments):
            pass

    asked = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics", asked
        server.shutdown()
        thread.join()


def test_gpus_and_the_machine_of_a_remote_server(endpoint, monkeypatch):
    url, asked = endpoint
    monkeypatch.setattr("perf.usage.INTERVAL_S", 0.01)
    with Meter(local=False, url=url) as meter:
        meter.begin()
        assert asked.wait(10)
        asked.clear()
        assert asked.wait(10)  # the first answer was taken by now
        meter.end()
    expected = Usage(cpu_percent=25.0, memory_bytes=4096, gpu_percent=60.0, gpu_memory_bytes=3000, gpu_power_w=90.5)
    assert meter.usage == expected
    assert metrics("http://127.0.0.1:1/metrics") is None


def test_this_machine_is_read_from_proc():
    before = cpu_seconds(os.getpid())
    with Meter(local=True, url=None) as meter:
        assert meter.usage is None  # nothing was measured yet
        meter.begin()
        while cpu_seconds(os.getpid()) < before + 0.1:
            pass
        meter.end()
    assert 0 < meter.usage.cpu_percent <= 100 and meter.usage.memory_bytes > 1 << 20
    assert meter.usage.gpu_percent is None
    assert cpu_seconds(2**22 + 1) is None and ticks().total > ticks().busy > 0


def meter_of(busy, throttled=0):
    meter = Meter(local=True, url=None)
    meter._before, meter._after = Ticks(0, 0, {"too hot": 5}), Ticks(busy, 100, {"too hot": 5 + throttled})
    return meter


def test_a_client_that_takes_the_machine_is_doubted():
    def codes(meter, **changes):
        given = {"local": True, "client_s": 1.0, "duration_s": 1.0, "cores": 2} | changes
        return [doubt.code for doubt in usage_doubts(meter, **given)]

    assert codes(meter_of(99)) == ["client_saturated"]  # half of the full machine is the client's
    assert codes(meter_of(99), client_s=0.5) == [] and codes(meter_of(90)) == []
    assert codes(meter_of(99), local=False, client_s=None) == ["client_saturated"]
    assert codes(meter_of(10, throttled=2)) == ["throttled"]


@pytest.mark.server
@pytest.mark.xdist_group("perf")
def test_a_measurement_says_what_the_machine_did(server):
    (point,) = bench(
        url=server.http_url, metrics_url=server.metrics_url, models=["scale"], concurrency=[2], seconds=0.6
    ).points
    assert 5 < point.usage.cpu_percent <= 100 and point.usage.memory_bytes > 1 << 24
    with pytest.raises(WorkloadError, match="no metrics at this address") as caught:
        bench(url=server.http_url, metrics_url=f"http://{server.http_url}/metrics", seconds=0.3)
    assert "--metrics-port" in caught.value.fix
    with pytest.raises(WorkloadError, match="not an address"):
        bench(url=server.http_url, metrics_url="file:///etc/passwd")
