"""Can bench-repo's verdicts be believed? One model under two names, and one with 5% more compute, many times over.

    python benchmarks/trust.py                  # 50 runs; make trust-bench
    python benchmarks/trust.py --count 3        # fewer
    python benchmarks/trust.py --defaults 2     # what two runs without any option tell, beside it
    python benchmarks/trust.py --resume         # go on with the runs that an interrupted one has made

Each run is one `bench-repo --model same --model twin --model heavier --concurrency 1 --seconds 0.3 --difference 4` on a
server of its own, and its verdicts are those of `bench-repo compare RUN:same RUN:twin` and `RUN:same RUN:heavier`. Each
run is also held against the one before, as two runs at different times. `heavier` has 21 equal layers instead of 20;
that this is 5% more compute is shown by the server's own statistics of the same run. benchmarks/trust.md is written
anew after every run, so an interrupted one leaves what it has; the results are kept in .build/trust. Keep other work
off the machine.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

from benchmarks.trust_models import LAYERS, write_repository  # noqa: E402
from perf import bench  # noqa: E402
from perf.compare import ALLOWANCE_PERCENT, compare  # noqa: E402
from perf.comparison import DIFFERENT, Estimate, Pair  # noqa: E402
from perf.deciding import FOUND_FACTOR  # noqa: E402
from perf.references import Side  # noqa: E402
from perf.result import BenchResult  # noqa: E402
from serving.progress import Progress  # noqa: E402

KEPT = HERE.parent / ".build" / "trust"
MODELS = {"same": LAYERS, "twin": LAYERS, "heavier": LAYERS + 1}
CONCURRENCY, SECONDS, DIFFERENCE = 1, 0.3, 4.0
Logs = NDArray[np.float64]
BY = {"inferences_per_s": "throughput", "p50_us": "p50"}


@dataclass(frozen=True)
class Verdict:
    """One comparison.

    Attributes:
        kind: a heading of the summary.
        wanted: the verdicts that are right.
        compute_ratio: of the server's compute_infer of the two; None where they are not of one run.
    """

    kind: str
    number: int
    wanted: tuple[str, ...]
    pair: Pair
    took_s: float
    rounds: int
    compute_ratio: float | None = None

    @property
    def estimate(self) -> Estimate:
        """The figure that decided."""
        found = self.pair.estimate(self.pair.decided_by)
        assert found is not None
        return found

    @property
    def throughput(self) -> float | None:
        """The ratio of it, whatever decided."""
        found = self.pair.estimate("inferences_per_s")
        return found.ratio if found is not None else None

    @property
    def different(self) -> bool:
        """It was called faster or slower."""
        return self.pair.verdict in DIFFERENT


@dataclass
class Kind:
    """Comparisons of one kind, and what should come of them."""

    what: str
    aim: str
    verdicts: list[Verdict] = field(default_factory=list)


def kinds() -> dict[str, Kind]:
    """In the order of the page."""
    return {
        "aa": Kind("one model under two names, in one run", "at most 5% different"),
        "slower": Kind("5% more compute, in one run", "at least 90% slower"),
        "aa-runs": Kind("one model in two runs, one after the other", "at most 5% different"),
        "slower-runs": Kind("5% more compute, in two runs", "none: what two single runs can tell"),
    }


def measured(repository: Path, budget_s: float) -> BenchResult:
    """One run, on a server of its own."""
    result = bench(
        repository,
        models=list(MODELS),
        concurrency=[CONCURRENCY],
        seconds=SECONDS,
        difference=DIFFERENCE,
        budget=budget_s,
        reporter=Progress(quiet=True),
    )
    if not result.ok:
        raise SystemExit(f"not measured: {[run.error for run in result.models]}")
    return result


def compared(first: BenchResult, one: str, second: BenchResult, other: str) -> Pair:
    """What `bench-repo compare FIRST:one SECOND:other` says."""
    (pair,) = compare(Side("", (first,), one), Side("", (second,), other)).pairs
    return pair


def verdicts_of(number: int, result: BenchResult, before: BenchResult | None) -> Iterator[Verdict]:
    """The comparisons of a run: within it, and with the one before."""
    compute = {run.model: (run.points[0].server or _none()).compute_infer_us or math.nan for run in result.models}
    rounds, took_s = len(result.points[0].rounds), result.duration_s
    for kind, other, wanted in (("aa", "twin", ("no difference found",)), ("slower", "heavier", ("slower",))):
        pair = compared(result, "same", result, other)
        ratio = compute[other] / compute["same"]
        # Two comparisons share the run: half of the time is each one's, and the model they share is measured once.
        yield Verdict(kind, number, wanted, pair, took_s / 2, rounds, ratio)
    if before is not None:
        apart = (("aa-runs", "same", ("no difference found", "cannot tell")), ("slower-runs", "heavier", ("slower",)))
        for kind, other, wanted in apart:
            yield Verdict(kind, number, wanted, compared(before, "same", result, other), 2 * took_s, rounds)


def _none() -> object:
    raise SystemExit("the server gave no statistics")


def exact_interval(hits: int, count: int) -> tuple[float, float]:
    """Clopper and Pearson's 95% interval of a share."""

    def at_most(share: float, most: int) -> float:
        return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(most + 1))

    def solve(probability: float, most: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(middle, most) > probability else (low, middle)
        return low

    return (0.0 if hits == 0 else solve(0.975, hits - 1)), (1.0 if hits == count else solve(0.025, hits))


def summary(found: dict[str, Kind]) -> Iterator[str]:
    """The table."""
    yield "| what | aim | comparisons | faster | slower | no difference | cannot tell | called different (95%) |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind in found.values():
        said = [verdict.pair.verdict for verdict in kind.verdicts]
        if not said:
            continue
        hits = sum(verdict.different for verdict in kind.verdicts)
        low, high = exact_interval(hits, len(said))
        counts = [said.count(each) for each in ("faster", "slower", "no difference found", "cannot tell")]
        shares = f"{hits / len(said):.0%} ({low:.0%} to {high:.0%})"
        yield "| " + " | ".join([kind.what, kind.aim, str(len(said)), *map(str, counts), shares]) + " |"


def costs(found: dict[str, Kind]) -> Iterator[str]:
    """What a comparison took, and what else is to be known of them."""
    inside = found["slower"].verdicts
    if not inside:
        return
    took, rounds = ([getattr(each, name) for each in inside] for name in ("took_s", "rounds"))
    ratios = [each.compute_ratio for each in inside if each.compute_ratio is not None]
    speeds = [ratio for each in inside if (ratio := each.throughput) is not None]
    median_alone = sum(each.pair.verdict == "slower" and each.pair.decided_by == "p50_us" for each in inside)
    yield (
        f"- A comparison within a run took {statistics.median(took):.0f} s ({min(took):.0f} to {max(took):.0f}), "
        f"warm-up included (two share a run), with {statistics.median(rounds):.0f} rounds ({min(rounds)} to "
        f"{max(rounds)})."
    )
    yield (
        f"- `heavier` / `same` by the server's own compute_infer in the same runs: {statistics.median(ratios):.4f} "
        f"(median; {min(ratios):.3f} to {max(ratios):.3f}); 21/20 is {21 / 20:.4f}. Throughput: "
        f"{statistics.median(speeds):.4f}; what a request takes beside the model is equal for both."
    )
    yield (
        f"- Of the {sum(each.different for each in inside)} of these that were called different p50 told "
        f"{median_alone}, where throughput told no difference."
    )
    apart = [each.throughput for each in found["aa-runs"].verdicts if each.throughput]
    if len(apart) > 1:
        off = sorted(abs(math.log(ratio)) for ratio in apart)
        ninth = math.expm1(off[min(len(off) - 1, math.floor(0.9 * len(off)))]) * 100
        beyond = [each for each in found["aa-runs"].verdicts if _beyond(each)]
        yield (
            f"- Two runs of one model differed by {math.expm1(statistics.median(off)) * 100:.1f}% (median), "
            f"{ninth:.1f}% (nine of ten), {math.expm1(off[-1]) * 100:.1f}% (most). Without the allowance "
            f"{len(beyond)} of {len(apart)} would have been called different."
        )


def _beyond(verdict: Verdict) -> bool:
    """Two runs that the interval of their rounds alone would have told apart."""
    allowance = 1 + ALLOWANCE_PERCENT / 100
    low, high = verdict.estimate.low, verdict.estimate.high
    return low is not None and high is not None and (low * allowance > 1 or high / allowance < 1)


def noise(runs: Sequence[Logs]) -> Iterator[str]:
    """What many short rounds in turn are worth, against the same time in one piece each.

    Args:
        runs: logarithms of the throughput of `same` and `twin`, [2, rounds] of each run.
    """
    yield "| rounds taken together | s each | in turn: spread of the ratio | one after the other |"
    yield "|---|---|---|---|"
    for size in (1, 2, 4, 8):
        in_turn, apart = [], []
        for logs in runs:
            blocks = logs[:, : logs.shape[1] // size * size].reshape(2, -1, size).mean(axis=2)
            in_turn += [*(blocks[0] - blocks[1])]
            apart += [*(blocks[0, :-1] - blocks[1, 1:])]
        if len(apart) > 2:
            spreads = " | ".join(f"{np.std(values) * 100:.1f}%" for values in (in_turn, apart))
            yield f"| {size} | {size * SECONDS:g} | {spreads} |"


def logs_of(result: BenchResult) -> Logs:
    """Of `same` and `twin`, by round."""
    models = {run.model: run.points[0].rounds for run in result.models}
    return np.log([[each.inferences_per_s for each in models[name]] for name in ("same", "twin")])


def each_one(found: dict[str, Kind]) -> Iterator[str]:
    """Every comparison."""
    yield "| kind | run | by | B/A | interval | compute | rounds | s | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, kind in found.items():
        for one in kind.verdicts:
            estimate, compute = one.estimate, f"{one.compute_ratio:.3f}" if one.compute_ratio else ""
            ends = f"{estimate.low:.3f} to {estimate.high:.3f}" if estimate.low and estimate.high else ""
            cells = (
                name,
                one.number,
                BY[estimate.metric],
                f"{estimate.ratio:.3f}",
                ends,
                compute,
                one.rounds,
                f"{one.took_s:.0f}",
            )
            yield "| " + " | ".join([*map(str, cells), one.pair.verdict]) + " |"


def by_default(repository: Path, number: int) -> Iterator[str]:
    """What runs without any option tell of `same` and `heavier`."""
    yield "## Without any option"
    yield ""
    yield "`bench-repo --model same --model heavier`, then `bench-repo compare`:"
    yield ""
    yield "| run | s | load | B/A | interval | finds nine times in ten | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for run in range(1, number + 1):
        started_s = time.monotonic()
        result = bench(repository, models=["same", "heavier"], reporter=Progress(quiet=True))
        took_s = time.monotonic() - started_s
        for pair in compare(Side("", (result,), "same"), Side("", (result,), "heavier")).pairs:
            estimate = pair.estimate(pair.decided_by)
            if estimate is None or not estimate.low or not estimate.high:
                continue
            reach = (math.sqrt(estimate.high / estimate.low) - 1) * FOUND_FACTOR
            ends = f"{estimate.low:.3f} to {estimate.high:.3f}"
            cells = (run, f"{took_s:.0f}", pair.load, f"{estimate.ratio:.3f}", ends, f"{reach:.0%}", pair.verdict)
            yield "| " + " | ".join(map(str, cells)) + " |"
    yield ""


def judged(runs: Sequence[BenchResult]) -> dict[str, Kind]:
    """All comparisons of these runs."""
    found, before = kinds(), None
    for number, result in enumerate(runs, 1):
        for verdict in verdicts_of(number, result, before):
            found[verdict.kind].verdicts.append(verdict)
        before = result
    return found


def kept(resume: bool) -> list[BenchResult]:
    """The runs that are kept, where they are gone on with; otherwise they are removed."""
    KEPT.mkdir(parents=True, exist_ok=True)
    files = sorted(KEPT.glob("[0-9]*.json"))
    if resume:
        return [BenchResult.model_validate_json(file.read_text(encoding="utf-8")) for file in files]
    for file in files:
        file.unlink()
    return []


def stolen(runs: Sequence[BenchResult]) -> str:
    """How much of the processor's time others had."""
    said = [doubt.message for result in runs for doubt in result.doubts if doubt.code == "cpu_steal"]
    found = sorted(float(re.findall(r"([\d.]+)%", text)[0]) for text in said)
    if not found:
        return "The machine was quiet in every run."
    return (
        f"In {len(found)} of {len(runs)} runs the hypervisor kept a part of the processor time from the machine: "
        f"{statistics.median(found):.0f}% (median of these; {found[0]:.0f} to {found[-1]:.0f}%)."
    )


def page(runs: Sequence[BenchResult], command: str, more: Sequence[str]) -> str:
    """The whole page."""
    result, found = runs[-1], judged(runs)
    machine, minutes = result.machine, sum(run.duration_s for run in runs) / 60
    lines = [
        "# Can the verdicts be believed?",
        "",
        f"Made by `{command}` on {date.today()} in {minutes:.0f} minutes, on {machine.get('cpu')} with",
        f"{machine.get('cores_usable')} cores; {result.tool.origin}, Triton {result.server.get('version')}.",
        stolen(runs),
        "",
        "Each run has a server of its own and measures `same`, `twin` (the same network) and `heavier` (21 equal",
        f"layers instead of 20) in turn, {SECONDS:g} s each, until a difference of {DIFFERENCE:g}% would be found or",
        "the budget is spent. The verdicts are those of `bench-repo compare`, at 99%: by throughput, and where that",
        "tells no difference by p50.",
        "",
        *summary(found),
        "",
        *costs(found),
        "",
        *more,
        "## Why many short rounds",
        "",
        "`same` against `twin`, so many rounds taken together. Of noise without memory eight times the time would",
        "leave 0.35 of the spread. What is left beyond that goes on for longer than a round, and is why a single run",
        "counts as no more than a part of it where two runs are compared.",
        "",
        *noise([logs_of(run) for run in runs]),
        "",
        "## Every comparison",
        "",
        *each_one(found),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Arguments to exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50, help="runs (50)")
    parser.add_argument("--budget", type=float, default=90.0, help="seconds of a run, at most (90)")
    parser.add_argument("--defaults", type=int, default=0, help="runs without any option, first (0)")
    parser.add_argument("--resume", action="store_true", help="go on with the runs that are kept")
    parser.add_argument("--output", type=Path, default=HERE / "trust.md", help="(benchmarks/trust.md)")
    args = parser.parse_args()
    command = " ".join(["python benchmarks/trust.py", *sys.argv[1:]])
    started_s, done = time.monotonic(), kept(args.resume)
    with tempfile.TemporaryDirectory(prefix="trust-") as folder:
        repository = write_repository(Path(folder), MODELS)
        more = list(by_default(repository, args.defaults)) if args.defaults else []
        while len(done) < args.count:
            done.append(measured(repository, args.budget))
            (KEPT / f"{len(done):03}.json").write_text(done[-1].model_dump_json(), encoding="utf-8")
            args.output.write_text(page(done, command, more), encoding="utf-8")
            minutes = (time.monotonic() - started_s) / 60
            print(f"run {len(done)} of {args.count}, {minutes:.1f} minutes", file=sys.stderr)
    args.output.write_text(page(done, command, more), encoding="utf-8")
    found = judged(done)
    print("\n".join([*summary(found), "", *costs(found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
