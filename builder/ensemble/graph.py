"""The nouns of an ensemble: ports, models that are steps, steps, and the graph that they make.

As in Triton, steps meet in a pool of named tensors: each step renames pool tensors to the inputs of its model, and the
model's outputs to pool tensors. Nothing here knows where a graph comes from: ``adapters.py`` reads one from
``ModelConfig`` messages, ``wiring.py`` makes one of what a user wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush

from builder.tensors import BATCH, Dim
from serving.dtypes import DType

ENSEMBLE = -1
"""The owner of the ensemble's own inputs and outputs, where steps are numbered from 0."""
FREE = Dim()
"""A dimension that nothing is known of: ``-1`` in ``config.pbtxt``."""
BATCH_DIM = Dim(name=BATCH)


@dataclass(frozen=True)
class Port:
    """One input or output of a model, or of the ensemble.

    Attributes:
        name: as its model calls it.
        dtype: None where it is not known.
        dims: whole shape: begins with ``batch`` where the model batches. None where not even the rank is known.
        optional: an input that a request may leave out.
        ragged: an input whose requests may differ in shape within a batch (``allow_ragged_batch``).
    """

    name: str
    dtype: DType | None
    dims: tuple[Dim, ...] | None
    optional: bool = False
    ragged: bool = False

    def __str__(self) -> str:
        dims = "..." if self.dims is None else ", ".join(map(dim_text, self.dims))
        return f"{self.dtype.name if self.dtype else '?'}[{dims}]"


def dim_text(dim: Dim) -> str:
    """A dimension as it is written in the spec, or ``-1`` for a free one."""
    return "-1" if dim == FREE else str(dim)


@dataclass(frozen=True)
class StepModel:
    """What an ensemble has to know of a model that is one of its steps.

    Attributes:
        name: in the repository.
        max_batch_size: Triton's; 0 where it does not batch.
        inputs, outputs: its tensors; None where they are not known, and nothing is said of them then.
        decoupled: it may answer a request with any number of responses.
        sequence: it keeps state between the requests of a sequence.
        versions: that the repository has; None where that is not known.
        served: those of them that its version policy serves.
        format: ``onnx`` where it is an ONNX file that ONNX Runtime runs; else whatever its backend is called.
        instance_kinds: where its instances run (``KIND_CPU``); empty where the server decides.
        response_cache: its answers are kept.
        opset: of the ONNX file, where known.
        steps: names of the models that it is made of, where it is itself an ensemble.
    """

    name: str
    max_batch_size: int
    inputs: tuple[Port, ...] | None
    outputs: tuple[Port, ...] | None
    decoupled: bool = False
    sequence: bool = False
    versions: tuple[int, ...] | None = None
    served: tuple[int, ...] | None = None
    format: str = ""
    instance_kinds: tuple[str, ...] = ()
    response_cache: bool = False
    opset: int | None = None
    steps: tuple[str, ...] = ()

    @property
    def batches(self) -> bool:
        """True when its tensors begin with the batch dimension."""
        return self.max_batch_size > 0

    def input(self, name: str) -> Port | None:
        """Its input of that name."""
        return next((port for port in self.inputs or () if port.name == name), None)

    def output(self, name: str) -> Port | None:
        """Its output of that name."""
        return next((port for port in self.outputs or () if port.name == name), None)


@dataclass(frozen=True)
class Step:
    """One step: a model, and how its tensors are called in the pool.

    Attributes:
        name: for messages: its own in the spec, else the model's (numbered where a model is used twice).
        model_name: the model that is asked.
        model: what is known of it; None where the repository has no such model.
        model_version: -1 is the latest.
        inputs: model input: pool tensor.
        outputs: model output: pool tensor.
    """

    name: str
    model_name: str
    model: StepModel | None
    model_version: int = -1
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EnsembleGraph:
    """An ensemble.

    Attributes:
        name: of the ensemble.
        inputs, outputs: its own ports; their names are pool tensors.
        max_batch_size: its own.
        steps: as written; the server takes them in any order.
        uses: ensemble: the models it is made of; for every ensemble that can be reached from this one.
        models: names of the models that the repository has, for suggestions; empty where that is not known.
        response_cache: the ensemble's answers are kept.
        max_inflight_requests: of every step, 0 without limit.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    max_batch_size: int
    steps: tuple[Step, ...]
    uses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    response_cache: bool = False
    max_inflight_requests: int = 0

    @property
    def batches(self) -> bool:
        """True when its tensors begin with the batch dimension."""
        return self.max_batch_size > 0


@dataclass(frozen=True)
class End:
    """One end of an edge: a port of a step, or of the ensemble.

    Attributes:
        owner: index of the step, or :data:`ENSEMBLE`.
        label: ``tokenize.input_ids``, ``input text`` or ``output embedding``.
        port: the tensor there.
        batches: its owner batches.
        is_output: it is an output of its owner.
    """

    owner: int
    label: str
    port: Port
    batches: bool
    is_output: bool

    def __str__(self) -> str:
        return f"{self.label} {self.port}"

    @property
    def sample_dims(self) -> tuple[Dim, ...] | None:
        """The dimensions without the server's batch dimension."""
        return self.port.dims[1:] if self.port.dims is not None and self.batches else self.port.dims


