"""Cards whose value is their first argument: marks for gradients, modes and evaluations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nncompile.diagnostics.errors import GradientError
from nncompile.diagnostics.locations import spoken
from nncompile.ir.basic import as_value, broadcast_to, cast
from nncompile.ir.dims import same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import AnyType, Op, Sample, Value, apply
from nncompile.ir.types import f32, f64, i64


class Mark(Op):
    """The first argument itself, with its slope; the others have none.

    The pass `release` takes marks off: what they say is meant for those that come before it.
    """

    moves = True

    def infer(self, *types: Any) -> AnyType:
        result: AnyType = types[0]
        return result

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return (g if y.dtype.is_float else None, *(None for _ in args[1:]))

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        return places[0]  # the others have no part in the value

    def numpy(self, *arrays: Any) -> Any:
        return arrays[0]

    def onnx(self, o: OnnxEmitter, *args: Any) -> Any:
        return args[0]

    def torch(self, t: TorchEmitter, *args: Any) -> Any:
        return args[0]

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", 3],))
        yield Sample(cls(), (i64[2, "n"],), integers=(-9, 9))
        yield Sample(cls(), (f64[3],))


class Held(Mark):
    """`x` itself, which is differentiated at: what rewrites must keep."""


class Reroute(Mark):
    """The first argument, with a slope that the user declares: `slope(g, y, *inputs)` gives those
    at `inputs`, and nothing flows through the first argument."""

    slope: Callable[..., Any]
    differentiable = False  # its slope is what was declared, not its derivative

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        inputs = args[1:]
        result = self.slope(g, y, *inputs)
        slopes = result if isinstance(result, tuple | list) else (result,)
        name = getattr(self.slope, "__name__", repr(self.slope))
        if len(slopes) != len(inputs):
            raise GradientError(
                f"the declared gradient {name} returns {len(slopes)} gradients for "
                f"{len(inputs)} inputs",
                hint="return one gradient for each input, None for an input without one",
            )
        return (
            None,
            *(None if s is None else _fitted(s, x) for s, x in zip(slopes, inputs, strict=True)),
        )

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(_straight_through), (f32["n", 2], f32["n", 2]))


def _straight_through(g: Value, y: Value, x: Value) -> Value:
    return g


def _fitted(slope: Any, x: Value) -> Value:
    """A declared slope in the type of the input."""
    slope = cast(as_value(slope, x), x.dtype)
    return slope if same_shape(slope.shape, x.shape) is True else broadcast_to(slope, x.shape)


def custom_gradient(slope: Callable[..., Any]) -> Callable[[Callable[..., Value]], Any]:
    """Declares the gradient of a function of values.

    `slope(g, y, *inputs)` gets the slope at the result, the result and the inputs, and returns
    the slopes at the inputs: one value, or a tuple with None where there is none. It is part of
    the graph, so gradients of higher order differentiate it.

    >>> @custom_gradient(lambda g, y, x: clip(g, -1, 1))
    ... def with_clipped_gradient(x):
    ...     return x
    """

    def decorate(function: Callable[..., Value]) -> Callable[..., Value]:
        @functools.wraps(function)
        @spoken()
        def wrapper(*inputs: Any) -> Value:
            values = [as_value(x) for x in inputs]
            return apply(Reroute(slope), as_value(function(*values)), *values)

        return wrapper

    return decorate
