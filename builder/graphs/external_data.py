"""The files beside an ONNX graph that hold its weights: which they are, whether they are whole, and copies of them.

A location is text inside a file that somebody else may have written: one that leads out of the graph's own folder is
refused, before anything opens it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from builder.artifact import EXTERNAL_DATA_SUFFIX
from builder.errors import SourceError
from builder.graphs.onnx_tensors import load_graph


def external_files(path: Path) -> dict[str, int]:
    """The external data of an ONNX file: location, and how many bytes of it are needed.

    Raises:
        SourceError: a location leads out of the folder, a file is missing, or shorter than the graph says.
        ValueError, OSError: as :func:`load_graph`.
    """
    needed: dict[str, int] = {}
    for tensor in external_tensors(load_graph(path)):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        end = _number(entries, "offset", path, tensor.name) + _number(entries, "length", path, tensor.name)
        needed[location] = max(needed.get(location, 0), end)
    for location, size in needed.items():
        _check(path, location, size)
    return dict(sorted(needed.items()))


def copy_with_data(source: Path, to: Path, *, taken: Collection[str] = ()) -> tuple[str, ...]:
    """Copy an ONNX file and its external data into one flat folder.

    Data that lies in sub-folders, or under a name that is ``taken``, gets another name, and the graph is told; the
    graph is otherwise copied as it is.

    Args:
        source: the ``.onnx`` file.
        to: where it goes; data goes beside it.
        taken: names that something else in that folder has.

    Returns:
        The names of the data files, beside ``to``.

    Raises:
        SourceError: as :func:`external_files`.
        ValueError, OSError: as :func:`load_graph`; the copy cannot be written.
    """
    names = _flat_names(external_files(source), to.name, taken)
    if any(location != name for location, name in names.items()):
        _write_renamed(source, to, names)
    else:
        shutil.copyfile(source, to)
    for location, name in names.items():
        shutil.copyfile(source.parent / location, to.parent / name)
    return tuple(names.values())


def _write_renamed(source: Path, to: Path, names: dict[str, str]) -> None:
    import onnx

    model = onnx.load(str(source), load_external_data=False)
    for tensor in external_tensors(model):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names[entry.value]
    to.write_bytes(model.SerializeToString(deterministic=True))


def _flat_names(locations: Collection[str], onnx_name: str, taken: Collection[str]) -> dict[str, str]:
    """A name for each location: its own where that is a plain one and free, else ``<onnx file>.data``, numbered."""
    names = {text: text for text in locations if "/" not in text and text != onnx_name and text not in taken}
    used = {onnx_name, *taken, *names.values()}
    for location in locations:
        number = 1
        name = onnx_name + EXTERNAL_DATA_SUFFIX
        while location not in names and name in used:
            number += 1
            name = f"{onnx_name}{EXTERNAL_DATA_SUFFIX}{number}"
        used.add(names.setdefault(location, name))
    return {location: names[location] for location in locations}


def _check(path: Path, location: str, size: int) -> None:
    where = PurePosixPath(location)
    if not location or where.is_absolute() or ".." in where.parts or "\\" in location or "\0" in location:
        raise SourceError(
            "the ONNX file takes its weights from outside its own folder",
            where=str(path),
            expected="external data in the folder of the .onnx file, or below it",
            got=f"location {location!r}",
            fix="do not use this file unless you know who made it; move its data beside it and mend the location",
        )
    file = path.parent / location
    if not file.is_file():
        raise SourceError(
            "external data of the ONNX file is missing",
            where=str(path),
            expected=str(file),
            got="a folder" if file.is_dir() else "no such file",
            fix="put the file there: an .onnx file and its data travel together",
        )
    if file.stat().st_size < size:
        raise SourceError(
            "external data of the ONNX file is cut short",
            where=str(file),
            expected=f"at least {size} bytes",
            got=f"{file.stat().st_size} bytes",
            fix="copy it again",
        )


def _number(entries: dict[str, str], key: str, path: Path, tensor: str) -> int:
    text = entries.get(key) or "0"
    if not text.isdecimal():
        raise SourceError(
            f"the ONNX file has external data with an unusable {key}",
            where=f"{path}, tensor {tensor!r}",
            expected="a whole number of bytes",
            got=repr(text),
            fix="save it again: onnx.save(model, path, save_as_external_data=True)",
        )
    return int(text)


def external_tensors(model: Any) -> Iterator[Any]:
    """Every tensor of a model that lies outside of it: initializers, and attributes of nodes, in subgraphs too."""
    nodes = [node for function in model.functions for node in function.node]
    return (tensor for tensor in [*_tensors(model.graph), *_of_nodes(nodes)] if tensor.data_location == tensor.EXTERNAL)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            *attribute.sparse_tensors,
        ):
            yield from (sparse.values, sparse.indices)
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _tensors(graph)
