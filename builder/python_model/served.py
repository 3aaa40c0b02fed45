"""What stands between Triton's Python backend and a user's class; copied beside each ``model.py`` as it is here.

In the server it is ``triton_repo_step.py`` and runs in the server's environment; in the builder it runs the class that
gives the right answers. So both mean the same. It imports numpy and nothing of this project.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
Ask = Callable[[str, Arrays], Mapping[str, Any]]


class StepError(Exception):
    """A request that cannot be answered; the message is what the client gets."""


class Call:
    """Asks other models: ``call("encoder", {"x": array})`` gives ``{"y": array}``.

    Args:
        ask: asks one model.
        models: those that may be asked.
    """

    def __init__(self, ask: Ask, models: Sequence[str]) -> None:
        self._ask = ask
        self._models = tuple(models)
        self._pool: ThreadPoolExecutor | None = None

    def __call__(self, model: str, inputs: Arrays) -> dict[str, Any]:
        """The answer of one model.

        Raises:
            StepError: it is none of those that the step declares, or it answered with an error.
        """
        if model not in self._models:
            declared = ", ".join(self._models) or "none"
            raise StepError(f"the step calls the model {model!r}, which is not among its `calls`: {declared}")
        return dict(self._ask(model, {name: as_bytes(value) for name, value in inputs.items()}))

    def together(self, requests: Sequence[tuple[str, Arrays]]) -> list[dict[str, Any]]:
        """The answers to several requests, which are sent at once; in their order."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=32, thread_name_prefix="call")
        return list(self._pool.map(lambda request: self(*request), requests))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


