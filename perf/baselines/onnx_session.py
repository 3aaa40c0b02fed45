"""ONNX Runtime sessions as the served configuration has them; runs in a baseline's process.

The settings are read, and the sessions made, by the code of the embedded server's backend: the same file, the same
threads, the same options, one session for each instance.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perf.baselines.loops import Runner, Tensors
from serving.backends.onnxruntime.ort_backend import sessions, settings


def open_sessions(arguments: Mapping[str, Any], instances: int) -> tuple[list[Runner], dict[str, str]]:
    """One runner for each instance.

    Args:
        arguments: ``version_folder``; ``config``: as the server gave it; ``kind``: ``CPU`` or ``GPU``; ``openvino``:
            the folder of the build that has it, or nothing.

    Raises:
        ConfigError: the file cannot be loaded; with ONNX Runtime's reason.
        ModuleNotFoundError: onnxruntime is not installed.
    """
    config, folder, kind = arguments["config"], Path(arguments["version_folder"]), str(arguments["kind"])
    if arguments.get("openvino"):
        os.environ[sessions.OPENVINO_FOLDER] = str(arguments["openvino"])
    wanted = settings.settings_from_config(config, folder)
    onnxruntime = sessions.load_onnxruntime(wanted, kind)
    options = sessions.run_options(onnxruntime, wanted)
    outputs = [str(output["name"]) for output in config.get("output") or ()]
    path = settings.model_file(folder, config)
    warnings: list[str] = []
    made = [
        sessions.create_session(onnxruntime, str(config["name"]), path, wanted, kind, 0, warnings.append)
        for _ in range(instances)
    ]
    names = outputs or [output.name for output in made[0].get_outputs()]

    def runner(session: Any) -> Runner:
        def run(inputs: Tensors) -> Tensors:
            return dict(zip(names, session.run(names, inputs, options), strict=True))

        return run

    facts = {
        "onnxruntime": str(onnxruntime.__version__),
        "providers": ", ".join(made[0].get_providers()),
        "intra_op_threads": str(wanted.intra_op_thread_count or "ONNX Runtime's own choice"),
    }
    if warnings:
        facts["warnings"] = "; ".join(dict.fromkeys(warnings))
    return [runner(session) for session in made], facts
