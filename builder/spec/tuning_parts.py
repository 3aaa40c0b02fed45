"""What a model's entry says of single tensors, and of how the server and its backend run the model.

The ``Attributes`` of each class are the reference, as in :mod:`builder.spec.parts`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, model_validator

from builder.findings import Finding, Findings, did_you_mean
from builder.spec.parts import OneOrMore, Part
from builder.spec.serving_parts import MAX_UINT32, Text
from builder.tensors import Interface

Dims = tuple[Annotated[int, Field(ge=-1, strict=True)], ...]
OF_INPUTS = ("format", "allow_ragged_batch", "optional", "batch_input")
OF_OUTPUTS = ("batch_output",)


class TensorOptions(Part):
    """What Triton is to know of a tensor beside its type and shape.

    Attributes:
        dims: the shape that clients see, without the batch dimension, where it is another than the model's: Triton
            reshapes (`reshape` in `config.pbtxt`).
        format: `FORMAT_NCHW` or `FORMAT_NHWC`, for backends that ask.
        allow_ragged_batch: requests of different sizes are put together without padding; the backend has to know.
        optional: requests may leave the input out.
        is_shape_tensor: a shape tensor of a TensorRT engine.
        is_non_linear_format_io: a tensor of a TensorRT engine whose elements lie in a format of its own.
        batch_input: Triton makes this input of the batch, and clients do not send it.
        batch_output: how the output of a ragged batch is given back to its requests.
        source_input: the inputs that `batch_input` or `batch_output` looks at.
    """

    dims: Dims | None = None
    format: Literal["FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"] | None = None
    allow_ragged_batch: StrictBool = False
    optional: StrictBool = False
    is_shape_tensor: StrictBool = False
    is_non_linear_format_io: StrictBool = False
    batch_input: (
        Literal[
            "BATCH_ELEMENT_COUNT",
            "BATCH_ACCUMULATED_ELEMENT_COUNT",
            "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
            "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
            "BATCH_ITEM_SHAPE",
            "BATCH_ITEM_SHAPE_FLATTEN",
        ]
        | None
    ) = None
    batch_output: Literal["BATCH_SCATTER_WITH_INPUT_SHAPE"] | None = None
    source_input: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> TensorOptions:
        found = []
        if (self.batch_input or self.batch_output) and len(self.source_input) != 1:
            key = "batch_input" if self.batch_input else "batch_output"
            what = f"`{key}` looks at one input"
            found.append(Finding(what, "source_input: [NAME]", f"{len(self.source_input)} of them", path=(key,)))
        elif self.source_input and not (self.batch_input or self.batch_output):
            what = "`source_input` is for `batch_input` or `batch_output`"
            found.append(Finding(what, path=("source_input",)))
        if self.dims is not None and self.dims.count(-1) > 1:
            found.append(Finding("`dims` has more than one free size", "at most one -1", path=("dims",)))
        if self.dims is not None and (0 in self.dims or not self.dims):
            found.append(Finding("`dims` is empty, or has a 0", "sizes of at least 1, or -1", path=("dims",)))
        if found:
            raise Findings(found)
        return self

    def findings(self, name: str, interface: Interface) -> list[Finding]:
        """What is wrong with it for these tensors; paths begin at the model."""
        inputs, outputs = ({tensor.name for tensor in side} for side in (interface.inputs, interface.outputs))
        path = ("tensors", name)
        if name not in inputs | outputs:
            names = [tensor.name for tensor in (*interface.inputs, *interface.outputs)]
            what = f"tensors: {name!r} is none of the model's"
            return [Finding(what, ", ".join(names), fix=did_you_mean(name, names), path=path)]
        wrong = OF_OUTPUTS if name in inputs else OF_INPUTS
        side = "an input" if name in inputs else "an output"
        found = [
            Finding(f"`{key}` for {name!r}, which is {side}", path=(*path, key)) for key in wrong if getattr(self, key)
        ]
        for index, source in enumerate(self.source_input):
            if source not in inputs or source == name:
                what = f"`source_input` names {source!r}, which is no other input"
                fix = did_you_mean(source, inputs - {name})
                expected = ", ".join(sorted(inputs - {name}))
                found.append(Finding(what, expected, fix=fix, path=(*path, "source_input", index)))
        return found


class GraphBound(Part):
    """The smallest shapes for which a CUDA graph is used.

    Attributes:
        batch_size: the smallest.
        input: name: shape.
    """

    batch_size: int = Field(0, ge=0, le=2**31 - 1, strict=True)
    input: dict[Text, Dims] = Field({})


class GraphSpec(GraphBound):
    """The shapes of a CUDA graph that is captured when the model is loaded.

    Attributes:
        batch_size: of its requests.
        input: name: shape.
        graph_lower_bound: it is used for smaller ones too, down to these.
    """

    graph_lower_bound: GraphBound | None = None


class Cuda(Part):
    """Triton's `optimization.cuda`, which the TensorRT backend reads.

    Attributes:
        graphs: capture CUDA graphs.
        graph_spec: for which shapes; by default for those that Triton thinks of.
        busy_wait_events: wait for the GPU in a loop: faster, and a core is busy with it.
        output_copy_stream: copy outputs in a stream of their own.
    """

    graphs: StrictBool = False
    graph_spec: tuple[GraphSpec, ...] = ()
    busy_wait_events: StrictBool = False
    output_copy_stream: StrictBool = False

    @model_validator(mode="after")
    def _consistent(self) -> Cuda:
        if self.graph_spec and not self.graphs:
            what = "`graph_spec` without `graphs: true`: no graph is captured"
            raise Findings([Finding(what, fix="add graphs: true", path=("graph_spec",))])
        return self


class Accelerator(Part):
    """What runs the model instead of the backend's own kernels.

    Attributes:
        name: as the backend knows it.
        parameters: handed to it.
    """

    name: Text
    parameters: dict[str, str] = Field({})


def _named(value: Any) -> Any:
    """A name alone stands for ``{name: ...}``, and one for a list of one."""
    entries = value if isinstance(value, (list, tuple)) else [value]
    return tuple({"name": entry} if isinstance(entry, str) else entry for entry in entries)


Accelerators = Annotated[tuple[Accelerator, ...], BeforeValidator(_named), OneOrMore(text=True)]


class Optimization(Part):
    """Triton's `optimization`.

    Attributes:
        graph_level: how far the backend optimizes the graph: of ONNX Runtime -1 is basic, 1 extended, 2 none, and 0
            what is best.
        priority: of the model's executions over those of others, where the backend can.
        cuda: CUDA graphs and events.
        gpu_execution_accelerator: a name, or a list of names or `{name, parameters}`.
        cpu_execution_accelerator: likewise.
        input_pinned_memory: copy inputs to the GPU by way of pinned memory; Triton does unless it is told not to.
        output_pinned_memory: likewise.
        gather_kernel_buffer_threshold: from how many buffers on, a kernel gathers the inputs of a batch.
        eager_batching: prepare the next batch while one is running.
    """

    graph_level: int | None = Field(None, ge=-(2**31), le=2**31 - 1, strict=True)
    priority: Literal["PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"] | None = None
    cuda: Cuda | None = None
    gpu_execution_accelerator: Accelerators = ()
    cpu_execution_accelerator: Accelerators = ()
    input_pinned_memory: StrictBool | None = None
    output_pinned_memory: StrictBool | None = None
    gather_kernel_buffer_threshold: int | None = Field(None, ge=0, le=MAX_UINT32, strict=True)
    eager_batching: StrictBool | None = None
