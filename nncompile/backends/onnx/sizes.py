"""Sizes and shapes as ONNX nodes: of what has them where something does, else put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import sympy as sp

from nncompile.backends.onnx.nodes import Nodes
from nncompile.diagnostics.errors import BackendError
from nncompile.ir.dims import Dim, Shape
from nncompile.ir.size_arithmetic import FloorDiv
from nncompile.ir.types import Type, i64


class Sizes(Nodes):
    """Emits dimensions, which leaves have, and what has made sizes that depend on data."""

    def __init__(self, opset: int, parent: Self | None = None, conditional: bool = False) -> None:
        super().__init__(opset, parent, conditional)
        # Of which value, axis, constant and factor: see `_solved`.
        self._sizes: dict[sp.Symbol, tuple[str, int, int, int]] = parent._sizes if parent else {}
        self._late: set[sp.Symbol] = parent._late if parent else set()  # of these what nodes make
        self._vectors: dict[Dim, str] = {}
        self._shaped: dict[Shape, str] = {}  # a value of that shape, for shapes of more axes

    def bind_sizes(self, name: str, type_: Type) -> None:
        """Records the type of a value whose shape tells sizes."""
        shape = type_.shape
        if len(shape) == 1:
            self._vectors.setdefault(shape[0], name)
        self._shaped.setdefault(shape, name)
        for axis, size in enumerate(shape):
            free = [] if isinstance(size, int) else list(size.free_symbols)
            if len(free) != 1:
                continue
            constant, linear = sp.sympify(size).as_independent(*free, as_Add=True)
            factor = linear.as_coefficient(free[0])
            if factor is not None and factor.is_Integer and factor > 0:  # factor·n + constant
                self._sizes.setdefault(free[0], (name, axis, int(constant), int(factor)))

    def _solved(self, name: str, axis: int, constant: int, factor: int) -> str:
        """The n of an axis whose size is factor·n + constant, as a vector of one i64."""
        size: str = self.Shape(name, start=axis, end=axis + 1)
        size = self.Sub(size, self.ints([constant])) if constant else size
        return self.Div(size, self.ints([factor])) if factor != 1 else size

    def dim(self, size: Dim) -> str:
        """A dimension as a scalar, i64."""
        if isinstance(size, int):
            return self.scalar(size, i64)
        if self.parent:
            with self._at_parent() as parent:
                return parent.dim(size)
        is_plain = self._sizes.get(size, ())[2:] == (0, 1)
        if size in self._vectors and not is_plain:  # of a vector, which has it as it is
            vector = self.Shape(self._vectors[size])
        else:
            vector = self._vector(size)
        # `Size` would be one node less, but not every runtime makes a tensor of it.
        return self.Reshape(vector, self.ints([]))

    def shape(self, sizes: Sequence[Dim]) -> str:
        """A shape as a vector of i64: that of a value which has it, else put together."""
        if all(isinstance(d, int) for d in sizes):
            return self.ints([int(d) for d in sizes])
        if self.parent:
            with self._at_parent() as parent:
                return parent.shape(sizes)
        if len(sizes) > 1 and (source := self._shaped.get(tuple(sizes))):
            return self.Shape(source)
        pieces: list[str] = []
        numbers: list[int] = []
        for size in sizes:
            if isinstance(size, int):
                numbers.append(size)
                continue
            if numbers:
                pieces.append(self.ints(numbers))
                numbers = []
            pieces.append(self._vector(size))
        if numbers:
            pieces.append(self.ints(numbers))
        return pieces[0] if len(pieces) == 1 else self.Concat(*pieces, axis=0)

    def _vector(self, size: Dim) -> str:
        """A dimension as a vector of one i64."""
        size = sp.sympify(size)
        if size.is_Integer:
            return self.ints([int(size)])
        if size.is_Symbol:
            if size not in self._sizes:
                raise BackendError(
                    f"the size {size} cannot be determined from the shapes of the inputs",
                    hint=f'give an input an axis called "{size}"',
                )
            return self._solved(*self._sizes[size])
        parts = [self._vector(a) for a in size.args]
        if size.is_Add or size.is_Mul:
            emit = self.Add if size.is_Add else self.Mul
            total = parts[0]
            for part in parts[1:]:
                total = emit(total, part)
            return total
        if isinstance(size, FloorDiv):
            # ONNX divides integers towards zero.
            below = None if size.args[0].is_nonnegative else self.Mod(*parts)
            return self.Div(parts[0] if below is None else self.Sub(parts[0], below), parts[1])
        if size.is_Pow and size.args[1].is_Integer and size.args[1] > 0:
            total = parts[0]
            for _ in range(int(size.args[1]) - 1):
                total = self.Mul(total, parts[0])
            return total
        if isinstance(size, sp.Mod):
            return self.Mod(*parts)
        if isinstance(size, sp.Max | sp.Min):
            return (self.Max if isinstance(size, sp.Max) else self.Min)(*parts)
        raise BackendError(f"the size {size} has no lowering to ONNX")
