"""Every run that was kept, in one SQLite file that only grows.

A run is one transaction: it is there whole or not at all, whoever else writes and whenever we are killed. Its JSON is
kept as it was; a few of its figures stand in columns as well, for queries. Triggers refuse to change or remove a row.

```sql
runs(id, started_at, revision, machine, facts, schema_version, result)
points(run, model, version, concurrency, rate_per_s, distribution, batch_size, inferences_per_s, inferences_low,
       inferences_high, p50_us, p99_us, p99_low_us, p99_high_us, requests, doubts, error)
```
"""

from __future__ import annotations

import difflib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perf.history_rows import Row, columns, row_of
from perf.machines import facts_that_count, fingerprint
from perf.result import BenchResult
from serving.errors import TritonRepoError, UsageError

DEFAULT_HISTORY = Path(".build/bench/history.sqlite")
APPLICATION_ID = 0x54524248  # "TRBH", in the header of the file: `file` and we know what it is
FORM = 1
WAIT_S = 30.0
"""How long one writer waits for another; a transaction takes milliseconds."""

_TABLES = """
CREATE TABLE runs (
  id TEXT PRIMARY KEY, started_at TEXT NOT NULL, revision TEXT, machine TEXT NOT NULL, facts TEXT NOT NULL,
  schema_version INTEGER NOT NULL, result TEXT NOT NULL);
CREATE TABLE points (
  run TEXT NOT NULL REFERENCES runs(id), model TEXT NOT NULL, version TEXT NOT NULL, concurrency INTEGER,
  rate_per_s REAL, distribution TEXT, batch_size INTEGER NOT NULL, inferences_per_s REAL, inferences_low REAL,
  inferences_high REAL, p50_us REAL, p99_us REAL, p99_low_us REAL, p99_high_us REAL, requests INTEGER,
  doubts TEXT NOT NULL, error TEXT);
CREATE INDEX points_by_model ON points(model, run);
CREATE INDEX runs_by_revision ON runs(revision);
CREATE TRIGGER runs_are_not_changed BEFORE UPDATE ON runs BEGIN SELECT RAISE(ABORT, 'the history only grows'); END;
CREATE TRIGGER runs_are_not_removed BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'the history only grows'); END;
CREATE TRIGGER points_are_not_changed BEFORE UPDATE ON points BEGIN SELECT RAISE(ABORT, 'the history only grows'); END;
CREATE TRIGGER points_are_not_removed BEFORE DELETE ON points BEGIN SELECT RAISE(ABORT, 'the history only grows'); END
"""


_INTERRUPTED = "json_extract(runs.result, '$.interrupted') AS interrupted"


class HistoryError(TritonRepoError):
    """The file of the history cannot be read or written."""


