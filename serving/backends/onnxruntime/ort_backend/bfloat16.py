"""bfloat16, which numpy does not have: its bits travel as uint16 through this backend.

Slower than the other types (no reuse of responses, ORT values instead of arrays), and nothing of it is on their path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .memory import tensor_address, view_at

Array = npt.NDArray[Any]
ONNX_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16


def bits_of(tensor: Any) -> Array:
    """The bits of one of the stub's BF16 tensors, copied out of its memory."""
    like = np.empty(tuple(tensor.shape()), dtype=np.uint16)
    return view_at(tensor_address(tensor), like).copy() if like.size else like


def tensor_of(utils: Any, name: str, bits: Array) -> Any:
    """A BF16 tensor for the stub with these bits."""
    import onnxruntime as ort

    value = ort.OrtValue.ortvalue_from_shape_and_type(bits.shape, ONNX_BFLOAT16)  # owns its memory
    if bits.size:
        view_at(value.data_ptr(), bits)[...] = bits
    return utils.Tensor.from_dlpack(name, value._get_c_value().to_dlpack())


def runner(session: Any, options: Any, inputs: frozenset[str], outputs: frozenset[str]) -> Callable[..., list[Array]]:
    """``run(names, feed)`` for a session some of whose inputs or outputs are bfloat16."""
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    def value_of(name: str, array: Array) -> Any:
        array = np.ascontiguousarray(array)
        if name in inputs:
            return native.OrtValue.ortvalue_from_numpy_with_onnx_type(array, ONNX_BFLOAT16)
        return ort.OrtValue.ortvalue_from_numpy(array)._get_c_value()

    def array_of(name: str, value: Any) -> Array:
        if name not in outputs:
            array: Array = value.numpy()
            return array
        like = np.empty(tuple(value.shape()), dtype=np.uint16)
        return view_at(value.data_ptr(), like).copy() if like.size else like

    def run(names: Sequence[str], feed: dict[str, Array]) -> list[Array]:
        values = {name: value_of(name, array) for name, array in feed.items()}
        answers = session._sess.run_with_ort_values(values, names, options)
        return [array_of(name, value) for name, value in zip(names, answers, strict=True)]

    return run
