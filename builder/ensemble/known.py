"""What is known of an ensemble that is being wired: who makes which tensor, what needs what, how it is told."""

from __future__ import annotations

from builder.ensemble.checks import alike
from builder.ensemble.graph import ENSEMBLE, Port, StepModel
from builder.ensemble.written import Written, WrittenStep
from builder.findings import Finding, KeyPath

Source = tuple[int, str]
"""Who makes a tensor, and what it is called there: (step, output), or (ENSEMBLE, input)."""


class Known:
    """Steps, their models, and the wires so far.

    Attributes:
        written: what the user says.
        steps: those of it, in its order.
        models: of the steps.
        declared: the ensemble's inputs, where the user lists them.
        taken: the ensemble's inputs, with those that are inferred.
        asked: inputs of steps that a question is asked about.
        wires: (step, input): where its tensor comes from.
        found: what is wrong so far.
    """

    def __init__(self, written: Written, models: list[StepModel]) -> None:
        self.written, self.models = written, models
        self.steps: tuple[WrittenStep, ...] = written.steps
        self.declared = {tensor.name: Port(tensor.name, tensor.dtype, tensor.dims) for tensor in written.inputs}
        self.taken: dict[str, Port] = dict(self.declared)
        self.asked: set[tuple[int, str]] = set()
        self.wires: dict[tuple[int, str], Source] = {}
        self.found: list[Finding] = []

    def open_inputs(self) -> list[tuple[int, Port]]:
        """Inputs that are not connected, and that no question is asked about yet."""
        return [
            (index, port)
            for index, model in enumerate(self.models)
            for port in model.inputs or ()
            if (index, port.name) not in self.wires and (index, port.name) not in self.asked
        ]

    def made(self, name: str) -> list[Source]:
        """Outputs of steps that are called so, by their model or by the user."""
        return [
            (index, port.name)
            for index, step in enumerate(self.steps)
            for port in self.models[index].outputs or ()
            if name == step.outputs.get(port.name, port.name)
        ]

    def all_sources(self) -> list[Source]:
        """Every tensor that there is."""
        made = [(index, port.name) for index, model in enumerate(self.models) for port in model.outputs or ()]
        return [*((ENSEMBLE, name) for name in self.taken), *made]

    def depends(self, index: int, on: int) -> bool:
        """Whether a step needs another one, or is it, by the wires that there are."""
        waiting = [index]
        for here in waiting:
            if here == on:
                return True
            waiting += [s for (at, _), (s, _) in self.wires.items() if at == here and s not in (ENSEMBLE, *waiting)]
        return False

    def not_superseded(self, sources: list[Source]) -> list[Source]:
        """Without those that another one of them was made of."""
        return [s for s in sources if not any(o[0] != s[0] and self.depends(o[0], s[0]) for o in sources)]

    def port(self, source: Source) -> Port:
        """What a tensor is."""
        port = self.taken[source[1]] if source[0] == ENSEMBLE else self.models[source[0]].output(source[1])
        assert port is not None
        return port

    def label(self, source: Source) -> str:
        """What a tensor is called in the spec."""
        return source[1] if source[0] == ENSEMBLE else f"{self.steps[source[0]].name}.{source[1]}"

    def listed(self, sources: list[Source]) -> str:
        """Some tensors to choose from."""
        return " or ".join(f"{self.label(source)} {self.port(source)}" for source in sources)

    def what_fits(self, port: Port | None, index: int) -> str:
        """What could be connected to an input of a step, or become an output of the ensemble, as a sentence."""
        if port is None:
            return ""
        is_output = index == ENSEMBLE  # whose own inputs are none then
        near = [s for s in self.all_sources() if s[0] != index and fits(self.port(s), port)]
        if not near and is_output:
            return "nothing here fits"
        if not near:
            return f'nothing here fits: declare it in the ensemble\'s `inputs`: {{{port.name}: "{port}"}}'
        return f"what fits: {self.listed(near)}"

    def ambiguous(self, what: str, path: KeyPath) -> None:
        """Ask which of several tensors is meant."""
        self.say(what, "one tensor", f"write which: `{path[-1]}: step.output`", path)

    def say(self, what: str, expected: str, fix: str, path: KeyPath) -> None:
        """Something is wrong, or not clear."""
        self.found.append(Finding(what, expected, "", fix, path))


def fits(one: Port, other: Port) -> bool:
    """The same type, rank and, where both are fixed, sizes."""
    if not alike(one, other) or one.dims is None or other.dims is None:
        return alike(one, other)
    return all(a.size is None or b.size is None or a.size == b.size for a, b in zip(one.dims, other.dims, strict=True))
