"""Several ONNX graphs as one: names made unique, shared tensors joined, functions and dimensions kept apart.

``onnx.compose`` merges two graphs at a time, wants equal IR versions and opsets, refuses functions of one name, and
makes two inputs of a tensor that both graphs take; so this is done here, in one pass over any number of graphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Names = dict[str, str]
Function = tuple[str, str, str]
"""Domain, name and overload."""
PRODUCER = "triton-repo"


@dataclass(frozen=True)
class Piece:
    """One graph on its way into the whole.

    Attributes:
        name: of its step; what has a name in it has this before its name in the whole.
        model: the ``onnx.ModelProto``; changed in place.
        inputs: input of the graph: tensor of the whole.
        outputs: output of the graph: likewise.
    """

    name: str
    model: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def merged(pieces: Sequence[Piece], inputs: Sequence[str], outputs: Sequence[str], name: str) -> Any:
    """One ``onnx.ModelProto`` of several, whose opsets agree.

    Args:
        pieces: such that each comes after those whose tensors it takes; changed in place.
        inputs: tensors that the whole takes.
        outputs: tensors that the whole gives.
        name: of the graph.
    """
    import onnx

    whole = onnx.ModelProto(ir_version=max(piece.model.ir_version for piece in pieces), producer_name=PRODUCER)
    whole.graph.name = name
    for values, tensors in ((whole.graph.input, inputs), (whole.graph.output, outputs)):
        for tensor in tensors:
            values.add().name = tensor
    taken = {*inputs, *outputs, *(tensor for piece in pieces for tensor in piece.outputs.values())}
    dims = _dims(pieces)
    functions: dict[Function, Any] = {}
    for piece in pieces:
        _own_functions(piece, functions)
        _add(whole.graph, piece, dims, taken)
    whole.functions.extend(functions[key] for key in sorted(functions))
    versions = {entry.domain: entry.version for piece in pieces for entry in piece.model.opset_import}
    for domain, version in sorted(versions.items()):
        whole.opset_import.add(domain=domain, version=version)
    return whole


def _add(whole: Any, piece: Piece, dims: Mapping[tuple[str, str], str], taken: set[str]) -> None:
    """Put one graph into the whole, under names of its own."""
    graph = piece.model.graph
    ends: list[tuple[Any, str | None]] = [(value, piece.inputs.get(value.name)) for value in graph.input]
    ends += [(value, piece.outputs.get(value.name)) for value in graph.output]
    names, aliases = _new_names(piece, taken)
    _drop_given_defaults(graph, piece.inputs)
    for info in _value_infos(graph):
        _rename_dims(info, piece.name, dims)
    _rename(graph, names, f"{piece.name}/")
    for output, alias in aliases:
        graph.node.add(op_type="Identity", input=[names[output]], output=[alias], name=f"{piece.name}/as {alias}")
    outer = {value.name: value for value in (*whole.input, *whole.output)}
    for value, tensor in ends:
        if tensor in outer:
            _fill(outer[tensor], value)
    whole.node.extend(graph.node)
    whole.initializer.extend(graph.initializer)
    whole.sparse_initializer.extend(graph.sparse_initializer)
    whole.quantization_annotation.extend(graph.quantization_annotation)
    known = {value.name for value in whole.value_info} | set(outer)
    whole.value_info.extend(value for value in graph.value_info if value.name not in known)


def _new_names(piece: Piece, taken: set[str]) -> tuple[Names, list[tuple[str, str]]]:
    """What each value is called in the whole; and outputs that need a node, since their value has a name already."""
    graph = piece.model.graph
    made = {name for node in graph.node for name in node.output}
    names: Names = {value.name: piece.inputs[value.name] for value in graph.input if value.name in piece.inputs}
    aliases = []
    for output, tensor in piece.outputs.items():
        if output in made and output not in names:
            names[output] = tensor
        else:
            aliases.append((output, tensor))
    for name in _value_names(graph):
        if name and name not in names:
            names[name] = _free(f"{piece.name}/{name}", taken)
    return names, aliases


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _drop_given_defaults(graph: Any, given: Mapping[str, str]) -> None:
    """A weight that is an input as well is its default: where the input is given, it would be a second value."""
    for values in (graph.initializer, graph.sparse_initializer):
        kept = [tensor for tensor in values if getattr(tensor, "values", tensor).name not in given]
        if len(kept) != len(values):
            del values[:]
            values.extend(kept)


def _graphs(nodes: Any) -> Iterator[Any]:
    """The graphs in the attributes of nodes, those in them not included."""
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _value_names(graph: Any) -> Iterator[str]:
    """Every name that stands for a value, in subgraphs too; some of them more than once."""
    yield from (value.name for value in (*graph.input, *graph.initializer))
    for sparse in graph.sparse_initializer:
        yield from (sparse.values.name, sparse.indices.name)
    for node in graph.node:
        yield from (*node.input, *node.output)
    yield from (value.name for value in (*graph.output, *graph.value_info))
    for inner in _graphs(graph.node):
        yield from _value_names(inner)


def _value_infos(graph: Any) -> Iterator[Any]:
    yield from (*graph.input, *graph.output, *graph.value_info)
    for inner in _graphs(graph.node):
        yield from _value_infos(inner)


def _rename(graph: Any, names: Names, before: str) -> None:
    """New names for all values and nodes of a graph, in subgraphs too; what was noted about them is dropped."""
    graph.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
        value.doc_string = ""
        del value.metadata_props[:]
    for sparse in graph.sparse_initializer:
        for tensor in (sparse.values, sparse.indices):
            tensor.name = names.get(tensor.name, tensor.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = names.get(entry.value, entry.value)
    for node in graph.node:
        node.name = before + node.name if node.name else ""
        node.doc_string = ""
        del node.metadata_props[:]
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for inner in _graphs(graph.node):
        _rename(inner, names, before)


def _own_functions(piece: Piece, functions: dict[Function, Any]) -> None:
    """Take a piece's functions; one whose name another piece has for something else gets a name of its own."""
    renamed: dict[Function, str] = {}
    for function in piece.model.functions:
        key = (function.domain, function.name, function.overload)
        known = functions.get(key)
        if known is not None and known.SerializeToString(deterministic=True) != function.SerializeToString(
            deterministic=True
        ):
            renamed[key] = f"{piece.name}_{function.name}"
    for function in piece.model.functions:
        key = (function.domain, function.name, function.overload)
        function.name = renamed.get(key, function.name)
        _call(function.node, renamed)
        functions[function.domain, function.name, function.overload] = function
    _call(piece.model.graph.node, renamed)


