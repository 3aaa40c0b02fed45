"""The fp32 graph made ready for recipes: every node has a name that stays, every value a type, constants are weights.

What comes out is plain ONNX, without operators of a single runtime: engines are built from it as well.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from builder.precision import graph as graphs
from builder.quiet import quiet

OLDEST_OPSET = 13
"""The first whose QuantizeLinear knows channels."""
NEWER_OPSET = 17
"""What an older graph is brought to."""


def prepared(source: Path, to: Path) -> None:
    """Write the graph that recipes name nodes of. The same bytes come out of the same bytes.

    Args:
        source: an ONNX file, with its external data beside it.
        to: the file to write; weights above the limit go to ``<to>.data``.

    Raises:
        PrecisionError: it is no ONNX model, or one that cannot be written again.
    """
    import onnx_ir

    common: Any = importlib.import_module("onnx_ir.passes.common")
    model = graphs.load(source)
    with quiet():
        model = _newer(model)
        steps = [
            *([common.InlinePass(), common.RemoveUnusedFunctionsPass()] if model.functions else []),
            common.TopologicalSortPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        ]
        onnx_ir.passes.Sequential(*steps)(model)
        _fold_constants(model)
        fold_batch_norms(model)
        _drop_identities(model)
        for step in (common.RemoveUnusedNodesPass(), common.RemoveUnusedOpsetsPass()):
            step(model)
        name_nodes(model)
        infer_types(model)
        common.ClearMetadataAndDocStringPass()(model)
    graphs.save(model, to)
    graphs.check(source, to)


def _newer(model: Any) -> Any:
    version = model.opset_imports.get("", NEWER_OPSET)
    if version >= OLDEST_OPSET:
        return model
    from onnxscript import version_converter

    with contextlib.suppress(Exception):  # what it cannot convert stays as it is, and stays in float
        version_converter.convert_version(model, NEWER_OPSET, fallback=True)
    return model


def _fold_constants(model: Any) -> None:
    """Compute once what is the same in every request; a graph that cannot be folded stays as it is."""
    from onnxscript import optimizer

    with contextlib.suppress(Exception):  # one odd constant is no reason to refuse the model
        optimizer.fold_constants(model)


def fold_batch_norms(model: Any) -> None:
    """Put a BatchNormalization right after a convolution into its weights; computed in double precision."""
    maker = graphs.Maker(model)
    for norm in graphs.nodes(model, ["BatchNormalization"]):
        conv = norm.inputs[0].producer() if norm.inputs[0] is not None else None
        if conv is None or conv.op_type != "Conv" or not _is_only_use(norm.inputs[0]) or len(norm.outputs) > 1:
            continue
        values = [graphs.constant(value) for value in (*conv.inputs[1:], *norm.inputs[1:])]
        if any(value is None for value in values) or "training_mode" in norm.attributes:
            continue
        weight, *bias = [value.numpy() for value in values[: len(conv.inputs) - 1]]
        scale, shift, mean, variance = [value.numpy().astype(np.float64) for value in values[-4:]]
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
        factor = scale / np.sqrt(variance + epsilon)
        before = bias[0].astype(np.float64) if bias else np.zeros_like(mean)
        column = factor.reshape(-1, *([1] * (weight.ndim - 1)))
        folded = maker.weight((weight.astype(np.float64) * column).astype(weight.dtype), f"{conv.name}_weight_folded")
        added = maker.weight(((before - mean) * factor + shift).astype(weight.dtype), f"{conv.name}_bias_folded")
        conv.resize_inputs(3)
        conv.replace_input_with(1, folded)
        conv.replace_input_with(2, added)
        norm.outputs[0].replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
        model.graph.remove(norm, safe=True)
        old, new = norm.outputs[0], conv.outputs[0]
        new.name, new.shape, new.type = old.name, old.shape, old.type
    maker.drop_unused()


def _is_only_use(value: Any) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def name_nodes(model: Any) -> None:
    """Give a name to every node that has none, or another node's; the first of a name keeps it."""
    taken: set[str] = set()
    unnamed = []
    for node in model.graph.all_nodes():
        if node.name and node.name not in taken:
            taken.add(node.name)
        else:
            unnamed.append(node)
    counts: dict[str, int] = {}
    for node in unnamed:
        for name in _numbered(node.op_type, counts):
            if name not in taken:
                node.name = name
                taken.add(name)
                break


def _numbered(op_type: str, counts: dict[str, int]) -> Iterator[str]:
    while True:
        counts[op_type] = counts.get(op_type, -1) + 1
        yield f"{op_type}_{counts[op_type]}"


def _drop_identities(model: Any) -> None:
    """Take out the Identity nodes of the graph itself that do not give one of its outputs.

    Not those of bodies: a body of Scan or Loop that gives one value twice is answered wrongly, without a word.
    """
    from onnx_ir import convenience

    for node in list(model.graph):
        if node.op_type != "Identity" or node.domain not in ("", "ai.onnx") or node.inputs[0] is None:
            continue
        if not node.outputs[0].is_graph_output():
            convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
            model.graph.remove(node, safe=True)


def _is_no_tensor(value: Any, kind: Any) -> bool:
    """Whether a value is a sequence or an optional, by its type or by what ONNX says of the operator that gives it."""
    import onnx
    import onnx_ir

    if kind is not None:
        return not isinstance(kind, onnx_ir.TensorType)
    node = value.producer()
    if node is None or not onnx.defs.has(node.op_type, node.domain):
        return False
    formal = onnx.defs.get_schema(node.op_type, node.domain).outputs
    place = min(value.index() or 0, len(formal) - 1)
    return bool(formal) and not any(kind.startswith("tensor(") for kind in formal[place].types)


def infer_types(model: Any) -> None:
    """Types and shapes of all inner values anew: those in the file may be left over from before it was changed."""
    from onnx_ir.passes.common import ShapeInferencePass

    ends = {id(value): value for value in (*model.graph.inputs, *model.graph.outputs)}
    promised = [(value, value.shape, value.type) for value in ends.values()]
    inner = [output for node in model.graph.all_nodes() for output in node.outputs if id(output) not in ends]
    before = [(value.type, value.dtype) for value in inner]
    for value in inner:
        value.shape, value.type = None, None
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value, (kind, dtype) in zip(inner, before, strict=True):
        if _is_no_tensor(value, kind):
            value.shape, value.type = None, kind  # a sequence, an optional: the pass takes it for a tensor
        elif value.dtype is None and dtype is not None:
            value.dtype = dtype  # an operator that onnx does not know; its type was right, or the file did not load
    for value, shape, kind in promised:
        value.shape, value.type = shape, kind
