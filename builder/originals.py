"""The original of any model of a spec: a module, a file, a class; of an ensemble, the originals of all its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from builder import sources
from builder.errors import EnsembleError
from builder.loaded import Composition, Loaded, PythonClass
from builder.numerics import Array
from builder.reference import Runner, reference_runner
from builder.spec import Ensemble, ModelSpec, Spec
from builder.spec.ensembles import target_of
from builder.tensors import Dim, Interface, TensorSpec
from builder.variants import VARIANTS
from builder.verify.streamed import Joining

if TYPE_CHECKING:
    from builder.ensemble.graph import EnsembleGraph, Port, StepModel
    from builder.python_model import PythonStep


def load_original(spec: Spec, model: ModelSpec, name: str) -> Loaded:
    """What a model is made of. To be called inside :func:`builder.usercode.user_code`.

    Raises:
        SourceError, PythonModelError, EnsembleError: it raised, is missing, is of the wrong kind, or does not fit.
    """
    if model.ensemble is not None:
        return _composition(spec, model, model.ensemble, name)
    if model.kind == "python_model":
        return _class_of(spec, model)
    return sources.load(spec, model)


def batch_limit(model: ModelSpec, interface: Interface) -> int:
    """Triton's ``max_batch_size`` of a model that is no ensemble."""
    return model.batch.max if interface.batches else 0


def sized_by_values(interface: Interface) -> frozenset[str]:
    """Outputs whose shape the inputs do not say: what is padded to the longest of a batch depends on its company."""
    known = {dim.name for tensor in interface.inputs for dim in tensor.dims}
    return frozenset(
        tensor.name
        for tensor in interface.outputs
        if any(dim.name is not None and dim.name not in known for dim in tensor.dims)
    )


def python_step(model: ModelSpec) -> PythonStep:
    """What is to be made of a class."""
    from builder.python_model import PythonStep

    interface = model.declared
    return PythonStep(
        reference=str(model.origin.python_model),
        interface=interface,
        args=model.origin.args,
        batching=batch_limit(model, interface) > 0,
        optional=frozenset(name for name, options in model.tensors.items() if options.optional),
        together=not sized_by_values(interface),
        decoupled=model.is_decoupled,
        calls=model.origin.calls,
    )


def _class_of(spec: Spec, model: ModelSpec) -> PythonClass:
    from builder.python_model import PythonRunner, check_class

    step = python_step(model)
    check_class(step, spec.folder)
    parts = _needed(spec, model)
    asked = {known: reference_runner(loaded, spec.folder) for known, loaded in parts.items()}
    runner = PythonRunner(step, spec.folder, call=calling(asked))
    return PythonClass(step, step.interface, Joining(runner.responses) if step.decoupled else runner, parts)


def calling(asked: Mapping[str, Runner]) -> Callable[[str, Mapping[str, Array]], Mapping[str, Array]]:
    """What a class gets as its ``call``: that it may only ask what it declares is held by what stands around it."""

    def call(model: str, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return asked[model](inputs)

    return call


def _needed(spec: Spec, model: ModelSpec) -> dict[str, Loaded]:
    """The originals of what a model needs, by the names it needs them by."""
    originals = {}
    for needed in model.needs:
        target = target_of(spec.models, needed)
        assert target is not None  # the spec says so first
        originals[needed] = load_original(spec, spec.models[target[0]], target[0])
    return originals


def _composition(spec: Spec, model: ModelSpec, ensemble: Ensemble, name: str) -> Composition:
    from builder.ensemble.compose import EnsembleRunner

    originals = _needed(spec, model)
    graph = _wired(spec, model, ensemble, name, originals)
    runners: dict[str, Runner] = {}
    asked = {known: reference_runner(loaded, spec.folder) for known, loaded in originals.items()}
    for step in ensemble.steps:
        runners[step.label] = asked[step.model]
    interface = Interface(tuple(map(_tensor, graph.inputs)), tuple(map(_tensor, graph.outputs)))
    parts = {step.label: originals[step.model] for step in ensemble.steps}
    return Composition(graph, interface, EnsembleRunner(graph, runners), parts)


def _wired(
    spec: Spec, model: ModelSpec, ensemble: Ensemble, name: str, originals: Mapping[str, Loaded]
) -> EnsembleGraph:
    """The graph of an ensemble, its edges checked against what the steps take and give.

    Raises:
        EnsembleError: the wiring is not clear, or an edge does not fit; every one of them is named.
    """
    from builder.ensemble.checks import check
    from builder.ensemble.places import SPEC_PLACES
    from builder.ensemble.wiring import wire
    from builder.ensemble.written import written_of
    from builder.findings import Findings

    models = {known: _step_model(spec, known, loaded) for known, loaded in originals.items()}
    try:
        graph = wire(name, written_of(_written(model, ensemble)), models)
    except Findings as exc:
        said = [
            ": ".join(part for part in (f.what, f.expected and f"expected {f.expected}") if part) for f in exc.findings
        ]
        fixes = [found.fix for found in exc.findings if found.fix]
        raise EnsembleError(
            said[0] if len(said) == 1 else f"{len(said)} tensors of the ensemble cannot be wired",
            where=f"models.{name}.ensemble",
            expected="each input of a step from one output of another, or from an input of the ensemble",
            got="" if len(said) == 1 else "\n".join(said),
            fix="\n".join(dict.fromkeys(fixes)),
        ) from exc
    wrong = [hit for rule, hit in check(graph, SPEC_PLACES) if rule.severity == "error"]
    if wrong:
        raise EnsembleError(
            wrong[0].message if len(wrong) == 1 else f"{len(wrong)} edges of the ensemble do not fit",
            where=f"models.{name}.ensemble",
            expected="tensors that agree in type, shape and batching at both ends of every edge",
            got="" if len(wrong) == 1 else "\n".join(hit.message for hit in wrong),
            fix="\n".join(dict.fromkeys(hit.fix for hit in wrong if hit.fix)),
        )
    return graph


def _written(model: ModelSpec, ensemble: Ensemble) -> dict[str, object]:
    """The ensemble as plain data, as :func:`builder.ensemble.written_of` takes it."""
    tree: dict[str, object] = {"steps": [step.model_dump(exclude_none=True) for step in ensemble.steps]}
    if model.inputs:
        tree["inputs"] = dict(model.inputs)
    if model.outputs:
        tree["outputs"] = dict(model.outputs)
    if "max" in model.batch.model_fields_set:
        tree["max_batch_size"] = model.batch.max
    return tree


def _step_model(spec: Spec, name: str, loaded: Loaded) -> StepModel:
    from builder.ensemble.adapters import step_model_of_interface

    if isinstance(loaded, Composition):
        return step_model_of_interface(name, loaded.interface, max_batch_size=loaded.graph.max_batch_size)
    target = target_of(spec.models, name)
    assert target is not None
    model = spec.models[target[0]]
    made = target[1] or model.served
    kind = VARIANTS[made].format if made in VARIANTS else "onnx"  # the fastest of several is one of them
    limit = batch_limit(model, loaded.interface)
    return step_model_of_interface(name, loaded.interface, max_batch_size=limit, format=kind)


def _tensor(port: Port) -> TensorSpec:
    """A tensor of the ensemble; a dimension of which nothing is known gets a name of its own."""
    assert port.dtype is not None and port.dims is not None  # every model of a spec says them
    dims = tuple(
        Dim(name=f"{port.name}_{axis}") if dim.name is None and dim.size is None else dim
        for axis, dim in enumerate(port.dims)
    )
    return TensorSpec(port.name, port.dtype, dims)
