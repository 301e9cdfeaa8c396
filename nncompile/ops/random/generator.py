"""Random numbers as pure functions of keys: the same bits in numpy, ONNX and TorchScript.

A key is a number (u32) that is mixed from the seed, the step and a salt, one salt for each place
in a model that draws. The generator is counter-based, as in J. Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3" (2011): element `i` under a key is a hash of both, so that nothing is
remembered between draws, and streams of two keys are not shifts of each other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ModelError
from nncompile.elementwise import log, minimum, sqrt, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Dim, dim, product, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import Input
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Array, DType, Type, f32, f64, i64, u32
from nncompile.ops.core.axes import row_by_row
from nncompile.ops.core.counting import iota
from nncompile.ops.core.finite import masked
from nncompile.ops.core.modes import while_training
from nncompile.ops.loops.body import iterations
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.shape.sorting import argsort

RANGE = 2**32  # of u32
# Odd constants: the golden ratio spreads the counters; the others are C. Wellons', found by search
# ("Prospecting for hash functions", 2018).
GOLDEN, FIRST, SECOND = 0x9E3779B9, 0x7FEB352D, 0x846CA68B
_BLOCK = 2**14  # counters that numpy mixes at once


def _mixed(counter: Any, key: Any, number: Any, multiply: Any, add: Any, upper: Any) -> Any:
    """The hash of a counter under a key, in an arithmetic modulo 2³².

    Multiplication and addition carry upwards only, so what is gathered in the upper half comes
    down by `upper`. x(2x+1) is what makes it non-linear, a permutation (the RC6 cipher's). The
    key enters twice, or the counters under one key would be those under another, shifted. Bit
    shifts and exclusive-or are avoided: they have no kernel on every device.
    """

    def squared(h: Any) -> Any:
        return multiply(h, add(multiply(h, number(2)), number(1)))

    def turned(h: Any, factor: int) -> Any:
        return add(multiply(h, number(factor)), upper(h))

    h = squared(add(multiply(counter, number(GOLDEN)), key))
    h = squared(add(turned(h, FIRST), key))
    return squared(turned(h, SECOND))


class Hash(Op):
    """Evenly distributed bits from counters and a key; both u32, the key a scalar.

    The upper half of a number is what its float32 has above 2¹⁶: conversions round in one way
    everywhere, and are four times as fast as a division of integers.
    """

    def infer(self, counter: Type, key: Type) -> Type:
        if counter.dtype is not u32 or key != Type(u32):
            raise DTypeError(f"a hash needs counters and a key of u32, got {counter} and {key}")
        return counter

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return None, None

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        return row_axes[0] if row_axes[1] is None else None

    def numpy(self, counter: Array, key: Array) -> Array:
        def upper(h: Array) -> Array:
            return (h.astype(np.float32) * np.float32(1 / 65536)).astype(np.uint32)

        # Vectors wrap silently where single numbers would warn. Blocks within the cache take a
        # quarter of the time, and no memory beside the result.
        flat = counter.reshape(-1)
        size = _BLOCK if key.ndim == 0 else max(1, len(flat))
        result = np.empty_like(flat)
        for first in range(0, len(flat), size):
            block = slice(first, first + size)
            result[block] = _mixed(flat[block], key, np.uint32, np.multiply, np.add, upper)
        return result.reshape(counter.shape)

    def onnx(self, o: OnnxEmitter, counter: str, key: str) -> str:
        def upper(h: str) -> str:
            return o.cast(o.Mul(o.cast(h, f32), o.scalar(1 / 65536, f32)), u32)

        result: str = _mixed(counter, key, lambda n: o.scalar(n, u32), o.Mul, o.Add, upper)
        return result

    def torch(self, t: TorchEmitter, counter: str, key: str) -> str:
        def masked(function: Callable[..., str]) -> Callable[..., str]:
            return lambda a, b: t.wrapped(function(a, b), u32)

        def upper(h: str) -> str:
            return t.cast(t.mul(t.cast(h, u32, f32), 1 / 65536), f32, i64)

        result: str = _mixed(counter, key, lambda n: n, masked(t.mul), masked(t.add), upper)
        return result

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for type_ in (u32["n"], u32[()], u32[2, "n"]):
            yield Sample(cls(), (type_, u32[()]), integers=(0, RANGE))


class Dropout(Op):
    """`x` with elements set to zero at the given rate and the others divided by what is kept, so
    that the mean stays. `bits` are random, and give the same elements in the gradient."""

    rate: float

    def infer(self, x: Type, bits: Type) -> Type:
        if not x.dtype.is_float:
            raise DTypeError(f"elements must be real, got {x}", hint="use x.astype(f32)")
        if bits.dtype is not u32 or same_shape(bits.shape, x.shape) is not True:
            raise DTypeError(f"the random bits for {x} must be {Type(u32, x.shape)}, got {bits}")
        return x

    @property
    def _threshold(self) -> int:
        """Elements are kept whose bits are below."""
        return min(round((1 - self.rate) * RANGE), RANGE - 1)

    @property
    def _factor(self) -> float:
        return 1 / (1 - self.rate) if self.rate < 1 else 0.0

    def pullback(self, g: Value, y: Value, x: Value, bits: Value) -> Sequence[Value | None]:
        return Dropout(self.rate)(g, bits), None

    rowwise = row_by_row

    def batched(self, length: Dim) -> Dropout:
        return self

    def numpy(self, x: Array, bits: Array) -> Array:
        mask = bits < np.uint32(self._threshold)
        return np.where(mask, x * np.asarray(self._factor, x.dtype), np.zeros((), x.dtype))

    def onnx(self, o: OnnxEmitter, x: str, bits: str) -> str:
        dtype = o.type.dtype
        mask = o.Less(bits, o.scalar(self._threshold, u32))
        factor = o.scalar(self._factor, dtype)
        return masked(o, mask, x, dtype, factor, size=product(o.type.shape))

    def torch(self, t: TorchEmitter, x: str, bits: str) -> str:
        mask = t.lt(bits, self._threshold)
        return t.where(mask, t.mul(x, self._factor), t.zeros_like(x))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for rate in (0.25, 0.0, 1.0):
            yield Sample(cls(rate), (f32["n", 3], u32["n", 3]), integers=(0, RANGE))
        yield Sample(cls(0.9), (f64[()], u32[()]), integers=(0, RANGE))


_HASH = Hash()  # one op for all, which finds out its digest once


def seed_leaf() -> Value:
    """The seed of the training, which all random numbers are drawn from."""
    return apply(Input("seed", i64[()], "state"))


def step_leaf() -> Value:
    """The number of the training step."""
    return apply(Input("step", i64[()], "state"))


def random_key(salt: int | str, *values: Any) -> Value:
    """A key from integers (the seed, the step, the iteration of a loop; modulo 2³²) and a salt.

    Each place that draws needs a salt of its own, or two of them draw the same numbers. In the body
    of a scan the iteration is mixed in, so that no two iterations draw the same.
    """
    if isinstance(salt, str):
        salt = int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=4).digest(), "little")
    numbers = [as_value(value) for value in (*values, *iterations(), salt % RANGE)]
    for number in numbers:
        if not number.dtype.is_integer or number.rank:
            raise DTypeError(f"a random key is made from integer scalars, got {number.type}")
    # The salt comes last: what is made of seed and step is shared by all that draw.
    first, *rest = [cast(number, u32) for number in numbers]
    return reduce(lambda key, number: _HASH(number, key), rest or [const(0, u32)], first)


def random_bits(key: Value, shape: Sequence[Any]) -> Value:
    """Random u32, uniform over all 2³² numbers."""
    sizes = tuple(dim(size) for size in shape)
    return reshape(_HASH(iota(product(sizes), u32), key), sizes)


def uniform(
    key: Value,
    shape: Sequence[Any],
    low: float = 0.0,
    high: float = 1.0,
    dtype: DType = f32,
) -> Value:
    """Random numbers, uniform over low ≤ x < high, from 32 random bits each."""
    if not low < high:
        raise ModelError(f"uniform: low must be below high, got {low} and {high}")
    bits = cast(random_bits(key, shape), dtype.computed)
    below = float(np.nextafter(dtype.numpy.type(high), dtype.numpy.type(low)))
    # As values: one formula serves all ranges, where each number in one makes another. Apart, so
    # that what is drawn takes the memory of two such tensors.
    factor, start, end = (const(x, dtype.computed) for x in ((high - low) / RANGE, low, below))
    return cast(minimum(bits * factor + start, end), dtype)


# The inverse error function by two polynomials, highest coefficient first; relative error 2·10⁻⁷.
# M. Giles, "Approximating the erfinv function", GPU Computing Gems (2011).
CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
          -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
        -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


@formula
def polynomial(x: Any, *coefficients: float) -> Any:
    """Σ cᵢ·xⁿ⁻ⁱ, by Horner's rule."""
    total: Any = coefficients[0]
    for c in coefficients[1:]:
        total = total * x + c
    return total


def inverse_erf(x: Value) -> Value:
    """The y with erf(y) = x, for −1 < x < 1."""
    w = -log((1 - x) * (1 + x))
    return x * where(w < 5, polynomial(w - 2.5, *CENTRE), polynomial(sqrt(w) - 3, *TAIL))


def normal(
    key: Value,
    shape: Sequence[Any],
    mean: Any = 0.0,
    std: Any = 1.0,
    dtype: DType = f32,
) -> Value:
    """Random numbers of the normal distribution; always finite, within 5.5 standard deviations."""
    edge = float(np.nextafter(np.float32(1), np.float32(0)))
    samples = inverse_erf(uniform(key, shape, -edge, 1.0, dtype.computed)) * math.sqrt(2)
    return cast(samples * std + mean, dtype)


def truncated_normal(
    key: Value,
    shape: Sequence[Any],
    mean: Any = 0.0,
    std: Any = 1.0,
    low: float = -2.0,
    high: float = 2.0,
    dtype: DType = f32,
) -> Value:
    """Random numbers of the normal distribution, given that they lie from `low` to `high`
    (standard deviations from the mean; their own deviation is therefore less than `std`)."""
    edge = float(np.nextafter(np.float32(1), np.float32(0)))
    first, last = (max(-edge, min(edge, math.erf(x / math.sqrt(2)))) for x in (low, high))
    samples = inverse_erf(uniform(key, shape, first, last, dtype.computed)) * math.sqrt(2)
    inside: Value = samples.clip(low, high)
    return cast(inside * std + mean, dtype)


def bernoulli(key: Value, p: Any, shape: Sequence[Any]) -> Value:
    """Random bool: true with probability `p` (a number, or a value that broadcasts); 0 and 1 are
    exact."""
    result: Value = uniform(key, shape) < p
    return result


def randint(key: Value, shape: Sequence[Any], low: int, high: int) -> Value:
    """Random i64, uniform over low ≤ x < high (at most 2³¹ numbers, of chances equal to 2⁻³²)."""
    if not 0 < high - low <= RANGE // 2:
        raise ModelError(f"randint: there must be 1 to 2³¹ numbers from {low} to below {high}")
    wide = cast(random_bits(key, shape), i64)
    return wide * (high - low) // RANGE + low


def permutation(key: Value, size: Any) -> Value:
    """The numbers 0 … size − 1 in random order, i64."""
    return argsort(random_bits(key, (size,)))


def dropout(
    x: Any, rate: float, salt: int | str, *values: Any, shape: Sequence[Any] | None = None
) -> Value:
    """`x` with elements set to zero at the given rate and the others divided by `1 − rate`; `x`
    itself in the inference graph.

    What is dropped follows from the seed, the step, `values` (such as the iteration of a loop)
    and the salt. `shape` is that of the choices, which broadcasts to the shape of `x`: 1 along an
    axis keeps or drops all of it together. Raises `ModelError` for a rate that is not within
    0 … 1.
    """
    x = as_value(x)
    if not 0 <= rate <= 1:
        raise ModelError(f"dropout: the rate must be in [0, 1], got {rate}")
    key = random_key(salt, seed_leaf(), step_leaf(), *values)
    bits = broadcast_to(random_bits(key, x.shape if shape is None else shape), x.shape)
    return while_training(Dropout(float(rate))(x, bits), x)
