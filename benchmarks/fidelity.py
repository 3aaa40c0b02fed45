"""Are bench-repo's numbers the right ones? Held against perf_analyzer's own, and against a queueing simulation.

    python benchmarks/fidelity.py           # about 5 minutes; make fidelity-bench
    python benchmarks/fidelity.py --write   # and benchmarks/fidelity.md is made of it

1. Our throughput, mean and percentiles, from the timestamp of every request, against the CSV that perf_analyzer wrote
   of the very same run (its mean is printed, not in the CSV).
2. At a rate, latency from when each request was due, against a simulation of the queue: a model that does nothing but
   sleep and writes down for how long, one request at a time, with Poisson and with evenly spaced arrivals; and against
   the theory of that queue (Pollaczek and Khinchine).
3. The same with a model that stalls, against perf_analyzer's own way to send at a rate, which counts from when a
   request was sent (coordinated omission).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)

from benchmarks.fidelity_models import SERVICE_S, STALL_EVERY, STALL_S, repository_of, times_of  # noqa: E402
from perf import analyzer, bench  # noqa: E402
from perf.binary import find_binary  # noqa: E402
from perf.environment import cpu_times, machine_facts, steal_percent  # noqa: E402
from perf.inputs import RequestData, write_input_data  # noqa: E402
from perf.parse import read_csv, read_profile  # noqa: E402
from perf.punctual import late_us, wake_up_us  # noqa: E402
from perf.result import Point  # noqa: E402
from perf.schedule import drawn  # noqa: E402
from perf.tune.simulate import Arrivals, Batching, simulate  # noqa: E402
from serving import Server  # noqa: E402

Figures = dict[str, float]
NAMES = ("inferences/s", "mean", "p50", "p90", "p95", "p99")

SEEDS = 40
_MEAN = re.compile(r"Avg latency: (\d+) usec \(standard deviation")


def ours_of(point: Point) -> Figures:
    """What bench-repo says; times in microseconds."""
    assert point.latency is not None and point.inferences_per_s is not None
    latency = point.latency
    values = (latency.mean_us, latency.p50_us, latency.p90_us, latency.p95_us, latency.p99_us)
    return dict(zip(NAMES, (point.inferences_per_s, *values), strict=True))


def theirs_of(folder: Path) -> Figures:
    """What perf_analyzer says of the run whose files lie there."""
    row = read_csv(folder / analyzer.CSV)
    found = _MEAN.search((folder / analyzer.STDOUT).read_text())
    assert found is not None, "perf_analyzer printed no mean"
    values = (row.inferences_per_s, float(found[1]), row.p50_us, row.p90_us, row.p95_us, row.p99_us)
    return dict(zip(NAMES, values, strict=True))


def own_figures(server: Server, folder: Path, seconds: float) -> Iterator[str]:
    """The first table."""
    yield "| model | load | requests | " + " | ".join(NAMES) + " |"
    yield "|---|---|---|" + "---|" * len(NAMES)
    worst = dict.fromkeys(NAMES, 0.0)
    cases: tuple[tuple[str, Literal["http", "grpc"], int], ...] = (
        ("light", "http", 1),
        ("light", "grpc", 1),
        ("light", "http", 8),
        ("network", "http", 1),
        ("network", "grpc", 1),
        ("nap", "http", 1),
    )
    for model, protocol, batch in cases:
        url = server.http_url if protocol == "http" else server.grpc_url
        result = bench(
            url=url,
            protocol=protocol,
            models=[model],
            concurrency=[1, 4, 16],
            batch_size=batch,
            seconds=seconds,
            output=folder / f"{model}-{protocol}-{batch}",
        )
        for point in result.points:
            assert result.folder is not None and point.raw is not None and point.latency is not None, point.error
            raw = result.folder / point.raw
            ours, theirs = ours_of(point), theirs_of(raw)
            off = {name: (ours[name] / theirs[name] - 1) * 100 for name in NAMES}
            for name in NAMES:
                worst[name] = max(worst[name], abs(off[name]))
            cells = [f"{off[name]:+.3f}%" for name in NAMES]
            load = f"{protocol}, concurrency {point.concurrency}, batch {batch}"
            yield "| " + " | ".join([model, load, f"{point.latency.requests:,}", *cells]) + " |"
    yield "| **largest** | | | " + " | ".join(f"**{value:.3f}%**" for value in worst.values()) + " |"


def queue_of(due_us: NDArray[np.float64], busy_us: NDArray[np.float64], rest_us: float) -> NDArray[np.float64]:
    """Latency of each request where one is served after the other, in the order they come (Lindley)."""
    latency, free = np.empty(len(due_us)), 0.0
    for number, due in enumerate(due_us):
        free = max(free, due) + busy_us[number]
        latency[number] = free - due + rest_us
    return latency


def spread(latency_us: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean, median, p99."""
    return float(latency_us.mean()), float(np.median(latency_us)), float(np.percentile(latency_us, 99))


