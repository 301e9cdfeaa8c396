"""Arrays in onnxruntime's memory and back. Its bindings know no array of bfloat16: there the bits
are copied."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from nncompile.diagnostics.errors import BackendError
from nncompile.ir.types import Array, bf16

_BFLOAT16 = 16  # of ONNX's element types


def buffer_of(array: Array, device: tuple[str, int] = ("cpu", 0)) -> ort.OrtValue:
    """Memory of onnxruntime's own that holds a copy of the array."""
    buffer = buffer_like(array, device)
    buffer.update_inplace(bits_of(array))
    return buffer


def buffer_like(array: Array, device: tuple[str, int] = ("cpu", 0)) -> ort.OrtValue:
    """Memory of onnxruntime's own for such an array, which nothing is written to: the system gives
    the process what of it is used."""
    dtype: Any = _BFLOAT16 if array.dtype == bf16.numpy else array.dtype
    return ort.OrtValue.ortvalue_from_shape_and_type(list(array.shape), dtype, *device)


def buffer_at(array: Array) -> ort.OrtValue:
    """A buffer in main memory that lies where the array does, and so follows what is written to it
    there."""
    if array.dtype == bf16.numpy:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def give_back() -> None:
    """Gives memory that was freed back to the system, where the C library keeps it for later: what
    initial weights are drawn with is as large as they are, and is not needed again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def bits_of(array: Array) -> Array:
    """What fills a buffer with the array: its elements in order, for onnxruntime 1.23 copies memory
    as it lies; of bfloat16 the bits."""
    array = np.asarray(array, order="C")
    return array.view(np.uint16) if array.dtype == bf16.numpy else array


def array_of(buffer: ort.OrtValue) -> Array:
    """A copy of what a buffer holds. Raises `BackendError` for bfloat16 outside main memory."""
    if buffer.element_type() != _BFLOAT16:
        result: Array = buffer.numpy().copy()
        return result
    if buffer.device_name().lower() != "cpu":
        raise BackendError(
            f"onnxruntime cannot copy bfloat16 from {buffer.device_name()}",
            hint="x.astype(f32) is exact",
        )
    shape = tuple(buffer.shape())
    bits = np.empty(shape, np.uint16)
    ctypes.memmove(bits.ctypes.data, buffer.data_ptr(), bits.nbytes)
    return bits.view(bf16.numpy)


def view_of(buffer: ort.OrtValue) -> Array:
    """What a buffer holds, not to be written to: where it lies, if numpy can read it there."""
    if buffer.element_type() == _BFLOAT16 or buffer.device_name().lower() != "cpu":
        return array_of(buffer)
    array: Array = buffer.numpy()
    array.flags.writeable = False
    return array


def filler(buffer: ort.OrtValue) -> Callable[[Array], None]:
    """A function that copies a contiguous array into the buffer: past onnxruntime's Python wrapper,
    where this version has the way that it takes itself."""
    inner = getattr(buffer, "_ortvalue", None)
    fill: Callable[[Array], None] = getattr(inner, "update_inplace", buffer.update_inplace)
    if buffer.element_type() == _BFLOAT16:
        return lambda array: fill(bits_of(array))
    return fill


def run_bound(
    session: ort.InferenceSession,
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    options: ort.RunOptions | None = None,
) -> list[Array]:
    """The outputs of a run on buffers, which may be of any element type."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, buffer_of(np.array(array, order="C")))
    for name in outputs:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding, options)
    return [array_of(x) for x in binding.get_outputs()]
