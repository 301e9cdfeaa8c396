"""What parameters start with, as values over the seed: the same seed gives the same weights.

An initializer is a function of the parameter's type, a random key of its own and its fans (how many
numbers enter into and leave each output), which gives a value of that type. A number or an array
stands for itself.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from nncompile.diagnostics.errors import CompileError, ModelError, ShapeError
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.diagnostics.locations import located, message_name, user_location
from nncompile.diagnostics.options import not_negative, real
from nncompile.ir.op import Value
from nncompile.ir.transform import Computation
from nncompile.ir.types import Array, Type, boolean, check_unmasked, f64, is_numeric
from nncompile.ops import broadcast_to, cast, const, full, reshape, transpose
from nncompile.ops.random import generator as random
from nncompile.optim.muon import orthogonalised

Fans = tuple[int, int]
Initializer = Callable[[Type, Value, Fans], Value]


def _itself(function: Callable[[Type, Value, Fans], Value]) -> Callable[..., Any]:
    """An initializer that is one as it is, and stays itself where it is called as those that take
    numbers are: `init=zeros()`."""
    signature = inspect.signature(function)
    called = suggests_names(function)

    @functools.wraps(function)
    @message_name()
    def initializer(*args: Any, **options: Any) -> Any:
        if not args and not options:
            return initializer
        try:
            signature.bind(*args, **options)
        except TypeError:
            raise _takes_nothing(function.__name__) from None
        return called(*args, **options)

    return initializer


def _takes_nothing(name: str) -> ModelError:
    return ModelError(
        f"{name} is an initializer, which takes no options",
        hint=f"init={name}; its random numbers follow from the recipe's seed, and "
        "full(shape, number) is a tensor",
    )


@_itself
def zeros(type_: Type, key: Value, fans: Fans) -> Value:
    """All 0."""
    return full(type_.shape, 0, type_.dtype)


@_itself
def ones(type_: Type, key: Value, fans: Fans) -> Value:
    """All 1."""
    return full(type_.shape, 1, type_.dtype)


@suggests_names
def constant(number: Any) -> Initializer:
    """The number everywhere, or the array of the parameter's shape. Raises `ModelError` for what is
    neither."""
    array_like = _numbers(number)

    def initializer(type_: Type, key: Value, fans: Fans) -> Value:
        if array_like.dtype.kind == "b" and type_.dtype is not boolean:
            raise _no_start(number)
        array = array_like.astype(type_.dtype.numpy)
        if array.shape not in ((), type_.shape):
            raise ShapeError(f"the initial array has shape {array.shape}, the parameter is {type_}")
        return broadcast_to(const(array), type_.shape)

    return initializer


def _numbers(x: Any) -> Array:
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, CompileError):
        raise _no_start(x) from None
    check_unmasked(x, "the first value", ModelError)
    if not is_numeric(array.dtype):
        raise _no_start(x)
    return array


def _no_start(x: Any) -> ModelError:
    return ModelError(
        f"an initial value must be a number, an array or an initializer, got {x!r}",
        hint="init=he_uniform, or init=normal(0.05), imported from dsl",
    )


@suggests_names
def normal(std: float = 0.05, mean: float = 0.0) -> Initializer:
    """Normally distributed. Raises `ModelError` for a negative deviation."""
    std, mean = not_negative("std", std), real("mean", mean)
    return lambda type_, key, fans: random.normal(key, type_.shape, mean, std, type_.dtype)


@suggests_names
def truncated_normal(std: float = 0.05, mean: float = 0.0) -> Initializer:
    """Normally distributed, cut off at two standard deviations (of the uncut distribution). Raises
    `ModelError` for a negative deviation."""
    std, mean = not_negative("std", std), real("mean", mean)
    return lambda type_, key, fans: random.truncated_normal(
        key, type_.shape, mean, std, dtype=type_.dtype
    )


@suggests_names
def uniform(low: float = -0.05, high: float = 0.05) -> Initializer:
    """Uniform in [low, high). Raises `ModelError` where low is not below high."""
    low, high = real("low", low), real("high", high)
    if not low < high:
        raise ModelError(f"uniform: low must be below high, got {low} and {high}")
    return lambda type_, key, fans: random.uniform(key, type_.shape, low, high, type_.dtype)


# The standard deviation of a unit normal that is cut off at ±2.
_TRUNCATED_STD = 0.87962566103423978


@suggests_options
@dataclass(frozen=True)
class VarianceScaling:
    """Mean 0 and variance `scale / fan`, which keeps the size of what flows through a layer.

    `fan` is the number that enter into an output (`in`), that it goes on to (`out`), or the mean
    of both (`average`).
    """

    scale: float
    fan: Literal["in", "out", "average"]
    distribution: Literal["uniform", "normal", "truncated"]

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not args and not options:  # as it is written in Keras: init=he_normal()
            return self
        if len(args) != 3 or options:
            raise _takes_nothing(next((n for n, x in SCALED.items() if x is self), repr(self)))
        return self._sample(*args)

    def _sample(self, type_: Type, key: Value, fans: Fans) -> Value:
        by_name = {"in": fans[0], "out": fans[1], "average": sum(fans) / 2}
        std = math.sqrt(self.scale / max(by_name[self.fan], 1))
        match self.distribution:
            case "uniform":
                limit = math.sqrt(3) * std
                return uniform(-limit, limit)(type_, key, fans)
            case "normal":
                return normal(std)(type_, key, fans)
            case "truncated":
                return truncated_normal(std / _TRUNCATED_STD)(type_, key, fans)


# Glorot & Bengio 2010: the same variance forward and backward, for tanh and linear layers.
glorot_uniform = VarianceScaling(1, "average", "uniform")
glorot_normal = VarianceScaling(1, "average", "normal")
# He et al. 2015: the same variance forward, where a ReLU takes away half of it.
he_uniform = VarianceScaling(2, "in", "uniform")
he_normal = VarianceScaling(2, "in", "normal")
# LeCun et al. 1998: the same variance forward; what SELU is made for.
lecun_uniform = VarianceScaling(1, "in", "uniform")
lecun_normal = VarianceScaling(1, "in", "normal")


# The same by their authors' first names.
xavier_uniform, xavier_normal = glorot_uniform, glorot_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal

SCALED = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
}


@suggests_names
def orthogonal(gain: float = 1.0) -> Initializer:
    """A random matrix with orthogonal rows or columns, whichever are fewer, of length `gain`
    (Saxe, McClelland & Ganguli 2014): what it multiplies keeps its length. Of more than two axes,
    the first is one side of the matrix and all others together the other, as in torch.

    It is the orthogonal factor of the polar decomposition of a matrix of normal numbers, which is
    distributed evenly over all orthogonal matrices, by Newton–Schulz iteration in float64.
    """

    def initializer(type_: Type, key: Value, fans: Fans) -> Value:
        if type_.rank < 2:
            raise ShapeError(
                f"an orthogonal matrix needs at least two axes, the parameter is {type_}",
                hint="init=normal(0.05) initializes a vector",
            )
        rows, columns = int(type_.shape[0]), math.prod(map(int, type_.shape[1:]))
        noise = random.normal(key, (rows, columns))
        # Twelve rounds bring all singular values near one, four make them one.
        near = cast(orthogonalised(noise, 12), f64)
        matrix = near if rows <= columns else transpose(near)
        for _ in range(4):
            gram = matrix @ transpose(matrix)
            matrix = 1.875 * matrix + (-1.25 * gram + 0.375 * (gram @ gram)) @ matrix
        matrix = matrix if rows <= columns else transpose(matrix)
        return cast(reshape(gain * matrix, type_.shape), type_.dtype)

    return initializer


@suggests_names
def identity_matrix(gain: float = 1.0) -> Initializer:
    """`gain` on the diagonal of a matrix, 0 beside it: a layer that passes on what it gets (Le,
    Jaitly & Hinton 2015, for recurrent weights)."""

    def initializer(type_: Type, key: Value, fans: Fans) -> Value:
        if type_.rank != 2:
            raise ShapeError(f"an identity matrix needs two axes, the parameter is {type_}")
        rows, columns = map(int, type_.shape)
        return const(gain * np.eye(rows, columns), type_.dtype)

    return initializer


def default_fans(shape: tuple[int, ...]) -> Fans:
    """Of weights `[..., in, out]`; each index of the axes before these is a tap."""
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    taps = math.prod(shape[:-2])
    return shape[-2] * taps, shape[-1] * taps


@dataclass
class InitialValues:
    """What the parameters of a model start with. An initializer of ours is asked once for each
    type, and what it answers is drawn with the keys of others."""

    _known: dict[object, Computation] = field(default_factory=dict)

    def of(self, init: Any, type_: Type, path: str, fans: Fans | None) -> Value:
        """The value that `init` gives for the parameter `path`. Raises `ModelError` where it gives
        no value, and `ShapeError` where that has another shape than `type_`."""
        initializer = init if callable(init) else constant(init)
        fans = fans or default_fans(type_.shape)
        if not _is_ours(initializer):
            return _asked(initializer, type_, path, fans, _key_of(path))
        place = user_location()  # one for all of its nodes, which is looked for once
        with located(place):
            if initializer is not init:
                return _asked(initializer, type_, path, fans, _key_of(path))
            question = init, type_, fans
            known = self._known.get(question)
            if known is None:
                key = _key_of(path)
                start = _asked(init, type_, path, fans, key)
                self._known[question] = Computation([start], [key])
            elif known.is_fixed:
                (start,) = known.outputs
            else:
                (start,) = known.on(_key_of(path), at=place)
        return start


def _key_of(path: str) -> Value:
    return random.random_key(path, random.seed_leaf())


def _asked(
    initializer: Callable[..., Any], type_: Type, path: str, fans: Fans, key: Value
) -> Value:
    args = (type_, key, fans)
    try:
        return _checked(initializer(*args), type_, path)
    except (TypeError, CompileError):
        if _takes(initializer, args):
            raise
    name = getattr(initializer, "__name__", repr(initializer))
    raise ModelError(
        f"the initializer of {path} must be a function of type, key and fans, got {name}",
        hint=f"{name}(...) may return one: init=normal(0.05)",
    )


def _is_ours(initializer: Callable[..., Any]) -> bool:
    """Whether it is made of functions of this file alone."""
    return __name__ in (getattr(initializer, "__module__", ""), type(initializer).__module__)


def _checked(value: Any, type_: Type, path: str) -> Value:
    if not isinstance(value, Value):
        raise ModelError(
            f"the initializer of {path} returned {type(value).__name__}, not a value of type "
            f"{type_}",
            hint="normal, uniform, truncated_normal and constant take numbers: init=normal(0.05)",
        )
    if value.dtype is not type_.dtype:
        value = cast(value, type_.dtype)
    if value.shape != type_.shape:
        raise ShapeError(
            f"the initializer of {path} returned {value.type}, the parameter is {type_}"
        )
    start: Value = value
    return start


def _takes(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    try:
        inspect.signature(function).bind(*args)
    except TypeError:
        return False
    return True


__all__ = [
    "VarianceScaling",
    "constant",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity_matrix",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]
