"""What a model's ``config.pbtxt`` says: every decision, as data, with the comment that explains it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import ConfigError
from builder.spec import ModelSpec
from builder.tensors import Interface, TensorSpec

BACKENDS: dict[str, str] = {"onnx": "onnxruntime", "plan": "tensorrt", "python": "python", "ensemble": ""}
"""Triton backend by artifact format."""


RESERVED_FILES = (
    "config.pbtxt",
    "golden.npz",
    "manifest.json",
    "model.onnx",
    "model.onnx.data",
    "model.plan",
    "model.py",
    "model.sig",
)
"""Names in a version folder that a label file cannot have."""

_PINNED = (
    "This version alone is served. Another one is switched to by replacing this file, see `build-repo --rollback`."
)


@dataclass(frozen=True)
class ModelConfig:
    """A decided configuration.

    Attributes:
        tree: protobuf field names to plain values, in the order they are written.
        comments: one line for a top-level field that deserves it.
        labels: label files that it names, by their name in the version folder.
        version: the version that it is written for; None as it was decided.
    """

    tree: Mapping[str, Any]
    comments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Path] = field(default_factory=dict)
    version: int | None = None

    @property
    def max_batch_size(self) -> int:
        """0 where the server does not batch."""
        return int(self.tree["max_batch_size"])

    @property
    def is_pinned(self) -> bool:
        """True where :meth:`at` decides which version is served; False where the user's ``version_policy`` does."""
        return "version_policy" not in self.tree

    def at(self, version: int) -> ModelConfig:
        """The configuration with which a version is served.

        It names that version alone, so that the arrival of another version folder changes nothing for a running
        server, unless the user set ``version_policy``. Label files are those of the version folder.

        Raises:
            ValueError: it was written for a version already.
        """
        if self.version is not None:
            raise ValueError(f"the configuration is that of version {self.version} already")
        tree: dict[str, Any] = {}
        comments = dict(self.comments)
        for name, value in self.tree.items():
            tree[name] = [_labelled(output, self.labels, version) for output in value] if name == "output" else value
            if name == "max_batch_size" and self.is_pinned:
                tree["version_policy"] = {"specific": {"versions": [version]}}
                comments["version_policy"] = _PINNED
        return ModelConfig(tree, comments, self.labels, version)

    def as_dict(self, folder: Path) -> dict[str, Any]:
        """Plain data; label files relative to ``folder``, that of the spec."""
        labels = {name: os.path.relpath(file, folder) for name, file in self.labels.items()}
        return {"tree": self.tree, "comments": dict(self.comments), "labels": labels}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path) -> ModelConfig:
        """What :meth:`as_dict` gave, for the spec's folder as it is now."""
        return cls(data["tree"], data["comments"], {name: folder / file for name, file in data["labels"].items()})


def _labelled(output: Mapping[str, Any], labels: Mapping[str, Path], version: int) -> Mapping[str, Any]:
    name = output.get("label_filename")
    return {**output, "label_filename": f"{version}/{name}"} if name in labels else output


def decide(
    name: str,
    model: ModelSpec,
    interface: Interface,
    *,
    fmt: str,
    sizes: Mapping[str, int],
    folder: Path,
    fields: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """Decide the configuration of one model.

    Args:
        name: the Triton model's name.
        model: what the user asks for.
        interface: the tensors of the artifact.
        fmt: the artifact's format, a key of :data:`BACKENDS`.
        sizes: a real size for every named dimension, for warmup.
        folder: the spec's folder, where label files are.
        fields: what the variant needs beside: which engine for which GPU, which accelerator.

    Raises:
        ConfigError: the user's ``config`` contradicts the rest.
    """
    batching = interface.batches and model.batch.max > 0
    names = _label_names(model.labels)
    labels = {name: folder / model.labels[output] for output, name in names.items()}
    tree: dict[str, Any] = {
        "name": name,
        "backend": BACKENDS[fmt],
        "max_batch_size": model.batch.max if batching else 0,
        "input": [_tensor(tensor, batching) for tensor in interface.inputs],
        "output": [_tensor(tensor, batching) | _label(tensor.name, names) for tensor in interface.outputs],
    }
    comments = {}
    if batching and model.batch.dynamic and model.batch.max > 1:
        tree["dynamic_batching"] = _dynamic_batching(model)
        comments["dynamic_batching"] = _batching_comment(model)
    if model.instances is not None:
        group: dict[str, Any] = {"count": model.instances.count, "kind": model.instances.kind}
        tree["instance_group"] = [group | ({"gpus": list(model.instances.gpus)} if model.instances.gpus else {})]
    if model.response_cache:
        tree["response_cache"] = {"enable": True}
        comments["response_cache"] = "Equal requests are answered from the cache, where the server has one."
    if model.warmup is not None:
        tree["model_warmup"] = _warmup(model, interface, sizes, batching)
        comments["model_warmup"] = "Run before the model is called ready, so that no user pays for the first request."
    tree = _merged(tree, fields or {}, name)
    return ModelConfig(_merged(tree, model.config, name), comments, labels)


def _tensor(tensor: TensorSpec, batching: bool) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data_type": tensor.dtype.config,
        "dims": tensor.config_dims(batching=batching),
    }


