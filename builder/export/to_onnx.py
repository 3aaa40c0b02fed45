"""``onnx_from_torch``: a module becomes an ONNX file that keeps the spec's promises.

The dynamo exporter is asked first, TorchScript's when it fails; both errors are kept. What either wrote is then given
the spec's own names (tensors and dimensions), checked by ONNX's checker, loaded in ONNX Runtime, and run at two batch
sizes, so that a dimension that was baked in is found here and not by the first user.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from builder.artifact import EXTERNAL_DATA_SUFFIX, Artifact, artifact_of
from builder.errors import ExportError, describe
from builder.export.exporters import EXPORTERS
from builder.export.reasons import export_error, in_short
from builder.graphs.external_data import copy_with_data, external_files
from builder.graphs.onnx_tensors import interface_of_onnx, load_graph
from builder.host import tool_versions
from builder.loaded import OnnxFile, TorchModule
from builder.reference import OnnxRunner, check_outputs
from builder.releases import newest_opset
from builder.samples import Samples
from builder.spec import Export
from builder.tensors import BATCH, Interface, TensorSpec
from serving.errors import TritonRepoError

TOOLS = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime")
_RESERVED = ("config.pbtxt", "golden.npz", "manifest.json", "model.sig")  # what else lies in a version folder
_TWO_SIZES = (1, 3)


class _Fixes(NamedTuple):
    """How to come to another file, where this one is no good."""

    file: str
    sizes: str


_EXPORTED = _Fixes(
    file="write another exporter or opset in the spec (export: {exporter: torchscript, opset: 17}), or other operators "
    "in forward()",
    sizes="something in forward() fixes the batch: a view/reshape with a constant, a buffer of a fixed size, a loop "
    "over the batch",
)
_TAKEN = _Fixes(
    file="make the file again with the tool that wrote it, or convert it to another opset",
    sizes="make the file again with the sizes that it really has, write those that are fixed in `inputs`, or set "
    "batch.max: 0 if it does not batch",
)


def onnx_from_torch(
    loaded: TorchModule,
    samples: Samples,
    *,
    options: Export,
    release: str | None,
    folder: Path,
    to: Path,
    opset_limit: int | None = None,
) -> Artifact:
    """Export a module.

    Args:
        loaded: the module and its tensors.
        samples: what it is traced with.
        options: exporter and opset, as the spec asks.
        release: the Triton release it is for; decides the opset.
        opset_limit: the newest that may be taken in any case.
        folder: the user's code, to name the line that cannot be exported.
        to: the ``.onnx`` file to write; external data goes to ``<to>.data``.

    Returns:
        The artifact, with the names and dtypes of the spec.

    Raises:
        ExportError: neither exporter can, the result is invalid, or a dynamic dimension was baked in.
    """
    exporters = ["dynamo", "torchscript"] if options.exporter == "auto" else [options.exporter]
    failures: list[tuple[str, BaseException]] = []
    for name in exporters:
        newest = newest_opset(release, name)
        opset = options.opset or min(newest, opset_limit or newest)
        for left in (to, to.with_name(to.name + EXTERNAL_DATA_SUFFIX)):  # by an exporter whose file was no good
            left.unlink(missing_ok=True)
        try:
            EXPORTERS[name](loaded, samples, opset, to)
            interface = _checked(to, loaded.interface, samples, fixes=_EXPORTED)
        except Exception as exc:  # whatever an exporter raises; all of it is reported
            failures.append((name, exc))
        else:
            notes = [f"exported by torch.onnx ({name}), opset {opset}"]
            notes += [f"fallback: {failed} failed: {in_short(exc)}" for failed, exc in failures]
            tools, data = tool_versions(*TOOLS), external_files(to)
            return artifact_of(to, precision="fp32", interface=interface, tools=tools, data=data, notes=tuple(notes))
    raise export_error(failures, loaded, samples, folder)


def onnx_from_file(loaded: OnnxFile, samples: Samples, *, to: Path) -> Artifact:
    """Take an existing ONNX file as it is: copied with its external data, loaded and run, not changed.

    Raises:
        SourceError: its external data is missing, cut short, or outside of its folder.
        ExportError: ONNX Runtime does not take it, or it does not keep what the spec says of it.
    """
    data = copy_with_data(loaded.path, to, taken=_RESERVED)
    interface = _checked(to, loaded.interface, samples, fixes=_TAKEN)
    return artifact_of(
        to,
        precision="fp32",
        interface=interface,
        tools=tool_versions("onnx", "onnxruntime"),
        data=data,
        notes=(f"taken as it is from {loaded.path.name}" + _producer(to),),
    )


def _producer(path: Path) -> str:
    graph = load_graph(path)
    name = f"{graph.producer_name} {graph.producer_version}".strip()
    return f", written by {name}" if name else ""


def _checked(path: Path, wanted: Interface, samples: Samples, *, fixes: _Fixes) -> Interface:
    """Checker, names, dtypes, dimensions, then two runs, which hold little memory: the module is still there.

    Args:
        path: the file.
        wanted: its tensors, by the spec.
        samples: what it is run with.
        fixes: what to do where the file is no good.

    Raises:
        ExportError: with the first thing that is wrong.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=False)
    except Exception as exc:  # onnx.checker.ValidationError, or a C++ exception of its shape inference
        raise ExportError(
            "the ONNX file is invalid",
            where=str(path),
            expected="a file that onnx.checker.check_model takes",
            got=describe(exc),
            fix=fixes.file,
        ) from exc
    found = interface_of_onnx(path)
    by_name = {tensor.name: tensor for tensor in found.inputs + found.outputs}
    for tensor in wanted.inputs + wanted.outputs:
        _check_tensor(tensor, by_name.get(tensor.name), path, fixes.file)
    try:
        runner = OnnxRunner(path, lean=True)
    except ValueError as exc:
        raise ExportError(
            "ONNX Runtime does not take the file",
            where=str(path),
            expected="an ONNX file that this machine's ONNX Runtime can load",
            got=str(exc),
            fix=fixes.file,
        ) from exc
    with runner:
        for size in _TWO_SIZES if wanted.batches else _TWO_SIZES[:1]:
            _check_run(runner, wanted, samples, size, path, fixes.sizes)
    return wanted


