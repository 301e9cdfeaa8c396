"""Expressions of scalars as TorchScript: torch's name of each call that `elementwise.lowering.walk`
makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.backends.torchscript.carriers import Unsigned
from nncompile.elementwise.gamma import digamma
from nncompile.elementwise.terms import in_double
from nncompile.ir.emitters import TorchEmitter
from nncompile.ir.types import DType, u64


@dataclass(frozen=True)
class Literal:
    """A number that stands in the source as itself, beside a tensor of that dtype."""

    number: bool | int | float
    dtype: DType

    @property
    def beside(self) -> bool | int | float:
        """The number beside a tensor: of uint64 it is what int64 has those bits for."""
        return self.number - 2**64 if self.dtype is u64 and self.number >= 2**63 else self.number


Operand = str | Literal

# Where torch has another name than the call.
_TORCH = {
    "subtract": "sub",
    "multiply": "mul",
    "negative": "neg",
    "divide": "div",
    "power": "pow",
    "mod": "remainder",
    "gate": "sigmoid",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arctan2": "atan2",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "less": "lt",
    "less_equal": "le",
    "equal": "eq",
    "not_equal": "ne",
    "invert": "bitwise_not",
    "left_shift": "bitwise_left_shift",
    "right_shift": "bitwise_right_shift",
}
# An operator takes a number on either side, other calls only as the second operand.
_EITHER_SIDE = frozenset(
    ("add", "subtract", "multiply", "divide", "less", "less_equal", "equal", "not_equal")
)
_WITH_NUMBER = (
    _EITHER_SIDE
    | frozenset(("power", "mod", "floor_divide", "left_shift", "right_shift"))
    | frozenset(("bitwise_and", "bitwise_or", "bitwise_xor"))
)
_DIVISIONS = frozenset(("mod", "floor_divide"))
# They leave the bits that an unsigned type has.
_WRAPPING = frozenset(("add", "subtract", "multiply", "negative", "power", "invert", "left_shift"))


class TorchFormulas:
    """The target of `walk`: operands are results in the source, or numbers."""

    def __init__(self, emitter: TorchEmitter) -> None:
        self.emitter = emitter

    def literal(self, number: bool | int | float, dtype: DType) -> Operand:
        """The operand of a Python number."""
        # torch takes True beside a tensor for an integer, or compares it as Python.
        return (
            self.emitter.constant(np.asarray(number)) if dtype.is_bool else Literal(number, dtype)
        )

    def cast(self, x: Operand, source: DType, target: DType) -> Operand:
        """`x` in another element type; literals are converted at once."""
        if isinstance(x, Literal):
            number = np.asarray(x.number, source.numpy).astype(target.numpy).item()
            return self.literal(number, target)
        return self.emitter.cast(x, source, target)

    def call(self, name: str, dtype: DType, *args: Operand) -> Operand:
        """The result of one of `PRIMITIVE_CALLS`."""
        if name == "digamma":  # torch's has three digits in float32 beside its negative roots
            result: Operand = in_double(self, digamma, dtype, *args)
            return result
        if dtype is u64 and name in _OF_UNSIGNED:
            return _OF_UNSIGNED[name](Unsigned(self.emitter), *map(self.tensor, args))
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, *args)
        if name in _DIVISIONS and dtype.is_integer:
            return self._divided(name, dtype, *args)
        result = self.emitter.call(f"torch.{_TORCH.get(name, name)}", *self._operands(name, args))
        if name == "sign" and dtype.is_float:  # torch's is 0 at NaN
            isnan = self.emitter.call("torch.isnan", self.tensor(args[0]))
            return self.emitter.call("torch.where", isnan, self.tensor(args[0]), result)
        return self.emitter.wrapped(result, dtype) if name in _WRAPPING else result

    def _divided(self, name: str, dtype: DType, x: Operand, y: Operand) -> str:
        """Integers by integers as numpy: 0 by 0, and the least integer by −1 is itself. The
        division of C ends the run there, or the process."""
        function, emit = f"torch.{_TORCH.get(name, name)}", self.emitter.call
        if isinstance(y, Literal) and y.number not in (0, -1):
            return emit(function, *self._operands(name, (x, y)))
        x, y = self.tensor(x), self.tensor(y)
        unfit = by_zero = emit("torch.eq", y, 0)
        by_minus_one = emit("torch.eq", y, -1) if np.iinfo(dtype.numpy).min < 0 else ""
        if by_minus_one:
            unfit = emit("torch.logical_or", by_zero, by_minus_one)
        result = emit(function, x, emit("torch.where", unfit, 1, y))
        if name == "mod":  # by 1 it is 0
            return result
        if by_minus_one:
            result = emit("torch.where", by_minus_one, emit("torch.neg", x), result)
        return emit("torch.where", by_zero, 0, result)

    def tensor(self, x: Operand) -> str:
        """The operand as a tensor: a number becomes a scalar."""
        if isinstance(x, Literal):
            return self.emitter.constant(np.asarray(x.number, x.dtype.numpy))
        return x

    def _operands(self, name: str, args: tuple[Operand, ...]) -> list[Any]:
        """Numbers as they are where torch takes them, otherwise as tensors."""
        numbers = [i for i, a in enumerate(args) if isinstance(a, Literal)]
        if name in _WITH_NUMBER and (numbers == [1] or (numbers == [0] and name in _EITHER_SIDE)):
            return [a.beside if isinstance(a, Literal) else a for a in args]
        return [self.tensor(a) for a in args]

    def where(self, condition: Operand, a: Operand, b: Operand) -> str:
        """`a` where the condition holds, else `b`; at least one of them is a tensor."""
        if isinstance(a, Literal) and isinstance(b, Literal):
            a = self.tensor(a)  # of two numbers torch makes its default dtype
        chosen = [x.beside if isinstance(x, Literal) else x for x in (a, b)]
        return self.emitter.call("torch.where", self.tensor(condition), *chosen)

    def bounded(self, a: Operand, b: Operand, function: str, option: str) -> str:
        """The larger or smaller one; beside a number it is a clamp."""
        if isinstance(a, Literal):
            a, b = b, a
        if isinstance(b, Literal):
            return self.emitter.call("torch.clamp", self.tensor(a), **{option: b.number})
        return self.emitter.call(function, a, b)

    def softplus(self, x: Operand) -> str:
        """log(1 + eˣ), without the linear branch of torch."""
        # torch's own is linear from 20 on: 2e-9 off in double.
        x = self.tensor(x)
        return self.emitter.call("torch.logaddexp", x, self.emitter.call("torch.zeros_like", x))


_SPECIAL: dict[str, Callable[..., str]] = {
    "where": TorchFormulas.where,
    "maximum": lambda target, a, b: target.bounded(a, b, "torch.maximum", "min"),
    "minimum": lambda target, a, b: target.bounded(a, b, "torch.minimum", "max"),
    "softplus": TorchFormulas.softplus,
    "stop_gradient": lambda target, x: target.emitter.method(target.tensor(x), "detach"),
}
# Those of uint64 that are others than int64 has.
_OF_UNSIGNED: dict[str, Callable[..., str]] = {
    "less": lambda unsigned, a, b: unsigned.compared("torch.lt", a, b),
    "less_equal": lambda unsigned, a, b: unsigned.compared("torch.le", a, b),
    "maximum": lambda unsigned, a, b: unsigned.chosen("torch.maximum", a, b),
    "minimum": lambda unsigned, a, b: unsigned.chosen("torch.minimum", a, b),
    "floor_divide": Unsigned.quotient,
    "mod": Unsigned.remainder,
    "right_shift": Unsigned.shifted,
    "power": Unsigned.power,
    "abs": lambda unsigned, x: x,
    "relu": lambda unsigned, x: x,
    "sign": Unsigned.sign,
}
