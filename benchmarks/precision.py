"""What each variant of the examples costs and is worth: accuracy, agreement, size, speed in the server, time to build.

    python benchmarks/precision.py                  # digits, MiniLM and EfficientNet: about 20 minutes on two cores
    python benchmarks/precision.py --models digits  # one of them
    python benchmarks/precision.py --write          # and benchmarks/precision.md is made of it

Every model is built anew, in a folder of its own, with ``serve: fastest``: recipes are searched and not replayed, the
variants that hold their accuracy are measured in turns on one embedded server by perf_analyzer. What is printed is
taken from the manifests that the build wrote. Keep other work off the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

from builder import Options, build, load_spec  # noqa: E402
from builder.host import cpu_model  # noqa: E402
from builder.outcome import ModelResult  # noqa: E402
from serving.progress import Progress  # noqa: E402

VARIANTS = [
    "onnx-fp32",
    "onnx-fp16",
    "onnx-int8",
    "onnx-int8-weights",
    "onnx-openvino-fp32",
    "tensorrt-rtx-fp16",
    "tensorrt-rtx-int8",
]
LIMITS: dict[str, dict[str, float]] = {
    "digits": {},
    "minilm": {"cosine": 0.995, "spearman": 0.995},
    "efficientnet": {"cosine": 0.997, "top1_in_top5": 0.99},
}
MAX_DROP = {"digits": 0.005, "minilm": 0.01, "efficientnet": 0.02}
SCORES = ("cosine", "spearman", "recall@10", "top1", "top1 in top5")
"""Of the agreement with fp32, on samples that nothing was calibrated with."""


def project_of(name: str, folder: Path) -> Path:
    """An example in a folder of its own, with every variant and the limits that are asked of it."""
    place = folder / name
    shutil.copytree(HERE.parent / "examples" / name, place, ignore=shutil.ignore_patterns("__pycache__"))
    spec = yaml.safe_load((place / "models.yaml").read_text(encoding="utf-8"))
    model = spec["models"][name]
    model |= {"variants": VARIANTS, "serve": "fastest", "agreement": LIMITS[name]}
    model["evaluate"]["max_drop"] = MAX_DROP[name]
    for key in ("precision", "required"):
        model.pop(key, None)
    (place / "models.yaml").write_text(yaml.safe_dump({"repository": "repository", "models": {name: model}}))
    return place


def measured(name: str, folder: Path, minutes: float) -> list[str]:
    """Build one example, and its rows."""
    place = project_of(name, folder)
    report = build(
        load_spec(place / "models.yaml"), reporter=Progress(), options=Options(jobs=1, search_minutes=minutes)
    )
    plain = next(result for result in report.models if result.model == name)
    manifest = _manifest(report.repository, plain)
    speeds = {row["variant"]: row for row in (manifest.get("choice") or {}).get("rows", [])}
    rows = []
    for result in report.models:
        if result.model != name:
            own = _manifest(report.repository, result) or _engine(report.repository, result)
            rows.append(_row(name, result, own, speeds.get(result.variant, {}), plain.variant == result.variant))
    return rows


def _manifest(repository: Path, result: ModelResult) -> dict[str, Any]:
    path = repository / result.model / str(result.version) / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _engine(repository: Path, result: ModelResult) -> dict[str, Any]:
    path = repository.with_name(f"{repository.name}_engines") / result.model / "engine.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _row(name: str, result: ModelResult, made: Mapping[str, Any], speed: Mapping[str, Any], chosen: bool) -> str:
    if result.status in ("failed", "left out"):
        reason = result.error.what if result.error else ""
        return f"| {name} | {result.variant} | {result.status} at {result.stage}: {reason} |" + " |" * 10
    scores = result.scores or ({"cosine": result.cosine} if result.version is not None else {})
    cells = [name, f"**{result.variant}**" if chosen else result.variant]
    cells.append("" if result.accuracy is None else f"{result.accuracy:.4f}")
    cells += [f"{scores[score]:.4f}" if score in scores else "" for score in SCORES]
    cells.append(f"{result.size_bytes / 1e6:.2f}")
    cells.append(f"{speed['throughput_per_s']:,.0f}" if speed.get("throughput_per_s") else "")
    cells.append(f"{speed['p99_us'] / 1000:.1f}" if speed.get("p99_us") else "")
    seconds = made.get("seconds", {})
    own = sum(seconds.get(stage, 0.0) for stage in ("precision", "engine", "parity", "accuracy", "serve"))
    cells.append(f"{own:.0f}" if seconds else f"{made['engine']['build_seconds']:.1f} (engine)")
    cells.append(_recipe(made))
    return "| " + " | ".join(cells) + " |"


def _recipe(made: Mapping[str, Any]) -> str:
    recipe = made.get("recipe")
    if not recipe:
        return ", ".join(note for note in made.get("notes", []) if " by " in note and not note.startswith("exported"))
    options = {
        key: value for key, value in recipe["options"].items() if key in ("smooth", "reduce_range", "activation")
    }
    said = ", ".join(f"{key} {value}".lower() for key, value in options.items())
    kept = f", {len(recipe['keep'])} nodes in float" if recipe["keep"] else ""
    search = made.get("search") or {}
    cut = "" if search.get("complete", True) else ", search out of time"
    return f"{recipe['method']}{' (' + said + ')' if said else ''}{kept}{cut}"


def _flags() -> str:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    known = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags]
    return f"{', '.join(known)}{'' if any('vnni' in flag for flag in known) else '; no VNNI'}"


def page(rows: Sequence[str]) -> Iterator[str]:
    """The whole page."""
    yield "# Variants of the examples"
    yield ""
    yield f"Made by `python benchmarks/precision.py --write` on {date.today()}, on {cpu_model()} ({_flags()})."
    yield ""
    yield "accuracy: the example's own metric. cosine to top-5: agreement with fp32 on held-out samples. Throughput and"
    yield "p99: perf_analyzer on the embedded server, 16 requests at once, variants in turns; the chosen one is bold."
    yield "Engines were built ahead of time, and nothing here could run them."
    yield ""
    heads = ["model", "variant", "accuracy", *SCORES, "MB", "inferences/s", "p99 ms", "build s", "recipe"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    yield from rows


def main() -> int:
    """Arguments to exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=LIMITS, default=list(LIMITS))
    parser.add_argument("--search-minutes", type=float, default=5.0)
    parser.add_argument("--write", action="store_true", help="write benchmarks/precision.md")
    args = parser.parse_args()
    rows: list[str] = []
    with tempfile.TemporaryDirectory(prefix="precision-") as folder:
        for name in args.models:
            rows += measured(name, Path(folder), args.search_minutes)
    text = "\n".join(page(rows)) + "\n"
    print(text)
    if args.write:
        (HERE / "precision.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
