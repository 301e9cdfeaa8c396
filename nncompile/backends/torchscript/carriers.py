"""Unsigned integers in torch, which has few operations of them, and arrays as tensors.

uint16 and uint32 are carried in a wider signed type, of which only their own bits are kept; uint64
in int64, as its bits: sums, differences and products are the same bits, and what orders, divides or
converts is in `Unsigned`.
"""

from __future__ import annotations

from typing import Any

from nncompile.ir.emitters import TorchEmitter
from nncompile.ir.types import DType, i32, i64, u16, u32, u64

CARRIERS = {u16: i32, u32: i64, u64: i64}
MASKS = {u16: 0xFFFF, u32: 0xFFFFFFFF}
SIGN = -(2**63)  # the highest bit of int64


def carrier(dtype: DType) -> DType:
    """The element type that torch computes it in."""
    return CARRIERS.get(dtype, dtype)


class Unsigned:
    """uint64 as the bits of int64."""

    def __init__(self, emitter: TorchEmitter) -> None:
        self.t = emitter

    def ordered(self, x: str) -> str:
        """In the order of int64: 0 becomes the least number. The inverse is the same."""
        return self.t.call("torch.bitwise_xor", x, SIGN)

    def shifted(self, x: str, bits: Any) -> str:
        """Shifted to the right, with zeros from the left; by all bits or more it is 0."""
        t = self.t
        half = t.call("torch.bitwise_and", t.call("torch.bitwise_right_shift", x, 1), ~SIGN)
        if bits == 1:
            return half
        less = t.call("torch.clamp", t.call("torch.sub", bits, 1), min=0, max=63)
        less = t.call("torch.where", t.call("torch.lt", bits, 0), 63, less)  # from 2⁶³ on
        rest = t.call("torch.bitwise_right_shift", half, less)
        return t.call("torch.where", t.call("torch.eq", bits, 0), x, rest)

    def sign(self, x: str) -> str:
        """1 where the unsigned x is not 0, and 0 elsewhere."""
        return self.t.method(self.t.call("torch.ne", x, 0), "to", i64)

    def real(self, x: str, dtype: DType) -> str:
        """As a real number: half of it, its last bit kept for the rounding, and doubled."""
        half = self.shifted(x, 1)
        half = self.t.call("torch.bitwise_or", half, self.t.call("torch.bitwise_and", x, 1))
        large = self.t.call("torch.mul", self.t.method(half, "to", dtype), 2)
        below = self.t.call("torch.lt", x, 0)
        return self.t.call("torch.where", below, large, self.t.method(x, "to", dtype))

    def of_real(self, x: str) -> str:
        """A real number, towards zero."""
        large = self.t.call("torch.ge", x, 2.0**63)
        moved = self.t.call("torch.where", large, self.t.call("torch.sub", x, 2.0**63), x)
        bits = self.t.method(moved, "to", i64)
        return self.t.call("torch.where", large, self.ordered(bits), bits)

    def quotient(self, x: str, y: str) -> str:
        """x // y, 0 by 0: it is twice the quotient of half of x, or one more. A divisor from 2⁶³,
        which is negative here, goes into x once or not at all."""
        t = self.t
        fits = t.call("torch.ge", self.ordered(x), self.ordered(y))
        once = t.method(fits, "to", i64)
        large = t.call("torch.lt", y, 0)
        by_zero = t.call("torch.eq", y, 0)
        divisor = t.call("torch.where", t.call("torch.logical_or", large, by_zero), 1, y)
        half = t.call("torch.floor_divide", self.shifted(x, 1), divisor)
        near = t.call("torch.mul", half, 2)
        rest = t.call("torch.sub", x, t.call("torch.mul", near, divisor))
        more = t.call("torch.ge", self.ordered(rest), self.ordered(divisor))
        exact = t.call("torch.add", near, t.method(more, "to", i64))
        exact = t.call("torch.where", by_zero, 0, exact)
        return t.call("torch.where", large, once, exact)

    def remainder(self, x: str, y: str) -> str:
        """x − (x // y)·y, and 0 by 0."""
        product = self.t.call("torch.mul", self.quotient(x, y), y)
        rest = self.t.call("torch.sub", x, product)
        return self.t.call("torch.where", self.t.call("torch.eq", y, 0), 0, rest)

    def power(self, x: str, y: str) -> str:
        """The square of x to half of y, times x where y is odd: the half is not negative."""
        t = self.t
        root = t.call("torch.pow", x, self.shifted(y, 1))
        square = t.call("torch.mul", root, root)
        odd = t.call("torch.eq", t.call("torch.bitwise_and", y, 1), 1)
        return t.call("torch.where", odd, t.call("torch.mul", square, x), square)

    def chosen(self, function: str, a: Any, b: Any) -> str:
        """The larger or the smaller one."""
        return self.ordered(self.t.call(function, self.ordered(a), self.ordered(b)))

    def compared(self, function: str, a: Any, b: Any) -> str:
        """A comparison of unsigned integers that are stored as signed ones."""
        return self.t.call(function, self.ordered(a), self.ordered(b))