class Step:
    """A user's class, ready to answer.

    Args:
        description: what ``model.py`` says of the step: ``reference``, ``args``, ``inputs`` and ``outputs`` (``{name:
            (dtype, [dimension, ...])}``, a dimension being a number, a name, or ``(name, low, high)``), ``optional``,
            ``batching``, ``together``, ``decoupled``, ``calls``.
        home: the folder of the user's files.
        ask: asks another model.
        load: gives the class; None takes it from ``home``.
    """

    def __init__(
        self, description: Mapping[str, Any], home: Path, ask: Ask, load: Callable[[], type[Any]] | None = None
    ) -> None:
        self._what = description
        self._home = home
        kind = load() if load else load_class(description["reference"], home)
        self.name = kind.__name__
        self._call = Call(ask, description["calls"])
        given = {"call": self._call} if takes_call(kind) else {}
        self._user = kind(**given, **description["args"])

    def answers(self, requests: Sequence[Arrays]) -> list[dict[str, Any] | StepError]:
        """One answer, or one error, for each request; those that fit together are one call of ``execute``."""
        answers: list[Any] = [None] * len(requests)
        for indices in self._groups(requests):
            found: list[dict[str, Any] | StepError]
            try:
                found = [*self._answer_all([requests[index] for index in indices])]
            except StepError as error:
                # One request must not spoil the answers of others that happened to arrive with it.
                found = [error] if len(indices) == 1 else [self._alone(requests[index]) for index in indices]
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
        return answers

    def stream(self, request: Arrays) -> Iterator[dict[str, Any]]:
        """The answers of a decoupled step to one request.

        Raises:
            StepError: the user's code raised, or gave something else than the spec says.
        """
        returned = self._execute(request)
        if not inspect.isgenerator(returned):
            yield self._checked(returned, request)
            return
        try:
            while True:
                try:
                    answer = next(returned)
                except StopIteration:
                    return
                except (Exception, SystemExit) as error:
                    raise self._raised(error) from error
                yield self._checked(answer, request)
        finally:
            returned.close()

    def close(self) -> None:
        """Let the user's class end what it began: its ``finalize()``, where it has one."""
        end = getattr(self._user, "finalize", None)
        self._call.close()
        if callable(end):
            end()

    def _groups(self, requests: Sequence[Arrays]) -> list[list[int]]:
        """Indices of requests that become one batch: the same inputs are there, of the same shape but for the batch."""
        if not (self._what["batching"] and self._what["together"]):
            return [[index] for index in range(len(requests))]
        groups: dict[Any, list[int]] = {}
        for index, request in enumerate(requests):
            key = tuple(None if request[name] is None else request[name].shape[1:] for name in self._what["inputs"])
            groups.setdefault(key, []).append(index)
        return list(groups.values())

    def _answer_all(self, requests: list[Arrays]) -> list[dict[str, Any]]:
        if len(requests) == 1:
            return [self._answer(requests[0])]
        given = {name: [request[name] for request in requests] for name in self._what["inputs"]}
        together = {name: None if parts[0] is None else np.concatenate(parts) for name, parts in given.items()}
        answer = self._answer(together)
        first = next(parts for parts in given.values() if parts[0] is not None)
        ends = np.cumsum([len(part) for part in first]).tolist()
        begins = [0, *ends[:-1]]
        return [
            {name: array[begin:end] for name, array in answer.items()} for begin, end in zip(begins, ends, strict=True)
        ]

    def _alone(self, request: Arrays) -> dict[str, Any] | StepError:
        try:
            return self._answer(request)
        except StepError as error:
            return error

    def _answer(self, request: Arrays) -> dict[str, Any]:
        return self._checked(self._execute(request), request)

    def _execute(self, request: Arrays) -> Any:
        try:
            return self._user.execute(**request)
        except (Exception, SystemExit) as error:
            raise self._raised(error) from error

    def _raised(self, error: BaseException) -> StepError:
        if isinstance(error, StepError):  # of a call
            return StepError(f"{self.name}.execute: {error}")
        return StepError(f"{self.name}.execute raised {type(error).__name__}: {error}{self._line(error)}")

    def _line(self, error: BaseException) -> str:
        """The innermost line of the user's own files, `` (tokenizer.py:12)``."""
        root = str(self._home)
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
        return f" ({Path(frames[-1].filename).relative_to(root)}:{frames[-1].lineno})" if frames else ""

    def _checked(self, returned: Any, request: Arrays) -> dict[str, Any]:
        outputs = self._what["outputs"]
        if inspect.isgenerator(returned):
            returned.close()
            raise StepError(f"{self.name}.execute yields its answers, and the model is not decoupled: set `decoupled`")
        if isinstance(returned, np.ndarray) and len(outputs) == 1:
            returned = {next(iter(outputs)): returned}
        if not isinstance(returned, Mapping):
            expected = f"a mapping of {', '.join(outputs)} to numpy arrays"
            raise StepError(f"{self.name}.execute returned {_kind(returned)}, expected {expected}")
        absent = [name for name in outputs if name not in returned]
        if absent:
            got = ", ".join(map(str, returned)) or "nothing"
            raise StepError(f"{self.name}.execute returned no {absent[0]!r}: expected {', '.join(outputs)}, got {got}")
        sizes = self._sizes(request)
        return {name: self._output(name, returned[name], sizes) for name in outputs}

    def _sizes(self, request: Arrays) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for name, (_, dims) in self._what["inputs"].items():
            if request[name] is not None:
                for dim, size in zip(dims, request[name].shape, strict=True):
                    if not isinstance(dim, int):
                        sizes.setdefault(_name(dim), size)
        return sizes

    def _output(self, name: str, value: Any, sizes: dict[str, int]) -> Any:
        dtype, dims = self._what["outputs"][name]
        expected = f"{dtype}[{', '.join(map(_dim, dims))}]"
        where = f"{self.name}.execute returned {name!r} as"
        if not isinstance(value, np.ndarray):
            raise StepError(f"{where} {_kind(value)}, expected a numpy array {expected}")
        array = as_bytes(value) if dtype == "string" else value
        found = f"{'string' if array is not value else value.dtype}{list(value.shape)}"
        if dtype != "string" and value.dtype != np.dtype(dtype):
            raise StepError(f"{where} {found}, expected {expected}: give it that dtype, .astype(numpy.{dtype})")
        if dtype == "string" and array is value:
            raise StepError(f"{where} {found}, expected {expected}: an object array of str or bytes")
        at = ", ".join(f"{key}={size}" for key, size in sizes.items())
        wrong = array.ndim != len(dims)
        for dim, size in zip(dims, array.shape, strict=False):
            wrong = wrong or not _fits(dim, size, sizes)
        if wrong:
            raise StepError(f"{where} {found}, expected {expected}" + (f" at {at}" if at else ""))
        return np.ascontiguousarray(array)