@dataclass(frozen=True)
class Served:
    """What a request takes beside the execution, microseconds, measured with `nap`.

    Attributes:
        gap_us: from the end of an execution to the begin of the next, where one waits: the instance is busy then, too.
        rest_us: what keeps nothing busy.
    """

    repository: Path
    gap_us: float
    rest_us: float

    def busy_us(self, model: str, count: int) -> NDArray[np.float64]:
        """For how long each of the last requests kept the instance busy, in the order in which they were served.

        The time to the next execution is part of it; where the instance was idle in between, its mean is.
        """
        times = times_of(self.repository, model)[-count:]
        assert len(times) == count, "not every execution was written down"
        gaps_us = np.append(times[1:, 0] - times[:-1, 1], np.inf)
        turned = gaps_us < 3 * self.gap_us
        mean_us = float(gaps_us[turned].mean()) if turned.sum() > count / 10 else self.gap_us
        return times[:, 1] - times[:, 0] + np.where(turned, gaps_us, mean_us)


def served(server: Server, repository: Path, seconds: float) -> Served:
    """Measured with `nap` full, and with one request at a time."""
    bench(url=server.http_url, models=["nap"], concurrency=[4], seconds=seconds)
    times = times_of(repository, "nap")[-int(seconds / SERVICE_S / 2) :]
    gap_us = float(np.median(times[1:, 0] - times[:-1, 1]))
    (alone,) = bench(url=server.http_url, models=["nap"], concurrency=[1], seconds=seconds).points
    assert alone.latency is not None
    times = times_of(repository, "nap")[-int(seconds / SERVICE_S / 2) :]
    rest_us = alone.latency.p50_us - float(np.median(times[:, 1] - times[:, 0])) - gap_us
    return Served(repository, gap_us, max(0.0, rest_us))


def rates(server: Server, known: Served, seconds: float) -> Iterator[str]:
    """The second table."""
    typical_us = float(np.median(known.busy_us("nap", 100)))
    yield (
        f"`nap` keeps its instance busy for {typical_us:,.0f} us a request (median), {known.gap_us:,.0f} us of it "
        f"between executions; a request takes {known.rest_us:,.0f} us beside that."
    )
    yield ""
    yield "| arrivals | busy | ms: mean, p50, p99 | / same arrivals | / simulation | by chance (95%) | / theory: mean |"
    yield "|---|---|---|---|---|---|---|"
    for distribution in ("poisson", "constant"):
        for load in (0.3, 0.6, 0.8):
            yield "| " + " | ".join(_rate(server, known, distribution, load / typical_us * 1e6, seconds)) + " |"