def _call(nodes: Any, renamed: Mapping[Function, str]) -> None:
    """Let nodes call functions by their new names."""
    for node in nodes:
        node.op_type = renamed.get((node.domain, node.op_type, node.overload), node.op_type)
    for inner in _graphs(nodes):
        _call(inner.node, renamed)


def _dims(pieces: Sequence[Piece]) -> dict[tuple[str, str], str]:
    """A name for each named dimension of each piece: one where an edge makes two the same, else of its own."""
    same: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while same.setdefault(key, key) != key:
            key = same[key]
        return key

    first: dict[str, list[tuple[str, str]]] = {}
    for piece in pieces:
        for values, wired in ((piece.model.graph.input, piece.inputs), (piece.model.graph.output, piece.outputs)):
            for value in values:
                dims = [(piece.name, dim.dim_param) for dim in value.type.tensor_type.shape.dim]
                known = first.setdefault(wired[value.name], dims) if value.name in wired else dims
                for one, other in zip(known, dims, strict=False):
                    if one[1] and other[1]:
                        same[root(other)] = root(one)
    names: dict[tuple[str, str], str] = {}
    taken: set[str] = set()
    for piece in pieces:
        for value in _value_infos(piece.model.graph):
            for dim in value.type.tensor_type.shape.dim:
                key = (piece.name, dim.dim_param)
                if dim.dim_param and root(key) not in names:
                    names[root(key)] = _free(dim.dim_param, taken)
    return {key: names[root(key)] for key in same if root(key) in names} | names


def _rename_dims(value: Any, piece: str, dims: Mapping[tuple[str, str], str]) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param:
            dim.dim_param = dims[piece, dim.dim_param]


def _fill(end: Any, value: Any) -> None:
    """Say of an end of the whole what one of its graphs says; a fixed size of any of them is the size."""
    if not end.HasField("type"):
        end.type.CopyFrom(value.type)
        return
    for known, other in zip(end.type.tensor_type.shape.dim, value.type.tensor_type.shape.dim, strict=False):
        if other.HasField("dim_value") and not known.HasField("dim_value"):
            known.CopyFrom(other)
