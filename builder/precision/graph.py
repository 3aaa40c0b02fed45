"""The graph that recipes work on: read with its weights left on disk, changed in place, written, and checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from builder.artifact import EXTERNAL_DATA_SUFFIX
from builder.errors import PrecisionError, describe
from builder.graphs import onnx_graph
from serving.errors import MissingDependencyError

FLOAT = 1
"""``onnx_ir.DataType.FLOAT``, without importing it."""


def load(path: Path) -> Any:
    """An ``onnx_ir.Model``; weights in files of their own stay there until they are looked at.

    Raises:
        PrecisionError: it is no ONNX model.
    """
    try:
        import onnx_ir
    except ImportError as exc:
        raise MissingDependencyError("onnx_ir", "torch", needed_for="to change a model's precision") from exc
    try:
        return onnx_ir.load(path)
    except Exception as exc:  # protobuf's and onnx_ir's own, without a common base
        raise PrecisionError(
            "the ONNX file cannot be read", where=str(path), expected="an ONNX model", got=describe(exc, limit=200)
        ) from exc


def save(model: Any, to: Path) -> None:
    """Write a model; weights above :data:`onnx_graph.EXTERNAL_DATA_ABOVE_BYTES` go to ``<to>.data``, one at a time."""
    import onnx_ir

    weights = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    if sum(tensor.nbytes for tensor in weights) > onnx_graph.EXTERNAL_DATA_ABOVE_BYTES:
        onnx_ir.save(model, to, external_data=to.name + EXTERNAL_DATA_SUFFIX)
    else:
        onnx_ir.external_data.load_to_model(model)
        onnx_ir.save(model, to)


def check(source: Path, to: Path, *, half_at_the_border: bool = False) -> None:
    """Hold what was written against what it was made from.

    Args:
        source: what it was made from.
        to: what was written.
        half_at_the_border: inputs and outputs in float32 are in float16 now.

    Raises:
        PrecisionError: it is no valid ONNX, or has other inputs or outputs.
    """
    import onnx

    try:
        onnx.checker.check_model(str(to))
    except Exception as exc:  # onnx raises classes of its own
        raise PrecisionError(
            "the graph that came out is not valid ONNX",
            where=str(to),
            expected="what onnx.checker takes",
            got=describe(exc, limit=300),
            fix="this is a defect of the builder, not of your model: please report it with the recipe",
        ) from exc
    before, after = _ends(source), _ends(to)
    if half_at_the_border:
        before = before.replace(":1[", ":10[")
    if before != after:
        raise PrecisionError(
            "the graph that came out has other inputs or outputs", where=str(to), expected=before, got=after
        )


def _ends(path: Path) -> str:
    from builder.graphs.onnx_tensors import load_graph

    graph = load_graph(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = ", ".join(_told(value) for value in graph.input if value.name not in weights)
    return f"{inputs} -> {', '.join(_told(value) for value in graph.output)}"


def _told(value: Any) -> str:
    tensor = value.type.tensor_type
    dims = [dim.dim_param or dim.dim_value if dim.WhichOneof("value") else "?" for dim in tensor.shape.dim]
    return f"{value.name}:{tensor.elem_type}{dims}"


def constant(value: Any) -> Any:
    """The tensor of a value that is the same in every request, else None: a weight that is no input as well."""
    if value is None or value.const_value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def is_float(value: Any) -> bool:
    """True for a float32 tensor."""
    return value is not None and value.dtype is not None and int(value.dtype) == FLOAT


def nodes(model: Any, op_types: Iterable[str], keep: Iterable[str] = ()) -> list[Any]:
    """The nodes of these types of the main graph (subgraphs stay as they are), but those to keep, in order."""
    wanted, kept = set(op_types), set(keep)
    return [
        node
        for node in model.graph
        if node.op_type in wanted and node.domain in ("", "ai.onnx") and node.name not in kept
    ]


def names(model: Any) -> set[str]:
    """The names that its nodes have, those of subgraphs too."""
    return {node.name or "" for node in model.graph.all_nodes()}


def replace(graph: Any, node: Any, made: list[Any]) -> None:
    """Put new nodes in the place of one: the last one's output gets its name and its uses."""
    old, new = node.outputs[0], made[-1].outputs[0]
    graph.insert_before(node, made)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name = old.name


class Maker:
    """New nodes and weights under names that are free."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self._taken = names(model) | set(model.graph.initializers)
        self._taken |= {value.name for value in model.graph.inputs}
        self._taken |= {value.name for node in model.graph.all_nodes() for value in node.outputs}

    def name(self, wanted: str) -> str:
        """``wanted``, or the next free one like it."""
        found, number = wanted, 1
        while found in self._taken:
            number += 1
            found = f"{wanted}_{number}"
        self._taken.add(found)
        return found

    def weight(self, array: Any, name: str) -> Any:
        """A new initializer."""
        import onnx_ir

        name = self.name(name)
        tensor: Any = onnx_ir.tensor(array, name=name)
        value = onnx_ir.Value(name=name, const_value=tensor)
        value.shape, value.dtype = tensor.shape, tensor.dtype
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: list[Any],
        *,
        name: str,
        like: Any = None,
        dtype: int | None = None,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> Any:
        """A new node, not yet in the graph.

        Args:
            op_type, inputs, domain, attributes: of the node.
            name: what to call it; its outputs are called ``<name>_output``.
            like: a value whose shape (and dtype) the first output has.
            dtype: of the first output, where it is another.
            outputs: how many.
        """
        import onnx_ir

        given = [onnx_ir.convenience.convert_attribute(key, value) for key, value in sorted(attributes.items())]
        node = onnx_ir.Node(domain, op_type, inputs, given, num_outputs=outputs, name=self.name(name))
        for index, output in enumerate(node.outputs):
            output.name = self.name(f"{node.name}_output{index or ''}")
        if like is not None:
            node.outputs[0].shape, node.outputs[0].dtype = like.shape, like.dtype
        if dtype is not None:
            node.outputs[0].dtype = onnx_ir.DataType(dtype)
        return node

    def drop_unused(self) -> None:
        """Forget the weights that no node uses any more."""
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]
