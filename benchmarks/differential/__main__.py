"""`check-repo` against the real Triton.

    python -m benchmarks.differential              # 2,000 cases; the server's verdicts are kept in .build/differential
    python -m benchmarks.differential --write      # the table goes into benchmarks/differential.md
    python -m benchmarks.differential --cases 200 --kind "ensemble cycle" --show

The exit status is 0 where both goals hold and every difference is explained in the page of a rule.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.differential import compare
from benchmarks.differential.case import Case
from benchmarks.differential.generate import SEED, cases
from benchmarks.differential.offline import opinions
from benchmarks.differential.real import Memory, Verdict, verdicts
from benchmarks.differential.recorded import record
from benchmarks.differential.startup import at_startup, suited
from builder.host import host_facts
from serving.errors import TritonRepoError
from serving.runtime import ONNXRUNTIME, TRITON, TRITON_RELEASE

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "benchmarks" / "differential.md"
BEGIN, END = "<!-- table: make differential -->", "<!-- end of table -->"
_TRIES = 3
_SAMPLE = 60  # cases that are loaded at a server's start as well


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=SEED, help="another one gives other cases")
    parser.add_argument("--servers", type=int, default=4, help="how many servers at once")
    parser.add_argument("--kind", action="append", help="only these kinds of mutation")
    parser.add_argument("--memory", type=Path, default=ROOT / ".build/differential/verdicts.jsonl")
    parser.add_argument("--write", action="store_true", help=f"write the table into {REPORT.relative_to(ROOT)}")
    parser.add_argument("--show", action="store_true", help="show the configuration of each case where they differ")
    options = parser.parse_args(arguments)
    chosen = [case for case in cases(options.cases, seed=options.seed) if not options.kind or case.kind in options.kind]
    began = time.monotonic()
    server = verdicts(chosen, Memory(options.memory), servers=options.servers, tell=_tell)
    asked = time.monotonic()
    pairs = compare.paired(chosen, server, opinions(chosen))
    checked = time.monotonic()
    lines = compare.table(pairs)
    if not options.kind:
        lines += _startup(chosen, server)
    lines += [
        "",
        f"Checking took {checked - asked:.1f} s, the server's verdicts {asked - began:.0f} s (those kept: none).",
    ]
    print("\n".join(lines))
    if options.show:
        for pair in compare.differing(pairs):
            print(f"\n=== {pair.case.kind}, {pair.case.seed}, {sorted(pair.case.files)}\n{pair.case.text()}")
            print(f"--- server: {pair.server}\n--- check-repo: {pair.offline}")
    if options.write:
        record(server)
        _write(lines)
    whole = compare.counted(compare.compared(pairs)).holds and not compare.unexplained(pairs)
    return 0 if whole and not any(pair.offline.broken for pair in pairs) else 1


def _startup(chosen: Sequence[Case], server: dict[str, Verdict]) -> list[str]:
    able = [case for case in chosen if suited(case, server[case.key])]
    sample = able[:: max(1, len(able) // _SAMPLE)][:_SAMPLE]
    ready: dict[str, bool] = {}
    for _ in range(_TRIES):
        try:
            ready = at_startup(sample)
            break
        except TritonRepoError as error:  # at times it dies of a lock between it and a model's process
            print(f"a server that loads {len(sample)} cases at once ended: {error.what}", file=sys.stderr)
    if not ready:
        return ["", "## Loaded at start", "", f"A server that loads {len(sample)} of them at once ended each time."]
    other = [case for case in sample if ready[case.key] != server[case.key].loads]
    lines = ["", "## Loaded at start", ""]
    lines.append(
        f"{len(sample)} of the cases were put into one repository and loaded by a server when it started: "
        f"{len(sample) - len(other)} verdicts are the same as by name."
    )
    for case in other:
        lines.append(
            f"- {case.kind}, {case.seed}: at start {'loads' if ready[case.key] else 'refused'}, by name not so"
        )
    return lines


def _tell(done: int, of: int) -> None:
    if done % 50 == 0 or done == of:
        print(f"{done} of {of} cases loaded", file=sys.stderr, flush=True)


def _write(lines: Sequence[str]) -> None:
    facts = host_facts()
    machine = f"Triton {TRITON} ({TRITON_RELEASE}) with ONNX Runtime {ONNXRUNTIME}; {facts}."
    text = REPORT.read_text()
    head, _, rest = text.partition(BEGIN)
    REPORT.write_text(
        "\n".join([head + BEGIN, "", machine, "", *lines, "", END + rest.partition(END)[2].rstrip("\n"), ""])
    )


if __name__ == "__main__":
    sys.exit(main())
