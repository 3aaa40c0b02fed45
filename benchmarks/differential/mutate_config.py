"""One field of a configuration changed: names, batching, tensors. The text stays well-formed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf import text_format

from benchmarks.differential.case import Case
from benchmarks.differential.style import styled

Change = Callable[[Any, random.Random], object]  # changes a ModelConfig in place; False where it cannot
FLOAT, STRING, INVALID = 11, 13, 0  # of inference.DataType
_DTYPES = tuple(range(1, 15))


def in_config(change: Change) -> Callable[[Case, random.Random], Case | None]:
    """The change as a mutation: the configuration is parsed, changed and written again in one of many styles."""

    def mutate(case: Case, rng: random.Random) -> Case | None:
        if not case.text():
            return None
        config = case.config()
        before = config.SerializeToString(deterministic=True)
        if change(config, rng) is False or config.SerializeToString(deterministic=True) == before:
            return None
        return case.with_text(styled(config, rng))

    mutate.__doc__ = change.__doc__
    return mutate


def tensor(config: Any, rng: random.Random, role: str = "") -> Any:
    """One of the inputs or outputs, None where there is none."""
    found = [*(config.input if role != "output" else ()), *(config.output if role != "input" else ())]
    return rng.choice(found) if found else None


def from_text(config: Any, text: str) -> None:
    """Merge text format into the configuration."""
    text_format.Merge(text, config)


# -- names and the whole --------------------------------------------------------------------------------------------


def name_differs(config: Any, rng: random.Random) -> None:
    """The name is not the folder's."""
    config.name = rng.choice(("other_id2", (config.name or "model") + "x", "Model", "a b"))


def backend_unknown(config: Any, rng: random.Random) -> None:
    """A backend that no Triton has."""
    config.platform = ""
    config.backend = rng.choice(("onnx", "onnxruntime_onnx", "Python", "py", "pytroch", "ensemble", "tensorrt_planx"))


def platform_unknown(config: Any, rng: random.Random) -> None:
    """A platform that no Triton has."""
    config.backend = ""
    config.platform = rng.choice(("onnx", "onnxruntime", "python", "onnx_runtime", "ensembles", "tensorrt"))


def backend_and_platform_disagree(config: Any, rng: random.Random) -> object:
    """A platform beside another backend."""
    if not config.backend:
        return False
    config.platform = "ensemble" if rng.random() < 0.5 else "onnxruntime_onnx"
    return config.backend != "onnxruntime" or config.platform == "ensemble"


def backend_removed(config: Any, rng: random.Random) -> None:
    """Neither backend nor platform: Triton guesses from the files."""
    config.backend = config.platform = ""


def batch_changed(config: Any, rng: random.Random) -> None:
    """``max_batch_size`` set to something else."""
    config.max_batch_size = rng.choice((-1, -8, 0, 1, 2, 3, 1000, 2**31 - 1))


def filename_changed(config: Any, rng: random.Random) -> None:
    """The file of the model is said to be another."""
    if rng.random() < 0.3:
        config.cc_model_filenames["8.6"] = "model_sm86.onnx"  # of a GPU that is not here
    else:
        config.default_model_filename = rng.choice(
            ("absent.onnx", "model.pt", "model.plan", "../model.onnx", "a/b.onnx")
        )


# -- inputs and outputs ---------------------------------------------------------------------------------------------


def tensor_removed(config: Any, rng: random.Random) -> object:
    """An input or output is missing, or all of them."""
    field = rng.choice((config.input, config.output))
    if not field:
        return False
    if rng.random() < 0.3:
        del field[:]
    else:
        del field[rng.randrange(len(field))]
    return True


def tensor_renamed(config: Any, rng: random.Random) -> object:
    """An input or output is called otherwise."""
    if chosen := tensor(config, rng):
        chosen.name = rng.choice((chosen.name + "_1", chosen.name.swapcase(), "input:0", chosen.name + " "))
    return chosen is not None


def tensor_unnamed(config: Any, rng: random.Random) -> object:
    """An input or output without a name."""
    if chosen := tensor(config, rng):
        chosen.name = ""
    return chosen is not None


def tensor_doubled(config: Any, rng: random.Random) -> object:
    """An input or output is there twice."""
    field = config.input if rng.random() < 0.5 else config.output
    if not field:
        return False
    chosen = rng.choice(list(field))
    field.add().CopyFrom(chosen)
    return True


def tensor_added(config: Any, rng: random.Random) -> None:
    """An input or output that the model does not have."""
    field = config.input if rng.random() < 0.5 else config.output
    field.add(name="extra", data_type=FLOAT, dims=[4])


def dtype_changed(config: Any, rng: random.Random) -> object:
    """Another data type."""
    if chosen := tensor(config, rng):
        chosen.data_type = rng.choice([kind for kind in _DTYPES if kind != chosen.data_type])
    return chosen is not None


def dtype_removed(config: Any, rng: random.Random) -> object:
    """No data type, or the invalid one."""
    if chosen := tensor(config, rng):
        chosen.data_type = INVALID
    return chosen is not None


def dims_removed(config: Any, rng: random.Random) -> object:
    """No dimensions."""
    if chosen := tensor(config, rng):
        del chosen.dims[:]
    return chosen is not None


