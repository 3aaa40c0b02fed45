"""What is right: the answers of the original module, by output name, as numpy arrays.

The adapter here is also what is exported, so that what is verified and what is served went through one calling
convention: keywords where the module's ``forward`` has the spec's input names, position otherwise; outputs by name
where it returns a mapping, by position otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from builder import host, operations
from builder.errors import InterfaceError, SourceError, ort_reason, user_code_error
from builder.loaded import Composition, Loaded, OnnxFile, PythonClass, TorchModule
from builder.tensors import BATCH, Interface, TensorSpec
from serving.dtypes import BY_NAME
from serving.errors import MissingDependencyError

Array = NDArray[Any]


class Runner(Protocol):
    """Something that answers a request: full tensors in, full tensors out."""

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer one request."""


def reference_runner(loaded: Loaded, folder: Path) -> Runner:
    """The original as a :class:`Runner`: PyTorch in eager mode, ONNX Runtime where the source is a file, else its own.

    Raises:
        SourceError: ONNX Runtime does not take the file.
    """
    if isinstance(loaded, OnnxFile):
        return _FileRunner(loaded.path)
    if isinstance(loaded, (PythonClass, Composition)):
        return loaded.runner
    return TorchRunner(loaded, folder)


class OnnxRunner:
    """An ONNX file in ONNX Runtime on this machine's CPU; as a context manager, it frees its memory at the end.

    Args:
        path: the file.
        threads: intra-op threads; 0 lets ONNX Runtime choose, None takes this process's share of the machine.
        lean: the same answers in little memory, not in little time: the graph as it is written, weights that lie in a
            file of their own read where they lie, not copied into the layout that is fastest.

    Raises:
        ValueError: ONNX Runtime does not take the file; with its reason.
    """

    def __init__(self, path: Path, *, threads: int | None = None, lean: bool = False) -> None:
        try:
            import onnxruntime
        except ImportError as exc:
            raise MissingDependencyError("onnxruntime", "torch", needed_for="to run and verify ONNX files") from exc
        options = operations.session_options()
        options.intra_op_num_threads = host.threads() if threads is None else threads
        options.log_severity_level = 4
        if lean:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as exc:  # onnxruntime raises classes of its own, without a common base
            raise ValueError(ort_reason(exc)) from exc
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __enter__(self) -> OnnxRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        del self._session

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one request.

        Raises:
            ValueError: ONNX Runtime refused it; with its reason.
        """
        try:
            values = self._session.run(None, {name: _as_text(array) for name, array in inputs.items()})
        except Exception as exc:
            raise ValueError(ort_reason(exc)) from exc
        return dict(zip(self._outputs, values, strict=True))


def _as_text(array: Array) -> Array:
    """Strings as ONNX Runtime takes them from Python: given bytes, it would spell them out, ``b'...'`` and all."""
    if array.dtype.kind not in "OS":
        return array
    flat = [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1)]
    return np.array(flat, dtype=object).reshape(array.shape)


class _FileRunner:
    """A source that is ONNX already, asked in ONNX Runtime; what goes wrong is the source's fault."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._runner = OnnxRunner(path)
        except ValueError as exc:
            raise SourceError(
                "ONNX Runtime does not take the file",
                where=str(path),
                expected="an ONNX file that this machine's ONNX Runtime can load",
                got=str(exc),
                fix="mend the model, or convert it to an opset that ONNX Runtime knows",
            ) from exc

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return self._runner(inputs)
        except ValueError as exc:
            raise SourceError(
                f"the ONNX file cannot run {_request(inputs)}",
                where=str(self._path),
                expected="an answer at every size that the spec allows",
                got=str(exc),
                fix="write the sizes that the model has fixed in `inputs`, or set batch.max: 0 if it does not batch",
            ) from exc


