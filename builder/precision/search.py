"""The recipe that holds the accuracy and is fastest: found by measuring, not by a list of what is known to be delicate.

families   the options of each family of recipes, one after the other, with nothing left in float
costs      what each node loses alone, and its share of the work
fewest     the dearest nodes (loss for work) are left in float, as few as the judge lets pass
back       what turns out not to be needed in float goes back
times      those within the limits, in turns against fp32: the fastest, inside the noise the most accurate
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.agreement import Judge
from builder.precision import half
from builder.precision.apply import apply
from builder.precision.calibration import Calibration
from builder.precision.families import Family, families
from builder.precision.found import Found, nothing_made, out_of_budget
from builder.precision.frontier import Candidate, fastest, frontier
from builder.precision.ranges_half import keep_in_fp32
from builder.precision.recipe import Feeds, Recipe
from builder.precision.scratch import digest_of, scratch
from builder.precision.sensitivity import Cost, Part, costs, named, parts
from builder.precision.trials import OutOfTimeError, Stopwatch, Trial, Trials, candidate
from serving.progress import Reporter

MOST_IN_FLOAT = 0.9
"""Of the work: with less than the rest in integers it is no other precision any more."""
MOST_TIMED = 6
MOST_MEASURED = 64
"""Parts whose cost is measured one by one."""
SHARE_FOR_COSTS = 0.4
"""Of the time that is left, for measuring costs."""
TRIES_BACK = 6
NOT_WORTH = 1.05
"""A recipe that is not faster than fp32 by more than this with everything in integers is not refined."""
CLEARLY = 0.95
"""A share of the loss below which another option is taken for better."""
_QUICK_ROUNDS = 5


def search(
    prepared: Path,
    to: Path,
    *,
    precision: str,
    target: str,
    feeds: Feeds,
    judge: Judge,
    quick: Judge,
    time_one: Callable[[Path], float],
    minutes: float,
    folder: Path,
    reporter: Reporter,
    keep: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Found:
    """Find a recipe, and write what it makes.

    Args:
        prepared: the fp32 graph, as :func:`builder.precision.prepare.prepared` wrote it.
        to: the file to write.
        precision, target: as in :class:`builder.variants.Variant`; latency is measured for ``cpu`` alone.
        feeds: calibration requests.
        judge: decides, on samples that calibration has not seen.
        quick: ranks, on few samples.
        time_one: time of one request, in microseconds.
        minutes: how long new candidates may be begun.
        folder: where what was judged is kept, so that a search that was cut off goes on.
        reporter: where progress goes.
        keep: what stays in float whatever happens: names of nodes, globs of them, operator types.
        options: of the recipe; what is given is not varied.

    Raises:
        OutOfBudgetError: nothing is within the limits; the best was written all the same.
        PrecisionError: no recipe could be made at all.
    """
    began = time.monotonic()

    def make(recipe: Recipe, at: Path) -> None:
        apply(recipe, prepared, at, feeds=feeds, calibration=calibration)

    def runnable(recipe: Recipe, at: Path, emulated: Path) -> Path:
        # ONNX Runtime's CPU provider rounds nothing between nodes in half precision, so nothing overflows there.
        if recipe.precision not in ("fp16", "bf16"):
            return at
        half.emulated(prepared, emulated, precision=recipe.precision, keep=recipe.keep)
        return emulated

    with scratch(folder) as derived, reporter.step(f"searching {precision} for {target}") as step:
        calibration = Calibration(prepared, feeds, derived)
        trials = Trials(
            prepared,
            folder,
            make=make,
            runnable=runnable,
            exact=target not in ("cpu", "openvino"),
            identity=f"{quick.digest} {digest_of(feeds) if precision == 'int8' else ''}",
            seconds=minutes * 60,
            step=step,
        )
        timed = target == "cpu" and precision != "bf16"  # which no processor's ONNX Runtime has kernels for
        hunt = _Hunt(trials, judge, quick, timed, Stopwatch(trials, time_one))
        complete = hunt.run(_start(prepared, feeds, precision, target, keep, options or {}))
        found = hunt.found(complete, began)
        apply(found.recipe, prepared, to, feeds=feeds, calibration=calibration)
        before = f", {trials.known} before" if trials.known else ""
        step.done("found" if found.verdict.ok else "failed", f"{trials.count} candidates judged{before}")
    if not found.verdict.ok:
        raise out_of_budget(found, precision, minutes)
    return found


def _start(
    prepared: Path, feeds: Feeds, precision: str, target: str, keep: Sequence[str], options: Mapping[str, Any]
) -> list[Family]:
    kept = tuple(named(prepared, keep))
    if precision in ("fp16", "bf16"):
        measured = keep_in_fp32(prepared, feeds, precision, io=str(options.get("io", "fp32")))
        return families(precision, target, [], sorted({*kept, *measured.nodes}), options)
    whole = parts(prepared, Recipe("int8", "static")) if precision == "int8" else []
    return families(precision, target, whole, kept, options)


class _Hunt:
    """One search: what was judged by the judge that decides, and what each node costs."""

    def __init__(self, trials: Trials, judge: Judge, quick: Judge, timed: bool, watch: Stopwatch) -> None:
        self._trials, self._judge, self._quick, self._watch = trials, judge, quick, watch
        self._timed = timed
        self._judged: dict[str, Trial] = {}
        self._in_float: dict[str, float] = {}
        self._costs: dict[str, float] = {}
        self._problems: list[str] = []

    def run(self, tried: Sequence[Family]) -> bool:
        """Try the families; False where the time ran out."""
        try:
            whole = []
            for family in tried:
                best = self._tuned(family)
                if best is None:
                    continue
                whole.append(self._full(best, 0.0))
                if whole[-1].ok and not self._timed:
                    return True
            for trial in sorted(whole, key=lambda trial: trial.loss):
                if not trial.ok and self._is_worth(trial, whole):
                    self._refine(trial)
                    if not self._timed and any(one.ok for one in self._judged.values()):
                        return True
        except OutOfTimeError:
            return False
        return True

    def found(self, complete: bool, began: float) -> Found:
        """What to take of all that was judged."""
        usable = [trial for trial in self._judged.values() if trial.verdict is not None]
        if not usable:
            raise nothing_made(self._problems, complete)
        within = [trial for trial in usable if trial.ok]
        chosen = self._times(self._shortlist(within))
        rest = [candidate(trial) for trial in usable if trial.recipe.digest not in chosen]
        if within and self._timed:
            best = fastest(list(chosen.values()))
        elif within:
            least = min(within, key=lambda trial: (self._in_float[trial.recipe.digest], trial.loss))
            best = candidate(least)
        else:
            best = candidate(min(usable, key=lambda trial: trial.loss))
        verdict = self._judged[best.recipe.digest].verdict
        assert verdict is not None
        blamed = sorted(self._costs.items(), key=lambda pair: (-pair[1], pair[0]))
        whole = frontier([*chosen.values(), *rest])
        return Found(best.recipe, verdict, best, whole, complete, time.monotonic() - began, tuple(blamed))

    def _full(self, recipe: Recipe, in_float: float) -> Trial:
        trial = self._trials.judged(recipe, self._judge)
        self._judged[recipe.digest] = trial
        self._in_float[recipe.digest] = in_float
        if trial.problem:
            self._problems.append(trial.problem)
        return trial

    def _tuned(self, family: Family) -> Recipe | None:
        """The best options of a family, one option after the other; None where none of it can be made."""
        best = self._trials.judged(family.base, self._quick)
        for name, values in family.axes:
            before = best.recipe
            for value in values:
                options = {**before.options, name: list(value) if isinstance(value, tuple) else value}
                recipe = Recipe(before.precision, before.method, before.keep, options)
                trial = self._trials.judged(recipe, self._quick)
                if trial.loss < CLEARLY * best.loss:
                    best = trial
        if best.verdict is None:
            self._problems.append(best.problem)
            return None
        return best.recipe

    def _is_worth(self, trial: Trial, whole: Sequence[Trial]) -> bool:
        """Whether leaving nodes in float can make it the fastest: with all in integers it is as fast as it gets."""
        if not self._timed or len(whole) == 1:
            return True
        rivals = [other for other in whole if other is not trial and other.loss <= trial.loss]
        within = self._shortlist([one for one in self._judged.values() if one.ok])
        times = self._watch.timed([trial, *rivals, *within], rounds=_QUICK_ROUNDS)
        mine = times[trial.recipe.digest]
        best = (mine.latency_ratio or 0.0) * (1 + mine.noise)
        if within and best < NOT_WORTH:
            return False
        others = [times[other.recipe.digest] for other in (*rivals, *within)]
        return all(best > (other.latency_ratio or 0.0) * (1 - other.noise) for other in others)

    def _refine(self, whole: Trial) -> None:
        """Leave the fewest nodes in float so that the judge lets it pass, then as many as possible back."""
        order = self._by_cost(whole.recipe)
        work = sum(cost.part.work for cost in order) or 1.0
        shares = [0.0]
        for cost in order:
            shares.append(shares[-1] + cost.part.work / work)
        most = max((count for count, share in enumerate(shares) if share <= MOST_IN_FLOAT), default=0)
        most = min(most, len(order) - 1)

        def leaving(count: int) -> Trial:
            return self._full(_keeping(whole.recipe, order[:count]), shares[count])

        passing = _fewest(leaving, most, _expected(order, whole.loss, most))
        if passing is not None:
            self._give_back(whole.recipe, order[:passing], work, leaving(passing), whole.loss)

    def _by_cost(self, recipe: Recipe) -> list[Cost]:
        found = parts(self._trials.prepared, recipe)

        def loss_of(changed: Sequence[Part]) -> float:
            names = {part.name for part in changed}
            rest = [part.name for part in found if part.name not in names]
            alone = Recipe(recipe.precision, recipe.method, tuple(sorted({*recipe.keep, *rest})), recipe.options)
            return self._trials.judged(alone, self._quick).loss

        affordable = int(SHARE_FOR_COSTS * self._trials.left_s / max(self._trials.seconds_each, 0.01))
        measured = costs(found, loss_of, most=max(4, min(MOST_MEASURED, affordable)))
        for cost in measured:
            self._costs[cost.part.name] = max(cost.loss, self._costs.get(cost.part.name, 0.0))
        if self._timed:
            return sorted(measured, key=lambda cost: -cost.per_work)
        return sorted(measured, key=lambda cost: -cost.loss)

    def _give_back(self, recipe: Recipe, left: Sequence[Cost], work: float, trial: Trial, whole: float) -> None:
        """Try to do without each node that was left in float, those with the most work first."""
        now, loss = list(left), trial.loss
        tries = 0
        for cost in sorted(left, key=lambda cost: -cost.part.work if self._timed else cost.loss):
            if tries == TRIES_BACK or loss + cost.loss > 1.1:
                continue
            tries += 1
            without = [other for other in now if other is not cost]
            share = sum(other.part.work for other in without) / work
            tried = self._full(_keeping(recipe, without), share)
            if tried.ok:
                now, loss = without, tried.loss

    def _shortlist(self, within: Sequence[Trial]) -> list[Trial]:
        """Those with the least in float, of every way of quantizing."""
        by_options: dict[str, list[Trial]] = {}
        for trial in sorted(within, key=lambda trial: (self._in_float[trial.recipe.digest], trial.loss)):
            by_options.setdefault(f"{trial.recipe.method} {sorted(trial.recipe.options.items())}", []).append(trial)
        rows = list(by_options.values())
        each = max(2, MOST_TIMED // max(1, len(rows)))
        return [trial for row in rows for trial in row[:each]]

    def _times(self, chosen: Sequence[Trial]) -> dict[str, Candidate]:
        return self._watch.timed(chosen) if self._timed and chosen else {}


def _keeping(recipe: Recipe, left: Sequence[Cost]) -> Recipe:
    keep = tuple(sorted({*recipe.keep, *(cost.part.name for cost in left)}))
    return Recipe(recipe.precision, recipe.method, keep, recipe.options)


def _expected(order: Sequence[Cost], whole: float, most: int) -> int:
    """How many have to stay in float if losses add up to what the whole lost."""
    total = sum(cost.loss for cost in order)
    scale = min(whole / total, 1e3) if total else 0.0
    remaining = total
    for count, cost in enumerate(order):
        if count and remaining * scale <= 0.95:
            return min(count, most)
        remaining -= cost.loss
    return most


def _fewest(leaving: Callable[[int], Trial], most: int, guess: int) -> int | None:
    """The least count that passes, of 1 to ``most``: out from a guess in growing steps, then by halving.

    None where not even ``most`` passes. That zero does not is known.
    """
    if most < 1:
        return None
    failing, passing, step = 0, None, 1
    at = max(1, min(guess, most))
    while passing is None or passing - failing > 1:
        if leaving(at).ok:
            passing = at
        else:
            failing = at
            if failing == most:
                return None
        if passing is None:
            at, step = min(most, at + step), step * 2
        elif failing == 0:
            at, step = max(1, passing - step), step * 2
        else:
            at = (failing + passing) // 2
        if passing == 1:
            return 1
    return passing
