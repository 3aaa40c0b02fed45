"""The reference pages name everything there is."""

import sqlite3
from pathlib import Path

import pytest

from perf.gate_file import LATENCIES, METRICS
from perf.history import _TABLES
from perf.model_analyzer import FILE
from perf.report import _CSV_COLUMNS, CSV_FILE, HTML_FILE, MARKDOWN_FILE, RESULT
from perf.settling import settled
from perf.stability import MEANINGS
from perf.workload import Workload

REFERENCE = Path(__file__).parents[2] / "docs/reference"
TEXT, RESULTS = ((REFERENCE / name).read_text() for name in ("bench-repo.md", "bench-results.md"))


@pytest.mark.parametrize("name", [*Workload.model_fields, *MEANINGS, RESULT, "busy_machine", "cpu_steal"])
def test_the_reference_names(name):
    assert f"`{name}`" in TEXT


def tables():
    """The columns of each table of the history."""
    with sqlite3.connect(":memory:") as database:
        database.executescript(_TABLES)
        names = ("runs", "points")
        return {name: [row[1] for row in database.execute(f"PRAGMA table_info({name})")] for name in names}


FILES = (RESULT, CSV_FILE, MARKDOWN_FILE, HTML_FILE, FILE)
COLUMNS = [name for table in ("runs", "points") for name in tables()[table]]


@pytest.mark.parametrize("name", dict.fromkeys([*_CSV_COLUMNS, *FILES, *COLUMNS, *LATENCIES, *METRICS]))
def test_the_reference_of_results_names(name):
    assert f"`{name}`" in RESULTS or f"].{name}`" in RESULTS


def test_the_reference_states_the_defaults():
    fields = Workload.model_fields
    for name in ("batch_size", "stability_percentage", "concurrency", "shared_memory"):
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}`"))
        default = fields[name].default
        spelled = str(list(default)) if isinstance(default, tuple) else str(default).removesuffix(".0")
        assert spelled in row
    alone, several = settled(Workload(url="h:1"), 1), settled(Workload(url="h:1"), 2)
    lines = TEXT.splitlines()
    row = {name: next(line for line in lines if line.startswith(f"| `{name}`")) for name in ("seconds", "rounds")}
    assert f"{alone.seconds:g} for one model, {several.seconds:g} for several" in row["seconds"]
    assert f"{several.rounds} for several models" in row["rounds"] and f"{alone.rounds} for one" in row["rounds"]