@dataclass(frozen=True)
class Edge:
    """A tensor from where it is made to where it is used.

    Attributes:
        tensor: its name in the pool.
        source: a step's output or the ensemble's input.
        target: a step's input or the ensemble's output.
    """

    tensor: str
    source: End
    target: End

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


def ensemble_end(graph: EnsembleGraph, port: Port, *, is_output: bool) -> End:
    """The ensemble's own input or output as an end."""
    label = f"{'output' if is_output else 'input'} {port.name}"
    return End(ENSEMBLE, label, port, graph.batches, is_output)


def step_end(graph: EnsembleGraph, index: int, name: str, *, is_output: bool) -> End | None:
    """A step's tensor as an end; None where its model, or the model's tensors, are not known, or it has none such."""
    step = graph.steps[index]
    if step.model is None:
        return None
    port = step.model.output(name) if is_output else step.model.input(name)
    return None if port is None else End(index, f"{step.name}.{name}", port, step.model.batches, is_output)


def producers(graph: EnsembleGraph) -> dict[str, list[tuple[int, str]]]:
    """Pool tensor: who makes it, as (owner, port name): the ensemble's inputs, then outputs of steps in order."""
    found: dict[str, list[tuple[int, str]]] = {}
    for port in graph.inputs:
        found.setdefault(port.name, []).append((ENSEMBLE, port.name))
    for index, step in enumerate(graph.steps):
        for name, tensor in step.outputs.items():
            found.setdefault(tensor, []).append((index, name))
    return found


def consumers(graph: EnsembleGraph) -> dict[str, list[tuple[int, str]]]:
    """Pool tensor: who uses it, as (owner, port name): inputs of steps in order, then the ensemble's outputs."""
    found: dict[str, list[tuple[int, str]]] = {}
    for index, step in enumerate(graph.steps):
        for name, tensor in step.inputs.items():
            found.setdefault(tensor, []).append((index, name))
    for port in graph.outputs:
        found.setdefault(port.name, []).append((ENSEMBLE, port.name))
    return found


def edges(graph: EnsembleGraph) -> Iterator[Edge]:
    """Every edge whose two ends are known; a tensor that is made twice counts for who makes it first."""
    made = producers(graph)
    for tensor, users in consumers(graph).items():
        source = _end(graph, made[tensor][0], is_output=True) if tensor in made else None
        for user in users:
            target = _end(graph, user, is_output=False)
            if source is not None and target is not None:
                yield Edge(tensor, source, target)


def _end(graph: EnsembleGraph, at: tuple[int, str], *, is_output: bool) -> End | None:
    owner, name = at
    if owner != ENSEMBLE:
        return step_end(graph, owner, name, is_output=is_output)
    ports = graph.inputs if is_output else graph.outputs  # what the ensemble takes, its steps are given
    return ensemble_end(graph, next(port for port in ports if port.name == name), is_output=not is_output)


def upstream(graph: EnsembleGraph) -> list[set[int]]:
    """For each step the steps that make its inputs; what callers give is there, whoever else makes it."""
    made = producers(graph)
    return [
        {owner for tensor in step.inputs.values() for owner, _ in made.get(tensor, ())[:1] if owner != ENSEMBLE}
        for step in graph.steps
    ]


def in_order(graph: EnsembleGraph) -> list[int]:
    """The steps such that each comes after those it needs; as written where that does not matter.

    Raises:
        ValueError: they need each other.
    """
    needs = upstream(graph)
    feeds: list[list[int]] = [[] for _ in needs]
    for index, need in enumerate(needs):
        for source in need:
            feeds[source].append(index)
    waits = [len(need) for need in needs]
    ready = [index for index, count in enumerate(waits) if not count]  # in order already: a heap
    order: list[int] = []
    while ready:
        order.append(heappop(ready))
        for index in feeds[order[-1]]:
            waits[index] -= 1
            if not waits[index]:
                heappush(ready, index)
    if len(order) < len(needs):
        stuck = [graph.steps[index].name for index, count in enumerate(waits) if count]
        raise ValueError(f"steps that need each other: {', '.join(stuck)}")
    return order
