"""Arithmetic of integers as numpy's: ONNX and its runtime say less, and a division of theirs by 0,
or of the least integer by −1, ends the run or the process.

What numpy says: x // 0 and x % 0 are 0, the least integer divided by −1 is itself (it wraps, as
everything does), a division rounds down, and a shift by a negative number or by all bits or more
leaves no bit but the sign. A negative power is 1/xⁿ towards zero, and 0 for 0: torch's, where numpy
raises an error, which no graph can do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import DType, i64


class Integers:
    """The operations on names of values of one integer type."""

    def __init__(self, o: OnnxEmitter, dtype: DType) -> None:
        self.o = o
        self.dtype = dtype
        self.limits = np.iinfo(dtype.numpy)
        self.signed = self.limits.min < 0

    def number(self, number: int) -> str:
        """The name of a scalar constant of this integer type."""
        return self.o.scalar(number, self.dtype)

    def _known(self, x: str) -> int | None:
        """The number that `x` is, where it is a constant."""
        array = self.o.constants.get(x)
        return int(array.item()) if array is not None and array.size == 1 else None

    def _divisor(self, y: str) -> tuple[str, str, str]:
        """`y` with 1 in place of 0 and −1, where it is 0 and where −1; "" for nowhere."""
        known = self._known(y)
        if known is not None and known not in (0, -1):
            return y, "", ""
        by_zero = self.o.Equal(y, self.number(0))
        if not self.signed:
            return self.o.Where(by_zero, self.number(1), y), by_zero, ""
        by_minus_one = self.o.Equal(y, self.number(-1))
        is_special = self.o.Or(by_zero, by_minus_one)
        return self.o.Where(is_special, self.number(1), y), by_zero, by_minus_one

    def floor_divide(self, x: str, y: str) -> str:
        """x // y, rounded down; 0 where y is 0."""
        safe, by_zero, by_minus_one = self._divisor(y)
        quotient = self._rounded_down(x, safe)
        if by_minus_one:
            negated = self.o.Sub(self.number(0), x)
            quotient = self.o.Where(by_minus_one, negated, quotient)
        return self.o.Where(by_zero, self.number(0), quotient) if by_zero else quotient

    def _rounded_down(self, x: str, y: str) -> str:
        """The quotient by what is neither 0 nor −1. ONNX rounds towards zero."""
        quotient = self.o.Div(x, y)
        if not self.signed:
            return quotient
        zero = self.number(0)
        # Not (x − mod)/y: that difference wraps at the least integer.
        left = self.o.Sub(x, self.o.Mul(quotient, y))
        known = self._known(y)
        if known is not None and known > 0:
            above = self.o.Less(left, zero)
        else:
            signs_differ = self.o.Xor(self.o.Less(left, zero), self.o.Less(y, zero))
            above = self.o.And(signs_differ, self.o.Not(self.o.Equal(left, zero)))
        return self.o.Sub(quotient, self.o.cast(above, self.dtype))

    def mod(self, x: str, y: str) -> str:
        """x % y with the sign of y; 0 where y is 0."""
        return self.o.Mod(x, self._divisor(y)[0])  # by 1 it is 0

    def power(self, x: str, y: str) -> str:
        """By squaring: Pow goes through float64, which has no more than 53 digits."""
        known = self._known(y)
        if known is not None and known >= 0:
            return self._constant_power(x, known)
        one, zero = self.number(1), self.number(0)
        result = one
        square = x
        for bit in range(self.limits.max.bit_length()):
            mask = self.number(1 << bit)
            isset = self.o.Equal(self.o.BitwiseAnd(y, mask), mask)
            result = self.o.Where(isset, self.o.Mul(result, square), result)
            square = self.o.Mul(square, square)
        if not self.signed:
            return result
        unit = self.o.Equal(self.o.Abs(x), one)  # ±1, whose powers have period 2
        odd = self.o.Equal(self.o.BitwiseAnd(y, one), one)
        inverse = self.o.Where(unit, self.o.Where(odd, x, one), zero)
        return self.o.Where(self.o.Less(y, zero), inverse, result)

    def _constant_power(self, x: str, exponent: int) -> str:
        if exponent == 0:
            return self.o.Add(self.o.Mul(x, self.number(0)), self.number(1))
        result, square = "", x
        while exponent:
            if exponent % 2:
                result = self.o.Mul(result, square) if result else square
            exponent //= 2
            square = self.o.Mul(square, square) if exponent else square
        return result

    # Shifts multiply and divide by what stands in a table of powers of two.

    def left_shift(self, x: str, y: str) -> str:
        """x << y; 0 where y is negative, or the number of bits or more."""
        powers = [self._wrapped(1 << n) for n in range(self.limits.bits)]
        return self.o.Mul(x, self._from_table([*powers, 0], y))

    def right_shift(self, x: str, y: str) -> str:
        """x >> y with the sign of x; 0 or −1 where y is out of range."""
        powers = [1 << n for n in range(self.limits.max.bit_length())]
        divisor = self._from_table([*powers, 0], y)
        is_out = self.o.Equal(divisor, self.number(0))
        safe = self.o.Where(is_out, self.number(1), divisor)
        if not self.signed:
            return self.o.Where(is_out, self.number(0), self.o.Div(x, safe))
        below = self.o.Less(x, self.number(0))
        size = self.o.Where(below, self.o.BitwiseNot(x), x)
        size = self.o.Where(is_out, self.number(0), self.o.Div(size, safe))
        return self.o.Where(below, self.o.BitwiseNot(size), size)

    def _wrapped(self, number: int) -> int:
        return number - (1 << self.limits.bits) if number > self.limits.max else number

    def _from_table(self, table: list[int], y: str) -> str:
        """The number at place y of the table, the last one where y is none of the others."""
        last = len(table) - 1
        outside = self.o.Not(self.o.Less(y, self.number(last)))
        if self.signed:
            outside = self.o.Or(outside, self.o.Less(y, self.number(0)))
        index = self.o.Where(outside, self.o.scalar(last, i64), self.o.cast(y, i64))
        return self.o.Gather(self._constant(table), index, axis=0)

    def _constant(self, table: list[int]) -> Any:
        return self.o.constant(np.asarray(table, self.dtype.numpy))
