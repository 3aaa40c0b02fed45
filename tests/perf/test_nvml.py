"""GPUs by NVML: how its answers become figures and doubts, and what is said where there is no driver or no package.

There is no GPU where these tests were written: the library's answers are stood in for, its names and units are its own.
"""

import sys
import threading
from types import SimpleNamespace

import pytest

from perf import nvml
from perf.environment import machine_facts
from perf.nvml import NOT_INSTALLED, Gpus, Look, gpus_here, nvml_fact, open_gpus, slowdowns, visible
from perf.usage import Meter, usage_doubts


class NVMLError(Exception):
    pass


def library(*gpus):
    """The functions of pynvml that are asked, for GPUs described by dictionaries; what one lacks is not supported."""
    looked = threading.Event()

    def answer(name):
        def ask(gpu, *arguments):
            if name not in gpu:
                raise NVMLError("Not Supported")
            return gpu[name]

        return ask

    def count():
        return len(gpus)

    def reasons(gpu):
        looked.set()
        return answer("reasons")(gpu)

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        nvmlDeviceGetCount=count,
        nvmlDeviceGetHandleByIndex=lambda number: gpus[number],
        nvmlDeviceGetUUID=answer("uuid"),
        nvmlDeviceGetUtilizationRates=answer("rates"),
        nvmlDeviceGetMemoryInfo=answer("memory"),
        nvmlDeviceGetPowerUsage=answer("power_mw"),
        nvmlDeviceGetClockInfo=answer("clock"),
        nvmlDeviceGetMaxClockInfo=answer("highest"),
        nvmlDeviceGetCurrentClocksEventReasons=reasons,
        nvmlDeviceGetCurrentClocksThrottleReasons=answer("older"),
        nvmlShutdown=lambda: None,
        looked=looked,
    )


BUSY = {
    "uuid": b"GPU-aa11",
    "rates": SimpleNamespace(gpu=80, memory=10),
    "memory": SimpleNamespace(used=3 << 30),
    "power_mw": 250_500,
    "clock": 1200,
    "highest": 1980,
    "reasons": 0x4,
}


def test_what_a_gpu_tells_is_taken_in_our_units(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = Gpus(library(BUSY, {"older": 0x40})).look()
    assert first == Look(0, 80.0, 3 << 30, 250.5, 1200.0, 1980.0, 0x4)
    assert second == Look(1, reasons=0x40)  # a MIG instance tells little; an old driver knows the older name


@pytest.mark.parametrize(
    ("setting", "seen"),
    [(None, [0, 1, 2]), ("", []), ("2,0", [2, 0]), ("GPU-b", [1]), ("0,9,1", [0]), ("1,1", [1]), ("GPU-", [])],
)
def test_only_gpus_that_a_server_would_see(setting, seen):
    assert visible(setting, {0: "GPU-aa11", 1: "GPU-bb22", 2: "GPU-aa33"}) == seen


def test_the_machine_of_a_local_server_has_its_gpus(monkeypatch):
    monkeypatch.setattr("perf.usage.INTERVAL_S", 0.01)
    there = library(BUSY)
    with Meter(local=True, url=None, gpus=Gpus(there)) as meter:
        meter.begin()
        assert there.looked.wait(10)
        there.looked.clear()
        assert there.looked.wait(10)
        meter.end()
    usage = meter.usage
    assert (usage.gpu_percent, usage.gpu_memory_bytes, usage.gpu_power_w, usage.gpu_clock_mhz) == (
        80,
        3 << 30,
        250.5,
        1200,
    )
    (doubt,) = usage_doubts(meter, local=True, client_s=None, duration_s=1.0, cores=2)
    assert doubt.code == "clock_throttled" and "GPU 0 was slowed down by the power limit in 100%" in doubt.message
    assert "it ran at 1200 MHz of 1980" in doubt.message
    elsewhere = Meter(local=False, url=None, gpus=Gpus(there))  # these GPUs are not the server's
    with elsewhere:
        elsewhere.begin()
        elsewhere.end()
    assert elsewhere.looks == ()


def test_a_slowdown_is_told_by_its_reason_and_how_often():
    idle, hot = Look(0, reasons=0x1), Look(0, reasons=0x20 | 0x1)
    assert list(slowdowns([idle, Look(0, reasons=0x2), Look(0)])) == []  # idle, clocks that were set, not told
    assert list(slowdowns([idle] * 30 + [hot])) == []  # once in a while
    (doubt,) = slowdowns([idle] * 3 + [hot])
    assert doubt.message == "GPU 0 was slowed down by heat (the driver's limit) in 25% of 4 looks"


def test_without_the_package_nothing_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpus() == (None, NOT_INSTALLED)
    with gpus_here() as gpus:
        assert gpus is None


def test_without_the_package_it_is_said_where_there_is_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(nvml, "_DEVICES", str(tmp_path))
    assert nvml_fact() is None
    (tmp_path / "nvidia0").touch()
    assert nvml_fact() == NOT_INSTALLED


def test_the_real_library_without_a_driver_says_so():
    real = pytest.importorskip("pynvml")
    try:
        real.nvmlInit()
    except real.NVMLError_LibraryNotFound:
        assert open_gpus() == (None, "not read: NVML Shared Library Not Found")
        assert machine_facts()["nvml"] == "not read: NVML Shared Library Not Found"
        return
    real.nvmlShutdown()
    gpus, said = open_gpus()  # there is a driver here: then it must answer
    assert said.startswith("driver ") and gpus.look()
    gpus.close()


def test_the_names_that_are_asked_are_the_librarys_own():
    real = pytest.importorskip("pynvml")
    missing = [name for name in vars(library()) if name != "looked" and not hasattr(real, name)]
    assert missing == []
    bits = {value for name, value in vars(real).items() if name.startswith("nvmlClocksThrottleReason")}
    assert set(nvml.SLOWED) <= bits
