"""What onnxruntime would join, or compute before the model runs, and must not."""

from __future__ import annotations

from typing import Self

import numpy as np

from nncompile.backends.onnx.kernels import ELEMENT_TYPES
from nncompile.backends.onnx.nodes import Attributes, Call, Nodes, holds_graph
from nncompile.ir.types import DType, f64, i64, is_float32

Producer = tuple[str, Attributes, tuple[str, ...]]
"""The operator that gave a name, its attributes and its inputs."""

# Transpositions before them stay before them.
_FENCES = frozenset(("Reshape", "MatMul", "Gemm", "Conv", "Scan", "If", "Shape", "Size"))


class Fusions(Nodes):
    """Knows what made each value, and keeps the runtime from looking through it."""

    def __init__(self, opset: int, parent: Self | None = None, conditional: bool = False) -> None:
        super().__init__(opset, parent, conditional)
        # Weights of one element of float64.
        self.numbers: set[str] = parent.numbers if parent else set()
        self._producers: dict[str, Producer] = parent._producers if parent else {}
        # What a transposition made, or may be moved behind by onnxruntime.
        self._transposed: set[str] = parent._transposed if parent else set()
        # Those of them in which the first axis has moved.
        self._first_moved: set[str] = parent._first_moved if parent else set()
        # What no runtime knows before the model runs.
        self._unknown: list[str] = list(parent._unknown) if parent else []
        # An integer of these, such as the number of the step.
        self._unknown_integer: str = parent._unknown_integer if parent else ""

    def _added(self, call: Call, attributes: bytes | None = None) -> tuple[str, ...]:
        names = super()._added(call, attributes)
        producer = call.op_type, call.attributes, call.inputs
        for name in names:
            self._producers[name] = producer
        if call.op_type not in _FENCES:
            self._follow(call, names)
        if call.attributes and holds_graph(call.attributes):
            self._unknown.append(names[0])  # runtimes do not compute loops beforehand
        return names

    def _follow(self, call: Call, names: tuple[str, ...]) -> None:
        """Notes which results transpositions may be moved behind."""
        is_transpose = call.op_type == "Transpose"
        is_moved = is_transpose and call.attributes["perm"][0] != 0
        for tracked, begins in ((self._transposed, is_transpose), (self._first_moved, is_moved)):
            if begins or not tracked.isdisjoint(call.inputs):
                tracked.update(names)

    def apart(self, x: str, *operators: str, static: bool = False) -> str:
        """`x`, which runtimes may not join with what made it if that is one of `operators`: then
        behind a reshaping to its own shape, which costs nothing and is not seen through; also of
        a `static` shape if asked for, and behind what transpositions are moved through (without
        it, only those that move the first axis)."""
        operator, *_ = self._producers.get(x, ("", {}, ()))
        transposed = self._transposed if static else self._first_moved
        is_moved = "Transpose" in operators and x in transposed
        if operator not in operators and not is_moved:
            return x
        shape = self.Shape(x)
        if static and self._unknown:
            shape = self.Add(shape, self._late_size())
        return self.Reshape(x, shape)

    def producer(self, x: str) -> tuple[str, tuple[str, ...]]:
        """The operator that made `x`, and its inputs; of what no operator made, none."""
        operator, _, inputs = self._producers.get(x, ("", {}, ()))
        return operator, inputs

    def unpadded(self, x: str) -> str:
        """What was padded, where `x` is that; else `x`."""
        operator, inputs = self.producer(x)
        return inputs[0] if operator == "Pad" else x

    def moves_first(self, x: str) -> bool:
        """Whether the first axis of `x` was another one before a transposition, which onnxruntime
        may move to just behind `x`."""
        return x in self._first_moved

    def cast(self, x: str, dtype: DType) -> str:
        """`x` as another element type."""
        # Of a transposition, a cast to real numbers and a product, onnxruntime makes one node, and
        # ends the process over it where the first axis was moved; of float64 it has no such kernel.
        if dtype is f64 or (dtype.is_float and self.moves_first(x)):
            x = self.apart(x, "Transpose")
        return self.Cast(x, to=ELEMENT_TYPES[dtype.name])

    def factor(self, name: str, divides: bool = False) -> str:
        """What something is multiplied or divided by, as it is to be written.

        A constant number beside a matrix product onnxruntime makes an attribute of the product, and
        attributes are float32, also where the matrices are float64. From a number that is no
        float32, 0 times the size of an input is therefore taken, which is known when the model
        runs. (Added to it, a number below float32's would be taken for 0.) Where there is no input
        it is the size of what a loop goes by or has made; what depends on neither is computed
        before such attributes are made.
        """
        number = self.constants.get(name)
        if name not in self.numbers:
            if number is None or number.dtype != np.float64 or number.size != 1:
                return name
            if is_float32(1 / number.item() if divides and number.any() else number.item()):
                return name
        return self._known_late(name)

    def addend(self, name: str) -> str:
        """What is added to something or taken from it, as it is to be written: a constant number of
        float64 that float32 has as 0 onnxruntime takes for 0, and drops the sum."""
        number = self.constants.get(name)
        if number is None or number.dtype != np.float64 or number.size != 1:
            return name
        is_lost = number.any() and not number.astype(np.float32).any()
        return self._known_late(name) if is_lost else name

    def _known_late(self, name: str) -> str:
        """A number of float64 that no runtime knows before the model runs."""
        if not self._unknown:
            return name
        return self.Sub(name, self.cast(self._late_zero(), f64))

    def _late_zero(self) -> str:
        """0 of i64, which no runtime knows before the model runs: of an integer that is given,
        on its device, or else of a size."""
        if not self._unknown_integer:
            return self._late_size()
        return self.Mul(self._unknown_integer, self.scalar(0, i64))

    def _late_size(self) -> str:
        """The same of a size: in main memory, where shapes are."""
        return self.Mul(self.Size(self._unknown[0]), self.scalar(0, i64))
