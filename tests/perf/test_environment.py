"""Facts of the machine."""

import os

import pytest

from perf.environment import cpu_times, machine_facts, steal_percent


def test_facts_name_the_machine():
    facts = machine_facts()
    assert facts["cores"] == os.cpu_count() and 1 <= facts["cores_usable"] <= facts["cores"]
    assert facts["memory_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert facts["kernel"] == os.uname().release and facts["architecture"] == os.uname().machine
    assert facts["cpu"] and isinstance(facts["gpus"], list)
    assert set(facts["versions"]) == {"triton-repo", "tritonclient", "numpy"}


def test_stolen_time_is_a_share_of_all_time():
    assert steal_percent((10, 1000), (30, 1400)) == pytest.approx(5.0)  # 20 of 400 ticks
    assert steal_percent(None, (1, 2)) is None
    assert steal_percent((1, 2), (1, 2)) is None


def test_processor_times_grow():
    before = cpu_times()
    while cpu_times() == before:
        sum(range(10_000))
    assert cpu_times()[1] > before[1]
