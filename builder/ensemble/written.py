"""What a user writes of an ensemble, read into frozen data: its steps, what is wired by hand, its own tensors.

``steps`` is a list; a step is the name of a model, or a mapping of ``model``, ``name``, ``version``, ``inputs`` and
``outputs``. ``inputs`` of the ensemble is name: tensor. ``outputs`` is name: tensor, name: ``step.output``, name:
``{from: step.output, tensor: ...}``, or a list of ``step.output``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from builder.findings import Finding, Findings, KeyPath, did_you_mean
from builder.tensors import TensorSpec, parse_tensor

_KEYS = ("steps", "inputs", "outputs", "max_batch_size")
_STEP_KEYS = ("model", "name", "version", "inputs", "outputs")


@dataclass(frozen=True)
class WrittenStep:
    """A step as written.

    Attributes:
        name: what other steps call it.
        model: that it asks.
        version: of the model; -1 is the latest.
        inputs: input: ``step.output``, or an input of the ensemble.
        outputs: output: what it is called in the ensemble.
    """

    name: str
    model: str
    version: int = -1
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WrittenOutput:
    """An output of the ensemble as written.

    Attributes:
        name: its own.
        source: ``step.output``; None where it is to be found by name.
        tensor: what it is said to be; None where the step says it.
    """

    name: str
    source: str | None = None
    tensor: TensorSpec | None = None


@dataclass(frozen=True)
class Written:
    """An ensemble as written.

    Attributes:
        steps: in the order of the text.
        inputs: empty where they are to be inferred.
        outputs: likewise.
        max_batch_size: None where it is to be inferred.
    """

    steps: tuple[WrittenStep, ...]
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[WrittenOutput, ...] = ()
    max_batch_size: int | None = None


def written_of(tree: Mapping[str, Any]) -> Written:
    """Plain data, such as YAML gives it, as :class:`Written`.

    Raises:
        Findings: everything that is wrong with it; paths begin at the ensemble.
    """
    found: list[Finding] = [*_unknown_keys(tree, _KEYS, ())]
    steps = _steps(tree.get("steps"), found)
    inputs = _inputs(tree.get("inputs"), found)
    outputs = _outputs(tree.get("outputs"), found)
    most = tree.get("max_batch_size")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
        found.append(
            Finding("`max_batch_size` is no batch size", "a whole number from 0", repr(most), "", ("max_batch_size",))
        )
        most = None
    if found:
        raise Findings(found)
    return Written(steps, inputs, outputs, most)


def _unknown_keys(tree: Mapping[str, Any], known: Sequence[str], path: KeyPath) -> Iterable[Finding]:
    for key in tree:
        if key not in known:
            yield Finding(f"unknown key {key!r}", ", ".join(known), "", did_you_mean(str(key), known), (*path, key))


def _steps(value: Any, found: list[Finding]) -> tuple[WrittenStep, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        found.append(Finding("an ensemble needs `steps`", "a list of models", path=("steps",)))
        return ()
    steps = [step for step in (_step(item, ("steps", k), found) for k, item in enumerate(value)) if step is not None]
    names = [step.name for step in steps]
    for index, name in enumerate(names):
        if name in names[:index]:
            fix = f"{{name: {name}_{names[:index].count(name) + 1}, model: {steps[index].model}}}"
            found.append(
                Finding(f"two steps are called {name!r}", "a name of its own for each", "", fix, ("steps", index))
            )
    return tuple(steps)


def _step(value: Any, path: KeyPath, found: list[Finding]) -> WrittenStep | None:
    if isinstance(value, str):
        return WrittenStep(value, value)
    if not isinstance(value, Mapping) or not isinstance(value.get("model"), str):
        expected = "a model's name, or a mapping with `model`"
        found.append(Finding("a step names no model", expected, repr(value)[:60], "for example {model: encoder}", path))
        return None
    found += _unknown_keys(value, _STEP_KEYS, path)
    name, version = value.get("name") or value["model"], value.get("version", -1)
    if not isinstance(name, str):
        found.append(Finding("`name` is no text", got=repr(name)[:60], path=(*path, "name")))
        name = value["model"]
    if not isinstance(version, int) or isinstance(version, bool) or version < -1 or version == 0:
        expected = "a version number from 1, or -1 for the latest"
        found.append(Finding("`version` is no version", expected, repr(version)[:60], "", (*path, "version")))
        version = -1
    inputs, outputs = (_names(value.get(key), (*path, key), found) for key in ("inputs", "outputs"))
    return WrittenStep(name, value["model"], version, inputs, outputs)


def _names(value: Any, path: KeyPath, found: list[Finding]) -> dict[str, str]:
    if value is None:
        return {}
    if isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair):
        return dict(value)
    found.append(
        Finding(f"`{path[-1]}` of a step has a wrong value", "a mapping of names to names", repr(value)[:60], path=path)
    )
    return {}


def _inputs(value: Any, found: list[Finding]) -> tuple[TensorSpec, ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        found.append(
            Finding("`inputs` has a wrong value", "a mapping: name: tensor", repr(value)[:60], path=("inputs",))
        )
        return ()
    parsed = [_tensor(name, text, ("inputs", name), found) for name, text in value.items()]
    return tuple(tensor for tensor in parsed if tensor is not None)


def _tensor(name: str, text: Any, path: KeyPath, found: list[Finding]) -> TensorSpec | None:
    try:
        return parse_tensor(name, text if isinstance(text, str) else repr(text))
    except Findings as exc:
        found += [Finding(each.what, each.expected, each.got, each.fix, path) for each in exc.findings]
        return None


def _outputs(value: Any, found: list[Finding]) -> tuple[WrittenOutput, ...]:
    if value is None:
        return ()
    if isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value):
        return tuple(WrittenOutput(text.rpartition(".")[2], text) for text in value)
    if not isinstance(value, Mapping):
        expected = "name: tensor, name: step.output, or a list of step.output"
        found.append(Finding("`outputs` has a wrong value", expected, repr(value)[:60], path=("outputs",)))
        return ()
    return tuple(_output(name, given, found) for name, given in value.items())


def _output(name: str, given: Any, found: list[Finding]) -> WrittenOutput:
    path = ("outputs", name)
    source, text = (given.get("from"), given.get("tensor")) if isinstance(given, Mapping) else (None, given)
    if isinstance(given, Mapping):
        found += _unknown_keys(given, ("from", "tensor"), path)
    elif isinstance(given, str) and "[" not in given:
        source, text = given, None
    if source is not None and not isinstance(source, str):
        found.append(Finding("`from` is no text", "step.output", repr(source)[:60], path=(*path, "from")))
        source = None
    return WrittenOutput(name, source, None if text is None else _tensor(name, text, path, found))
