"""tune-repo beside what else there is: Triton's automatic configuration, the spec's own, Model Analyzer's quick search.

    python benchmarks/tuning.py                  # digits, MiniLM, EfficientNet: about 50 minutes on two cores
    python benchmarks/tuning.py --models digits  # one of them
    python benchmarks/tuning.py --write          # and benchmarks/tuning.md is made of it, and of what is kept of others

For each model a limit on p99 was fixed beforehand, and everybody looks for the most inferences/s under it. Model
Analyzer (from PyPI, in an environment of its own) searches first; tune-repo then gets a third of the time that it took,
once with the artifact that is served (as Model Analyzer has it) and once with all variants that kept their accuracy.
Then all that came out, Triton's automatic configuration and the spec's are measured on one server in turns, at every
load that may be the best. The best load of each is chosen by half of the rounds, what is printed are the other half:
whoever is lucky once is not lucky twice. Keep other work off the machine.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import yaml
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)
sys.path.append(str(HERE))

import tuning_model_analyzer as model_analyzer  # noqa: E402

from builder import Options, build, load_spec  # noqa: E402
from builder.host import cpu_model  # noqa: E402
from perf.binary import find_binary  # noqa: E402
from perf.environment import cpu_times, steal_percent  # noqa: E402
from perf.inputs import write_input_data  # noqa: E402
from perf.interleaved import in_turn  # noqa: E402
from perf.intervals import Interval, median_with_interval, ratio_of_pairs  # noqa: E402
from perf.tune.errors import TuneError  # noqa: E402
from perf.tune.judge import Measured  # noqa: E402
from perf.tune.measuring import Meter  # noqa: E402
from perf.tune.predict import Trial  # noqa: E402
from perf.tune.request import TuneRequest, parse_limit  # noqa: E402
from perf.tune.result import TuneResult  # noqa: E402
from perf.tune.running import tune  # noqa: E402
from perf.tune.simulate import Arrivals  # noqa: E402
from perf.tune.space import Settings, settings_of  # noqa: E402
from perf.tune.stage import Stage, open_stage  # noqa: E402
from perf.tune.variants import find_variants  # noqa: E402
from serving.progress import Progress  # noqa: E402

LIMITS_MS = {"digits": 20.0, "minilm": 100.0, "efficientnet": 200.0}
VARIANTS = ["onnx-fp32", "onnx-fp16", "onnx-int8"]
LOADS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
ROUNDS = 20
"""Half of them to choose each one's load, half to print."""
LOADS_EACH = 2
SECONDS = 2.0
SHARE = 3.4
"""tune-repo gets Model Analyzer's time divided by this for its search; with its server's start that is a third."""

_NUMBERS = itertools.count()

AUTOMATIC, SPEC, ANALYZER = "Triton's automatic configuration", "the spec's default", "Model Analyzer, quick search"
SAME, ALL = "tune-repo, the same artifact", "tune-repo, every variant"


@dataclass
class Contender:
    """A configuration, and what it took to find it.

    Attributes:
        settings: None where its search found nothing that keeps the limit.
        concurrency: at which its search found it best, 0 where nothing says.
        found: of its search: inferences/s as it said itself, measurements, seconds.
    """

    settings: Settings | None
    concurrency: int = 0
    found: tuple[float, int, float] | None = None
    rounds: dict[int, dict[int, Measured]] = field(default_factory=dict)

    def chosen_load(self, limit_us: float) -> int | None:
        """The load with the highest throughput that keeps the limit, by the even rounds; None where none does."""
        best, most = None, 0.0
        for concurrency, rounds in self.rounds.items():
            even = [each for number, each in rounds.items() if number % 2 == 0]
            if not even:
                continue
            rate = median_with_interval([each.inferences_per_s for each in even]).value
            if median_with_interval([each.latency_us for each in even]).value <= limit_us and rate > most:
                best, most = concurrency, rate
        return best

    def held_out(self, concurrency: int) -> dict[int, Measured]:
        """The odd rounds at a load."""
        return {number: each for number, each in self.rounds[concurrency].items() if number % 2}


