"""``serve: fastest``: the variants that passed, measured on the real server with perf_analyzer, and one of them chosen.

The rule, in order:

1. With a latency limit, a variant whose p99 is above it is out, unless all are.
2. The most inferences per second win. All are measured in rounds, in turn, at the same concurrency, until the 95%
   interval of the ratio of medians tells each from the winner, or the time is up.
3. Where it does not (or the difference is below :data:`WORTH`), the more accurate of the two wins.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.choice import Choice, Entrant, Row, StepTime
from builder.errors import BuildError
from builder.numerics import Array
from builder.verify.serve import Endpoint
from perf.errors import AnalyzerUnavailableError
from perf.interleaved import Rounds, measure_interleaved, subject_of
from perf.intervals import Interval, median_with_interval, ratio_of_pairs
from perf.report import milliseconds, rate
from perf.result import Point, ServerSide
from perf.target import Target
from serving import Client
from serving.progress import SILENT, Reporter, Step

MINIMUM_ROUNDS = 3
SECONDS_PER_VARIANT = 60.0
"""Beyond the first rounds, no further one is begun after this long for each variant."""

SECONDS_PER_POINT = 1.5
"""One variant in one round: three windows, or longer where answers are slow. Starting perf_analyzer costs about half a
second; many short rounds say more than few long ones, because a machine is disturbed for seconds at a time."""

WORTH = 1.02
"""How much faster a less accurate variant must be: a difference below 2% is what two builds of one program differ by,
however many rounds it is seen in."""

NEAR = 1.1
"""Where the leader is the more accurate as well, it is not asked further once nothing can be this much faster."""

BUSY = 16
"""Requests under way for throughput: enough that a batcher finds company for each."""

_LOAD_TIMEOUT_S = 300.0


def choose(
    endpoint: Endpoint,
    entrants: Sequence[Entrant],
    *,
    inputs: Sequence[Mapping[str, Array]],
    latency_limit_us: int | None = None,
    concurrency: int | None = None,
    folder: Path,
    reporter: Reporter = SILENT,
    seconds_per_variant: float = SECONDS_PER_VARIANT,
) -> Choice:
    """Measure variants on a running server and choose one; see the rule above.

    Args:
        endpoint: the server, in explicit model control mode, over a repository that holds every entrant's model.
            They are loaded together and unloaded at the end.
        entrants: at least one; of equals, the one named first wins.
        inputs: real requests of one sample: whole tensors, with a batch dimension of one where the model batches.
        latency_limit_us: of the 99th percentile, at ``concurrency``.
        concurrency: requests under way at once; see :func:`default_concurrency`.
        folder: for raw files; made, and left for the caller to remove.
        seconds_per_variant: see :data:`SECONDS_PER_VARIANT`.

    Raises:
        BuildError: there is no perf_analyzer, or not one of them could be measured.
        ModelLoadError: a model does not load. ServerUnavailableError: the server is gone.
    """
    started_s = time.monotonic()
    if len(entrants) == 1:
        only = entrants[0]
        row = Row(only.variant, None, None, None, only.score, only.size_bytes, None)
        return Choice(only.variant, "the only variant that passed", (row,), latency_limit_us=latency_limit_us)
    with Client(f"http://{endpoint.http_url}", timeout_s=_LOAD_TIMEOUT_S) as client, _loaded(client, entrants):
        if concurrency is None:
            configs = [client.config(entrant.model) for entrant in entrants]
            concurrency = default_concurrency(configs, limited=latency_limit_us is not None)
        target = Target(client, endpoint.http_url, {"kind": "staging", "url": endpoint.http_url})
        subjects = [subject_of(target, entrant.model, inputs, "verification samples") for entrant in entrants]
        judge = _Judge(tuple(entrants), latency_limit_us, seconds_per_variant * len(entrants))
        with reporter.step(f"measure {len(entrants)} variants at concurrency {concurrency}") as step:
            try:
                rounds = measure_interleaved(
                    target,
                    subjects,
                    concurrency=concurrency,
                    seconds=SECONDS_PER_POINT,
                    folder=folder,
                    still_wanted=judge.undecided,
                    reporter=_Inner(step, reporter),
                )
            except AnalyzerUnavailableError as error:
                raise _no_analyzer(error) from error
            choice = judge.choice(rounds, concurrency, time.monotonic() - started_s)
            step.done("chosen", f"{choice.variant}: {choice.reason}")
    if all(row.within_limit is False for row in choice.rows if row.within_limit is not None) and latency_limit_us:
        reporter.warn(f"serve: fastest: {choice.reason}")
    return choice


def default_concurrency(configs: Sequence[Mapping[str, Any]], *, limited: bool) -> int:
    """How many requests to keep under way, the same for all variants: what keeps the server busy.

    At least two for each instance: one that runs, one that waits, so that none is ever idle. With a latency limit no
    more than that, because further ones would measure their own queue; without one :data:`BUSY`, so that a batcher
    has something to batch.

    Args:
        configs: the models' configurations, as the server gives them.
    """
    instances = [sum(int(group.get("count", 1)) for group in config.get("instance_group", ())) for config in configs]
    both = 2 * max(1, *instances)
    return both if limited else max(both, BUSY)


@dataclass(frozen=True)
class _Judge:
    """The rule: from rounds to what must still be measured, and in the end to a choice."""

    entrants: tuple[Entrant, ...]
    limit_us: int | None
    budget_s: float

    def undecided(self, rounds: Rounds) -> list[str]:
        """Models to measure in a further round; none when the choice is clear, or the time is up."""
        runners = self._runners(rounds)
        if any(len(rounds.measured(runner.model)) < MINIMUM_ROUNDS for runner in runners):
            return [runner.model for runner in runners]
        if rounds.elapsed_s > self.budget_s:
            return []
        runners = self._within(rounds, runners)
        leader = self._leader(rounds, runners)
        open_ones = [r for r in runners if r is not leader and not _decided(leader, r, self._ratio(rounds, leader, r))]
        return [leader.model, *(runner.model for runner in open_ones)] if open_ones else []

    def choice(self, rounds: Rounds, concurrency: int, seconds: float) -> Choice:
        """The choice, with its reason.

        Raises:
            BuildError: not one of them was measured.
        """
        runners = self._runners(rounds)
        if not runners:
            raise _none_measured(self.entrants, rounds)
        within = self._within(rounds, runners)
        leader = self._leader(rounds, within)
        ratios = {r.variant: self._ratio(rounds, leader, r) for r in within if r is not leader}
        rivals = [leader, *(r for r in within if r is not leader and ratios[r.variant].low <= WORTH)]
        # Of those that cannot be told apart the most accurate; of equally accurate ones the fastest seen.
        winner = max(rivals, key=lambda r: (r.score, _median(rounds, r)))
        return Choice(
            variant=winner.variant,
            reason=self._reason(rounds, winner, leader, within, ratios),
            rows=tuple(self._row(rounds, entrant, winner) for entrant in self.entrants),
            concurrency=concurrency,
            latency_limit_us=self.limit_us,
            seconds=round(seconds, 1),
        )

    def _runners(self, rounds: Rounds) -> list[Entrant]:
        return [e for e in self.entrants if rounds.error(e.model) is None and rounds.measured(e.model)]

    def _within(self, rounds: Rounds, runners: list[Entrant]) -> list[Entrant]:
        """Those that keep the limit; all where none does."""
        if self.limit_us is None:
            return runners
        return [runner for runner in runners if _p99_us(rounds, runner) <= self.limit_us] or runners

    def _leader(self, rounds: Rounds, runners: list[Entrant]) -> Entrant:
        return max(runners, key=lambda runner: _median(rounds, runner))

    def _ratio(self, rounds: Rounds, first: Entrant, second: Entrant) -> Interval:
        return ratio_of_pairs(*rounds.paired_rates(first.model, second.model))

    def _reason(
        self,
        rounds: Rounds,
        winner: Entrant,
        leader: Entrant,
        within: list[Entrant],
        ratios: Mapping[str, Interval],
    ) -> str:
        parts = []
        if self.limit_us is not None and all(_p99_us(rounds, runner) > self.limit_us for runner in within):
            parts.append(f"none keeps the limit of {milliseconds(self.limit_us)} ms at p99")
        speed = f"{rate(_median(rounds, winner))} inferences/s"
        if winner is not leader:
            ratio = ratios[winner.variant]
            parts.append(
                f"{leader.variant} is not surely faster (ratio {_spell(ratio)}), and {winner.variant} is "
                f"{'more' if winner.score > leader.score else 'as'} accurate: {speed}"
            )
        elif ratios and min(ratio.low for ratio in ratios.values()) <= 1:
            nearest = min(ratios, key=lambda variant: ratios[variant].low)
            told = _spell(ratios[nearest])
            parts.append(f"no difference found to {nearest} (ratio {told}), and as accurate: {speed}")
        elif ratios:
            nearest = min(ratios, key=lambda variant: ratios[variant].value)
            keeps = " that keeps the limit" if len(within) < len(self._runners(rounds)) else ""
            parts.append(f"the fastest{keeps}: {speed}, {_spell(ratios[nearest])} times {nearest}")
        else:
            whom = "that keeps the limit" if self.limit_us is not None else "that could be measured"
            parts.append(f"the only one {whom}: {speed}")
        return "; ".join(parts)

    def _row(self, rounds: Rounds, entrant: Entrant, winner: Entrant) -> Row:
        measured = rounds.measured(entrant.model)
        error = rounds.error(entrant.model)
        said = " ".join(str(error[key]) for key in ("what", "got") if key in error) if error else ""
        if error is not None or not measured:
            return Row(entrant.variant, None, None, None, entrant.score, entrant.size_bytes, None, error=said)
        interval = median_with_interval(list(rounds.rates(entrant.model).values()))
        p99_us = _p99_us(rounds, entrant)
        ratio = self._ratio(rounds, winner, entrant) if entrant is not winner else None
        return Row(
            entrant.variant,
            interval.value,
            (interval.low, interval.high),
            p99_us,
            entrant.score,
            entrant.size_bytes,
            p99_us <= self.limit_us if self.limit_us is not None else None,
            rounds=len(measured),
            behind=(ratio.low, ratio.value, ratio.high) if ratio is not None else None,
            doubts=tuple(sorted({doubt.code for point in measured.values() for doubt in point.doubts} & _SERIOUS)),
            steps=steps_of(list(measured.values())),
        )


def steps_of(points: Sequence[Point]) -> tuple[StepTime, ...]:
    """Where a model's time goes, by its steps; what a step's statistics do not say in any round is left out."""
    seen: dict[str, list[ServerSide]] = {}
    for point in points:
        for side in point.steps or ((point.server,) if point.server is not None else ()):
            if side.queue_us is not None and side.compute_us is not None:
                seen.setdefault(side.model, []).append(side)
    return tuple(
        StepTime(
            model,
            queue_us=statistics.median(side.queue_us or 0.0 for side in sides),
            compute_us=statistics.median(side.compute_infer_us or 0.0 for side in sides),
            copy_us=statistics.median(
                (side.compute_input_us or 0.0) + (side.compute_output_us or 0.0) for side in sides
            ),
            mean_batch=statistics.median(side.mean_batch or 1.0 for side in sides),
        )
        for model, sides in seen.items()
    )


_SERIOUS = {"failed_requests", "other_traffic", "client_behind", "cache_hits"}
"""Doubts that the rounds do not settle: they would be there in every one."""


def _decided(leader: Entrant, other: Entrant, ratio: Interval) -> bool:
    """True where further rounds would not change which of the two wins."""
    if leader.score >= other.score:
        return ratio.low >= 1 / NEAR  # the other, no more accurate, would have to be surely faster than that
    return ratio.low > WORTH or ratio.high <= WORTH


def _median(rounds: Rounds, entrant: Entrant) -> float:
    return statistics.median(rounds.rates(entrant.model).values())


def _p99_us(rounds: Rounds, entrant: Entrant) -> float:
    return statistics.median(
        point.latency.p99_us for point in rounds.measured(entrant.model).values() if point.latency is not None
    )


def _spell(ratio: Interval) -> str:
    return f"{ratio.value:.2f}, {ratio.low:.2f} to {ratio.high:.2f}"


@contextmanager
def _loaded(client: Client, entrants: Sequence[Entrant]) -> Iterator[None]:
    """All of them loaded; unloaded afterwards, however it ends, where the server still lives."""
    loaded: list[str] = []
    try:
        for entrant in entrants:
            loaded.append(entrant.model)
            client.load(entrant.model)
        yield
    finally:
        if client.is_live():
            for model in loaded:
                client.unload(model, with_steps=True)


@dataclass(frozen=True)
class _Inner:
    """A reporter that shows the many small steps as what one large step is doing just now."""

    whole: Step
    outer: Reporter

    def step(self, title: str) -> AbstractContextManager[Step]:
        self.whole.update(title)
        return nullcontext(self.whole)

    def info(self, message: str) -> None:
        self.outer.info(message)

    def warn(self, message: str) -> None:
        self.outer.warn(message)

    def output(self, text: str, *, of: str = "") -> None:
        self.outer.output(text, of=of)


def _no_analyzer(error: AnalyzerUnavailableError) -> BuildError:
    return BuildError(
        "the fastest variant cannot be measured: there is no perf_analyzer",
        where=error.where or "serve: fastest",
        expected="perf_analyzer on this machine, or to be had from the network",
        got=error.what + (f": {error.got}" if error.got else ""),
        fix="name a variant in `serve` instead of fastest" + (f"; or: {error.fix}" if error.fix else ""),
    )


def _none_measured(entrants: Sequence[Entrant], rounds: Rounds) -> BuildError:
    reasons = []
    for entrant in entrants:
        error = rounds.error(entrant.model) or {"what": "no figures"}
        reasons.append(f"{entrant.variant}: {' '.join(str(error[key]) for key in ('what', 'got') if key in error)}")
    return BuildError(
        "the fastest variant cannot be chosen: not one could be measured",
        where="serve: fastest",
        expected="answers under load from at least one of them",
        got="\n".join(reasons),
        fix="name a variant in `serve` instead of fastest, or mend what the first of these says",
    )


def table(choice: Choice) -> str:
    """All variants as text, fastest first; the chosen one is marked. Where one is an ensemble, where its time goes."""
    head = ("", "variant", "inferences/s", "95% interval", "p99 ms", "like fp32", "size MB", "")
    ordered = sorted(choice.rows, key=lambda row: -(row.throughput_per_s or 0.0))
    lines = [head, *(_cells(row, row.variant == choice.variant) for row in ordered)]
    text = _aligned(lines, range(2, 7))
    if not any(len(row.steps) > 1 for row in choice.rows):
        return text
    heads = ("variant", "model", "queue ms", "compute ms", "copy ms", "mean batch")
    steps = [heads, *(_step_cells(row, step) for row in ordered for step in row.steps)]
    return f"{text}\n\n{_aligned(steps, range(2, 6))}"


def _aligned(lines: Sequence[Sequence[str]], right: range) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _step_cells(row: Row, step: StepTime) -> tuple[str, ...]:
    times = (step.queue_us, step.compute_us, step.copy_us)
    return row.variant, step.model, *(milliseconds(time_us) for time_us in times), f"{step.mean_batch:.1f}"


def _cells(row: Row, chosen: bool) -> tuple[str, ...]:
    remarks = [row.error, *row.doubts, "above the latency limit" if row.within_limit is False else ""]
    return (
        "*" if chosen else "",
        row.variant,
        rate(row.throughput_per_s) if row.throughput_per_s is not None else "-",
        f"{rate(row.interval[0])} to {rate(row.interval[1])}" if row.interval is not None else "-",
        milliseconds(row.p99_us),
        f"{row.accuracy:.4f}",
        f"{row.size_bytes / 1e6:.1f}",
        ", ".join(remark for remark in remarks if remark),
    )
