"""Ops whose value is their first argument, annotated for gradients, modes or evaluations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nncompile.diagnostics.errors import GradientError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import message_name
from nncompile.ir.basic import as_value, cast
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import AnyType, f32, f64, i64


class Annotation(Op):
    """The first argument itself, with its gradient; the others have none.

    The pass `release` takes annotations off: they are for the passes that come before it.
    """

    moves = True

    def infer(self, *types: Any) -> AnyType:
        result: AnyType = types[0]
        return result

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return (g if y.dtype.is_float else None, *(None for _ in args[1:]))

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        return row_axes[0]  # the others have no part in the value

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


class GradientAnchor(Annotation):
    """`x` itself, which is differentiated at: what rewrites must keep."""


class CustomVjp(Annotation):
    """The first argument, with a gradient that the user declares: `gradient(g, y, *inputs)` gives
    those at `inputs`, and nothing flows through the first argument."""

    gradient: Callable[..., Any]
    differentiable = False  # its gradient is what was declared, not its derivative

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        inputs = args[1:]
        result = self.gradient(g, y, *inputs)
        gradients = result if isinstance(result, tuple | list) else (result,)
        name = getattr(self.gradient, "__name__", repr(self.gradient))
        if len(gradients) != len(inputs):
            raise GradientError(
                f"the declared gradient {name} returns {len(gradients)} gradients for "
                f"{len(inputs)} inputs",
                hint="return one gradient for each input, None for an input without one",
            )
        return (
            None,
            *(None if g is None else _fitted(g, x) for g, x in zip(gradients, inputs, strict=True)),
        )

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(_straight_through), (f32["n", 2], f32["n", 2]))


def _straight_through(g: Value, y: Value, x: Value) -> Value:
    return g


def _fitted(gradient: Any, x: Value) -> Value:
    """A declared gradient in the type of the input."""
    gradient = cast(as_value(gradient, x), x.dtype)
    return (
        gradient if same_shape(gradient.shape, x.shape) is True else broadcast_to(gradient, x.shape)
    )


@suggests_names
def custom_gradient(gradient: Callable[..., Any]) -> Callable[[Callable[..., Value]], Any]:
    """Declares the gradient of a function of values.

    `gradient(g, y, *inputs)` gets the gradient at the result, the result and the inputs, and
    returns the gradients at the inputs: one value, or a tuple with None where there is none. It is
    part of the graph, so gradients of higher order differentiate it.

    >>> @custom_gradient(lambda g, y, x: clip(g, -1, 1))
    ... def with_clipped_gradient(x):
    ...     return x
    """

    def decorate(function: Callable[..., Value]) -> Callable[..., Value]:
        @functools.wraps(function)
        @message_name()
        def wrapper(*inputs: Any) -> Value:
            values = [as_value(x) for x in inputs]
            return apply(CustomVjp(gradient), as_value(function(*values)), *values)

        return wrapper

    return decorate
