"""The process that builds one engine, or asks it: a job as JSON in, a result as JSON out, the library's words logged.

In a process of its own a crash or a lack of memory in the builder ends one build, not all of them, and TensorRT and
TensorRT-RTX, of which one process can load only one, both work.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from builder.engine import tensorrt
from builder.engine.options import EngineOptions, Job
from builder.engine.running import run
from builder.errors import EngineError, UnavailableError, describe
from serving.errors import TritonRepoError


def main(job_file: str) -> int:
    """Do the job of the file and write its result beside it."""
    tensorrt.die_with_parent()
    data = json.loads(Path(job_file).read_text(encoding="utf-8"))
    result = _result(data)
    Path(data["result"]).write_text(json.dumps(result), encoding="utf-8")
    return 0 if "error" not in result else 1


def _result(data: dict[str, Any]) -> dict[str, Any]:
    try:
        _log_everything()
        if data.get("do") == "run":
            return run(data["kind"], Path(data["source"]), Path(data["requests"]), Path(data["to"]))
        return tensorrt.build(
            Job(
                kind=data["kind"],
                source=Path(data["source"]),
                to=Path(data["to"]),
                options=EngineOptions.from_dict(data["options"]),
                cache=Path(data["cache"]) if data["cache"] else None,
                cache_is_users=data["cache_is_users"],
            )
        )
    except (EngineError, UnavailableError) as error:
        return {"error": _plain(error), "class": type(error).__name__}
    except Exception as exc:  # whatever polygraphy and the bindings raise: the log has the reason
        traceback.print_exc(file=sys.stderr)
        return {"error": {"what": "the engine could not be built or run", "got": describe(exc)}, "class": "Foreign"}


def _log_everything() -> None:
    from polygraphy.logger import G_LOGGER

    G_LOGGER.colors = False
    G_LOGGER.module_severity = {"": G_LOGGER.VERBOSE}


def _plain(error: TritonRepoError) -> dict[str, str]:
    return {part: str(getattr(error, part)) for part in ("what", "where", "expected", "got", "fix")}