class History:
    """The history in one file.

    Args:
        path: made with its folders on the first :meth:`append`, or by :meth:`prepare`.
    """

    def __init__(self, path: Path = DEFAULT_HISTORY) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the file, or see that it can be written: before minutes are spent on measuring.

        Raises:
            HistoryError: it cannot.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise self._unusable(exc.strerror or str(exc)) from exc
        with self._transaction("rwc"):
            pass

    def append(self, result: BenchResult) -> bool:
        """Keep a run, in one transaction.

        Returns:
            False where a run of this id is there already; it stays as it is.

        Raises:
            HistoryError: it cannot be written; nothing of the run is in it then.
        """
        self.prepare()
        facts = facts_that_count(result)
        run = (
            result.id,
            result.started_at.isoformat(),
            result.revision,
            fingerprint(facts),
            json.dumps(facts),
            result.schema_version,
            json.dumps(result.model_dump(mode="json", by_alias=True)),
        )
        rows = [(result.id, *columns(point)) for point in result.points]
        rows += [
            (result.id, model.model, model.version, *[None] * 3, 1, *[None] * 8, "", str(model.error["what"]))
            for model in result.models
            if model.error is not None
        ]
        with self._transaction("rw", write=True) as database:
            if database.execute("SELECT 1 FROM runs WHERE id = ?", (result.id,)).fetchone():
                return False
            database.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?)", run)
            database.executemany(f"INSERT INTO points VALUES ({', '.join('?' * 17)})", rows)
        return True

    def rows(self, model: str, *, runs: int | None = None) -> list[Row]:
        """Every point of a model, the oldest run first.

        Args:
            runs: only of this many runs, the newest that the model was in.

        Raises:
            HistoryError: no history here, or unreadable.
            UsageError: the model was never measured.
        """
        with self._reading() as database:
            found = database.execute(
                f"SELECT points.*, runs.started_at, runs.revision, runs.machine, runs.facts, {_INTERRUPTED} "
                "FROM points "
                "JOIN runs ON runs.id = points.run WHERE model = ? ORDER BY runs.started_at, runs.rowid, points.rowid",
                (model,),
            ).fetchall()
        if not found:
            raise self._unknown_model(model)
        kept = list(dict.fromkeys(row["run"] for row in found))[-runs if runs else 0 :]
        return [row_of(row) for row in found if row["run"] in kept]

    def models(self) -> dict[str, int]:
        """In how many runs each model was measured, by name."""
        with self._reading() as database:
            found = database.execute("SELECT model, COUNT(DISTINCT run) FROM points GROUP BY model ORDER BY model")
            return {str(name): int(count) for name, count in found}

    def interrupted(self) -> dict[str, int]:
        """How many of each model's runs were interrupted, by name; models without one are left out."""
        with self._reading() as database:
            found = database.execute(
                "SELECT model, COUNT(DISTINCT run) FROM points JOIN runs ON runs.id = points.run "
                f"WHERE {_INTERRUPTED.partition(' AS ')[0]} IS NOT NULL GROUP BY model"
            )
            return {str(name): int(count) for name, count in found}

    def by_id(self, prefix: str) -> list[BenchResult]:
        """The runs whose id begins so."""
        return self._results("substr(id, 1, ?) = ?", (len(prefix), prefix))

    def by_revision(self, revision: str) -> list[BenchResult]:
        """The runs of a revision, the newest first; its first characters are enough.

        ``+`` at the end asks for those with uncommitted changes, which are left out otherwise.
        """
        changed = revision.endswith("+")
        bare = revision.removesuffix("+")
        where = "substr(revision, 1, ?) = ? AND (substr(revision, -1) = '+') = ?"
        return self._results(where, (len(bare), bare, changed))

    def _results(self, where: str, values: tuple[Any, ...]) -> list[BenchResult]:
        with self._reading() as database:
            found = database.execute(
                f"SELECT id, result FROM runs WHERE {where} ORDER BY started_at DESC, rowid DESC", values
            ).fetchall()
        try:
            return [BenchResult.model_validate_json(row["result"]) for row in found]
        except ValidationError as exc:
            raise self._unusable(f"a run in another form than this release reads: {exc.errors()[0]['msg']}") from exc

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise HistoryError(
                "there is no history here",
                where=str(self.path),
                expected="runs that bench-repo kept",
                fix="measure first (bench-repo keeps every run unless --no-history), or name the file: --history FILE",
            )
        with self._transaction("rw") as database:
            yield database

    @contextmanager
    def _transaction(self, mode: str, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction, committed when the block ends and rolled back when it fails; the form was checked.

        Args:
            mode: SQLite's ``mode`` of opening.
            write: take the lock at the start: two that read first and then write would refuse each other.
        """
        connection: sqlite3.Connection | None = None
        try:
            uri = f"{self.path.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(uri, uri=True, timeout=WAIT_S, isolation_level=None)
            connection.row_factory = sqlite3.Row
            if self._form(connection) != FORM:
                connection.execute("BEGIN IMMEDIATE")
                if self._form(connection) != FORM:  # another may have made it while we waited
                    for statement in _TABLES.split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {FORM}")
                connection.execute("COMMIT")
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as exc:
            raise self._unusable(str(exc)) from exc
        finally:
            if connection is not None:
                connection.close()  # what was not committed is rolled back

    def _form(self, connection: sqlite3.Connection) -> int:
        """0 for a file that is still empty, else :data:`FORM`; anything else is not ours to touch."""
        (form,) = connection.execute("PRAGMA user_version").fetchone()
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if (form, owner, tables) == (0, 0, 0):
            return 0
        if owner != APPLICATION_ID:
            raise self._unusable("a database of something else")
        if form > FORM:
            raise self._unusable(f"written by a newer release (form {form}, this one knows {FORM})")
        return int(form)

    def _unusable(self, got: str) -> HistoryError:
        return HistoryError(
            "the history cannot be used",
            where=str(self.path),
            expected="an SQLite file of bench-repo that can be read and written",
            got=got,
            fix="name another file with --history FILE, or measure with --no-history",
        )

    def _unknown_model(self, model: str) -> UsageError:
        known = self.models()
        close = difflib.get_close_matches(model, known, n=1)
        return UsageError(
            "this model was never measured",
            where=f"{model} in {self.path}",
            expected=", ".join(known) or "a run; there is none",
            fix=f"did you mean {close[0]}?" if close else "bench-repo --model " + model,
        )
