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
from builder.ensemble.known import Known, Source, fits
from builder.ensemble.own_tensors import own_tensors
from builder.ensemble.written import Written, WrittenOutput
from builder.findings import Finding, Findings, KeyPath, nearest


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


class _Wiring(Known):
    """An ensemble on its way: each method takes it a step further, and leaves what it cannot decide in ``found``."""

    # What the user wrote.

    def as_written(self) -> None:
        """Take the wires that the user wrote."""
        for index, step in enumerate(self.steps):
            for name, reference in step.inputs.items():
                port, path = self.models[index].input(name), ("steps", index, "inputs", name)
                if port is None:
                    self._no_such(index, name, path, is_output=False)
                    continue
                source = self._resolve(reference, path, port, not_from=index)
                if source is None:
                    self.asked.add((index, name))
                else:
                    self.wires[index, name] = source
            for name in step.outputs:
                if self.models[index].output(name) is None:
                    self._no_such(index, name, ("steps", index, "outputs", name), is_output=True)
        renamed: dict[str, Source] = {}
        for index, step in enumerate(self.steps):
            for name, tensor in step.outputs.items():
                first = renamed.setdefault(tensor, (index, name))
                if first != (index, name) or tensor in self.declared:
                    other = f"{self.label(first)}" if first != (index, name) else "an input of the ensemble"
                    what = f"{self.label((index, name))} and {other} are both called {tensor!r} in the ensemble"
                    self.say(what, "a name for each tensor", "", ("steps", index, "outputs", name))

    def _no_such(self, index: int, name: str, path: KeyPath, *, is_output: bool) -> None:
        model = self.models[index]
        ports, kind = (model.outputs, "output") if is_output else (model.inputs, "input")
        close = nearest(name, [port.name for port in ports or ()])
        listed = ", ".join(f"{port.name} {port}" for port in ports or ())
        what = f"model {model.name!r} has no {kind} {name!r}"
        self.say(what, listed or f"it has no {kind}s", f"did you mean {close!r}?" if close else "", path)

    def _resolve(self, reference: str, path: KeyPath, port: Port | None, *, not_from: int = -2) -> Source | None:
        """What a reference means: an input of the ensemble, ``step.output``, or the name of one tensor."""
        if reference in self.declared:
            return (ENSEMBLE, reference)
        exact = [
            (index, output.name)
            for index, step in enumerate(self.steps)
            for output in self.models[index].outputs or ()
            if reference in (f"{step.name}.{output.name}", step.outputs.get(output.name))
        ]
        several = exact or [source for source in self.made(reference) if source[0] != not_from]
        if len(several) == 1:
            return several[0]
        if several:
            self.ambiguous(f"{reference!r} may be {self.listed(several)}", path)
        elif not self.declared and port is not None and "." not in reference:
            return self._caller_gives(reference, port, path)
        else:
            names = [self.label(source) for source in self.all_sources()]
            close = nearest(reference, names) or nearest(reference.rpartition(".")[2], names)
            fix = f"did you mean {close!r}?" if close else self.what_fits(port, not_from)
            self.say(f"there is no tensor {reference!r}", ", ".join(names), fix, path)
        return None

    # What is obvious.

    def by_name(self) -> None:
        """Connect what is called alike: first to earlier steps and the ensemble's inputs, then to later steps."""
        for later in (False, True):
            for index, port in self.open_inputs():
                ahead = [s for s in self.made(port.name) if (s[0] > index if later else s[0] < index)]
                found = self.not_superseded([source for source in ahead if not self.depends(source[0], index)])
                if not found and not later and port.name in self.declared:
                    found = [(ENSEMBLE, port.name)]
                if len(found) == 1:
                    self.wires[index, port.name] = found[0]
                elif found:
                    self.asked.add((index, port.name))
                    what = f"{self.steps[index].name}.{port.name} {port} may be {self.listed(found)}"
                    self.ambiguous(what, ("steps", index, "inputs", port.name))

    def by_type(self) -> None:
        """Connect the one open input to the one unused tensor that fits it: of the step before, or of the ensemble."""
        for index in range(len(self.steps)):
            before: list[tuple[Source, Port]] = []
            if index and not self.depends(index - 1, index):
                outputs = self.models[index - 1].outputs or ()
                before = [((index - 1, port.name), port) for port in outputs]
            given: list[tuple[Source, Port]] = [((ENSEMBLE, port.name), port) for port in self.declared.values()]
            for sources in (before, given):
                unused = [(source, port) for source, port in sources if source not in self.wires.values()]
                pairs = [
                    (port, source)
                    for at, port in self.open_inputs()
                    if at == index and not port.optional
                    for source, candidate in unused
                    if fits(candidate, port)
                ]
                if len(pairs) == 1:
                    self.wires[index, pairs[0][0].name] = pairs[0][1]

    def inputs(self) -> None:
        """Let callers give what is open in the first steps, where no inputs are declared; ask for the rest."""
        for index, port in self.open_inputs():
            path = ("steps", index, "inputs", port.name)
            fed = any(at == index and source[0] != ENSEMBLE for (at, _), source in self.wires.items())
            if port.optional:
                continue
            if self.declared or fed:
                what = f"nothing is connected to {self.steps[index].name}.{port.name} {port}"
                self.say(what, "a tensor of that type", self.what_fits(port, index), path)
                continue
            source = self._caller_gives(port.name, port, path)
            if source is not None:
                self.wires[index, port.name] = source

    def _caller_gives(self, name: str, port: Port, path: KeyPath) -> Source | None:
        """An input of the ensemble that no one declared, of the type that the step wants."""
        known = self.taken.setdefault(name, Port(name, port.dtype, port.dims))
        if not alike(known, port):
            what = f"two steps take {name!r} from the caller, as {known} and as {port}"
            self.say(what, "one type for one input", "wire them to inputs of different names", path)
            return None
        return (ENSEMBLE, name)

    # The ensemble's outputs.

    def outputs(self) -> dict[str, Source]:
        """The ensemble's outputs and who makes them: those that are declared, else those that no step uses."""
        named: dict[str, Source] = {}
        for output in self.written.outputs:
            source = self._source_of(output)
            if source is not None:
                self._add_output(named, output.name, source, ("outputs", output.name))
        if not self.written.outputs:
            for name, source in self._left_over():
                self._add_output(named, name, source, ("outputs",))
            if not named and not self.found:
                self.say("the ensemble has no output: every tensor is used by a step", "one or more", "", ("outputs",))
        used = {*self.wires.values(), *named.values()}
        for index, step in enumerate(self.steps):
            for name, tensor in step.outputs.items():
                if (index, name) not in used and self.models[index].output(name) is not None:
                    what = f"{self.label((index, name))} is called {tensor!r}, and nothing uses it"
                    self.say(what, "", "take it out, or list it in `outputs`", ("steps", index, "outputs", name))
        return named

    def _source_of(self, output: WrittenOutput) -> Source | None:
        path = ("outputs", output.name)
        said = output.tensor
        port = None if said is None else Port(output.name, said.dtype, said.dims)
        if output.source is not None:
            return self._resolve(output.source, path, None)
        found = self.not_superseded(self.made(output.name))
        if not found and port is not None:
            left = [source for _, source in self._left_over()]
            found = [source for source in left if fits(port, self.port(source))]
        if len(found) == 1:
            return found[0]
        if found:
            self.ambiguous(f"output {output.name!r} may be {self.listed(found)}", path)
        else:
            what = f"no step makes {output.name!r}" + (f" {port}" if port else "")
            names = [self.label(source) for source in self.all_sources() if source[0] != ENSEMBLE]
            close = nearest(output.name, names)
            self.say(
                what, ", ".join(names), f"did you mean {close!r}?" if close else self.what_fits(port, ENSEMBLE), path
            )
        return None

    def _left_over(self) -> list[tuple[str, Source]]:
        """Outputs of steps that no step uses; of a step that names its outputs, those that it names."""
        used = set(self.wires.values())
        return [
            (step.outputs.get(port.name, port.name), (index, port.name))
            for index, step in enumerate(self.steps)
            for port in self.models[index].outputs or ()
            if (port.name in step.outputs if step.outputs else (index, port.name) not in used)
        ]

    def _add_output(self, named: dict[str, Source], name: str, source: Source, path: KeyPath) -> None:
        label = self.label(source)
        again = next((other for other, known in named.items() if known == source), None)
        if source[0] == ENSEMBLE:
            self.say(f"output {name!r} is an input of the ensemble", "a tensor that a step makes", "", path)
        elif name in named:
            both = f"{self.label(named[name])} and {label}"
            fix = f"write outputs: {{{name}: {self.label(named[name])}, {self.steps[source[0]].name}_{name}: {label}}}"
            self.say(f"two outputs are called {name!r}: {both}", "a name for each", fix, path)
        elif name in self.taken:
            fix = f"give it another name: outputs: {{new_{name}: {label}}}"
            self.say(
                f"output {name!r} ({label}) has the name of an input of the ensemble", "a name for each", fix, path
            )
        elif again is not None:
            self.say(f"{label} is two outputs, {again!r} and {name!r}", "one name for one tensor", "keep one", path)
        else:
            named[name] = source

    # The graph.

    def graph(self, name: str, outputs: Mapping[str, Source], models: Mapping[str, StepModel]) -> EnsembleGraph:
        """What came out; the ensemble's own tensors still as the first step that has them takes or gives them."""
        pool: dict[Source, str] = {source: output for output, source in outputs.items()}
        taken = {*self.taken, *pool.values()}
        for source in self.wires.values():
            if source in pool:
                continue
            index, tensor = source
            plain = tensor if index == ENSEMBLE else self.steps[index].outputs.get(tensor, self.label(source))
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
            for k, (step, model) in enumerate(zip(self.steps, self.models, strict=True))
        )
        written = {output.name: output.tensor for output in self.written.outputs if output.tensor is not None}
        ports = []
        for output, source in outputs.items():
            port, said = self.port(source), written.get(output)
            ports.append(Port(output, said.dtype if said else port.dtype, said.dims if said else port.dims))
        names = tuple(sorted({model.name for model in models.values()} - {name}))
        uses = {name: tuple(dict.fromkeys(model.name for model in self.models))}
        return EnsembleGraph(name, tuple(self.taken.values()), tuple(ports), 0, steps, uses, names)
