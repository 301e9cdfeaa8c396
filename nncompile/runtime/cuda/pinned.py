"""Main memory that a GPU copies from directly: page-locked, which the runtime of CUDA makes of
memory that is there. From other memory its driver first copies to its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np

from nncompile.ir.types import Array
from nncompile.runtime.cuda.kernels import CUDA
from nncompile.runtime.providers import Provider, resolve_providers

MOST = 2**28
"""Bytes that are page-locked at once: the system cannot take them for anything else."""
LEAST = 2**16
"""Bytes of an array from which it is worth it."""
_NAMES = ("libcudart.so.13", "libcudart.so.12")
_PORTABLE = 1  # for all GPUs of the process

Place = Callable[[Sequence[int], "np.dtype[Any]"], Array | None]
"""Gives an array of that shape and type that nothing is written to; None where there is none."""


class Runtime(Protocol):
    """What page-locks memory: the functions of CUDA's runtime, which return 0 where they did."""

    def cudaHostRegister(self, address: Any, size: Any, flags: Any) -> int: ...
    def cudaHostUnregister(self, address: Any) -> int: ...
    def cudaGetLastError(self) -> int: ...


class _Buffer(NamedTuple):
    """Memory, its address, and what holds the arrays in it together, as long as there are any."""

    memory: mmap.mmap
    address: int
    owner: list[weakref.ref[Array]]

    @property
    def is_free(self) -> bool:
        return self.owner[0]() is None


class PinnedMemory:
    """Page-locked arrays, up to `most` bytes. The memory of one is used again when there is no
    reference to it, nor to a part of it, any more."""

    def __init__(self, runtime: Runtime, most: int = MOST) -> None:
        self._runtime, self._most = runtime, most
        self._buffers: list[_Buffer] = []
        self._works = True

    @property
    def size(self) -> int:
        """The bytes that are page-locked."""
        return sum(len(buffer.memory) for buffer in self._buffers)

    def array(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array | None:
        """An array that nothing is written to; None where it is small, where there is no more of
        such memory, or where CUDA gives none."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size < LEAST or not self._works:
            return None
        fitting = [x for x in self._buffers if x.is_free and size <= len(x.memory) <= 2 * size]
        buffer = fitting[0] if fitting else self._locked(size)
        if buffer is None:
            return None
        owner: Array = np.frombuffer(buffer.memory, np.uint8)
        buffer.owner[0] = weakref.ref(owner)
        return owner[:size].view(dtype).reshape(shape)

    def _locked(self, size: int) -> _Buffer | None:
        """New memory of that size, in whole pages."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        if self.size + size > self._most:
            return None
        memory = mmap.mmap(-1, size)
        owner: Array = np.frombuffer(memory, np.uint8)
        buffer = _Buffer(memory, owner.ctypes.data, [weakref.ref(owner)])
        self._buffers.append(buffer)  # before, so that an interrupt leaves none behind
        address, length = ctypes.c_void_p(buffer.address), ctypes.c_size_t(size)
        if self._done(self._runtime.cudaHostRegister(address, length, _PORTABLE)):
            return buffer
        self._buffers.pop()
        self._works = False
        return None

    def _done(self, code: int) -> bool:
        """Whether a function of CUDA did what it does. If not, CUDA goes on to tell of the error
        whoever asks next, which is onnxruntime after a kernel of its own: it is taken off."""
        if code:
            self._runtime.cudaGetLastError()
        return not code

    def close(self) -> None:
        """Gives it back. What arrays hold stays as it is, in memory as any other."""
        self._works = False
        while self._buffers:
            address = ctypes.c_void_p(self._buffers.pop().address)
            self._done(self._runtime.cudaHostUnregister(address))


def runtime(names: Sequence[str] = _NAMES) -> Runtime | None:
    """The runtime of CUDA that this process has loaded, as onnxruntime's provider does; None
    where it has none."""
    if not hasattr(os, "RTLD_NOLOAD"):  # by which it is not loaded where it is not
        return None
    for name in names:
        try:
            return ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
        except OSError:
            continue
    return None


@contextmanager
def page_locked(
    providers: Provider | Sequence[Provider], find: Callable[[], Runtime | None] = runtime
) -> Iterator[Place | None]:
    """A block in which arrays for these providers may lie in page-locked memory: what gives them,
    or None. It is given back at the end, whatever ends it."""
    found = find() if resolve_providers(providers)[0][0] == CUDA else None
    if found is None:
        yield None
        return
    memory = PinnedMemory(found)
    try:
        yield memory.array
    finally:
        memory.close()
