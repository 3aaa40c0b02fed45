"""Names and order in an exported graph: the spec's tensor and dimension names, nothing machine-made left, same bytes
every time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.artifact import EXTERNAL_DATA_SUFFIX
from builder.tensors import Interface, TensorSpec

EXTERNAL_DATA_ABOVE_BYTES = 1_000_000_000
"""Above this, weights go to a file of their own beside the graph.

A protobuf message ends at 2 GiB. It is not used to the full: writing one takes its size twice in memory, beside the
module, and half a minute; a file of its own is written tensor by tensor, and mapped where it is read.
"""


def finish(model: Any, interface: Interface, to: Path) -> None:
    """Rename, strip and save an ``onnx_ir.Model``.

    Args:
        model: what the exporter made; changed in place.
        interface: the names its inputs and outputs get, in order.
        to: the ``.onnx`` file; weights above :data:`EXTERNAL_DATA_ABOVE_BYTES` go to ``<to>.data``.
    """
    import onnx_ir

    graph = model.graph
    _own_outputs(graph)
    _rename(graph, interface)
    _strip(model)
    weights = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    if sum(tensor.nbytes for tensor in weights) > EXTERNAL_DATA_ABOVE_BYTES:
        onnx_ir.save(model, to, external_data=to.name + EXTERNAL_DATA_SUFFIX)
    else:
        onnx_ir.save(model, to)


def _own_outputs(graph: Any) -> None:
    """Give every output a value of its own: one that is an input, a weight, or another output gets an Identity."""
    import onnx_ir

    seen: set[int] = set()
    for index, value in enumerate(list(graph.outputs)):
        if id(value) in seen or value.producer() is None:
            node = onnx_ir.Node("", "Identity", [value], num_outputs=1)
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[index] = node.outputs[0]
        seen.add(id(graph.outputs[index]))


def _rename(graph: Any, interface: Interface) -> None:
    """The spec's names for inputs, outputs and their dimensions.

    An inner value that already has such a name is moved out of the way: a graph with two values of one name (an output
    ``embedding`` beside an ``nn.Embedding`` called so) is written without a word, and is invalid.
    """
    wanted = {tensor.name for tensor in interface.inputs + interface.outputs}
    ends = [*graph.inputs, *graph.outputs]
    taken = {value.name for value in _values(graph)} | wanted
    for value in _values(graph):
        if value.name in wanted and not any(value is end for end in ends):
            value.name = _free(value.name, taken)
    for value, tensor in zip(ends, interface.inputs + interface.outputs, strict=True):
        value.name = None if value.name == tensor.name else _free(f"{tensor.name}_moved", taken)
    names: dict[str, str] = {}
    for value, tensor in zip(ends, interface.inputs + interface.outputs, strict=True):
        value.name = tensor.name
        _name_dims(value, tensor, names)
    for value in _values(graph):
        if value.shape is not None and not any(value is end for end in ends):
            _rename_dims(value, names)


def _values(graph: Any) -> list[Any]:
    values = [*graph.inputs, *graph.initializers.values()]
    values += [output for node in graph.all_nodes() for output in node.outputs]
    return values


def _free(name: str, taken: set[str]) -> str:
    index = 1
    while f"{name}__{index}" in taken:
        index += 1
    taken.add(f"{name}__{index}")
    return f"{name}__{index}"


def _name_dims(value: Any, tensor: TensorSpec, names: dict[str, str]) -> None:
    """The spec's dimension names where the exporter left a symbol; a size that it fixed stays fixed, to be found."""
    import onnx_ir

    if value.shape is None or len(value.shape) != len(tensor.dims):
        return
    dims: list[int | str] = []
    for have, want in zip(value.shape, tensor.dims, strict=True):
        if isinstance(have, int):
            dims.append(have)
            continue
        if want.name is not None and have.value is not None:
            names.setdefault(str(have.value), want.name)
        dims.append(want.name if want.name is not None else int(want.size or 0))
    value.shape = onnx_ir.Shape(dims)


def _rename_dims(value: Any, names: dict[str, str]) -> None:
    import onnx_ir

    dims = [dim if isinstance(dim, int) else names.get(str(dim.value), dim.value) for dim in value.shape]
    value.shape = onnx_ir.Shape(dims)


def _strip(model: Any) -> None:
    """Drop stack traces and other notes of the exporter: they hold paths of this machine and change between runs."""
    model.metadata_props.clear()
    model.doc_string = None
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    for value in _values(model.graph):
        value.metadata_props.clear()
        value.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for function in model.functions.values():
        function.metadata_props.clear()
        function.doc_string = None
        for node in function.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
