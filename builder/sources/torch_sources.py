"""Sources that give a ``torch.nn.Module``: a callable, an exported program, a checkpoint, a Hugging Face folder."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

from builder.errors import SourceError, describe
from builder.loaded import TorchModule
from builder.spec import ModelSpec, Spec
from builder.usercode import call
from serving.errors import MissingDependencyError


def _torch() -> Any:
    try:
        import torch
    except ImportError as exc:
        raise MissingDependencyError("torch", "torch", needed_for="to load and export PyTorch modules") from exc
    return torch


def _ready(module: Any, model: ModelSpec, origin: str, program: Any = None) -> TorchModule:
    """Check that it is a module, put it into inference mode on the CPU."""
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise SourceError(
            f"{origin} returned no torch.nn.Module",
            expected="a torch.nn.Module",
            got=f"{type(module).__module__}.{type(module).__qualname__}",
            fix="return the module itself (not its state dict, its class or a tuple)",
        )
    if program is None:  # an exported program's module has no modes: it was fixed at export
        module.eval()
    return TorchModule(module.cpu(), model.declared, program)


def from_python(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{python: "model.py:load"}``."""
    _torch()
    reference = str(model.source.python)
    return _ready(call(reference, model.source.args, spec.folder, what="source"), model, reference)


def from_exported(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{exported: model.pt2}``: what ``torch.export.save`` wrote."""
    torch = _torch()
    path = spec.folder / str(model.source.exported)
    try:
        program = torch.export.load(path)
    except Exception as exc:
        raise SourceError(
            f"{path.name} is no torch.export program",
            where=str(path),
            expected="a file written by torch.export.save(program, path)",
            got=describe(exc),
            fix="export it again with the torch that is installed here, " + torch.__version__,
        ) from exc
    return _ready(program.module(), model, path.name, program)


def from_checkpoint(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{checkpoint: weights.safetensors, factory: "model.py:build"}``."""
    source = model.source
    path = spec.folder / str(source.checkpoint)
    module = call(str(source.factory), source.args, spec.folder, what="factory")
    result = _ready(module, model, str(source.factory))
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
        content = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except ImportError as exc:
        raise MissingDependencyError("safetensors", "torch", needed_for="to read .safetensors files") from exc
    except pickle.UnpicklingError as exc:
        raise SourceError(
            "this checkpoint is a full pickle, and loading it can run any code it likes",
            where=str(path),
            expected="a state dict of tensors (torch.save(module.state_dict(), path), or safetensors)",
            got=describe(exc).splitlines()[0],
            fix="save the state dict alone, or, if you trust the file, set source.allow_pickle: true",
        ) from exc
    except Exception as exc:
        raise SourceError(
            "the checkpoint cannot be read", where=str(path), expected="a state dict", got=describe(exc)
        ) from exc
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


def from_huggingface(spec: Spec, model: ModelSpec) -> TorchModule:
    """``{huggingface: folder, class: AutoModel}``: a local folder; nothing is downloaded."""
    _torch()
    folder = spec.folder / str(model.source.huggingface)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import transformers
    except ImportError as exc:
        raise MissingDependencyError("transformers", "examples", needed_for="for `huggingface` sources") from exc
    cls = getattr(transformers, model.source.hf_class, None)
    if cls is None:
        raise SourceError(
            f"transformers has no class {model.source.hf_class!r}",
            expected="AutoModel, AutoModelForSequenceClassification, or another class of transformers",
            fix="source: {huggingface: folder, class: AutoModel}",
        )
    try:
        module = cls.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as exc:
        raise SourceError(
            f"{model.source.hf_class} cannot be loaded from this folder",
            where=str(folder),
            expected="config.json and model.safetensors, as save_pretrained() writes them",
            got=describe(exc),
        ) from exc
    return _ready(module, model, model.source.hf_class)
