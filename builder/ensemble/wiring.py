"""Which tensor goes where: what the user wrote, what is obvious, and questions about the rest.

An input that nobody wired is connected, in this order: to the tensor of that name that an earlier step makes (of
several, to the one that was made of the others); to the ensemble's input of that name; to a later step's tensor of that
name; where exactly one unused output of the step before and exactly one open input agree in type and shape, to that.
What is left of a step that no other step feeds becomes an input of the ensemble, if the user declared none. Everything
else is asked for, with what would fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from builder.ensemble.checks import alike
from builder.ensemble.graph import ENSEMBLE, EnsembleGraph, Port, Step, StepModel
from builder.ensemble.own_tensors import own_tensors
from builder.ensemble.written import Written, WrittenOutput, WrittenStep
from builder.findings import Finding, Findings, nearest

Source = tuple[int, str]
"""Who makes a tensor, and what it is called there: (step, output), or (ENSEMBLE, input)."""


def wire(name: str, written: Written, models: Mapping[str, StepModel]) -> EnsembleGraph:
    """The graph of an ensemble.

    Args:
        name: of the ensemble.
        written: what the user says of it.
        models: what its steps may be, by the name that steps use; their tensors are known.

    Raises:
        Findings: every tensor that is not clear, with what it could be; paths begin at the ensemble.
    """
    unknown = list(_models_that_are_not_there(written, models))
    if unknown:
        raise Findings(unknown)
    wiring = _Wiring(written, [models[step.model] for step in written.steps])
    wiring.as_written()
    wiring.by_name()
    wiring.by_type()
    wiring.inputs()
    outputs = wiring.outputs()
    if wiring.found:
        raise Findings(wiring.found)
    return own_tensors(wiring.graph(name, outputs, models), written)


def _models_that_are_not_there(written: Written, models: Mapping[str, StepModel]) -> Iterator[Finding]:
    for index, step in enumerate(written.steps):
        model = models.get(step.model)
        if model is None:
            close = nearest(step.model, models)
            fix = f"did you mean {close!r}?" if close else ""
            yield Finding(f"there is no model {step.model!r}", ", ".join(models), "", fix, ("steps", index))
        elif model.inputs is None or model.outputs is None:
            yield Finding(f"the tensors of model {step.model!r} are not known", path=("steps", index))


class _Wiring:
    """An ensemble on its way.

    Attributes:
        wires: (step, input): where its tensor comes from.
        found: what is wrong so far.
    """

    def __init__(self, written: Written, models: list[StepModel]) -> None:
        self._written, self._models = written, models
        self._steps: tuple[WrittenStep, ...] = written.steps
        self._declared = {tensor.name: Port(tensor.name, tensor.dtype, tensor.dims) for tensor in written.inputs}
        self._taken: dict[str, Port] = dict(self._declared)
        self._asked: set[tuple[int, str]] = set()
        self.wires: dict[tuple[int, str], Source] = {}
        self.found: list[Finding] = []

    # What the user wrote.

    def as_written(self) -> None:
        """Take the wires that the user wrote."""
        for index, step in enumerate(self._steps):
            for name, reference in step.inputs.items():
                port, path = self._models[index].input(name), ("steps", index, "inputs", name)
                if port is None:
                    self._no_such(index, name, path, is_output=False)
                    continue
                source = self._resolve(reference, path, port, not_from=index)
                if source is None:
                    self._asked.add((index, name))
                else:
                    self.wires[index, name] = source
            for name in step.outputs:
                if self._models[index].output(name) is None:
                    self._no_such(index, name, ("steps", index, "outputs", name), is_output=True)
        renamed: dict[str, Source] = {}
        for index, step in enumerate(self._steps):
            for name, tensor in step.outputs.items():
                first = renamed.setdefault(tensor, (index, name))
                if first != (index, name) or tensor in self._declared:
                    other = f"{self._label(first)}" if first != (index, name) else "an input of the ensemble"
                    what = f"{self._label((index, name))} and {other} are both called {tensor!r} in the ensemble"
                    self._say(what, "a name for each tensor", "", ("steps", index, "outputs", name))

    def _no_such(self, index: int, name: str, path: tuple[str | int, ...], *, is_output: bool) -> None:
        model = self._models[index]
        ports, kind = (model.outputs, "output") if is_output else (model.inputs, "input")
        close = nearest(name, [port.name for port in ports or ()])
        listed = ", ".join(f"{port.name} {port}" for port in ports or ())
        what = f"model {model.name!r} has no {kind} {name!r}"
        self._say(what, listed or f"it has no {kind}s", f"did you mean {close!r}?" if close else "", path)

    def _resolve(
        self, reference: str, path: tuple[str | int, ...], port: Port | None, *, not_from: int = -2
    ) -> Source | None:
        """What a reference means: an input of the ensemble, ``step.output``, or the name of one tensor."""
        if reference in self._declared:
            return (ENSEMBLE, reference)
        exact = [
            (index, output.name)
            for index, step in enumerate(self._steps)
            for output in self._models[index].outputs or ()
            if reference in (f"{step.name}.{output.name}", step.outputs.get(output.name))
        ]
        several = exact or [source for source in self._made(reference) if source[0] != not_from]
        if len(several) == 1:
            return several[0]
        if several:
            self._ambiguous(f"{reference!r} may be {self._listed(several)}", path)
        elif not self._declared and port is not None and "." not in reference:
            return self._caller_gives(reference, port, path)
        else:
            names = [self._label(source) for source in self._all_sources()]
            close = nearest(reference, names) or nearest(reference.rpartition(".")[2], names)
            fix = f"did you mean {close!r}?" if close else self._fits(port, not_from)
            self._say(f"there is no tensor {reference!r}", ", ".join(names), fix, path)
        return None

    # What is obvious.

    def by_name(self) -> None:
        """Connect what is called alike: first to earlier steps and the ensemble's inputs, then to later steps."""
        for later in (False, True):
            for index, port in self._open():
                ahead = [s for s in self._made(port.name) if (s[0] > index if later else s[0] < index)]
                found = self._not_superseded([source for source in ahead if not self._depends(source[0], index)])
                if not found and not later and port.name in self._declared:
                    found = [(ENSEMBLE, port.name)]
                if len(found) == 1:
                    self.wires[index, port.name] = found[0]
                elif found:
                    self._asked.add((index, port.name))
                    what = f"{self._steps[index].name}.{port.name} {port} may be {self._listed(found)}"
                    self._ambiguous(what, ("steps", index, "inputs", port.name))

    def by_type(self) -> None:
        """Connect the one open input to the one unused tensor that fits it: of the step before, or of the ensemble."""
        for index in range(len(self._steps)):
            before: list[tuple[Source, Port]] = []
            if index and not self._depends(index - 1, index):
                outputs = self._models[index - 1].outputs or ()
                before = [((index - 1, port.name), port) for port in outputs]
            given: list[tuple[Source, Port]] = [((ENSEMBLE, port.name), port) for port in self._declared.values()]
            for sources in (before, given):
                unused = [(source, port) for source, port in sources if source not in self.wires.values()]
                pairs = [
                    (port, source)
                    for at, port in self._open()
                    if at == index and not port.optional
                    for source, candidate in unused
                    if _fits(candidate, port)
                ]
                if len(pairs) == 1:
                    self.wires[index, pairs[0][0].name] = pairs[0][1]

    def inputs(self) -> None:
        """Let callers give what is open in the first steps, where no inputs are declared; ask for the rest."""
        for index, port in self._open():
            path = ("steps", index, "inputs", port.name)
            fed = any(at == index and source[0] != ENSEMBLE for (at, _), source in self.wires.items())
            if port.optional:
                continue
            if self._declared or fed:
                what = f"nothing is connected to {self._steps[index].name}.{port.name} {port}"
                self._say(what, "a tensor of that type", self._fits(port, index), path)
                continue
            source = self._caller_gives(port.name, port, path)
            if source is not None:
                self.wires[index, port.name] = source

    def _caller_gives(self, name: str, port: Port, path: tuple[str | int, ...]) -> Source | None:
        """An input of the ensemble that no one declared, of the type that the step wants."""
        known = self._taken.setdefault(name, Port(name, port.dtype, port.dims))
        if not alike(known, port):
            what = f"two steps take {name!r} from the caller, as {known} and as {port}"
            self._say(what, "one type for one input", "wire them to inputs of different names", path)
            return None
        return (ENSEMBLE, name)

    # The ensemble's outputs.

    def outputs(self) -> dict[str, Source]:
        """The ensemble's outputs and who makes them: those that are declared, else those that no step uses."""
        named: dict[str, Source] = {}
        for output in self._written.outputs:
            source = self._source_of(output)
            if source is not None:
                self._add_output(named, output.name, source, ("outputs", output.name))
        if not self._written.outputs:
            for name, source in self._left_over():
                self._add_output(named, name, source, ("outputs",))
            if not named and not self.found:
                self._say("the ensemble has no output: every tensor is used by a step", "one or more", "", ("outputs",))
        used = {*self.wires.values(), *named.values()}
        for index, step in enumerate(self._steps):
            for name, tensor in step.outputs.items():
                if (index, name) not in used and self._models[index].output(name) is not None:
                    what = f"{self._label((index, name))} is called {tensor!r}, and nothing uses it"
                    self._say(what, "", "take it out, or list it in `outputs`", ("steps", index, "outputs", name))
        return named

    def _source_of(self, output: WrittenOutput) -> Source | None:
        path = ("outputs", output.name)
        said = output.tensor
        port = None if said is None else Port(output.name, said.dtype, said.dims)
        if output.source is not None:
            return self._resolve(output.source, path, None)
        found = self._not_superseded(self._made(output.name))
        if not found and port is not None:
            left = [source for _, source in self._left_over()]
            found = [source for source in left if _fits(port, self._port(source))]
        if len(found) == 1:
            return found[0]
        if found:
            self._ambiguous(f"output {output.name!r} may be {self._listed(found)}", path)
        else:
            what = f"no step makes {output.name!r}" + (f" {port}" if port else "")
            names = [self._label(source) for source in self._all_sources() if source[0] != ENSEMBLE]
            close = nearest(output.name, names)
            self._say(what, ", ".join(names), f"did you mean {close!r}?" if close else self._fits(port, -2), path)
        return None

    def _left_over(self) -> list[tuple[str, Source]]:
        """Outputs of steps that no step uses; of a step that names its outputs, those that it names."""
        used = set(self.wires.values())
        return [
            (step.outputs.get(port.name, port.name), (index, port.name))
            for index, step in enumerate(self._steps)
            for port in self._models[index].outputs or ()
            if (port.name in step.outputs if step.outputs else (index, port.name) not in used)
        ]

    def _add_output(self, named: dict[str, Source], name: str, source: Source, path: tuple[str | int, ...]) -> None:
        label = self._label(source)
        again = next((other for other, known in named.items() if known == source), None)
        if source[0] == ENSEMBLE:
            self._say(f"output {name!r} is an input of the ensemble", "a tensor that a step makes", "", path)
        elif name in named:
            both = f"{self._label(named[name])} and {label}"
            fix = (
                f"write outputs: {{{name}: {self._label(named[name])}, {self._steps[source[0]].name}_{name}: {label}}}"
            )
            self._say(f"two outputs are called {name!r}: {both}", "a name for each", fix, path)
        elif name in self._taken:
            fix = f"give it another name: outputs: {{new_{name}: {label}}}"
            self._say(
                f"output {name!r} ({label}) has the name of an input of the ensemble", "a name for each", fix, path
            )
        elif again is not None:
            self._say(f"{label} is two outputs, {again!r} and {name!r}", "one name for one tensor", "keep one", path)
        else:
            named[name] = source

    # What there is.

    def _open(self) -> list[tuple[int, Port]]:
        """Inputs that are not connected, and that no question is asked about yet."""
        return [
            (index, port)
            for index, model in enumerate(self._models)
            for port in model.inputs or ()
            if (index, port.name) not in self.wires and (index, port.name) not in self._asked
        ]

    def _made(self, name: str) -> list[Source]:
        """Outputs of steps that are called so, by their model or by the user."""
        return [
            (index, port.name)
            for index, step in enumerate(self._steps)
            for port in self._models[index].outputs or ()
            if name == step.outputs.get(port.name, port.name)
        ]

    def _all_sources(self) -> list[Source]:
        made = [(index, port.name) for index, model in enumerate(self._models) for port in model.outputs or ()]
        return [*((ENSEMBLE, name) for name in self._taken), *made]

    def _depends(self, index: int, on: int) -> bool:
        """Whether a step needs another one, or is it, by the wires that there are."""
        waiting = [index]
        for here in waiting:
            if here == on:
                return True
            waiting += [s for (at, _), (s, _) in self.wires.items() if at == here and s not in (ENSEMBLE, *waiting)]
        return False

    def _not_superseded(self, sources: list[Source]) -> list[Source]:
        """Without those that another one of them was made of."""
        return [s for s in sources if not any(o[0] != s[0] and self._depends(o[0], s[0]) for o in sources)]

    def _port(self, source: Source) -> Port:
        port = self._taken[source[1]] if source[0] == ENSEMBLE else self._models[source[0]].output(source[1])
        assert port is not None
        return port

    def _label(self, source: Source) -> str:
        return source[1] if source[0] == ENSEMBLE else f"{self._steps[source[0]].name}.{source[1]}"

    def _listed(self, sources: list[Source]) -> str:
        return " or ".join(f"{self._label(source)} {self._port(source)}" for source in sources)

    def _fits(self, port: Port | None, index: int) -> str:
        """What could be connected to an input, as a sentence."""
        if port is None:
            return ""
        near = [s for s in self._all_sources() if s[0] != index and _fits(self._port(s), port)]
        if not near:
            return f'nothing here fits: declare it in the ensemble\'s `inputs`: {{{port.name}: "{port}"}}'
        return f"what fits: {self._listed(near)}"

    def _ambiguous(self, what: str, path: tuple[str | int, ...]) -> None:
        self._say(what, "one tensor", f"write which: `{path[-1]}: step.output`", path)

    def _say(self, what: str, expected: str, fix: str, path: tuple[str | int, ...]) -> None:
        self.found.append(Finding(what, expected, "", fix, path))

    # The graph.

    def graph(self, name: str, outputs: Mapping[str, Source], models: Mapping[str, StepModel]) -> EnsembleGraph:
        """What came out; the ensemble's own tensors still as the first step that has them takes or gives them."""
        pool: dict[Source, str] = {source: output for output, source in outputs.items()}
        taken = {*self._taken, *pool.values()}
        for source in self.wires.values():
            if source in pool:
                continue
            index, tensor = source
            plain = tensor if index == ENSEMBLE else self._steps[index].outputs.get(tensor, self._label(source))
            while index != ENSEMBLE and plain in taken:
                plain += "_"
            taken.add(plain)
            pool[source] = plain
        steps = tuple(
            Step(
                step.name,
                model.name,
                model,
                step.version,
                {p.name: pool[self.wires[k, p.name]] for p in model.inputs or () if (k, p.name) in self.wires},
                {p.name: pool[k, p.name] for p in model.outputs or () if (k, p.name) in pool},
            )
            for k, (step, model) in enumerate(zip(self._steps, self._models, strict=True))
        )
        written = {output.name: output.tensor for output in self._written.outputs if output.tensor is not None}
        ports = []
        for output, source in outputs.items():
            port, said = self._port(source), written.get(output)
            ports.append(Port(output, said.dtype if said else port.dtype, said.dims if said else port.dims))
        names = tuple(sorted({model.name for model in models.values()} - {name}))
        uses = {name: tuple(dict.fromkeys(model.name for model in self._models))}
        return EnsembleGraph(name, tuple(self._taken.values()), tuple(ports), 0, steps, uses, names)


def _fits(one: Port, other: Port) -> bool:
    """The same type, rank and, where both are fixed, sizes."""
    if not alike(one, other) or one.dims is None or other.dims is None:
        return alike(one, other)
    return all(a.size is None or b.size is None or a.size == b.size for a, b in zip(one.dims, other.dims, strict=True))
