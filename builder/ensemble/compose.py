"""An ensemble run in this process: its steps asked one after another, as the server would."""

from __future__ import annotations

from collections.abc import Mapping

from builder.ensemble.graph import ENSEMBLE, End, EnsembleGraph, ensemble_end, in_order, step_end
from builder.numerics import Array
from builder.reference import Runner


class EnsembleRunner:
    """The steps' answers put together: full tensors in, full tensors out. It is a :class:`Runner` itself.

    As in the server, a tensor loses a batch dimension of 1, or gets one, where it passes between what batches and what
    does not; an input that is left out is left out of the step's request as well.

    Args:
        graph: the ensemble.
        runners: what answers for each step, by the step's name.

    Raises:
        ValueError: a step has no runner, its model is not known, or steps need each other.
    """

    def __init__(self, graph: EnsembleGraph, runners: Mapping[str, Runner]) -> None:
        absent = [step.name for step in graph.steps if step.name not in runners]
        if absent:
            raise ValueError(f"no runner for {', '.join(absent)}")
        unknown = [step.name for step in graph.steps if step.model is None]
        if unknown:
            raise ValueError(f"nothing is known of the model of {', '.join(unknown)}")
        self._graph, self._runners = graph, dict(runners)
        self._order = in_order(graph)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one request.

        Raises:
            ValueError: an input is missing or unknown, or a tensor does not fit where it goes.
        """
        graph = self._graph
        known = {port.name for port in graph.inputs}
        extra = [name for name in inputs if name not in known]
        if extra:
            raise ValueError(f"the ensemble has no input {extra[0]!r}; it has {', '.join(sorted(known))}")
        pool: dict[str, tuple[Array, End]] = {}
        for port in graph.inputs:
            if port.name in inputs:
                pool[port.name] = (inputs[port.name], ensemble_end(graph, port, is_output=False))
            elif not port.optional:
                raise ValueError(f"input {port.name!r} of the ensemble is missing")
        for index in self._order:
            self._run(index, pool)
        outputs = {}
        for port in graph.outputs:
            if port.name not in pool:
                raise ValueError(f"output {port.name!r} of the ensemble was not made")
            outputs[port.name] = passed(*pool[port.name], ensemble_end(graph, port, is_output=True))
        return outputs

    def _run(self, index: int, pool: dict[str, tuple[Array, End]]) -> None:
        step = self._graph.steps[index]
        request = {}
        for name, tensor in step.inputs.items():
            target = step_end(self._graph, index, name, is_output=False)
            if target is None:
                raise ValueError(f"step {step.name!r} has no input {name!r}")
            if tensor in pool:
                request[name] = passed(*pool[tensor], target)
            elif not target.port.optional:
                raise ValueError(f"{target.label} is needed, and tensor {tensor!r} was not given")
        answer = self._runners[step.name](request)
        for name, tensor in step.outputs.items():
            source = step_end(self._graph, index, name, is_output=True)
            if source is None or name not in answer:
                raise ValueError(f"step {step.name!r} gave no {name!r}, but {', '.join(answer) or 'nothing'}")
            pool[tensor] = (answer[name], source)


def passed(array: Array, source: End, target: End) -> Array:
    """A tensor on its way from one end of an edge to the other.

    Raises:
        ValueError: it has another number of dimensions than its target takes.
    """
    if target.port.dims is None or array.ndim == len(target.port.dims) or source.batches == target.batches:
        return array
    if target.batches and array.ndim + 1 == len(target.port.dims):
        return array[None]
    if source.batches and array.ndim - 1 == len(target.port.dims) and array.shape[0] == 1:
        return array[0]  # type: ignore[no-any-return]
    shape = f"{source.label} is {list(array.shape)}"
    what = "takes one sample at a time" if target.owner != ENSEMBLE else "is one sample"
    raise ValueError(f"{shape}, and {target} {what}")
