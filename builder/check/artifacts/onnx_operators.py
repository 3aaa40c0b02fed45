"""Operators of an ONNX graph that ONNX Runtime does not have, or not in the opset that the file names."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping
from functools import cache

from builder.check.artifacts.onnx import graphs
from builder.check.model import ModelOnDisk
from builder.findings import did_you_mean
from builder.rules.rule import Hit, Rule

OPERATOR = Rule(
    "onnx-operator",
    "error",
    "the graph has an operator that the official domains do not have",
    '"This is an invalid model. Error No Op registered for .. with domain_version of ..": no such operator was ever '
    "released, or only with a newer opset than the file names.",
    "Export it again, with the opset that has the operator.",
    bad="a node Gelu in a file of opset 17",
    good="the same file with opset 20",
)


@cache
def operators() -> Mapping[str, Mapping[str, int]]:
    """By domain and name: the opset that brought the operator."""
    file = importlib.resources.files("builder.check.artifacts").joinpath("operators.json")
    known: Mapping[str, Mapping[str, int]] = json.loads(file.read_text(encoding="utf-8"))["operators"]
    return known


def unknown_operators(model: ModelOnDisk) -> Iterator[Hit]:
    """Unless a library of custom operators may bring them."""
    if model.config is not None and model.config.model_operations.op_library_filename:
        return
    for _, path, graph in graphs(model):
        name = model.relative(path)
        for domain, kind in sorted(graph.op_types):
            known = operators().get(domain)
            if known is None or domain in graph.function_domains:
                continue
            opset = graph.opsets.get(domain)
            since = known.get(kind)
            where = f" of {domain}" if domain else ""
            if since is None:
                yield Hit(f"{name} has the operator {kind!r}, which ONNX{where} has not", _hint(kind, known), file=name)
            elif opset is not None and since > opset:
                message = f"{name} has the operator {kind!r}, which came with opset {since}{where}, and names {opset}"
                yield Hit(message, f"export with opset {since}, or higher", file=name)


def _hint(kind: str, known: Mapping[str, int]) -> str:
    return did_you_mean(kind, known) or "export it again with standard operators"


OPERATOR_RULES = ((OPERATOR, unknown_operators),)
