"""Repositories of python models for tests: written by the room, served by the embedded Triton."""

import shutil
from pathlib import Path

from builder.python_model import PythonStep, collect, write_version
from builder.tensors import Interface, parse_tensor

HERE = Path(__file__).parent


def interface(inputs, outputs):
    return Interface(
        tuple(parse_tensor(name, text) for name, text in inputs.items()),
        tuple(parse_tensor(name, text) for name, text in outputs.items()),
    )


def step(reference, inputs, outputs, **keys):
    """A step whose class is in python_classes.py, unless the reference names a file."""
    reference = reference if ":" in reference else f"python_classes.py:{reference}"
    return PythonStep(reference, interface(inputs, outputs), **{"batching": True, **keys})


def sources(folder):
    """The classes of the tests in a folder, as a user's."""
    folder.mkdir(exist_ok=True)
    for name in ("python_classes.py", "python_sibling.py"):
        shutil.copyfile(HERE / name, folder / name)
    return folder


def write_model(repository, name, wanted, folder, *, files=None, packages=None, extra=""):
    """A model of the Python backend, with its config.pbtxt."""
    code = collect(wanted.reference, folder, files=files)
    write_version(wanted, code, repository / name / "1", name=name, packages=packages)
    (repository / name / "config.pbtxt").write_text(config_of(wanted) + extra)


def config_of(wanted):
    def tensor(kind, spec):
        dims = ", ".join(map(str, spec.config_dims(batching=wanted.batching)))
        optional = " optional: true" if kind == "input" and spec.name in wanted.optional else ""
        return f'{kind} {{ name: "{spec.name}" data_type: {spec.dtype.config} dims: [ {dims} ]{optional} }}\n'

    text = f'backend: "python"\nmax_batch_size: {8 if wanted.batching else 0}\n'
    text += "".join(tensor("input", spec) for spec in wanted.interface.inputs)
    text += "".join(tensor("output", spec) for spec in wanted.interface.outputs)
    if wanted.decoupled:
        text += "model_transaction_policy { decoupled: true }\n"
    return text + "instance_group { kind: KIND_CPU }\n"
