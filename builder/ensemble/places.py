"""Where a finding is: the same port as a field of ``ModelConfig``, or as a key of the spec."""

from __future__ import annotations

from dataclasses import dataclass

from builder.ensemble.graph import ENSEMBLE, End, EnsembleGraph
from builder.findings import KeyPath


@dataclass(frozen=True)
class Places:
    """How one notation leads to the parts of an ensemble.

    Attributes:
        root: the way to the list of steps.
        input_map, output_map: a step's wiring.
        model, version: of a step.
        inputs, outputs: of the ensemble.
        by_name: the ensemble's tensors are a mapping, not a list.
    """

    root: KeyPath
    input_map: str
    output_map: str
    model: str
    version: str
    inputs: str
    outputs: str
    by_name: bool

    def step(self, index: int, *below: str) -> KeyPath:
        """A step, or something in it."""
        return (*self.root, index, *below)

    def wired(self, index: int, name: str, *, is_output: bool) -> KeyPath:
        """What a step's tensor is called in the pool."""
        return self.step(index, self.output_map if is_output else self.input_map, name)

    def tensor(self, graph: EnsembleGraph, name: str, *, is_output: bool) -> KeyPath:
        """An input or output of the ensemble."""
        kind, ports = (self.outputs, graph.outputs) if is_output else (self.inputs, graph.inputs)
        names = [port.name for port in ports]
        return (kind, name if self.by_name else names.index(name))

    def end(self, graph: EnsembleGraph, end: End) -> KeyPath:
        """One end of an edge."""
        if end.owner == ENSEMBLE:
            return self.tensor(graph, end.port.name, is_output=end.is_output)
        return self.wired(end.owner, end.port.name, is_output=end.is_output)


CONFIG_PLACES = Places(
    ("ensemble_scheduling", "step"),
    "input_map",
    "output_map",
    "model_name",
    "model_version",
    "input",
    "output",
    by_name=False,
)
"""``config.pbtxt``."""
SPEC_PLACES = Places(("steps",), "inputs", "outputs", "model", "version", "inputs", "outputs", by_name=True)
"""The spec, from the key ``ensemble`` down."""
