"""Sources that give a ``torch.nn.Module``: a callable, an exported program, a checkpoint, a Hugging Face folder."""

from __future__ import annotations

import inspect
import os
import pickle
from pathlib import Path
from typing import Any

from builder.errors import InterfaceError, SourceError, describe, user_code_error
from builder.loaded import TorchModule
from builder.quiet import quiet
from builder.reference import takes_keywords
from builder.sources.looks import looks_like
from builder.spec import ModelSpec, Spec
from builder.usercode import call
from serving.errors import MissingDependencyError


def _torch() -> Any:
    try:
        import torch
    except ImportError as exc:
        raise MissingDependencyError("torch", "torch", needed_for="to load and export PyTorch modules") from exc
    return torch


def _ready(module: Any, model: ModelSpec, origin: str, folder: Path, program: Any = None) -> TorchModule:
    """Check that it is a module that takes the spec's inputs, put it into inference mode on the CPU."""
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        got, fix = _no_module(module)
        raise SourceError(f"{origin} returned no torch.nn.Module", expected="a torch.nn.Module", got=got, fix=fix)
    try:
        if program is None:  # an exported program's module has no modes: it was fixed at export
            module.eval()
            _check_forward(module, model, origin)
        on_cpu = module.cpu()
    except NotImplementedError as exc:
        meta = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
        if not meta:
            raise user_code_error(SourceError, f"{origin} gave a module that fails", exc, folder=folder) from exc
        fix = "load the weights: a module on the meta device has none (module.to_empty(), then load_state_dict())"
        raise SourceError(f"{origin} returned a module without weights", got=f"on meta: {meta[0]}", fix=fix) from exc
    except SourceError:
        raise
    except (Exception, SystemExit) as exc:
        what = f"{origin} gave a module that cannot be put into inference mode on the CPU"
        raise user_code_error(SourceError, what, exc, folder=folder) from exc
    return TorchModule(on_cpu, model.declared, program)


def _no_module(value: Any) -> tuple[str, str]:
    """What was returned instead of a module, and what to do about it."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if value is None:
        return "nothing (None)", "end the function with `return module`"
    if isinstance(value, type):
        return f"the class {value.__module__}.{value.__qualname__}", f"return an instance: {value.__qualname__}(...)"
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine", "make it a plain function: `def`, not `async def`"
    if isinstance(value, dict):
        return kind, "return the module itself, with its state dict loaded: module.load_state_dict(...)"
    return kind, "return the module itself (not its state dict, its class or a tuple)"


def _check_forward(module: Any, model: ModelSpec, origin: str) -> None:
    """``forward`` takes the spec's inputs: by keyword where it has their names, by position otherwise."""
    names = list(model.inputs)
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return
    by_keyword = takes_keywords(module, names)
    try:
        signature.bind(**dict.fromkeys(names)) if by_keyword else signature.bind(*names)
    except TypeError as exc:
        code = getattr(inspect.unwrap(module.forward), "__code__", None)
        raise SourceError(
            "forward() does not take the inputs of the spec",
            where=f"{code.co_filename}:{code.co_firstlineno}" if code else origin,
            expected=f"forward({', '.join(names)})",
            got=f"forward{signature}: {exc}",
            fix="name every input in `inputs`, by the parameters' names or in their order; give the others defaults",
        ) from exc


