"""A model that is a Python class: what is asked for, as data, and whether the class can do it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import PythonModelError
from builder.python_model.served import takes_call
from builder.tensors import Dim, Interface
from builder.usercode import check_arguments, resolve


@dataclass(frozen=True)
class PythonStep:
    """A user's class as a model.

    Attributes:
        reference: ``file.py:Class`` or ``package.module:Class``, from the folder of the spec.
        interface: what it takes and gives, the batch dimension included.
        args: keyword arguments of its ``__init__``; plain data.
        batching: whether the server batches (``max_batch_size`` above 0).
        optional: inputs that may be absent from a request; ``execute`` is given None.
        decoupled: whether a request may have any number of responses: ``execute`` yields them.
        together: whether requests that arrive together and have equal shapes are one call of ``execute``.
        calls: the models that it may ask.
    """

    reference: str
    interface: Interface
    args: Mapping[str, Any] = field(default_factory=dict)
    batching: bool = False
    optional: frozenset[str] = frozenset()
    decoupled: bool = False
    together: bool = True
    calls: tuple[str, ...] = ()

    def description(self) -> dict[str, Any]:
        """The step as plain data, in the order and form that :class:`builder.python_model.served.Step` reads.

        Raises:
            PythonModelError: an argument is no plain data.
        """
        check_plain(dict(self.args), self.reference)
        return {
            "reference": self.reference,
            "args": dict(self.args),
            "inputs": {tensor.name: (tensor.dtype.name, _dims(tensor.dims)) for tensor in self.interface.inputs},
            "outputs": {tensor.name: (tensor.dtype.name, _dims(tensor.dims)) for tensor in self.interface.outputs},
            "optional": sorted(self.optional),
            "batching": self.batching,
            "together": self.together,
            "decoupled": self.decoupled,
            "calls": list(self.calls),
        }


def _dims(dims: tuple[Dim, ...]) -> list[Any]:
    return [dim.size if dim.name is None else dim.name if dim.low is None else _range(dim) for dim in dims]


def _range(dim: Dim) -> tuple[str | None, int | None, int | None]:
    return dim.name, dim.low, dim.high


def check_plain(value: Any, reference: str, path: str = "args") -> None:
    """Whether a value can be written into ``model.py`` and read back the same.

    Raises:
        PythonModelError: it cannot; with the place.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise _not_plain(reference, path, f"the key {key!r}")
            check_plain(inner, reference, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            check_plain(inner, reference, f"{path}[{index}]")
    elif not (value is None or isinstance(value, (bool, int, str)) or _is_number(value)):
        raise _not_plain(reference, path, repr(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _not_plain(reference: str, path: str, got: str) -> PythonModelError:
    return PythonModelError(
        f"an argument of {reference} cannot be written into its model.py",
        where=path,
        expected="texts, finite numbers, true, false, null, lists and mappings of them with texts as keys",
        got=got,
        fix="give it as a text, and convert it in __init__",
    )


def check_class(step: PythonStep, folder: Path) -> type[Any]:
    """The class behind a step, held against it without an instance being made.

    To be used inside :func:`builder.usercode.user_code`.

    Raises:
        PythonModelError: there is no such class, or it does not take what it will be given.
    """
    kind = resolve(step.reference, folder, kind=PythonModelError)
    if not isinstance(kind, type):
        raise PythonModelError(
            f"{step.reference} is no class",
            expected=f"class {step.reference.rpartition(':')[2]}: with a method execute",
            got=f"a {type(kind).__name__}",
            fix="put the function into a class, as its method execute",
        )
    _check_calls(step, kind)
    arguments = dict(step.args) | ({"call": None} if takes_call(kind) else {})
    check_arguments(kind, arguments, step.reference, PythonModelError)
    execute = getattr(kind, "execute", None)
    if not inspect.isfunction(execute):
        raise PythonModelError(
            f"{step.reference} has no method execute",
            where=_line(kind),
            expected=f"def execute(self, {', '.join(tensor.name for tensor in step.interface.inputs)})",
            got=f"its methods: {', '.join(name for name in vars(kind) if not name.startswith('_')) or 'none'}",
            fix="write it: arrays by the names of the inputs in, a mapping of the outputs' names to arrays out",
        )
    _check_execute(step, execute)
    return kind


def _check_calls(step: PythonStep, kind: type[Any]) -> None:
    if takes_call(kind) and not step.calls:
        raise PythonModelError(
            f"{step.reference} takes `call`, and the spec does not say which models it calls",
            where=_line(kind),
            expected="calls: [MODEL, ...]",
            fix="name them under `calls`, or rename the parameter if it is something else",
        )
    if step.calls and not takes_call(kind):
        raise PythonModelError(
            f"{step.reference} is to call {', '.join(step.calls)}, and takes no `call`",
            where=_line(kind),
            expected="def __init__(self, call, ...): self.call = call",
            got=f"__init__{inspect.signature(kind)}",
            fix="take `call` in __init__, or leave `calls` out of the spec",
        )


def _check_execute(step: PythonStep, execute: Any) -> None:
    names = [tensor.name for tensor in step.interface.inputs]
    signature = inspect.signature(execute)
    where = f"{execute.__code__.co_filename}:{execute.__code__.co_firstlineno}"
    try:
        signature.bind(None, **dict.fromkeys(names))
    except TypeError as exc:
        raise PythonModelError(
            f"execute() of {step.reference} does not take the inputs of the spec",
            where=where,
            expected=f"execute(self, {', '.join(names)})",
            got=f"execute{signature}: {exc}",
            fix="name its parameters as the inputs are: it is called with keywords (**inputs takes any name)",
        ) from exc
    if inspect.iscoroutinefunction(execute) or inspect.isasyncgenfunction(execute):
        raise PythonModelError(
            f"execute() of {step.reference} is asynchronous",
            where=where,
            expected="def execute(self, ...)",
            got="async def execute",
            fix="make it a plain method; several models are asked at once by call.together([...])",
        )
    if inspect.isgeneratorfunction(execute) and not step.decoupled:
        raise PythonModelError(
            f"execute() of {step.reference} yields its answers, and the model has one response for each request",
            where=where,
            expected="a decoupled model, or `return` instead of `yield`",
            fix="set model_transaction_policy: {decoupled: true} for the model, or return one mapping",
        )


def _line(kind: type[Any]) -> str:
    try:
        return f"{inspect.getsourcefile(kind)}:{inspect.getsourcelines(kind)[1]}"
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"