def _name(dim: Any) -> str:
    return str(dim if isinstance(dim, str) else dim[0])


def _dim(dim: Any) -> str:
    return str(dim) if isinstance(dim, (int, str)) else f"{dim[0]}: {dim[1]}..{dim[2]}"


def _fits(dim: Any, size: int, sizes: dict[str, int]) -> bool:
    """Whether a size is the one that is fixed, or the one that its name has already, within its range."""
    if isinstance(dim, int):
        return size == dim
    in_range = isinstance(dim, str) or dim[1] <= size <= dim[2]
    return in_range and size == sizes.setdefault(_name(dim), size)


def _kind(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__qualname__}"


def as_bytes(value: Any) -> Any:
    """An array of texts as Triton has it: objects that are bytes. Other arrays are given back as they are.

    Raises:
        StepError: an element is neither text nor bytes.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "OSU":
        return array if not isinstance(value, np.ndarray) else value
    encoded = np.empty(array.shape, dtype=np.object_)
    flat = encoded.reshape(-1)
    for index, element in enumerate(array.reshape(-1)):
        if not isinstance(element, (str, bytes)):
            raise StepError(f"an array of texts holds {_kind(element)}, expected str or bytes")
        flat[index] = element.encode() if isinstance(element, str) else bytes(element)
    return encoded


def load_class(reference: str, home: Path) -> type[Any]:
    """The class behind ``file.py:Class`` or ``package.module:Class``; ``home`` is searched first."""
    place, _, name = reference.rpartition(":")
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    if not place.endswith(".py"):
        return getattr(importlib.import_module(place), name)  # type: ignore[no-any-return]
    path = home / place
    # Under a name of its own, as in the builder: it may be called like nothing that can be imported.
    spec = importlib.util.spec_from_file_location(f"_triton_repo_{path.stem}", path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return getattr(module, name)  # type: ignore[no-any-return]


def takes_call(kind: type[Any]) -> bool:
    """Whether the class wants to ask other models: its ``__init__`` has a parameter ``call``."""
    return "call" in inspect.signature(kind).parameters


class Served:
    """A :class:`Step` behind Triton's Python backend.

    Args:
        pb_utils: the backend's module.
        description: as for :class:`Step`.
        home: likewise.
    """

    def __init__(self, pb_utils: Any, description: Mapping[str, Any], home: Path) -> None:
        self._pb = pb_utils
        self._inputs = tuple(description["inputs"])
        self._decoupled = bool(description["decoupled"])
        self._step = Step(description, home, self._ask)

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """What the backend calls with every batch of requests."""
        if self._decoupled:
            for request in requests:
                self._stream(request)
            return None
        given = [self._arrays(request) for request in requests]
        return [
            self._failed(answer) if isinstance(answer, StepError) else self._response(answer)
            for answer in self._step.answers(given)
        ]

    def close(self) -> None:
        """The model is unloaded."""
        self._step.close()

    def _arrays(self, request: Any) -> dict[str, Any]:
        tensors = {name: self._pb.get_input_tensor_by_name(request, name) for name in self._inputs}
        return {name: None if tensor is None else tensor.as_numpy() for name, tensor in tensors.items()}

    def _stream(self, request: Any) -> None:
        sender = request.get_response_sender()
        final = self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        answers = self._step.stream(self._arrays(request))
        try:
            for answer in answers:
                if sender.is_cancelled():
                    break
                sender.send(self._response(answer))
        except StepError as error:
            sender.send(self._failed(error), flags=final)
        else:
            sender.send(flags=final)
        finally:
            answers.close()  # type: ignore[attr-defined]  # a generator

    def _response(self, answer: Mapping[str, Any]) -> Any:
        return self._pb.InferenceResponse([self._pb.Tensor(name, array) for name, array in answer.items()])

    def _failed(self, error: StepError) -> Any:
        return self._pb.InferenceResponse(error=self._pb.TritonError(str(error)))

    def _ask(self, model: str, inputs: Arrays) -> dict[str, Any]:
        pb = self._pb
        request = pb.InferenceRequest(
            model_name=model,
            requested_output_names=[],
            inputs=[pb.Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise StepError(f"the model {model!r} answered with an error: {response.error().message()}")
        return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