def _rate(
    server: Server, known: Served, distribution: Literal["poisson", "constant"], rate: float, seconds: float
) -> list[str]:
    url = server.http_url
    (point,) = bench(url=url, models=["nap"], rate=[rate], distribution=distribution, seconds=seconds).points
    assert point.latency is not None, point.error
    latency = point.latency
    got = (latency.mean_us, latency.p50_us, latency.p99_us)
    schedule = drawn(rate, distribution, seconds)
    kept = schedule.due_us >= schedule.start_us
    busy_us = known.busy_us("nap", len(kept))
    exact = spread(queue_of(schedule.due_us.astype(np.float64), busy_us, known.rest_us)[kept])
    arrivals = Arrivals(rate_per_s=rate, distribution=distribution)

    def play(seed: int) -> tuple[float, float, float]:
        draws = iter(np.random.default_rng(seed).choice(busy_us, len(kept)).tolist())
        found = simulate(
            Batching(),
            arrivals,
            lambda batch, busy: float(next(draws)),
            rest_us=known.rest_us,
            requests=len(kept),
            seed=seed,
        )
        return spread(found.latency_us)

    played = np.array([play(seed) for seed in range(SEEDS)])
    middle = np.median(played, axis=0)
    low, high = np.percentile(played / middle, (2.5, 97.5), axis=0)
    load = rate * float(busy_us.mean()) / 1e6
    wait_us = rate / 1e6 * float((busy_us**2).mean()) / (2 * (1 - load)) if load < 1 else float("inf")
    theory_us = wait_us + float(busy_us.mean()) + known.rest_us
    return [
        distribution,
        f"{load:.2f}",
        ", ".join(f"{value / 1000:.2f}" for value in got),
        ", ".join(f"{a / b:.3f}" for a, b in zip(got, exact, strict=True)),
        ", ".join(f"{a / b:.3f}" for a, b in zip(got, middle, strict=True)),
        ", ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(low, high, strict=True)),
        f"{latency.mean_us / theory_us:.3f}" if distribution == "poisson" else "-",
    ]


def omission(server: Server, known: Served, folder: Path, seconds: float) -> Iterator[str]:
    """The third table: a model that stalls, at a rate."""
    rate = 100.0
    result = bench(url=server.http_url, models=["stall"], rate=[rate], seconds=seconds, output=folder / "stall")
    (point,) = result.points
    assert point.latency is not None and result.folder is not None and point.raw is not None, point.error
    raw = result.folder / point.raw
    schedule = drawn(rate, "constant", seconds)
    due_us = schedule.due_us.astype(np.float64)
    predicted = queue_of(due_us, known.busy_us("stall", len(due_us)), known.rest_us)[
        schedule.due_us >= schedule.start_us
    ]
    rows = [("bench-repo, from when it was due", ours_of(point)), ("the queue, predicted", _of(predicted))]
    rows.append(("the same run, from when each was sent", _of(read_profile(raw / "profile.json").latency_us)))
    for threads in (4, 1):
        rows.append(
            (f"perf_analyzer's default (synchronous), {threads} threads", _theirs(server, folder, threads, seconds))
        )
    (closed,) = bench(url=server.http_url, models=["stall"], concurrency=[1], seconds=seconds).points
    rows.append(("a closed loop, concurrency 1", ours_of(closed)))
    yield "| how | mean ms | p50 | p90 | p99 |"
    yield "|---|---|---|---|---|"
    for what, figures in rows:
        cells = [f"{figures[name] / 1000:.1f}" for name in ("mean", "p50", "p90", "p99")]
        yield "| " + " | ".join([what, *cells]) + " |"


def _of(latency_us: NDArray[np.float64]) -> Figures:
    p50, p90, p95, p99 = (float(value) for value in np.percentile(latency_us, (50, 90, 95, 99)))
    return dict(zip(NAMES, (0.0, float(latency_us.mean()), p50, p90, p95, p99), strict=True))