def _check_run(runner: OnnxRunner, wanted: Interface, samples: Samples, size: int, path: Path, fix: str) -> None:
    inputs = samples.batch(size)
    try:
        outputs = runner(inputs)
    except ValueError as exc:
        raise _baked_in(str(exc), size, path, fix) from exc
    try:
        check_outputs(wanted, inputs, outputs)
    except TritonRepoError as exc:
        raise ExportError(
            f"at batch {size} the ONNX file gives another shape than the spec says",
            where=str(path),
            expected=exc.expected,
            got=exc.got,
            fix=fix,
        ) from exc


def _check_tensor(tensor: TensorSpec, found: TensorSpec | None, path: Path, fix: str) -> None:
    if found is None or found.dtype != tensor.dtype or len(found.dims) != len(tensor.dims):
        raise ExportError(
            f"the ONNX file's {tensor.name!r} is not what the spec says",
            where=str(path),
            expected=f"{tensor.name}: {tensor}",
            got=f"{tensor.name}: {found}" if found else "no tensor of that name",
            fix=fix,
        )
    for want, have in zip(tensor.dims, found.dims, strict=True):
        if want.name is not None and have.size is not None:
            raise ExportError(
                f"dimension {want.name!r} of {tensor.name!r} is baked in as {have.size}",
                expected=f"{tensor.name}: {tensor}",
                got=f"{tensor.name}: {found}",
                fix=f"use x.shape in forward() instead of a constant, or write {have.size} in the spec",
            )


def _baked_in(reason: str, size: int, path: Path, fix: str) -> ExportError:
    return ExportError(
        f"the ONNX file cannot run at batch {size}",
        where=str(path),
        expected=f"any batch size ({BATCH} is dynamic)",
        got=reason,
        fix=fix,
    )
