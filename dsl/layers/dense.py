"""Layers: dense, dropout, flattening, and their composition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from typing import Any, Self

from dsl.activations import prelu
from dsl.building import active
from dsl.initializers import glorot_uniform, uniform, zeros
from dsl.layers.base import Layer
from dsl.layers.known_sizes import known_size
from dsl.layers.noise import probability_of
from dsl.layers.preprocessing.adapted import adapt_in_order
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value, floating
from nncompile.ir.dims import Dim, same_shape
from nncompile.ir.op import Value
from nncompile.ops import dropout as drop
from nncompile.ops import expand_dims, reshape, squeeze, transpose
from nncompile.ops import flatten as flat

Function = Callable[[Any], Any]


class Dense(Layer):
    """activation(x·W + b) along the last axis: `[..., n]` to `[..., out_features]`.

    Parameters `weight` f32[n, out_features] and `bias` f32[out_features], of the element type of x.
    Weights start Glorot uniform, which keeps the variance of what goes forward and of the gradients
    that come back whatever the activation; biases start at zero. Raises `ShapeError` for a scalar x
    or one whose last size only the data tell, `DTypeError` where it is not floating.
    """

    out_features: Dim
    activation: Function | None = None
    bias: bool = True
    init: Any = glorot_uniform
    bias_init: Any = zeros

    def __post_init__(self) -> None:
        if self.activation is not None and not callable(self.activation):
            raise ModelError(
                f"the activation of Dense must be a function, got {self.activation!r}",
                hint=f"Dense({self.activation}) alone is enough: the width of x is inferred"
                if isinstance(self.activation, int)
                else "Dense(8, relu), with relu from dsl",
            )

    def __call__(self, x: Any) -> Value:
        hint = "x.astype(f32) converts; one_hot(x, n) is for class indices"
        x = floating("Dense", x, hint)
        features = known_size(f"Dense needs a last axis of known size, x is {x.type}", x, -1)
        y: Value = x @ self.parameter("weight", (features, self.out_features), self.init, x.dtype)
        if self.bias:
            y = y + self.parameter("bias", self.out_features, self.bias_init, x.dtype)
        if self.activation is not None:
            y = self.activation(y)
        return y


class Bilinear(Layer):
    """activation(xᵀ·W·y + b) of two values, `layer(x, y)`: `[..., n]` and `[..., m]`, with the same
    leading axes, to `[..., out_features]`, as torch's.

    Parameters `weight` f32[out_features, n, m] and `bias` f32[out_features], both uniform in ±1/√n
    at first, as torch's. Raises `ShapeError` where the leading axes differ or only the data tell n
    or m, `DTypeError` where x and y are not floating and of one element type.
    """

    out_features: Dim
    activation: Function | None = None
    bias: bool = True
    init: Any = None
    bias_init: Any = None

    def __post_init__(self) -> None:
        whole_number("out_features of Bilinear", self.out_features, 0)

    def __call__(self, x: Any, y: Any) -> Value:
        x, y = floating("Bilinear", x), floating("Bilinear", y)
        rows = [("x", str(x.type)), ("y", str(y.type))]
        if x.dtype is not y.dtype:
            raise DTypeError("Bilinear: the element types of x and y differ", rows=rows)
        if not x.rank or not y.rank or same_shape(x.shape[:-1], y.shape[:-1]) is not True:
            raise ShapeError("Bilinear: x and y have different leading axes", rows=rows)
        n, m = (
            known_size(f"Bilinear needs last axes of known size, {name} is {v.type}", v, -1)
            for name, v in (("x", x), ("y", y))
        )
        limit = 1 / math.sqrt(max(n, 1))
        start = uniform(-limit, limit)
        init = start if self.init is None else self.init
        weight = self.parameter(
            "weight", (self.out_features, n, m), init, x.dtype, (n * m, self.out_features)
        )
        # A product with all of it at once, and then one for each row.
        wide = x @ reshape(transpose(weight, (1, 0, 2)), (n, self.out_features * m))
        rows_of_y = reshape(wide, (*x.shape[:-1], self.out_features, m))
        z: Value = squeeze(rows_of_y @ expand_dims(y, -1), -1)
        if self.bias:
            bias_init = start if self.bias_init is None else self.bias_init
            z = z + self.parameter("bias", self.out_features, bias_init, x.dtype)
        return z if self.activation is None else self.activation(z)


class Dropout(Layer):
    """While training, each number is zero with probability `p`, the others are divided by
    1 − p; otherwise x itself. Raises `ModelError` for a p outside [0, 1)."""

    p: float = 0.5

    def __post_init__(self) -> None:
        probability_of("p of Dropout", self.p)

    def __call__(self, x: Any) -> Value:
        return drop(as_value(x), self.p, salt=active("Dropout").salt())


@suggests_names
def flatten(x: Any, start_dim: int = 1) -> Value:
    """All axes from `start_dim` on as one: f32[batch, 1, 8, 8] to f32[batch, 64]. Raises
    `ShapeError` where x has no axis `start_dim`."""
    return flat(x, start_dim)


class Flatten(Layer):
    """`flatten` as a layer."""

    start_dim: int = 1

    def __call__(self, x: Any) -> Value:
        return flatten(x, self.start_dim)


class Sequential(Layer):
    """The layers and functions one after another: `Sequential(Dense(64, relu), Dense(10))`."""

    layers: tuple[Function, ...]

    def __init__(self, *layers: Function, name: str | None = None) -> None:
        for layer in layers:
            if not callable(layer):
                raise ModelError(
                    f"{type(self).__name__} takes layers and functions, got {layer!r}",
                    hint="pass them one by one, not as a list: Sequential(Dense(8), relu)",
                )
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "name", name)

    def __call__(self, x: Any) -> Value:
        y: Value = x
        for layer in self.layers:
            y = layer(y)
        return y

    def adapt(self, data: Any) -> Self:
        """Adapts the layers that have an `adapt` (`Impute`, `Standardize`, ...) to an array, each
        to what the ones before make of it, and returns this layer. Raises `ModelError` where there
        is none, and behind layers with weights."""
        adapt_in_order(self.layers, data)
        return self


class Residual(Sequential):
    """x + f(x), f the layers and functions one after another; f keeps the shape of x."""

    def __call__(self, x: Any) -> Value:
        y: Value = as_value(x) + super().__call__(x)
        return y


class PReLU(Layer):
    """x above 0 and slope·x below (K. He et al., "Delving deep into rectifiers", 2015), with one
    trained slope for all of x, as torch's `PReLU()`, or one for each place on `axis`: `axis=1` is
    the channels of `[batch, channels, *sizes]` (torch's `PReLU(channels)`, and Keras's with the
    other axes shared), -1 the features. All other sizes may be symbolic.

    Parameter `slope`, f32[] or f32[n], starts at 0.25. Raises `ShapeError` where x has no such axis
    or only the data tell its size, `DTypeError` where x is not floating.
    """

    axis: int | None = field(default=None, kw_only=True)  # first, it would be mistaken for a number
    init: Any = field(default=0.25, kw_only=True)

    def __post_init__(self) -> None:
        if self.axis is not None:
            whole_number("the axis of PReLU", self.axis)

    def __call__(self, x: Any) -> Value:
        x = floating("PReLU", x)
        if self.axis is None:
            shared: Value = prelu(x, self.parameter("slope", (), self.init, x.dtype))
            return shared
        count = known_size(
            f"PReLU needs an axis {self.axis} of known size, x is {x.type}",
            x,
            self.axis,
            "axis=1 is the channel axis, axis=-1 the feature axis; PReLU() has one slope for all",
        )
        slope = self.parameter("slope", count, self.init, x.dtype)
        behind = x.rank - 1 - self.axis % x.rank
        result: Value = prelu(x, reshape(slope, (*slope.shape, *(1,) * behind)))
        return result


__all__ = [
    "Bilinear",
    "Dense",
    "Dropout",
    "Flatten",
    "PReLU",
    "Residual",
    "Sequential",
    "flatten",
]
