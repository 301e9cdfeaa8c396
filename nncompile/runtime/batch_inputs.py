"""How batches get into a session that is run again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort

from nncompile.ir.types import Array, bf16
from nncompile.runtime.buffers import buffer_like, filler
from nncompile.runtime.session import Session

BOUND = 2**16
"""Bytes of an array from which it is bound itself: to copy as many takes as long."""

State = Mapping[str, ort.OrtValue]


class BatchInputs:
    """Feeds batches of the types and shapes of `batch` to the bindings of a session, which also
    read a state each. Small arrays are copied into buffers that stay where they are, which is where
    `device_of` says by the name of the input; large ones are read where they are, where the session
    runs in main memory. Of `copies` buffers for each, the next takes the next batch, while runs
    may still read the ones before."""

    def __init__(
        self,
        batch: Mapping[str, Array],
        session: Session,
        bindings: Sequence[ort.IOBinding],
        states: Sequence[State],
        device_of: Callable[[str], tuple[str, int]],
        copies: int = 1,
    ) -> None:
        self.shapes = {name: x.shape for name, x in batch.items()}
        self._bindings = bindings
        self._held: dict[tuple[int, str], Any] = {}  # what the bindings refer to
        on_host = session.device[0] == "cpu"
        large = {n for n, x in batch.items() if on_host and _is_large(x)}
        small = {name: x for name, x in batch.items() if name not in large}

        def made() -> dict[str, ort.OrtValue]:
            return {name: buffer_like(x, device_of(name)) for name, x in small.items()}

        buffers = made()
        for binding in bindings:
            for name, buffer in buffers.items():
                binding.bind_ortvalue_input(name, buffer)
        # onnxruntime copies an input that it reads on another device when it is bound, not when it
        # runs: it would read for ever what was there then. Those are bound again for each step.
        self.misplaced = tuple(
            [
                (name, buffer)
                for name, buffer in {**state, **buffers}.items()
                if buffer.device_name().lower() != (session.device_of_input(name) or ("",))[0]
            ]
            for state in states
        )
        self.copies = 1 if any(self.misplaced) else copies
        self._several = [buffers, *(made() for _ in range(1, self.copies))]
        self._next = 0
        # Of each copy and input: name, element type, shape, and what feeds an array to one of the
        # bindings.
        self._inputs: list[list[tuple[str, Any, tuple[int, ...], Callable[[int, Array], None]]]] = [
            [
                (n, x.dtype, x.shape, partial(self._bind, n) if n in large else _fill(buffers[n]))
                for n, x in batch.items()
            ]
            for buffers in self._several
        ]

    def fed(self, batch: Mapping[str, Any], side: int) -> bool:
        """Feeds the batch to the binding of that number, if it is of these types and shapes. Its
        arrays must stay as they are until that has run."""
        inputs = self._inputs[self._next]
        if len(batch) != len(inputs):
            return False
        for name, dtype, shape, feed in inputs:
            x = batch.get(name)
            if type(x) is not np.ndarray or x.dtype != dtype or x.shape != shape:
                return False
            feed(side, x if x.flags.c_contiguous else np.ascontiguousarray(x))
        if self.copies > 1:
            for name, mine in self._several[self._next].items():
                self._bindings[side].bind_ortvalue_input(name, mine)
            self._next = (self._next + 1) % self.copies
        return True

    def _bind(self, name: str, side: int, array: Array) -> None:
        if not array.flags.aligned:
            array = array.copy()
        buffer = ort.OrtValue.ortvalue_from_numpy(array)
        self._bindings[side].bind_ortvalue_input(name, buffer)
        self._held[side, name] = buffer, array


def _is_large(array: Array) -> bool:
    """Whether the array is bound itself: numpy's types alone are."""
    return array.nbytes >= BOUND and array.dtype != bf16.numpy


def _fill(buffer: ort.OrtValue) -> Callable[[int, Array], None]:
    fill = filler(buffer)
    return lambda side, array: fill(array)
