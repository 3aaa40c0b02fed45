"""The benchmarks measure what they say: memory of a whole process tree, and which models of a spec are built."""

import subprocess
import sys

import pytest

from benchmarks.builder import many
from benchmarks.memory import Sampler, Usage, descendants, proportional, resident

MB = 1_000_000
# Takes 60 MB, starts a child that takes 40 MB more, says when each is there and waits to be told to go on.
TREE = """
import subprocess, sys
mine = bytearray(60_000_000)
child = subprocess.Popen([sys.executable, "-c", "b = bytearray(40_000_000); print('there', flush=True); input()"],
                         stdin=sys.stdin)
child.wait()
"""


@pytest.fixture
def tree():
    process = subprocess.Popen([sys.executable, "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    yield process
    process.communicate("\n", timeout=30)


def test_memory_is_summed_over_a_process_and_its_children(tree):
    pids = descendants(tree.pid)
    assert len(pids) == 2
    used = sum(map(proportional, pids), Usage())
    assert 100 * MB < used.anonymous < 150 * MB
    assert used.total == used.anonymous + used.file_backed
    for pid in pids:
        assert resident(pid).anonymous >= proportional(pid).anonymous


def test_a_sampler_keeps_peaks_apart_by_phase(tree, until):
    phase = ["first"]
    with Sampler(tree.pid, lambda: phase[0], interval_s=0.01) as sampler:
        until(lambda: sampler.peaks.get("first") and sampler.peaks["first"].total)
        phase[0] = "second"
        until(lambda: sampler.peaks.get("second") and sampler.peaks["second"].total)
    assert sampler.peaks["first"].anonymous > 100 * MB
    assert sampler.peak.total == max(peak.total for peak in sampler.peaks.values())
    assert sorted(used.anonymous > 55 * MB for used in sampler.holders["first"].values()) == [False, True]


def test_a_process_that_is_gone_holds_nothing():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert proportional(process.pid) == resident(process.pid) == Usage()


@pytest.mark.big
@pytest.mark.server
def test_of_many_models_only_the_changed_one_is_built(tmp_path):
    result = many(tmp_path, 2)
    assert (result.full.count("built"), result.one_changed.count("built")) == (2, 1)
    assert result.noop_s < result.full.seconds
    assert result.full.peak.total > 200 * MB