def built(name: str, folder: Path) -> Path:
    """The repository with an example in every variant that a CPU serves; built once, then from its cache.

    Raises:
        SystemExit: the model failed.
    """
    place = folder / name
    shutil.copytree(
        HERE.parent / "examples" / name, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
    )
    spec = yaml.safe_load((place / "models.yaml").read_text(encoding="utf-8"))
    model = spec["models"][name] | {"variants": VARIANTS}
    recipes = model.get("precision", {}).get("recipes", {})
    for variant in [each for each in recipes if each not in VARIANTS]:
        del recipes[variant]
    (place / "models.yaml").write_text(yaml.safe_dump({"repository": "repository", "models": {name: model}}))
    report = build(load_spec(place / "models.yaml"), reporter=Progress(), options=Options(jobs=1))
    if report.models[-1].error is not None:
        raise SystemExit(str(report.models[-1].error))
    return report.repository


def automatic(stage: Stage) -> Settings:
    """What Triton makes of a model that says no more than its backend."""
    variant = next(iter(stage.variants.values()))
    stage.client.load(variant.model, {"name": variant.model, "backend": "onnxruntime"})
    config = stage.client.config(variant.model)
    stage.client.unload(variant.model)
    return settings_of(config, variant.name)


def from_text(text: str, variant: str) -> Settings:
    """The settings of a ``config.pbtxt``."""
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    settings = settings_of(json_format.MessageToDict(config, preserving_proto_field_name=True), variant)
    if config.instance_group:
        return settings
    return replace(settings, instances=2)  # as Triton has it for this backend on a CPU, where nothing is said


def without_batcher(path: Path) -> None:
    """Take what the spec says of batching out of a ``config.pbtxt``.

    With preferred sizes in it Model Analyzer's first step, ``max_batch_size`` 1, is illegal, and its search is over.
    """
    config = text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    config.ClearField("dynamic_batching")
    path.write_text(text_format.MessageToString(config), encoding="utf-8")


def tuned(repository: Path, model: str, limit_ms: float, minutes: float) -> tuple[Contender, TuneResult]:
    """What tune-repo finds in so many minutes."""
    request = TuneRequest(repository, model, limit=parse_limit(f"p99={limit_ms:g}ms"), minutes=minutes)
    started_s = time.monotonic()
    result = tune(request, reporter=Progress())
    row = result.chosen or result.nearest
    assert row is not None
    settings = Settings(**{**row.settings, "preferred": tuple(row.settings["preferred"])})
    found = (row.inferences_per_s or 0.0, result.measurements, time.monotonic() - started_s)
    return Contender(settings, int(row.load.rpartition(" ")[2]), found), result


def contenders(model: str, repository: Path, folder: Path, program: Path) -> tuple[dict[str, Contender], list[str]]:
    """Everybody's configuration of one model, and notes; two searches and two that need none."""
    limit_ms = LIMITS_MS[model]
    served = find_variants(repository, model)[0]
    alone, bare = folder / "alone", folder / "bare"
    for place in (alone, bare):
        shutil.copytree(repository / model, place / model)
    without_batcher(bare / model / "config.pbtxt")
    with open_stage([served]) as stage:
        found = {AUTOMATIC: Contender(automatic(stage))}
        found[SPEC] = Contender(settings_of(stage.configs[served.name], served.name))
        inputs = folder / "inputs.json"
        write_input_data(stage.data[served.name], inputs)
    theirs = model_analyzer.quick_search(
        program, bare, model, folder / "model-analyzer", limit_ms=limit_ms, inputs=inputs
    )
    found[ANALYZER] = Contender(
        from_text(theirs.config, served.name) if theirs.config else None,
        theirs.concurrency,
        (theirs.inferences_per_s, theirs.measurements, theirs.seconds),
    )
    notes = [f"Model Analyzer: {theirs.measurements} measurements in {theirs.seconds:.0f} s"]
    for label, place in ((SAME, alone), (ALL, repository)):
        found[label], result = tuned(place, model, limit_ms, theirs.seconds / SHARE / 60)
        notes.append(f"{label}: {result.reason}")
    return found, notes


