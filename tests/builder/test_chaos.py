"""A short form of `make chaos`: killed builds never harm a repository that is being served."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.server
@pytest.mark.big
@pytest.mark.xdist_group("test_chaos")
def test_builds_that_are_killed_harm_nothing():
    command = [sys.executable, ROOT / "benchmarks" / "chaos.py", "--kills", "4", "--no-torch", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert done.stdout, done.stderr
    counts = json.loads(done.stdout)
    assert counts["violations"] == []
    assert done.returncode == 0, done.stderr
    assert counts["kills"] == 4
    assert counts["builds_completed"] >= 2
    assert counts["requests"] > 100
    assert counts["wrong"] == counts["failed"] == 0
