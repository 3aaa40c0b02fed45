"""The process in which a baseline runs: one JSON document a line, orders on stdin, answers on stdout.

The first line says what to open, each later one a load, by concurrency or by schedule:

    {"entry": "MODULE:FUNCTION", "arguments": {...}, "requests": FILE, "instances": N}  -> {"ready": {...}}
    {"concurrency": N, "lead_s": S, "window_s": S, "windows": N, "to": FILE}  -> {"begun"}, {"measured"}, {"done": N}
    {"due": FILE, "to": FILE}                                                 -> the same; {"error": {...}} for each

``FUNCTION(arguments, instances)`` gives the runners, one for each instance, and facts about them: that is all that is
asked of whoever offers a baseline. When stdin closes, or the parent is gone, the process ends. Only numpy and the
standard library are imported here: it also runs in the server's own Python.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import numpy as np

from perf.baselines.loops import Runner, Tensors, Trace, closed_load, scheduled_load
from serving.watchdog import die_with_parent


def read_requests(path: str) -> list[dict[str, Any]]:
    """Tensors by input name, as :func:`perf.baselines.child.write_requests` left them; strings are ``str`` objects."""
    found: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            number, _, name = key.partition("/")
            array = archive[key]
            found.setdefault(int(number), {})[name] = array.astype(object) if array.dtype.kind == "U" else array
    return [found[number] for number in sorted(found)]


def write_trace(trace: Trace, path: str) -> None:
    """Times and answers, for the parent."""
    arrays: dict[str, Any] = {
        "start_ns": np.array([row[0] for row in trace.rows], dtype=np.int64),
        "end_ns": np.array([row[1] for row in trace.rows], dtype=np.int64),
        "edges_ns": np.array(trace.edges_ns, dtype=np.int64),
    }
    for number, answer in trace.answers.items():
        for name, value in answer.items():
            array = np.asarray(value)
            arrays[f"answer/{number}/{name}"] = array.astype(str) if array.dtype.kind in "OS" else array
    np.savez(path, **arrays)


def opened(orders: Mapping[str, Any]) -> tuple[Sequence[Runner], dict[str, str], list[Tensors]]:
    """What the first line asks for."""
    module, _, name = str(orders["entry"]).partition(":")
    runners, facts = getattr(importlib.import_module(module), name)(orders["arguments"], int(orders["instances"]))
    return runners, {"python": sys.version.split()[0], **facts}, list(read_requests(str(orders["requests"])))


def run(orders: Mapping[str, Any], runners: Sequence[Runner], requests: Sequence[Tensors]) -> Trace:
    """One load."""
    if "due" in orders:
        return scheduled_load(runners, requests, np.load(orders["due"]))
    return closed_load(
        runners, requests, orders["concurrency"], orders["lead_s"], orders["window_s"], orders["windows"]
    )


def described(exc: BaseException) -> dict[str, str]:
    """An exception for the parent: our own errors with their parts, others by their class and text."""
    parts = {key: str(value) for key in ("what", "where", "expected", "got", "fix") if (value := getattr(exc, key, ""))}
    if "what" in parts:
        return parts
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        return {"missing": exc.name, "what": f"{exc.name} is not installed"}
    text = "".join(traceback.format_exception_only(type(exc), exc)).strip()
    return {"what": "the baseline raised", "got": text[-2000:]}


def main() -> int:
    """The process."""
    return serve(sys.stdin, as_child())


def as_child() -> Callable[..., None]:
    """End with the parent; gives what says a line to it, and what anything else prints goes to stderr."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the user's code prints is no answer

    def say(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")

    return say


def serve(orders: TextIO, say: Any) -> int:
    """Open what the first line asks for, then do what each line says until there is none."""
    line = orders.readline()
    if not line:
        return 1
    try:
        runners, facts, requests = opened(json.loads(line))
    except (Exception, SystemExit) as exc:
        say(error=described(exc))
        return 1
    say(ready=facts)
    for line in orders:
        order = json.loads(line)
        say(begun=True)
        try:
            trace = run(order, runners, requests)
            say(measured=True)
            write_trace(trace, order["to"])
        except (Exception, SystemExit) as exc:
            say(error=described(exc))
            continue
        say(done=len(trace.rows))
    return 0
