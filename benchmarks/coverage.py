"""Which architectures hold in which precision: twelve of transformers through `build-repo` as fp32, fp16 and int8.

    python benchmarks/coverage.py                       # all of them; about 20 minutes
    python benchmarks/coverage.py bert vit --search-minutes 1
    python benchmarks/coverage.py --write               # the table goes into benchmarks/coverage.md

Each is built by a `build-repo` of its own from a spec that is made for it, so everything a user's model goes through is
gone through: export, the search for a recipe, the gate on accuracy, the real server. What fails is a row of the table
with its reason; the exit status is 1 only where `build-repo` itself broke.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
if sys.path[0] == str(HERE):  # in which `import builder` would find another file
    sys.path[0] = str(HERE.parent)

from benchmarks.coverage_models import ARCHITECTURES, SAMPLES  # noqa: E402
from builder.host import host_facts, tool_versions  # noqa: E402

VARIANTS = ("onnx-fp32", "onnx-fp16", "onnx-int8")
REPORT = HERE / "coverage.md"
BEGIN, END = "<!-- table: benchmarks/coverage.py --write -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Row:
    """One variant of one architecture.

    Attributes:
        architecture, variant: which.
        status: ``built``, ``failed`` or ``left out``, as `build-repo` says.
        size_bytes: of the file.
        cosine: of the outputs with PyTorch's through the server, the worst case (fp32); of the held-out samples with
            fp32's, their mean (fp16, int8).
        cosine_min: the worst sample's.
        top1: share of samples with the same largest class; None where the output has no classes.
        recipe: how it was made.
        reason: why it failed.
    """

    architecture: str
    variant: str
    status: str
    size_bytes: int = 0
    cosine: float | None = None
    cosine_min: float | None = None
    top1: float | None = None
    recipe: str = ""
    reason: str = ""


def spec_of(name: str, variants: Sequence[str]) -> dict[str, Any]:
    """The spec of one architecture, as a user would write it."""
    chosen = ARCHITECTURES[name]
    model = {
        "source": {"python": "coverage_models.py:load", "args": {"name": name}},
        "inputs": dict(chosen.inputs),
        "outputs": dict([chosen.output]),
        "batch": {"max": 4},
        "samples": {"python": "coverage_models.py:samples", "args": {"name": name}},
        "variants": list(variants),
        "serve": variants[0],
    }
    return {"repository": "repository", "models": {name: model}}


def build(name: str, variants: Sequence[str], folder: Path, search_minutes: float) -> tuple[list[Row], float]:
    """Build one architecture; the rows of its variants, and how long it took.

    Raises:
        RuntimeError: `build-repo` did not answer.
    """
    folder.mkdir(parents=True)
    shutil.copy(HERE / "coverage_models.py", folder)
    (folder / "models.yaml").write_text(yaml.safe_dump(spec_of(name, variants), sort_keys=False))
    command = [sys.executable, "-m", "builder.cli", "models.yaml", "--format", "json", "--jobs", "1"]
    command += ["--search-minutes", str(search_minutes)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - began
    if done.returncode not in (0, 1) or not done.stdout.startswith("{"):
        raise RuntimeError(f"build-repo ended with {done.returncode}: {done.stderr[-2000:]}")
    results = json.loads(done.stdout)["models"]
    found = [
        row_of(name, variant, [one for one in results if one["variant"] == variant], folder) for variant in variants
    ]
    return found, seconds


def row_of(name: str, variant: str, results: Sequence[dict[str, Any]], folder: Path) -> Row:
    """What `build-repo` answered for one variant."""
    if not results:
        return Row(name, variant, "failed", reason="build-repo said nothing of it")
    result = results[0]
    if result["status"] not in ("built", "up to date"):
        error = result["error"] or {}
        parts = [f"{result['stage']}: {error.get('what', '')}"]
        parts += [f"{key} {error[key]}" for key in ("where", "expected", "got") if error.get(key)]
        return Row(name, variant, result["status"], reason="; ".join(parts))
    scores = result["scores"]
    manifest = folder / "repository" / result["model"] / str(result["version"]) / "manifest.json"
    recipe = json.loads(manifest.read_text()).get("recipe")
    return Row(
        name,
        variant,
        result["status"],
        result["size_bytes"],
        scores.get("cosine", result["cosine"]),
        scores.get("cosine min"),
        scores.get("top1"),
        told(recipe) if recipe else "",
    )


def told(recipe: dict[str, Any]) -> str:
    """A recipe in a few words."""
    options = {key: value for key, value in recipe["options"].items() if value not in (None, False)}
    words = [recipe["method"]]
    words += [f"{key} {value}" for key, value in options.items() if key in ("smooth", "calibrator", "weight")]
    words += ["reduce_range"] if options.get("reduce_range") else []
    kept = len(recipe["keep"])
    return ", ".join(words) + (f"; {kept} node{'s' * (kept != 1)} in float" if kept else "")


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as Markdown."""
    yield "| architecture | variant | KB | of fp32 | cosine, mean | cosine, worst | top-1 | how |"
    yield "|---|---|---|---|---|---|---|---|"
    sizes = {row.architecture: row.size_bytes for row in rows if row.variant == VARIANTS[0]}
    for row in rows:
        whole = sizes.get(row.architecture, 0)
        share = f"{row.size_bytes / whole:.2f}" if whole and row.size_bytes else ""
        numbers = [f"{row.size_bytes / 1000:.0f}" if row.size_bytes else "", share]
        numbers += ["" if value is None else f"{value:.6f}" for value in (row.cosine, row.cosine_min)]
        numbers += ["" if row.top1 is None else f"{row.top1:.2f}"]
        last = row.recipe if not row.reason else f"**{row.status}** {' '.join(row.reason.split()).replace('|', '/')}"
        yield f"| {row.architecture} | {row.variant} | {' | '.join(numbers)} | {last} |"