def _label(output: str, names: Mapping[str, str]) -> dict[str, str]:
    return {"label_filename": names[output]} if output in names else {}


def _label_names(labels: Mapping[str, str]) -> dict[str, str]:
    """The file of each output's labels in the version folder: the user's own name for it, where that is free."""
    names: dict[str, str] = {}
    files: dict[str, str] = {}
    for number, (output, file) in enumerate(labels.items()):
        name = Path(file).name
        if name in RESERVED_FILES or files.get(name, file) != file:
            name = f"labels_{number}_{name}"
        files[name] = file
        names[output] = name
    return names


def _dynamic_batching(model: ModelSpec) -> dict[str, Any]:
    block: dict[str, Any] = {}
    if model.batch.preferred:
        block["preferred_batch_size"] = list(model.batch.preferred)
    if model.batch.max_queue_delay_microseconds:
        block["max_queue_delay_microseconds"] = model.batch.max_queue_delay_microseconds
    return block


def _batching_comment(model: ModelSpec) -> str:
    delay = model.batch.max_queue_delay_microseconds
    wait = f"each waits for company at most {delay} us" if delay else "none waits for company"
    return f"Requests that are there together run together, up to {model.batch.max}; {wait}."


def _warmup(model: ModelSpec, interface: Interface, sizes: Mapping[str, int], batching: bool) -> list[dict[str, Any]]:
    assert model.warmup is not None
    limit = model.batch.max if batching else 1
    too_large = [size for size in model.warmup.batch_sizes if size > limit]
    if too_large:
        raise ConfigError(
            f"warmup.batch_sizes has {too_large[0]}, beyond the largest batch",
            expected=f"at most {limit} ({'batch.max' if batching else 'the model does not batch'})",
            fix="take it out, or raise batch.max",
        )
    samples = []
    for size in model.warmup.batch_sizes:
        inputs = {}
        for tensor in interface.inputs:
            dims = tensor.dims[1:] if batching else tensor.dims
            shape = [dim.size if dim.size is not None else sizes.get(str(dim.name), 1) for dim in dims]
            inputs[tensor.name] = {"data_type": tensor.dtype.config, "dims": shape, "zero_data": True}
        samples.append({"name": f"batch of {size}", "batch_size": size, "inputs": inputs})
    return samples


def _merged(tree: dict[str, Any], asked: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The user's fields over ours: blocks are merged, lists replaced, inputs and outputs merged by name."""
    result = dict(tree)
    for key, value in asked.items():
        if key in ("input", "output"):
            result[key] = _merged_tensors(result[key], value, key, name)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _deep(result[key], value)
        else:
            result[key] = value
    if "sequence_batching" in asked:  # a oneof with dynamic_batching: the one that was asked for wins
        result.pop("dynamic_batching", None)
    return result


def _deep(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(ours)
    for key, value in theirs.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _deep(result[key], value) if nested else value
    return result


def _merged_tensors(ours: list[dict[str, Any]], theirs: Any, key: str, name: str) -> list[dict[str, Any]]:
    by_name = {tensor["name"]: dict(tensor) for tensor in ours}
    for entry in theirs if isinstance(theirs, list) else [theirs]:
        tensor = entry.get("name") if isinstance(entry, Mapping) else None
        if tensor not in by_name:
            raise ConfigError(
                f"config.{key} of {name} names {tensor!r}, which the model does not have",
                expected=", ".join(by_name),
                fix="give each entry the `name` of one of them",
            )
        by_name[str(tensor)].update(entry)
    return list(by_name.values())