def dim_impossible(config: Any, rng: random.Random) -> object:
    """A dimension of zero, or below -1."""
    chosen = tensor(config, rng)
    if chosen is None or not chosen.dims:
        return False
    chosen.dims[rng.randrange(len(chosen.dims))] = rng.choice((0, -2, -100, 0))
    return True


def dim_changed(config: Any, rng: random.Random) -> object:
    """A dimension of another size; a fixed one made open, an open one fixed."""
    chosen = tensor(config, rng)
    if chosen is None or not chosen.dims:
        return False
    place = rng.randrange(len(chosen.dims))
    chosen.dims[place] = rng.choice([dim for dim in (-1, 1, 2, 5, chosen.dims[place] + 3) if dim])
    return True


def rank_changed(config: Any, rng: random.Random) -> object:
    """A dimension too many or too few; often the batch, which does not belong there."""
    chosen = tensor(config, rng)
    if chosen is None:
        return False
    dims = list(chosen.dims)
    new = rng.choice(([-1, *dims], [1, *dims], [*dims, 1], dims[1:], dims[:-1]))
    del chosen.dims[:]
    chosen.dims.extend(new)
    return True


def reshape_changed(config: Any, rng: random.Random) -> object:
    """A reshape of another size, with open dimensions, to nothing, where none was."""
    if chosen := tensor(config, rng):
        shape = rng.choice(([], [1], [16], [-1], [2, 2], [-1, -1], [0], [1, *chosen.dims], [*chosen.dims], [4, -1]))
        chosen.reshape.CopyFrom(type(chosen.reshape)(shape=shape))
    return chosen is not None


def format_changed(config: Any, rng: random.Random) -> object:
    """An image's format for an input."""
    if chosen := tensor(config, rng, "input"):
        chosen.format = rng.choice((1, 2))
    return chosen is not None


def tensor_flag(config: Any, rng: random.Random) -> object:
    """Shape tensor, ragged, optional, a non-linear format."""
    chosen = tensor(config, rng)
    if chosen is None:
        return False
    flags = ["is_shape_tensor", "is_non_linear_format_io"]
    if chosen in list(config.input):
        flags += ["allow_ragged_batch", "optional", "optional"]
    setattr(chosen, rng.choice(flags), True)
    return True


def label_missing(config: Any, rng: random.Random) -> object:
    """Labels in a file that is not there."""
    if chosen := tensor(config, rng, "output"):
        chosen.label_filename = rng.choice(("absent.txt", "../labels.txt", "labels", "1/labels.txt"))
    return chosen is not None


def parameter_changed(config: Any, rng: random.Random) -> None:
    """A parameter that the backend reads, with a value that is none; or one that nobody reads."""
    key, value = rng.choice(
        (
            ("execution_mode", "2"),
            ("execution_mode", "parallel"),
            ("intra_op_thread_count", "two"),
            ("intra_op_thread_count", "-1"),
            ("enable_mem_arena", "yes"),
            ("EXECUTION_ENV_PATH", "/absent/env.tar.gz"),
            ("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/env.tar.gz"),
            ("FORCE_CPU_ONLY_INPUT_TENSORS", "maybe"),
            ("anything", "goes"),
            ("memory.enable_memory_arena_shrinkage", "cpu:0"),
        )
    )
    config.parameters[key].string_value = value


def name_repeated(config: Any, rng: random.Random) -> object:
    """An output called as an input is, or two inputs alike."""
    if not config.input or not config.output:
        return False
    rng.choice(list(config.output)).name = config.input[0].name
    return True


def rename_apart(case: Case, rng: random.Random) -> Case | None:
    """The model's folder is called otherwise; where the configuration has its name, they differ."""
    if not case.target or not case.text() or case.is_ensemble(case.target):
        return None
    return replace(case.moved(f"{case.target}/", "renamed_id/"), target="renamed_id")


CONFIG = {
    "name differs": in_config(name_differs),
    "backend unknown": in_config(backend_unknown),
    "platform unknown": in_config(platform_unknown),
    "backend and platform disagree": in_config(backend_and_platform_disagree),
    "backend removed": in_config(backend_removed),
    "max_batch_size changed": in_config(batch_changed),
    "file name changed": in_config(filename_changed),
    "tensor removed": in_config(tensor_removed),
    "tensor renamed": in_config(tensor_renamed),
    "tensor without a name": in_config(tensor_unnamed),
    "tensor twice": in_config(tensor_doubled),
    "tensor added": in_config(tensor_added),
    "data type changed": in_config(dtype_changed),
    "data type removed": in_config(dtype_removed),
    "dims removed": in_config(dims_removed),
    "dim impossible": in_config(dim_impossible),
    "dim changed": in_config(dim_changed),
    "rank changed": in_config(rank_changed),
    "reshape changed": in_config(reshape_changed),
    "format changed": in_config(format_changed),
    "tensor's flags": in_config(tensor_flag),
    "label file missing": in_config(label_missing),
    "parameter changed": in_config(parameter_changed),
    "output called as an input": in_config(name_repeated),
    "folder renamed": rename_apart,
}