def compete(model: str, repository: Path, found: Mapping[str, Contender], folder: Path, rounds: int) -> None:
    """Measure everybody in turns on one server; the rounds are put into the contenders."""
    limit_us = LIMITS_MS[model] * 1000
    reporter = Progress()
    with open_stage(find_variants(repository, model)) as stage:
        meter = Meter(stage, find_binary(), folder / "raw", SECONDS, 99.0)
        alike: dict[Settings, list[Contender]] = {}
        for each in found.values():
            if each.settings is not None:
                alike.setdefault(each.settings, []).append(each)
        with reporter.step(f"{model}: a look at every load") as step:
            looked = {settings: _look(meter, settings, own, limit_us) for settings, own in alike.items()}
            step.done("looked", str([*looked.values()]))
        for settings, sharing in alike.items():  # the same configuration is measured once, for all who have it
            rounds_of: dict[int, dict[int, Measured]] = {concurrency: {} for concurrency in looked[settings]}
            for each in sharing:
                each.rounds = rounds_of
        pairs = [(settings, concurrency) for settings, loads in looked.items() for concurrency in loads]
        names = [str(place) for place in range(len(pairs))]
        for number in range(1, rounds + 1):
            with reporter.step(f"{model}: round {number} of {rounds}"):
                for name in in_turn(names, number):
                    settings, concurrency = pairs[int(name)]
                    if measured := _measure(meter, settings, concurrency):
                        alike[settings][0].rounds[concurrency][number] = measured


def _look(meter: Meter, settings: Settings, contenders: Sequence[Contender], limit_us: float) -> list[int]:
    """Loads that may be the best: those of the searches, and the highest throughput under the limit in a short look."""
    seen: dict[int, Measured] = {}
    for concurrency in LOADS:
        measured = _measure(meter, settings, concurrency)
        if measured is None:  # with so many under way perf_analyzer does not come to an end
            break
        seen[concurrency] = measured
        if measured.latency_us > 2 * limit_us and concurrency > 1:
            break
    within = [each for each in seen if seen[each].latency_us <= limit_us] or [1]
    best = sorted(within, key=lambda each: -seen[each].inferences_per_s)
    own = [each.concurrency for each in contenders if each.concurrency]
    return list(dict.fromkeys([*own, *best[:LOADS_EACH]]))


def _measure(meter: Meter, settings: Settings, concurrency: int) -> Measured | None:
    """Figures; None where there are none, which is said."""
    trial = Trial(settings, Arrivals(concurrency=concurrency))
    about_us = 1e6 * concurrency / 100  # of an answer: windows are not to be shorter than a few of these
    try:
        return meter.measure(trial, next(_NUMBERS), min(about_us, 3e5))  # two may have the same settings
    except TuneError as error:
        print(error, file=sys.stderr)
        return None