def from_python(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{python: "model.py:load"}``."""
    _torch()
    reference = str(model.origin.python)
    return _ready(call(reference, model.origin.args, spec.folder, what="source"), model, reference, spec.folder)


def from_exported(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{exported: model.pt2}``: what ``torch.export.save`` wrote."""
    torch = _torch()
    path = spec.folder / str(model.origin.exported)
    try:
        with quiet():  # what it logs is for those who work on torch
            program = torch.export.load(path)
    except Exception as exc:
        looks, fix = looks_like(path)
        again = f"export it again with the torch that is installed here, {torch.__version__}"
        raise SourceError(
            f"{path.name} is no torch.export program",
            where=str(path),
            expected="a file written by torch.export.save(program, path)",
            got=f"{looks}\n{describe(exc, limit=200)}",
            fix=fix or again,
        ) from exc
    _check_program(program, model, path)
    return _ready(program.module(), model, path.name, spec.folder, program)


def _check_program(program: Any, model: ModelSpec, path: Path) -> None:
    """The program takes the spec's inputs, with the dimensions that the spec says are free."""
    declared = model.declared.inputs
    inputs = [str(name) for name in program.graph_signature.user_inputs]
    by_keyword = bool(program.example_inputs and program.example_inputs[1])
    names = [tensor.name for tensor in declared] if by_keyword else inputs
    if len(inputs) != len(declared) or set(names) != set(inputs):
        raise InterfaceError(
            "the exported program takes other inputs than the spec has",
            where=str(path),
            expected=", ".join(tensor.name for tensor in declared),
            got=", ".join(inputs) + (" (by keyword)" if by_keyword else ""),
            fix="name every input in `inputs`, by keyword where it was exported so, in order where not",
        )
    shapes = {node.name: getattr(node.meta.get("val"), "shape", ()) for node in program.graph.nodes}
    for tensor, name in zip(declared, names, strict=True):
        shape = shapes.get(name, ())
        for axis, (dim, size) in enumerate(zip(tensor.dims, shape, strict=False)):
            if dim.name is not None and isinstance(size, int):
                dynamic = f"dynamic_shapes={{{name!r}: {{{axis}: torch.export.Dim.DYNAMIC}}}}"
                raise InterfaceError(
                    f"dimension {dim.name!r} of {tensor.name!r} is fixed at {size} in the exported program",
                    where=str(path),
                    expected=f"{tensor.name}: {tensor}",
                    got=f"{name}: [{', '.join(map(str, shape))}]",
                    fix=f"export it with {dynamic}, or write {size} in the spec",
                )


def from_checkpoint(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{checkpoint: weights.safetensors, factory: "model.py:build"}``."""
    source = model.origin
    path = spec.folder / str(source.checkpoint)
    module = call(str(source.factory), source.args, spec.folder, what="factory")
    result = _ready(module, model, str(source.factory), spec.folder)
    state = _state_dict(path, allow_pickle=source.allow_pickle)
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as exc:  # sizes differ
        fix = "give the factory the arguments the weights were trained with (source.args)"
        raise SourceError(
            "the checkpoint does not fit the module", where=str(path), got=describe(exc), fix=fix
        ) from exc
    if missing or unexpected:
        lines = [f"not in the checkpoint: {name}" for name in missing[:5]]
        lines += [f"not in the module: {name}" for name in unexpected[:5]]
        raise SourceError(
            "the checkpoint does not fit the module",
            where=str(path),
            expected="the same parameter names in both",
            got="\n".join(lines) + (f"\n({len(missing)} missing, {len(unexpected)} unexpected)"),
            fix="let the factory build the module the weights were saved from",
        )
    return result


def _state_dict(path: Path, *, allow_pickle: bool) -> dict[str, Any]:
    torch = _torch()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        with quiet():
            content = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except ImportError as exc:
        raise MissingDependencyError("safetensors", "torch", needed_for="to read .safetensors files") from exc
    except Exception as exc:
        raise _unreadable(path, exc) from exc
    if isinstance(content, torch.nn.Module):
        return dict(content.state_dict())
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise SourceError(
            "the checkpoint holds no state dict",
            where=str(path),
            expected="a mapping of names to tensors",
            got=type(content).__qualname__,
            fix="torch.save(module.state_dict(), path)",
        )
    return content


def _unreadable(path: Path, exc: Exception) -> SourceError:
    looks, fix = looks_like(path)
    if isinstance(exc, pickle.UnpicklingError) and looks.startswith(("a pickle", "what torch.save")):
        return SourceError(
            "this checkpoint is a full pickle, and loading it can run any code it likes",
            where=str(path),
            expected="a state dict of tensors (torch.save(module.state_dict(), path), or safetensors)",
            got=describe(exc).splitlines()[0],
            fix="save the state dict alone, or, if you trust the file, set source.allow_pickle: true",
        )
    return SourceError(
        "the checkpoint cannot be read",
        where=str(path),
        expected="a .safetensors file" if path.suffix == ".safetensors" else "a state dict, as torch.save() writes it",
        got=f"{looks}\n{describe(exc, limit=160)}",
        fix=fix or "copy it again, or save it again: torch.save(module.state_dict(), path)",
    )


def from_huggingface(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{huggingface: folder, class: AutoModel}``: a local folder; nothing is downloaded."""
    _torch()
    folder = spec.folder / str(model.origin.huggingface)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import transformers
    except ImportError as exc:
        raise MissingDependencyError("transformers", "examples", needed_for="for `huggingface` sources") from exc
    cls = getattr(transformers, model.origin.hf_class, None)
    if cls is None:
        raise SourceError(
            f"transformers has no class {model.origin.hf_class!r}",
            expected="AutoModel, AutoModelForSequenceClassification, or another class of transformers",
            fix="source: {huggingface: folder, class: AutoModel}",
        )
    try:
        module = cls.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as exc:
        raise SourceError(
            f"{model.origin.hf_class} cannot be loaded from this folder",
            where=str(folder),
            expected="config.json and model.safetensors, as save_pretrained() writes them",
            got=describe(exc),
            fix="load it in a function of your own: source: {python: 'model.py:load'}"
            if "trust_remote_code" in str(exc)
            else "write it with save_pretrained(folder), and name the class that was saved as `class`",
        ) from exc
    return _ready(module, model, model.origin.hf_class, spec.folder)
