"""The ONNX Runtime backend of the embedded server: a Triton python-based backend behind ``backend: "onnxruntime"``.

It takes the same ``config.pbtxt`` as NVIDIA's own ONNX Runtime backend, so that one repository serves behind both; see
``docs/reference/onnxruntime-backend.md``. Triton's stub imports this file as ``model``, in the runtime's environment.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from serving.backends.onnxruntime.ort_backend import batching, bfloat16, sessions, settings, signature
else:
    from ort_backend import batching, bfloat16, sessions, settings, signature


class TritonPythonModel:
    """One instance of one model; Triton calls its methods by name."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Completes inputs, outputs, ``max_batch_size`` and dynamic batching from the ONNX file."""
        config: dict[str, Any] = auto_complete_model_config.as_dict()
        if not signature.needs_completion(config):
            return auto_complete_model_config
        require_old_numpy()
        import onnxruntime as ort

        # A look at the signature: weights stay where they are in the file.
        lean = {"session.disable_prepacking": "1"}
        folder = version_folder(config)
        libraries = settings.op_libraries(config, folder)
        options = settings.Settings(
            graph_level=2, intra_op_thread_count=1, session_entries=lean, op_libraries=libraries
        )
        file = settings.model_file(folder, config)
        session = sessions.create_session(ort, config["name"], file, options, "CPU", 0, log_warning)
        backend = settings.backend_options(settings.server_command_line())
        default = settings.parse_int(backend, "default-max-batch-size", settings.DEFAULT_MAX_BATCH_SIZE)
        for message in signature.complete(config, signature.signature_of(session), default):
            log_warning(message)
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the model and checks the configuration against it."""
        require_old_numpy()
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        wanted = settings.settings_from_config(config, folder)
        ort = sessions.load_onnxruntime(wanted, args.get("model_instance_kind", "CPU"))
        session = sessions.create_session(
            ort,
            config["name"],
            settings.model_file(folder, config),
            wanted,
            args.get("model_instance_kind", "CPU"),
            int(args.get("model_instance_device_id") or 0),
            log_warning,
        )
        model = signature.signature_of(session)
        signature.check(config, model)
        self._batcher = build_batcher(config, model, session, sessions.run_options(ort, wanted))
        self.execute = self._batcher.execute  # type: ignore[method-assign]  # one call less for each batch
        gc.collect()
        gc.freeze()  # what was loaded stays: do not walk it again at each collection

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers a batch of requests, each with its own response or error."""
        return self._batcher.execute(requests)

    def finalize(self) -> None:
        """Releases the session."""
        del self._batcher, self.execute


def build_batcher(config: dict[str, Any], model: signature.Signature, session: Any, options: Any) -> batching.Batcher:
    """The hot path for a loaded model."""
    inputs = {**model.optional, **model.inputs}
    configured = {io["name"]: io for io in config.get("output") or ()}
    outputs = {name: model.outputs[name] for name in configured}
    bfloat16_inputs = signature.names_of_type(inputs, "TYPE_BF16")
    bfloat16_outputs = signature.names_of_type(outputs, "TYPE_BF16")
    if bfloat16_inputs or bfloat16_outputs:
        run = bfloat16.runner(session, options, bfloat16_inputs, bfloat16_outputs)
    else:
        run = sessions.runner(session, options)
    return batching.Batcher(
        pb_utils,
        run,
        list(configured),
        batched=int(config.get("max_batch_size", 0)) > 0,
        string_inputs=signature.names_of_type(inputs, "TYPE_STRING"),
        scalar_inputs=frozenset(name for name, info in inputs.items() if not info.shape),
        scalar_outputs={name: signature.config_dims(io) for name, io in configured.items() if not outputs[name].shape},
        only_input=next(iter(inputs)) if len(inputs) == 1 else "",
        bfloat16_inputs=bfloat16_inputs,
        bfloat16_outputs=bfloat16_outputs,
    )


def version_folder(config: dict[str, Any]) -> Path:
    """The version folder during auto-completion, where Triton tells no more than the folder of the model file."""
    depth = len(Path(config.get("default_model_filename") or settings.DEFAULT_FILENAME).parts) - 1
    folder = Path(pb_utils.get_model_dir())
    for _ in range(depth):
        folder = folder.parent
    return folder


def require_old_numpy() -> None:
    """Triton's stub hands over garbage with numpy 2, without a word: refuse to start."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeError(
            f"numpy {np.__version__} is installed in the server's runtime environment, and this Triton corrupts "
            "tensors with numpy 2: install numpy 1.26.4 there (serve-repo doctor shows where)"
        )


def log_warning(message: str) -> None:
    """A warning in the server's log."""
    pb_utils.Logger.log_warn(message)