def summary(rows: Sequence[Row]) -> str:
    """How many of each variant were built."""
    parts = []
    for variant in dict.fromkeys(row.variant for row in rows):
        ours = [row for row in rows if row.variant == variant]
        parts.append(f"{variant}: {sum(row.status in ('built', 'up to date') for row in ours)} of {len(ours)}")
    return "; ".join(parts)


def write(lines: Sequence[str], report: Path = REPORT) -> None:
    """Put the table between its marks in the report."""
    text = report.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    report.write_text(f"{head}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{tail}", encoding="utf-8")


def resumed(file: Path) -> dict[str, list[Row]]:
    """The rows of a file that was written before, by architecture; none where there is no such file."""
    found: dict[str, list[Row]] = {}
    for row in json.loads(file.read_text())["rows"] if file.is_file() else ():
        found.setdefault(row["architecture"], []).append(Row(**row))
    return found


def _ordered(known: dict[str, list[Row]]) -> list[dict[str, Any]]:
    return [asdict(row) for name in ARCHITECTURES for row in known.get(name, ())]


def main() -> int:
    """Arguments, builds, the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*ARCHITECTURES, []], help="default: all of them")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--search-minutes", type=float, default=0.5, help="for each search, at most (default: 0.5)")
    parser.add_argument("--write", action="store_true", help=f"put the table into {REPORT.name}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--resume", action="store_true", help="take what is in --json's file, build the rest, or NAMES")
    chosen = parser.parse_args()
    known = resumed(chosen.json) if chosen.resume and chosen.json else {}
    names = chosen.names or [name for name in ARCHITECTURES if name not in known]
    with tempfile.TemporaryDirectory(prefix="coverage-") as base:
        for name in names:
            known[name], seconds = build(name, chosen.variants, Path(base) / name, chosen.search_minutes)
            became = ", ".join(row.status for row in known[name])
            print(f"{name}: {seconds:.0f} s, {became}", file=sys.stderr, flush=True)
            shutil.rmtree(Path(base) / name)
            if chosen.json:  # after each, so that --resume goes on from there
                chosen.json.write_text(json.dumps({"rows": _ordered(known)}, indent=1) + "\n")
    rows = [Row(**row) for row in _ordered(known)]
    facts = {**host_facts(), **tool_versions("torch", "transformers", "onnxruntime")}
    lines = [
        f"{', '.join(f'{key} {value}' for key, value in facts.items())}; {SAMPLES} samples, "
        f"{chosen.search_minutes:g} minutes for each search.",
        "",
        f"Built: {summary(rows)}.",
        "",
        *table(rows),
    ]
    print("\n".join(lines))
    if chosen.write:
        write(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
