"""What a search has measured so far, line by line, so that one that was cut short goes on where it was.

JSON lines: a header that says what was searched for and where, then curves and measurements as they come. A line that
was cut in the middle (a full disk, a power failure) is left out; a header that does not fit is somebody else's search.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from perf.tune.curve import Curve
from perf.tune.errors import TuneError
from perf.tune.judge import Measured
from perf.tune.predict import Trial
from perf.tune.simulate import Arrivals
from perf.tune.space import Settings

_ROOM = "room for what is measured, in a folder that you may write to"
SCHEMA = "triton-repo/tune-journal/1"


class Journal:
    """A file that is added to.

    Args:
        path: the file; None keeps nothing.
        about: the search: model, digests, goal, limit, machine. What was kept counts only where it is the same.
        resume: go on with what is there; otherwise begin anew.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self.curves: list[Curve] = []
        self.measured: list[tuple[Trial, int, Measured]] = []
        self.others: list[Mapping[str, Any]] = []
        self.resumed = False
        header = {"schema": SCHEMA, **json.loads(json.dumps(about))}
        if path is None:
            return
        if resume and path.exists():
            self._read(path, header)
        else:
            self._write("w", header)

    def curve(self, curve: Curve) -> None:
        """Keep a curve."""
        self.curves.append(curve)
        self._write("a", {"curve": curve.as_dict()})

    def measurement(self, trial: Trial, number: int, measured: Measured) -> None:
        """Keep a measurement."""
        self.measured.append((trial, number, measured))
        self._write("a", {"trial": trial_as_dict(trial), "round": number, "measured": asdict(measured)})

    def other(self, entry: Mapping[str, Any]) -> None:
        """Keep something else: plain data, without the keys ``curve`` and ``trial``."""
        self.others.append(entry)
        self._write("a", entry)

    def _read(self, path: Path, header: Mapping[str, Any]) -> None:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as exc:
            raise TuneError(
                "the journal cannot be read",
                where=str(path),
                expected="the file that the search before wrote",
                got=exc.strerror or str(exc),
                fix="name another with --journal FILE, or leave --resume out to begin anew",
            ) from exc
        entries = [entry for entry in map(_parsed, lines) if entry is not None]
        if not entries or entries[0] != header:
            found = entries[0] if entries else {}
            other = [key for key in header if found.get(key) != header[key]]
            raise TuneError(
                "the journal is of another search",
                where=str(path),
                expected=", ".join(f"{key} {header[key]}" for key in other) or "a journal",
                got=", ".join(f"{key} {found.get(key, 'nothing')}" for key in other) or "an empty file",
                fix="leave --resume out to begin anew",
            )
        for entry in entries[1:]:
            if "curve" in entry:
                self.curves.append(Curve.from_dict(entry["curve"]))
            elif "trial" in entry:
                measured = {**entry["measured"], "doubts": tuple(entry["measured"].get("doubts", ()))}
                self.measured.append((trial_from_dict(entry["trial"]), int(entry["round"]), Measured(**measured)))
            else:
                self.others.append(entry)
        self.resumed = True
        text = "".join(json.dumps(entry) + "\n" for entry in entries)
        self._put("w", text)  # without what was cut

    def _write(self, mode: str, entry: Mapping[str, Any]) -> None:
        self._put(mode, json.dumps(entry) + "\n")

    def _put(self, mode: str, text: str) -> None:
        if self.path is None:
            return
        try:
            if mode == "w":
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(mode, encoding="utf-8") as handle:
                handle.write(text)
        except OSError as exc:
            fix = "make room, or keep it elsewhere with --journal FILE"
            got = exc.strerror or str(exc)
            raise TuneError(
                "the journal cannot be written", where=str(self.path), expected=_ROOM, got=got, fix=fix
            ) from exc


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def trial_as_dict(trial: Trial) -> dict[str, Any]:
    """Plain data."""
    return {"settings": asdict(trial.settings), "load": asdict(trial.arrivals)}


def trial_from_dict(data: Mapping[str, Any]) -> Trial:
    """What :func:`trial_as_dict` gave."""
    settings = {**data["settings"], "preferred": tuple(data["settings"]["preferred"])}
    return Trial(Settings(**settings), Arrivals(**data["load"]))
