"""The reference page names everything there is."""

from pathlib import Path

import pytest

from perf.report import _CSV_COLUMNS, RESULT
from perf.stability import MEANINGS
from perf.workload import Workload

TEXT = (Path(__file__).parents[2] / "docs/reference/bench-repo.md").read_text()


@pytest.mark.parametrize(
    "name", [*Workload.model_fields, *_CSV_COLUMNS, *MEANINGS, RESULT, "busy_machine", "cpu_steal"]
)
def test_the_reference_names(name):
    assert f"`{name}`" in TEXT


def test_the_reference_states_the_defaults():
    fields = Workload.model_fields
    for name in ("batch_size", "seconds", "stability_percentage", "concurrency", "shared_memory"):
        row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{name}`"))
        default = fields[name].default
        spelled = str(list(default)) if isinstance(default, tuple) else str(default).removesuffix(".0")
        assert spelled in row
