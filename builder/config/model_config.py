"""What a model's ``config.pbtxt`` says: every decision, as data, with the comment that explains it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import operations
from builder.config.files import place
from builder.config.forms import batch_tensors, instance_group, other_fields, tensor
from builder.config.merging import merged
from builder.config.scheduling import batching_comment, dynamic_batching, sequence_batching, state_file, unseen
from builder.config.warmup import FOLDER as WARMUP
from builder.config.warmup import model_warmup, sample_files
from builder.errors import ConfigError
from builder.spec import ModelSpec
from builder.spec.serving_parts import version_policy
from builder.spec.yaml_source import spell as spelled_path
from builder.tensors import Interface

if TYPE_CHECKING:
    from builder.samples import Sample

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
        copies: files of the user's that it names (labels, initial states), by their name in the version folder.
        files: every file of the version folder that it names, these and others.
        version: the version that it is written for; None as it was decided.
        hosts: by name: fields over these, for servers that are started with ``--model-config-name``.
    """

    tree: Mapping[str, Any]
    comments: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, Path] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    version: int | None = None
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

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
        server, unless the user set ``version_policy``. The files that it names are those of the version folder.

        Raises:
            ValueError: it was written for a version already.
        """
        if self.version is not None:
            raise ValueError(f"the configuration is that of version {self.version} already")
        tree: dict[str, Any] = {}
        comments = dict(self.comments)
        for name, value in place(self.tree, self.files | set(self.copies), version).items():
            tree[name] = value
            if name == "max_batch_size" and self.is_pinned:
                tree["version_policy"] = {"specific": {"versions": [version]}}
                comments["version_policy"] = _PINNED
        return ModelConfig(tree, comments, self.copies, self.files, version, self.hosts)

    def on(self, host: str) -> ModelConfig:
        """The configuration for one of the ``hosts``, for the same version.

        Raises:
            ConfigError: its fields name a tensor that the model does not have.
        """
        tree = merged(self.tree, self.hosts[host], str(self.tree.get("name")))
        return ModelConfig(tree, self.comments, self.copies, self.files, self.version)

    def as_dict(self, folder: Path) -> dict[str, Any]:
        """Plain data; the user's files relative to ``folder``, that of the spec."""
        copies = {name: os.path.relpath(file, folder) for name, file in self.copies.items()}
        return {
            "tree": self.tree,
            "comments": dict(self.comments),
            "copies": copies,
            "files": sorted(self.files),
            "hosts": self.hosts,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path) -> ModelConfig:
        """What :meth:`as_dict` gave, for the spec's folder as it is now."""
        copies = {name: folder / file for name, file in data["copies"].items()}
        return cls(data["tree"], data["comments"], copies, frozenset(data["files"]), None, data["hosts"])


def decide(
    name: str,
    model: ModelSpec,
    interface: Interface,
    *,
    fmt: str,
    sizes: Mapping[str, int],
    folder: Path,
    fields: Mapping[str, Any] | None = None,
    rows: Sequence[Sample] = (),
    checksums: Mapping[str, str] | None = None,
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
        rows: the samples for warmup, as many as the spec asks for, in the types of the artifact.
        checksums: MD5 of the version's files by name, where an agent is to check them.

    Raises:
        ConfigError: what is asked for contradicts the rest.
    """
    batching = interface.batches and model.batch.max > 0
    names, copies = _label_names(model.labels), copies_of(model, folder)
    _check_tensors(model, interface, batching, name)
    tree: dict[str, Any] = {
        "name": name,
        "backend": BACKENDS[fmt],
        "max_batch_size": model.batch.max if batching else 0,
        **({"version_policy": version_policy(model.versions)} if model.versions else {}),
    }
    hidden, options = unseen(model), model.tensors
    shown_inputs = [each for each in interface.inputs if each.name not in hidden]
    shown_outputs = [each for each in interface.outputs if each.name not in hidden]
    tree["input"] = [tensor(each, options.get(each.name), batching=batching) for each in shown_inputs]
    tree["output"] = [
        tensor(each, options.get(each.name), batching=batching) | _label(each.name, names) for each in shown_outputs
    ]
    tree |= batch_tensors(model, interface)
    comments = {}
    if model.sequence is not None:
        tree["sequence_batching"] = sequence_batching(model.sequence, interface, batching=batching)
        comments["sequence_batching"] = "The requests of a sequence go to one instance, one after the other."
    elif batching and model.batch.dynamic and (model.batch.max > 1 or model.batch.queues):
        tree["dynamic_batching"] = dynamic_batching(model)
        comments["dynamic_batching"] = batching_comment(model)
    if model.instances:
        tree["instance_group"] = [instance_group(group) for group in model.instances]
    tree |= other_fields(model, checksums or {})
    if model.response_cache:
        tree["response_cache"] = {"enable": True}
        comments["response_cache"] = "Equal requests are answered from the cache, where the server has one."
    if model.warmup is not None:
        seen = {each["name"]: each["dims"] for each in tree["input"] if "reshape" in each}
        tree["model_warmup"] = model_warmup(model, interface, seen, sizes=sizes, rows=rows, batching=batching)
        comments["model_warmup"] = "Run before the model is called ready, so that no user pays for the first request."
    tree = merged(tree, fields or {}, name)
    made = tuple(f"{WARMUP}/{file}" for file, _ in sample_files(model, interface, rows)) if model.warmup else ()
    files = frozenset([*copies, *made, *(checksums or {})])
    return ModelConfig(merged(tree, model.config, name), comments, copies, files, None, model.hosts)


def _check_tensors(model: ModelSpec, interface: Interface, batching: bool, name: str) -> None:
    """Short forms that name tensors, where only the file has them: what the spec could not be told when it was read."""
    found = model.sequence.findings(interface, model.batch.max if batching else 0) if model.sequence else []
    for tensor_name, options in model.tensors.items():
        found += options.findings(tensor_name, interface)
    for wrong in found[:1]:
        where = spelled_path(("models", name, *wrong.path))
        raise ConfigError(wrong.what, where=where, expected=wrong.expected, got=wrong.got, fix=wrong.fix)


def copies_of(model: ModelSpec, folder: Path) -> dict[str, Path]:
    """The user's files that are copied into the version folder, by their name there: labels, states, operations.

    Args:
        model: what the spec says.
        folder: the spec's.
    """
    labels = {name: folder / model.labels[output] for output, name in _label_names(model.labels).items()}
    states = model.sequence.state if model.sequence is not None else ()
    files = ((state_file(state), state.file) for state in states)
    return (
        labels
        | {name: folder / file for name, file in files if name and file}
        | operations.copied(model.operations, folder)
    )


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
