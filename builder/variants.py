"""What a model can be built as. One row, one variant: what file it becomes, in which precision, and what runs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

FASTEST = "fastest"
"""In place of a variant's name: the fastest of those that hold their accuracy, by measurement."""


@dataclass(frozen=True)
class Variant:
    """One way to serve a model.

    Attributes:
        name: as written in ``variants`` (``onnx-int8``).
        format: what file it becomes: ``onnx``, ``plan`` (an engine), ``python`` (a class of the user's, as it is), or
            ``ensemble`` (no file: a graph of other models).
        precision: what its arithmetic is done in; the row of the tolerance table: ``fp32``, ``fp16``, ``bf16``,
            ``int8``, or ``int8-weights`` and ``int4-weights`` where the weights alone are in integers.
        target: what runs it, and so decides which recipes are allowed: ``cpu``, ``cuda`` and ``openvino`` are providers
            of ONNX Runtime; ``tensorrt`` is its provider or, as a ``plan``, the engine; ``tensorrt-rtx`` likewise.
    """

    name: str
    format: str
    precision: str
    target: str

    @property
    def suffix(self) -> str:
        """What the variant's own model in the repository is called after the model's name."""
        return self.name.replace("-", "_")


def _rows() -> Iterator[Variant]:
    for precision in ("fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights"):
        yield Variant(f"onnx-{precision}", "onnx", precision, "cpu")
    for target in ("cuda", "tensorrt"):
        for precision in ("fp32", "fp16", "bf16", "int8"):
            yield Variant(f"onnx-{target}-{precision}", "onnx", precision, target)
    for precision in ("fp32", "fp16", "int8"):
        yield Variant(f"onnx-openvino-{precision}", "onnx", precision, "openvino")
    for target in ("tensorrt", "tensorrt-rtx"):
        for precision in ("fp32", "fp16", "bf16", "int8"):
            yield Variant(f"{target}-{precision}", "plan", precision, target)


ASKED: dict[str, Variant] = {variant.name: variant for variant in _rows()}
"""What a spec may list in ``variants``."""

PYTHON = Variant("python", "python", "fp32", "cpu")
ENSEMBLE = Variant("ensemble", "ensemble", "fp32", "cpu")
FUSED = Variant("fused", "onnx", "fp32", "cpu")
"""What a Python class is built as, and an ensemble: as its steps, or as one graph. `variants` cannot ask for them."""

VARIANTS: dict[str, Variant] = {**ASKED, **{variant.name: variant for variant in (PYTHON, ENSEMBLE, FUSED)}}


def is_servable(variant: Variant) -> bool:
    """False for engines of TensorRT-RTX, for which Triton has no backend: they are built, and not published."""
    return not (variant.format == "plan" and variant.target == "tensorrt-rtx")