class TorchRunner:
    """The module in eager mode, without gradients; its outputs are held against the spec at every call.

    Raises on call:
        InterfaceError: number, names, dtypes or shapes of the outputs differ from the spec.
        SourceError: the module raised.
    """

    def __init__(self, loaded: TorchModule, folder: Path) -> None:
        self._interface = loaded.interface
        self._module = loaded.module
        self._adapter = adapter(loaded)
        self._folder = folder

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run one request."""
        import torch

        arguments = torch_arguments(self._interface, inputs)
        try:
            with torch.no_grad():
                values = self._adapter(*arguments)
        except InterfaceError:
            raise
        except (Exception, SystemExit) as exc:
            fix = "run the module on the spec's inputs in Python first; the shapes and dtypes are those of the spec"
            modes = self.training_modules()
            if modes and "when training" in str(exc):
                fix = (
                    f"eval() did not put all of it into inference mode, or forward() undoes it: {', '.join(modes[:5])}"
                )
            raise user_code_error(
                SourceError,
                f"the module raised when it was called with {_request(inputs)}",
                exc,
                folder=self._folder,
                fix=fix,
            ) from exc
        outputs = {
            tensor.name: _as_array(tensor, value) for tensor, value in zip(self._interface.outputs, values, strict=True)
        }
        check_outputs(self._interface, inputs, outputs)
        return outputs

    def training_modules(self) -> list[str]:
        """Names of the submodules that are in training mode now."""
        return [name or "the module itself" for name, part in self._module.named_modules() if part.training]


def _request(inputs: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())


def torch_arguments(interface: Interface, inputs: Mapping[str, Array]) -> tuple[Any, ...]:
    """The request as torch tensors in the order of the spec; copies, since forward() may change what it is given."""
    import torch

    return tuple(torch.from_numpy(np.array(inputs[tensor.name], order="C")) for tensor in interface.inputs)


def _as_array(tensor: TensorSpec, value: Any) -> Array:
    spelling = str(value.dtype).removeprefix("torch.")
    if spelling != tensor.dtype.torch:
        cast = f"cast in the module: x.to(torch.{tensor.dtype.torch})"
        known = spelling in BY_NAME and BY_NAME[spelling].numpy is not None
        raise InterfaceError(
            f"output {tensor.name!r} has another dtype than the spec",
            expected=f"{tensor.name}: {tensor}",
            got=f"{spelling}{list(value.shape)}",
            fix=f"write {spelling} in `outputs`, or {cast}" if known else f"no client can take {spelling}: {cast}",
        )
    try:
        array: Array = value.detach().cpu().numpy().copy()  # a module may give its own buffer, and change it
    except (TypeError, RuntimeError) as exc:  # sparse, quantized
        raise InterfaceError(
            f"output {tensor.name!r} is no plain tensor",
            expected=f"{tensor.name}: {tensor}, strided",
            got=f"{value.layout}{list(value.shape)}: {exc}",
            fix="make it one in the module: x.to_dense(), x.dequantize()",
        ) from exc
    return array


def check_outputs(interface: Interface, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Hold the shapes of outputs against the spec, at the sizes that the inputs have.

    Raises:
        InterfaceError: a rank, a fixed size or a named size differs.
    """
    sizes: dict[str, int] = {}
    for tensor in interface.inputs:
        for dim, size in zip(tensor.dims, inputs[tensor.name].shape, strict=True):
            if dim.name is not None:
                sizes[dim.name] = size
    for tensor in interface.outputs:
        shape = outputs[tensor.name].shape
        wrong = len(shape) != len(tensor.dims) or any(
            size != (dim.size if dim.size is not None else sizes.setdefault(str(dim.name), size))
            for dim, size in zip(tensor.dims, shape, strict=True)
        )
        if wrong:
            at = ", ".join(f"{name}={size}" for name, size in sizes.items())
            ignores = tensor.is_batched and (not shape or shape[0] != sizes.get(BATCH))
            raise InterfaceError(
                f"output {tensor.name!r} "
                + ("does not follow its batch dimension" if ignores else "has another shape than the spec"),
                expected=f"{tensor.name}: {tensor}" + (f"  at {at}" if at else ""),
                got=f"{tensor.name}: {tensor.dtype.name}{list(shape)}",
                fix="keep dimension 0 for the batch all through forward()" if ignores else "mend `outputs` in the spec",
            )


def adapter(loaded: TorchModule) -> Any:
    """The module behind one signature: the spec's inputs by position in, a tuple of the spec's outputs out."""
    import torch

    names = [tensor.name for tensor in loaded.interface.inputs]
    outputs = [tensor.name for tensor in loaded.interface.outputs]
    by_keyword = loaded.program is not None or takes_keywords(loaded.module, names)
    if loaded.program is not None:
        by_keyword = bool(loaded.program.example_inputs and loaded.program.example_inputs[1])

    class Adapter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = loaded.module

        def forward(self, *args: Any) -> tuple[Any, ...]:
            result = self.module(**dict(zip(names, args, strict=True))) if by_keyword else self.module(*args)
            return ordered_outputs(result, outputs)

    return Adapter()


def takes_keywords(module: Any, names: list[str]) -> bool:
    """True when every input of the spec is a parameter of the module's ``forward``."""
    parameters = inspect.signature(module.forward).parameters
    return all(name in parameters and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY for name in names)


def ordered_outputs(result: Any, names: list[str]) -> tuple[Any, ...]:
    """What a module returned as a tuple of tensors in the order of the spec.

    Raises:
        InterfaceError: it is no tensor, tuple or mapping of tensors, or has other names or another number.
    """
    import torch

    if isinstance(result, Mapping):
        values = dict(result)
        absent = [name for name in names if name not in values]
        if absent:
            raise InterfaceError(
                f"the module's outputs have no {absent[0]!r}",
                expected=", ".join(names),
                got=", ".join(map(str, values)),
                fix="use the names the module gives, in `outputs`",
            )
        found = tuple(values[name] for name in names)
    elif isinstance(result, (tuple, list)):
        found = tuple(result)
    else:
        found = (result,)
    if len(found) != len(names):
        raise InterfaceError(
            f"the module gives {len(found)} outputs, the spec has {len(names)}",
            expected=", ".join(names),
            got=", ".join(_sketch(value) for value in found),
            fix="name every output in `outputs`, in order; a module that returns a mapping may have more",
        )
    strange = [name for name, value in zip(names, found, strict=True) if not isinstance(value, torch.Tensor)]
    if strange:
        value = found[names.index(strange[0])]
        raise InterfaceError(
            f"output {strange[0]!r} is no tensor",
            expected="a torch.Tensor",
            got=_sketch(value),
            fix="return tensors: a tensor, a tuple of tensors, or a mapping of names to tensors",
        )
    return found


def _sketch(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__qualname__
    return f"{str(value.dtype).removeprefix('torch.')}{list(shape)}"
