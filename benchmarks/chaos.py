"""`kill -9` of build-repo at random moments, while a Triton polls the repository and is asked all the time.

    python benchmarks/chaos.py                  # 100 kills; about ten minutes
    python benchmarks/chaos.py --kills 8        # a look
    python benchmarks/chaos.py --seed 7 --keep  # the same moments again as far as a machine allows; the folder is kept

A third of the moments is drawn over the whole of a build, a third over what comes after its imports, and a third where
it publishes: as soon as one of the traces of that is seen on the disk, or a little later. Only the main process is
killed; whatever it started has to end by itself. After every kill the repository must be whole, no version may be
missing, and nothing may be left running. In between builds are let through, which must succeed with what the killed
ones had left in the cache, and be served. Exit status 1 if any of it is not so.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if sys.path[0] == str(HERE):
    sys.path[0] = str(HERE.parent)

from benchmarks.chaos_client import Asker  # noqa: E402
from benchmarks.chaos_models import FRESH, Models  # noqa: E402
from benchmarks.chaos_moments import Moments  # noqa: E402
from benchmarks.chaos_traces import Traces, finished  # noqa: E402
from builder.repository.integrity import verify_hashes  # noqa: E402
from builder.repository.published import models_of  # noqa: E402
from serving.server import Server  # noqa: E402
from serving.server_log import load_failures  # noqa: E402
from tests.builder.processes import Mark, Running  # noqa: E402

GONE_S = 20.0
SERVED_S = 60.0
BUILD_S = 180.0
MOST_VIOLATIONS = 10


@dataclass
class Counts:
    """What is printed at the end.

    Attributes:
        kills: by where the build was.
        completed: builds that were let through.
        versions: that were published, those of killed builds included.
        reused: steps that a build took from the cache of a killed one.
        gone_s: the longest that something of a killed build lived on.
        violations: in words.
    """

    kills: Counter[str] = field(default_factory=Counter)
    completed: int = 0
    versions: int = 0
    reused: int = 0
    gone_s: float = 0.0
    violations: list[str] = field(default_factory=list)


class Chaos:
    """One run of it.

    Args:
        folder: empty; the models, the repository and the builds' folder come into it.
        seed: of the moments.
        with_torch: build a PyTorch model too, now and then.
    """

    def __init__(self, folder: Path, seed: int, *, with_torch: bool = True) -> None:
        self.models = Models(folder)
        self.traces = Traces(self.models)
        self.counts = Counts()
        self.specs = ("onnx.yaml", "torch.yaml") if with_torch else ("onnx.yaml",)
        self.names = tuple(name for spec in self.specs for name in self.models.names(spec))
        self.random = random.Random(seed)
        self.moments = Moments(self.models, self.traces, self.random)
        self._round = itertools.count(1)
        self._versions: set[tuple[str, int]] = set()
        self._done: set[tuple[str, str, str]] = set()  # (spec, model, step) of killed builds, sources unchanged since

    # -- builds -------------------------------------------------------------------------------------------------------

    def change(self) -> None:
        """New weights for every model: the next build has something to do."""
        self.models.change(next(self._round))
        self._done.clear()

    def complete(self, spec: str) -> None:
        """Let a build through; it must succeed, and use what killed ones had finished."""
        started = time.monotonic()
        with Running(self.models.folder / spec, "--jobs", "2", "--format", "json", mark=Mark()) as running:
            status, _ = running.wait(BUILD_S)
            lines = running.lines
        self.moments.seconds[spec] = time.monotonic() - started
        self.counts.completed += 1
        said: dict[str, Any] = next((json.loads(line) for line in lines if line.startswith("{")), {})
        models = said.get("models", [])
        if status or [model["status"] for model in models if model["status"] not in ("built", "up to date")]:
            self.violation(f"a build that was let through ended with {status}:\n" + "\n".join(lines[-30:]))
        for model in models:
            if model["status"] == "built":
                expected = {step for of, name, step in self._done if (of, name) == (spec, model["model"])} - {"publish"}
                self.counts.reused += len(expected)
                if again := sorted(expected - set(model["cached"])):
                    self.violation(f"{model['model']}: {', '.join(again)} ran again, which a killed build had finished")
        if left := list((self.models.build_dir / "staging").iterdir()):
            self.violation(f"left in staging after a build that was let through: {left}")
        self.look()

    def kill(self, spec: str, number: int) -> str | None:
        """Begin a build and kill its main process at a random moment; where it was, None if it was done before."""
        mark, started = Mark(), time.monotonic()
        before = {name: self.traces.of(name) for name in self.models.names(spec)}
        with Running(self.models.folder / spec, "--jobs", "2", mark=mark) as running:
            moment = self.moments.of_kind(number)(running, spec)
            while running.process.poll() is None and not moment():
                pass
            alive = mark.processes().values()
            done = running.process.poll() is not None
            running.process.kill()
            running.process.wait()
            self._nothing_lives_on(mark)
            lines = list(running.lines)
        self._done |= {(spec, *step) for line in lines if (step := finished(line)) is not None}
        self.look()
        if done:
            self.moments.seconds[spec] = time.monotonic() - started
            return None
        where = self.traces.where(spec, before, lines, set(alive))
        self.counts.kills[where] += 1
        return where

    # -- what is on the disk ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """The repository must be whole, and hold every version that it held."""
        if not self.models.repository.exists():
            return
        report = verify_hashes(self.models.repository)
        for mismatch in report.mismatches:
            self.violation(f"the repository is not whole: {mismatch}")
        if report.others:
            self.violation(f"in the repository lies what is no version of ours: {report.others}")
        models, _ = models_of(self.models.repository)
        now = {(model.name, version) for model in models for version in model.versions()}
        lost = {each for each in self._versions - now if each[0] != FRESH}
        if lost:
            self.violation(f"versions lost: {sorted(lost)}")
        self.counts.versions += len(now - self._versions)
        self._versions = now

    def _nothing_lives_on(self, mark: Mark) -> None:
        started = time.monotonic()
        while (left := mark.processes()) or mark.segments():
            if time.monotonic() > started + GONE_S:
                self.violation(f"alive {GONE_S:g} s after the kill: {left}; shared memory {mark.segments()}")
                break
            time.sleep(0.02)
        self.counts.gone_s = max(self.counts.gone_s, time.monotonic() - started)

    def violation(self, what: str) -> None:
        """Say it, remember it."""
        self.counts.violations.append(what)
        print(f"VIOLATION: {what}", file=sys.stderr, flush=True)

    # -- the whole of it ----------------------------------------------------------------------------------------------

    def run(self, kills: int) -> dict[str, Any]:
        """Kill so many builds; the counts."""
        self.change()
        for spec in self.specs:
            self.complete(spec)
        if self.counts.violations:
            return self._result(None)
        self.moments.seconds["fresh.yaml"] = self.moments.seconds["onnx.yaml"]
        log = self.models.folder / "server.log"
        with (
            Server(self.models.repository, model_control_mode="poll", poll_interval_s=1, log_path=log) as server,
            Asker(server, self.models, self.names) as asker,
        ):
            for number in range(1, kills + 1):
                self._one(number, kills)
                asked = [*asker.wrong[:3], *asker.failed[:3]]
                if asked or len(self.counts.violations) >= MOST_VIOLATIONS:
                    break
                if number % 8 == 0 or number == kills:
                    self._let_through(asker)
            said = load_failures(server.log())
        if said:
            self.violation(f"the server could not load {said}")
        return self._result(asker)

    def _one(self, number: int, kills: int) -> None:
        if self.random.random() < 0.7:  # else the sources are those of the build that was killed before
            self.change()
        spec = "fresh.yaml" if number % 5 == 3 else "onnx.yaml"
        if number % 9 == 5 and "torch.yaml" in self.specs:
            spec = "torch.yaml"
        if spec == "fresh.yaml":
            self.models.forget_fresh()
        while (where := self.kill(spec, number)) is None:
            self.change()  # it was done before its moment came
        print(f"kill {number} of {kills}: {spec.removesuffix('.yaml')}, {where}", file=sys.stderr, flush=True)

    def _let_through(self, asker: Asker) -> None:
        """Every model is built from what is there, and its newest version comes to be served."""
        for spec in self.specs:
            self.complete(spec)
        newest = dict(sorted(self._versions))
        wanted = {(name, newest[name]) for name in self.names}
        before, deadline = Counter(asker.answers), time.monotonic() + SERVED_S
        while missing := [each for each in wanted if asker.answers[each] <= before[each]]:
            if time.monotonic() > deadline:
                self.violation(f"not served {SERVED_S:g} s after it was published: {missing}")
                return
            time.sleep(0.05)

    def _result(self, asker: Asker | None) -> dict[str, Any]:
        counts = self.counts
        wrong, failed = (asker.wrong, asker.failed) if asker else ([], [])
        return {
            "kills": sum(counts.kills.values()),
            "by_stage": dict(counts.kills.most_common()),
            "builds_completed": counts.completed,
            "versions_published": counts.versions,
            "steps_taken_from_killed_builds": counts.reused,
            "requests": sum(asker.requests.values()) if asker else 0,
            "versions_served": len(asker.answers) if asker else 0,
            "wrong": len(wrong),
            "failed": len(failed),
            "labels_refused_by_triton": asker.labels_refused if asker else 0,
            "longest_afterlife_s": round(counts.gone_s, 2),
            "violations": [*counts.violations, *wrong[:10], *failed[:10]],
        }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--no-torch", action="store_true", help="only ONNX sources, whose builds are short")
    parser.add_argument("--keep", action="store_true", help="keep the folder, also if all was well")
    parser.add_argument("--format", choices=["text", "json"], default="text")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 16) if arguments.seed is None else arguments.seed
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    started = time.monotonic()
    chaos = Chaos(folder, seed, with_torch=not arguments.no_torch)
    result = {"seed": seed, **chaos.run(arguments.kills), "seconds": round(time.monotonic() - started)}
    if arguments.keep or result["violations"]:
        print(f"kept: {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    if arguments.format == "json":
        print(json.dumps(result))
    else:
        for name, value in result.items():
            shown = "".join(f"\n    {count:4} {each}" for each, count in value.items()) if name == "by_stage" else value
            print(f"{name.replace('_', ' ')}: {shown}")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.setswitchinterval(0.0005)  # who watches the disk must not wait long for who asks the server
    sys.exit(main())
