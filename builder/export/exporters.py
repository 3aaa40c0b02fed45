"""The two exporters of torch, each as one call: a module in, an ONNX file with the spec's names out."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder.export.reasons import EXAMPLE_BATCH
from builder.graphs.onnx_graph import finish
from builder.loaded import TorchModule
from builder.quiet import quiet
from builder.reference import adapter, torch_arguments
from builder.samples import Samples


def with_dynamo(loaded: TorchModule, samples: Samples, opset: int, to: Path) -> None:
    """``torch.export``, then onnxscript's translation."""
    import torch

    interface = loaded.interface
    example = torch_arguments(interface, samples.batch(EXAMPLE_BATCH, distinct_sizes(samples)))
    shapes = tuple(
        {axis: torch.export.Dim.AUTO for axis, dim in enumerate(tensor.dims) if dim.name is not None} or None
        for tensor in interface.inputs
    )
    _keep_registry()
    with quiet(), torch.no_grad():
        # The adapter takes *args: its one parameter is a tuple of all the inputs.
        program = torch.onnx.export(
            adapter(loaded),
            example,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=(shapes,),
            verbose=False,
            optimize=False,
        )
        assert program is not None
        weights = list(program.model.graph.initializers.values())
        program.optimize()
    finish(program.model, interface, to)
    for value in [*weights, *program.model.graph.initializers.values()]:
        # onnxscript's rewrite rules remember the last graph they saw: it shall not keep the module's memory as well.
        value.const_value = None


def with_torchscript(loaded: TorchModule, samples: Samples, opset: int, to: Path) -> None:
    """``torch.jit.trace``, then the older exporter; what it writes is kept apart until it is finished."""
    import onnx_ir
    import torch

    interface = loaded.interface
    example = torch_arguments(interface, samples.batch(EXAMPLE_BATCH, distinct_sizes(samples)))
    tensors = interface.inputs + interface.outputs
    axes = {tensor.name: {a: d.name for a, d in enumerate(tensor.dims) if d.name is not None} for tensor in tensors}
    # Above 2 GiB it writes one file for each weight: they must not lie among the files of the version.
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".torchscript-") as folder:
        written = Path(folder, to.name)
        with quiet(), torch.no_grad():
            torch.onnx.export(
                adapter(loaded),
                example,
                str(written),
                dynamo=False,
                verbose=False,
                opset_version=opset,
                input_names=[tensor.name for tensor in interface.inputs],
                output_names=[tensor.name for tensor in interface.outputs],
                dynamic_axes={name: named for name, named in axes.items() if named},
            )
        finish(onnx_ir.load(written), interface, to)


EXPORTERS: dict[str, Callable[[TorchModule, Samples, int, Path], None]] = {
    "dynamo": with_dynamo,
    "torchscript": with_torchscript,
}


def warm_up(opset: int) -> None:
    """Do what the first export of a process does once: imports, the registry of operators, tables of decompositions.

    A process that is forked afterwards exports a small model in 0.4 s instead of 4 s. Call it with one torch thread:
    threads of the parent do not exist in a forked child.
    """
    import onnxruntime  # noqa: F401 - so that children have it
    import torch

    class AddOne(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x + 1

    _keep_registry()
    shapes = ({0: torch.export.Dim.AUTO},)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            AddOne(), (torch.zeros(2, 3),), dynamo=True, opset_version=opset, dynamic_shapes=shapes, verbose=False
        )


def _keep_registry() -> None:
    """Let ``torch.onnx.export`` build its registry of operators once for each opset, not anew for each model (0.6 s).

    It only reads it: we give no translations of our own. Where this torch is built otherwise, nothing is changed.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        registry: Any = ONNXRegistry
        build: Any = registry.__dict__["from_torchlib"].__func__
        if not hasattr(build, "cache_info"):
            kept: Any = functools.lru_cache(maxsize=4)(build)
            registry.from_torchlib = classmethod(kept)


def distinct_sizes(samples: Samples) -> dict[str, int]:
    """Sizes to trace with: within the ranges, at least 2, and no two alike, so that none is taken for another."""
    ranges = samples.interface.named_dims()
    taken = {EXAMPLE_BATCH}
    chosen = {}
    for name, size in samples.sizes().items():
        low, high = ranges[name].low or 1, ranges[name].high or 1 << 30
        free = [
            s for s in (*range(max(size, 2), size + 50), *range(size, 1, -1)) if low <= s <= high and s not in taken
        ]
        chosen[name] = free[0] if free else size
        taken.add(chosen[name])
    return chosen