def table(model: str, found: Mapping[str, Contender]) -> Iterator[str]:
    """What came out for one model."""
    limit_us = LIMITS_MS[model] * 1000
    yield f"## {model}, p99 at most {LIMITS_MS[model]:g} ms"
    yield ""
    against = "against the automatic one | against Model Analyzer"
    yield f"| | inferences/s | p99 ms | requests at once | {against} | measured | s |"
    yield "|---|---|---|---|---|---|---|---|"
    loads = {label: each.chosen_load(limit_us) for label, each in found.items() if each.settings is not None}
    for label, each in found.items():
        found_by = f"{each.found[1]} | {each.found[2]:.0f}" if each.found is not None else " | "
        load = loads.get(label)
        if load is None:
            yield f"| {label} | nothing keeps the limit | | | | | {found_by} |"
            continue
        held = each.held_out(load)
        speed = median_with_interval([one.inferences_per_s for one in held.values()])
        latency = median_with_interval([one.latency_us for one in held.values()])
        ratios = [_against(held, found, loads, other) if other != label else "" for other in (AUTOMATIC, ANALYZER)]
        cells = [
            label,
            f"{speed.value:,.0f} ({speed.low:,.0f} to {speed.high:,.0f})",
            f"{latency.value / 1e3:.1f} ({latency.low / 1e3:.1f} to {latency.high / 1e3:.1f})",
            str(load),
            *ratios,
            found_by,
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from aims(found, loads)
    yield ""
    for label, each in found.items():
        if each.settings is not None:
            yield f"- {label}: {each.settings.spell()}"
    yield ""


def aims(found: Mapping[str, Contender], loads: Mapping[str, int | None]) -> Iterator[str]:
    """What was hoped for, and what came of it."""
    theirs = found[ANALYZER].found
    for label in (SAME, ALL):
        load, own = loads.get(label), found[label].found
        if load is None or own is None or theirs is None:
            yield f"- {label}: found nothing that keeps the limit."
            continue
        held = found[label].held_out(load)
        words = []
        for other, name in ((ANALYZER, "Model Analyzer's best"), (AUTOMATIC, "the automatic configuration")):
            ratio = _ratio(held, found, loads, other)
            if ratio is not None:
                said = "better than" if ratio.low > 1 else "worse than" if ratio.high < 1 else "no difference found to"
                words.append(f"{said} {name} ({_spell(ratio)})")
        yield f"- {label}: {', '.join(words)}, in {own[2] / theirs[2]:.2f} of Model Analyzer's time."


def _ratio(
    held: Mapping[int, Measured], found: Mapping[str, Contender], loads: Mapping[str, int | None], other: str
) -> Interval | None:
    load = loads.get(other)
    if load is None:
        return None
    theirs = found[other].held_out(load)
    both = sorted(set(held) & set(theirs))
    return ratio_of_pairs(
        [held[number].inferences_per_s for number in both], [theirs[number].inferences_per_s for number in both]
    )


def _against(
    held: Mapping[int, Measured], found: Mapping[str, Contender], loads: Mapping[str, int | None], other: str
) -> str:
    ratio = _ratio(held, found, loads, other)
    return "" if ratio is None else _spell(ratio)


def _spell(ratio: Interval) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def page(parts: Sequence[str]) -> Iterator[str]:
    """The whole page."""
    yield "# tune-repo, Model Analyzer, and no tuning at all"
    yield ""
    yield f"Made by `python benchmarks/tuning.py --write`, on {cpu_model()}: the embedded server and"
    yield "perf_analyzer on the same two cores, HTTP, one sample a request."
    yield f"Rounds of {SECONDS:g} s in turns, half to choose each one's load, the others printed here: medians"
    yield "with 95% intervals, ratios of rounds in pairs. Who has the same configuration has the same measurements."
    yield "`measured` and `s` are what the search took, with the start of its server."
    yield ""
    yield from parts


def main() -> int:
    """Arguments to exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(LIMITS_MS), default=list(LIMITS_MS))
    parser.add_argument("--folder", type=Path, default=HERE.parent / ".build/tuning-bench", help="what is kept")
    parser.add_argument("--write", action="store_true", help="write benchmarks/tuning.md")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="half of them choose, half are printed")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    program = model_analyzer.environment(args.folder / "model-analyzer")
    kept = args.folder / "parts"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tuning-") as place:
        for model in args.models:
            folder = Path(place) / model
            folder.mkdir()
            repository = built(model, args.folder)
            ticks = cpu_times()
            found, notes = contenders(model, repository, folder, program)
            compete(model, repository, found, folder, args.rounds)
            stolen = steal_percent(ticks, cpu_times()) or 0.0
            made = f"{args.rounds} rounds on {date.today()}; the hypervisor kept {stolen:.0f}% of the time meanwhile."
            part = [*table(model, found), *(f"- {note}" for note in notes), "", made, ""]
            print("\n".join(part), flush=True)
            (kept / f"{model}.md").write_text("\n".join(part), encoding="utf-8")
    # A model that was measured before, and is not measured anew, keeps its part.
    parts = [file.read_text(encoding="utf-8") for model in LIMITS_MS if (file := kept / f"{model}.md").is_file()]
    text = "\n".join(page(parts)).rstrip() + "\n"
    print(text)
    if args.write:
        (HERE / "tuning.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
