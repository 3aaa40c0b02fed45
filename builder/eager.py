"""The module behind a published version, in eager mode: what ``bench-repo --baseline`` measures beside it.

:func:`open_module` is all that is asked for (``perf/baselines/worker.py`` says by whom): plain data in, callables out.
It runs in a process of its own, in which the user's code may do what it likes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from builder.api import load_spec
from builder.building import seed
from builder.errors import SourceError
from builder.loaded import TorchModule
from builder.originals import load_original
from builder.reference import Array, adapter
from builder.repository.manifest import read_manifest
from builder.spec import ModelSpec, Spec
from builder.usercode import user_code
from builder.variants import VARIANTS
from serving.errors import MissingDependencyError

DEPTH = 3
"""How far below a folder a spec is looked for."""

_Runner = Callable[[Mapping[str, Array]], dict[str, Array]]


def open_module(arguments: Mapping[str, Any], instances: int) -> tuple[list[_Runner], dict[str, str]]:
    """The eager module, once for each instance (all the same one), and facts about it.

    Args:
        arguments: ``manifest``: of the version; ``spec``: its ``models.yaml``, empty to look for it in ``look_in``;
            ``threads``: of one operation, 0 for torch's own choice; ``device``: ``cpu`` or ``cuda``.

    Raises:
        SourceError: the spec or the model is not there any more, is no torch module, or raised.
        SpecError: the spec cannot be used any more.
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch
    except ImportError as exc:
        raise MissingDependencyError("torch", "torch", needed_for="to run the module") from exc
    manifest_path = Path(arguments["manifest"])
    manifest = read_manifest(manifest_path.parent) or {}
    if int(arguments["threads"]) > 0:
        torch.set_num_threads(int(arguments["threads"]))
    given = Path(arguments["spec"]) if arguments["spec"] else None
    path = given or spec_of(manifest, [Path(folder) for folder in arguments["look_in"]], str(manifest_path))
    spec = load_spec(path)
    name = model_of(manifest, spec)
    model = spec.models[name]
    stay = ExitStack()
    stay.enter_context(user_code(spec.folder))  # for as long as the process lives: forward() may import too
    seed(model)
    loaded = load_original(spec, model, name)
    if not isinstance(loaded, TorchModule):
        raise SourceError(
            "the source is no torch module",
            where=f"{path}, models.{name}.source",
            expected="a source with a forward() of its own: factory, checkpoint, hf, ...",
            got=model.kind,
            fix="leave --baseline pytorch out for this model",
        )
    device = torch.device(str(arguments["device"]))
    facts = {"torch": str(torch.__version__), "threads": str(torch.get_num_threads()), "spec": str(path)}
    facts["parameters"] = _types(loaded.module)
    return [_runner(loaded, device)] * instances, facts


def _runner(loaded: TorchModule, device: Any) -> _Runner:
    """As the verification asks the module, without its checks."""
    import torch

    call = adapter(loaded).to(device).eval()
    inputs, outputs = loaded.interface.inputs, loaded.interface.outputs

    def run(request: Mapping[str, Array]) -> dict[str, Array]:
        with torch.no_grad():
            values = call(*(torch.tensor(request[tensor.name], device=device) for tensor in inputs))
        return {tensor.name: value.cpu().numpy() for tensor, value in zip(outputs, values, strict=True)}

    return run


def _types(module: Any) -> str:
    types = {str(parameter.dtype).removeprefix("torch.") for parameter in module.parameters()}
    return ", ".join(sorted(types)) or "none"


def spec_of(manifest: Mapping[str, Any], folders: list[Path], where: str) -> Path:
    """The file that a version was built from: of the name and the content that its manifest says.

    Raises:
        SourceError: it is not there, or not as it was.
    """
    from builder.artifact import sha256_of

    part = manifest.get("spec") or {}
    name, digest = str(part.get("file", "models.yaml")), str(part.get("sha256", ""))
    others = []
    for path in dict.fromkeys(path for folder in folders for path in _below(folder, name, DEPTH)):
        if sha256_of(path) == digest:
            return path
        others.append(str(path))
    raise SourceError(
        "the spec that the model was built from is not found",
        where=where,
        expected=f"{name} with the sha256 {digest[:12]}..., in {' or '.join(map(str, dict.fromkeys(folders)))}",
        got=f"changed since: {', '.join(others[:5])}" if others else "no file of this name",
        fix="name it with --spec FILE, or build the model again",
    )


def _below(folder: Path, name: str, depth: int) -> Iterator[Path]:
    """Files of a name in a folder, then in those below it; hidden ones and environments are left out."""
    if (folder / name).is_file():
        yield folder / name
    if depth == 0:
        return
    try:
        entries = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for entry in entries:
        if not Path(entry).name.startswith((".", "__")) and not (Path(entry) / "pyvenv.cfg").exists():
            yield from _below(Path(entry), name, depth - 1)


def model_of(manifest: Mapping[str, Any], spec: Spec) -> str:
    """The model's name in the spec: its own, or without the suffix of its variant.

    Raises:
        SourceError: the spec has no such model any more.
    """
    name, variant = str(manifest.get("model", "")), VARIANTS.get(str(manifest.get("variant")))
    names = [name, *([name.removesuffix(f"_{variant.suffix}")] if variant is not None else [])]
    found = next((each for each in names if each in spec.models and _is_torch(spec.models[each])), None)
    if found is not None:
        return found
    raise SourceError(
        "the spec has no such torch model any more",
        where=str(spec.path),
        expected=" or ".join(dict.fromkeys(names)),
        got=", ".join(spec.models) or "no models",
        fix="name the spec that it was built from with --spec FILE, or build the model again",
    )


def _is_torch(model: ModelSpec) -> bool:
    return model.kind not in ("onnx", "python_model", "ensemble")