def _theirs(server: Server, folder: Path, threads: int, seconds: float) -> Figures:
    """perf_analyzer at the same times, but waiting for each answer in the thread that sends."""
    place = folder / f"synchronous-{threads}"
    place.mkdir()
    schedule = drawn(100.0, "constant", seconds)
    schedule.write(place / analyzer.INTERVALS)
    write_input_data(RequestData(({"x": np.ones(4, dtype=np.float32)},), "ones"), folder / Path(analyzer.INPUTS).name)
    load = analyzer.Load("stall", server.http_url, "http", None, 1, "none", seconds, export=False, schedule=schedule)
    binary = find_binary()
    command = _synchronous(analyzer.command_for(binary, load), threads)
    with (place / analyzer.STDOUT).open("wb") as stdout:
        subprocess.run(
            command, cwd=place, env=binary.environment(), stdout=stdout, stderr=subprocess.STDOUT, check=True
        )
    return theirs_of(place)


def _synchronous(command: list[str], threads: int) -> list[str]:
    kept = [part for part in command if part != "--async"]
    kept[kept.index("--max-threads") + 1] = str(threads)
    return kept


def page(parts: Sequence[tuple[str, str, Sequence[str]]], command: str, steal: float | None) -> str:
    """The whole page; ``steal`` is the percentage of the processor time that others had."""
    machine = machine_facts()
    lines = [
        "# Are the numbers the right ones?",
        "",
        f"Made by `{command}` on {date.today()}, on {machine.get('cpu')} with {machine.get('cores_usable')} cores; the",
        f"embedded server and perf_analyzer share them; the hypervisor kept {steal or 0.0:.1f}% of the processor time.",
        "",
    ]
    for title, text, table in parts:
        lines += [f"## {title}", "", text, "", *table, ""]
    return "\n".join(lines).rstrip() + "\n"


CSV_TEXT = """How far our figures lie from perf_analyzer's own CSV of the same run. Both take the same three windows,
and for a percentile the request nearest to the rank; it cuts times to whole microseconds."""

RATE_TEXT = """Ratios of what was measured to what a queue with one server gives. `same arrivals`: the queue played with
the times at which these very requests were due, and what each took. `simulation`: `perf/tune/simulate.py`, the median
of {seeds} plays of its own arrivals, with such services in any order. `by chance`: where 95% of these plays lie, for as
many requests: mean, p50, p99 each time."""

STALL_TEXT = """`stall` takes {stall:g} s for every {every}th request and 4 ms for all others; 100 requests a second are
due. Users who come while it stalls wait; a client that waits with it does not ask, and so does not see them wait."""

NOTE = """The export does not tell when a schedule began. It is taken from the most punctual request, less the time that
the most punctual sleep takes to end here: {wake:.0f} us now, {default:.0f} us where Linux may be late to save power
(not with perf_analyzer when bench-repo starts it). By so much latencies at a rate would else be too short."""


def main() -> int:
    """Arguments to exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a point at a rate; others a quarter (20)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/fidelity.md")
    args = parser.parse_args()
    ticks = cpu_times()
    with tempfile.TemporaryDirectory(prefix="fidelity-") as temporary:
        folder = Path(temporary)
        repository = repository_of(folder / "models")
        with Server(repository) as server:
            note = NOTE.format(wake=wake_up_us(), default=late_us())
            stall = STALL_TEXT.format(stall=STALL_S, every=STALL_EVERY)
            rate = RATE_TEXT.format(seeds=SEEDS)
            own = [*own_figures(server, folder, args.seconds / 4)]
            known = served(server, repository, 3.0)
            parts = [
                ("perf_analyzer's own figures of the same run", CSV_TEXT, own),
                ("A rate, against the queue", rate, [*rates(server, known, args.seconds), "", note]),
                ("Coordinated omission", stall, [*omission(server, known, folder, args.seconds)]),
            ]
    text = page(parts, " ".join(["python benchmarks/fidelity.py", *sys.argv[1:]]), steal_percent(ticks, cpu_times()))
    print(text)
    if args.write:
        (HERE / "fidelity.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
