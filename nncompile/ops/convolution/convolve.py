"""Convolution, its transpose, and the gradient at its weights, along any number of axes.

The three are one form, Σ g·conv(x, w), differentiated at g, x or w. It is linear in each of them,
so that the gradients of each are the other two, to any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from nncompile.diagnostics.errors import BackendError, ShapeError
from nncompile.ir.dims import Dim, Shape, dim, floordiv, product, same, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.native import Kernel, Native
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.convolution.by_example import by_example, goes_by_example
from nncompile.ops.convolution.checks import (
    beside_axes,
    check_channels,
    check_groups,
    check_operands,
    check_results,
    examples,
    kernel_of,
)
from nncompile.ops.convolution.lowering import convolution, transposed_convolution, weight_gradient
from nncompile.ops.convolution.reference import columns, scattered
from nncompile.ops.core.axes import example_by_example
from nncompile.ops.core.composition import composed_onnx
from nncompile.ops.reduction.sums import sum
from nncompile.ops.windows.convolution import Ints, Window

TORCH_AXES = (1, 2, 3)  # spatial axes that torch has convolutions for
NATIVE_AXES = (1, 2, 3)  # and native kernels


class Conv(Op, Native):
    """x[N, C, *sizes] with the kernels w[O, C/groups, *kernel] slid over it, plus bias[O] where
    there is one: `[N, O, *results]`.

    As in all such libraries the kernel is not turned round, so it is a cross-correlation:
    y[n, o, i] = Σ x[n, c, i·stride + k·dilation − pad]·w[o, c, k], with zeros beyond x. With
    `groups`, a result channel sees the input channels of its own group only.
    """

    strides: Ints
    pads: Ints
    dilations: Ints
    groups: int = 1

    def window(self, w: Type) -> Window:
        """What of x goes into a result, for weights of that type."""
        return Window(kernel_of(w), self.strides, self.pads, self.dilations)

    def infer(self, x: Type, weight: Type, bias: Type | None = None) -> Type:
        check_operands(x, weight, *(() if bias is None else (bias,)))
        check_channels("x", x, weight.shape[1], self.groups)
        outs = weight.shape[0]
        check_groups(outs, self.groups)
        if bias is not None and same_shape(bias.shape, (outs,)) is not True:
            raise ShapeError(f"the bias needs one number for each of {outs} channels, got {bias}")
        return Type(x.dtype, (x.shape[0], outs, *self.window(weight).results(x.shape[2:])))

    def pullback(self, g: Value, y: Value, x: Value, *args: Value) -> Sequence[Value | None]:
        w, *bias = args
        fields = self.strides, self.pads, self.dilations, self.groups
        gradients = (
            ConvTranspose(x.shape[2:], *fields)(g, w),
            ConvWeightGradient(kernel_of(w.type), *fields)(x, g),
        )
        return *gradients, *(sum(g, _all_but_channels(g)) for _ in bias)

    rowwise = example_by_example

    def numpy(self, x: Array, w: Array, *bias: Array) -> Array:
        window = Window(w.shape[2:], self.strides, self.pads, self.dilations)
        patches = columns(x, window, self.groups)
        y = w.reshape(self.groups, w.shape[0] // self.groups, patches.shape[2]) @ patches
        y = y.reshape(x.shape[0], w.shape[0], *window.results(x.shape[2:]))
        for b in bias:
            y = y + b.reshape(-1, *(1,) * window.rank)
        return y

    def onnx(self, o: OnnxEmitter, x: str, w: str, *bias: str) -> str:
        window = self.window(o.types[1])
        if o.type.dtype is f64:  # no kernel

            def composed(x: Value, w: Value, *bias: Value) -> tuple[Value]:
                y = convolution(x, w, window, self.groups)
                return (y + beside_axes(bias[0], window.rank) if bias else y,)

            return composed_onnx(o, composed, x, w, *bias)[0]
        # onnxruntime joins a padding with the convolution that it goes to, also one of the weights.
        w = o.apart(w, "Pad", "Cast", static=True)
        result: str = o.Conv(x, w, *bias, **_onnx_attributes(window, self.groups))
        return result

    def torch(self, t: TorchEmitter, x: str, w: str, *bias: str) -> str:
        window = self.window(t.types[1])
        x, pads = _torch_padded(t, x, window)
        function = f"torch.conv{_torch_axes(window)}d"
        bias_argument = bias[0] if bias else "None"
        where = list(window.strides), pads, list(window.dilations), self.groups
        return t.call(function, x, w, bias_argument, *where)

    def native(self, x: Type, w: Type, *bias: Type) -> Kernel | None:
        return _kernel("Convolution", x, self.window(w), self.groups)

    def macs(self, result: Type, x: Type, weight: Type, *bias: Type) -> Dim:
        return product((*result.shape, *weight.shape[1:]))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for (x, _, strides, pads, dilations, groups), w in examples():
            yield Sample(cls(strides, pads, dilations, groups), (f32[x], f32[w]))
        plain = cls((1, 2), (1, 0, 0, 1), (1, 1))
        yield Sample(plain, (f32["n", 2, "h + 2", 5], f32[3, 2, 3, 2], f32[3]))
        yield Sample(plain, (f64["n", 2, "h + 2", 5], f64[3, 2, 3, 2], f64[3]))
        yield Sample(cls((1, 1), (0,) * 4, (2, 1), 2), (f64["n", 4, 5, "m + 2"], f64[2, 2, 2, 2]))


class ConvTranspose(Op, Native):
    """x[N, O, *results] spread by the kernels w[O, C/groups, *kernel] over `[N, C, *sizes]`: the
    gradient at its argument of the convolution that makes `results` of `sizes`, and torch's
    transposed convolution, with weights laid out as there."""

    sizes: Shape
    strides: Ints
    pads: Ints
    dilations: Ints
    groups: int = 1

    def window(self, w: Type) -> Window:
        """What of the result an element of x is spread over, for weights of that type."""
        return Window(kernel_of(w), self.strides, self.pads, self.dilations)

    def infer(self, x: Type, weight: Type) -> Type:
        check_operands(x, weight)
        outs, ins = weight.shape[:2]
        check_groups(outs, self.groups)
        check_channels("x", x, outs, 1)
        check_results(x, self.window(weight).results(self.sizes), self.sizes)
        return Type(x.dtype, (x.shape[0], product((ins, self.groups)), *self.sizes))

    def pullback(self, g: Value, y: Value, x: Value, w: Value) -> Sequence[Value | None]:
        fields = self.strides, self.pads, self.dilations, self.groups
        return Conv(*fields)(g, w), ConvWeightGradient(kernel_of(w.type), *fields)(g, x)

    rowwise = example_by_example

    def numpy(self, x: Array, w: Array) -> Array:
        window = Window(w.shape[2:], self.strides, self.pads, self.dilations)
        (outs, ins), groups = w.shape[:2], self.groups
        kernels = w.reshape(groups, outs // groups, ins * math.prod(window.kernel))
        grouped = x.reshape(x.shape[0], groups, outs // groups, math.prod(x.shape[2:]))
        return scattered(kernels.swapaxes(1, 2) @ grouped, window, self.sizes)

    def onnx(self, o: OnnxEmitter, x: str, w: str) -> str:
        window = self.window(o.types[1])
        if o.type.dtype is f64:  # no kernel

            def composed(x: Value, w: Value) -> tuple[Value]:
                return (transposed_convolution(x, w, window, self.groups, self.sizes),)

            return composed_onnx(o, composed, x, w)[0]
        missing = self._missing(window, o.types[0].shape[2:])
        attributes = _onnx_attributes(window, self.groups)
        if all(isinstance(n, int) for n in missing):
            result: str = o.ConvTranspose(x, w, output_padding=missing, **attributes)
            return result
        # How much is missing depends on the sizes: as much as there may be, and what is too much
        # is cut off.
        paddings = [s - 1 for s in window.strides]
        longest = o.ConvTranspose(x, w, output_padding=paddings, **attributes)
        axes = o.ints(range(2, 2 + window.rank))
        return o.Slice(longest, o.ints([0] * window.rank), o.shape(self.sizes), axes)

    def _missing(self, window: Window, results: Shape) -> list[Dim]:
        """How much larger x is than what the windows cover, along each axis: less than the stride,
        and lost in rounding down when the windows were counted."""
        axes = zip(results, window.strides, window.extents, strict=True)
        full: Any = [(n - 1) * s + extent for n, s, extent in axes]
        return [dim(n - m) for n, m in zip(window.padded(self.sizes), full, strict=True)]

    def torch(self, t: TorchEmitter, x: str, w: str) -> str:
        window = self.window(t.types[1])
        function = f"torch.conv_transpose{_torch_axes(window)}d"
        missing = self._missing(window, t.types[0].shape[2:])
        strides, dilations = list(window.strides), list(window.dilations)
        if window.is_symmetric:
            sides = list(window.before), t.shape(missing)
            return t.call(function, x, w, "None", strides, *sides, self.groups, dilations)
        zeros = [0] * window.rank
        full = t.call(function, x, w, "None", strides, zeros, zeros, self.groups, dilations)
        after: Any = [m - a for m, a in zip(missing, window.after, strict=True)]
        pairs = list(zip(window.before, after, strict=True))[::-1]
        cut = [dim(width) for b, a in pairs for width in (-b, a)]
        return t.call("torch.nn.functional.pad", full, t.shape(cut))

    def native(self, x: Type, w: Type) -> Kernel | None:
        if not all(isinstance(n, int) for n in self.sizes):
            return None
        sizes: Any = self.sizes
        return _kernel("ConvolutionInputGradient", x, self.window(w), self.groups, sizes=sizes)

    def macs(self, result: Type, x: Type, weight: Type) -> Dim:
        return product((*x.shape, *weight.shape[1:]))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for (x, results, strides, pads, dilations, groups), w in examples():
            sizes = f32[x].shape[2:]
            source = f32[(x[0], w[0], *results)]
            yield Sample(cls(sizes, strides, pads, dilations, groups), (source, f32[w]))
        sizes = (dim("h + 2"), 6)
        op = cls(sizes, (1, 2), (1, 0, 0, 1), (2, 1))
        yield Sample(op, (f64["n", 3, "h + 1", 3], f64[3, 2, 2, 3]))
        op = cls(sizes, (2, 2), (0, 2, 1, 0), (1, 1), 2)
        yield Sample(op, (f64["n", 4, "(h + 3)//2", 4], f64[4, 1, 2, 1]))


class ConvWeightGradient(Op, Native):
    """x[N, C, *sizes] and gradient[N, O, *results] to `[O, C/groups, *kernel]`: the gradient of a
    convolution at its weights from the gradient at its results, Σ over the batch and the results of
    that gradient times what the window sees of x."""

    kernel: Ints
    strides: Ints
    pads: Ints
    dilations: Ints
    groups: int = 1
    mixes = True

    @property
    def window(self) -> Window:
        """What of x goes into a result."""
        return Window(self.kernel, self.strides, self.pads, self.dilations)

    def infer(self, x: Type, gradient: Type) -> Type:
        check_operands(x, gradient)
        check_groups(x.shape[1], self.groups)
        check_groups(gradient.shape[1], self.groups)
        if same(x.shape[0], gradient.shape[0]) is not True:
            raise ShapeError(f"{x} and {gradient} are not known to have the same batch size")
        check_results(gradient, self.window.results(x.shape[2:]), x.shape[2:])
        ins = floordiv(x.shape[1], self.groups)
        return Type(x.dtype, (gradient.shape[1], ins, *self.kernel))

    def pullback(self, g: Value, y: Value, x: Value, gradient: Value) -> Sequence[Value | None]:
        fields = self.strides, self.pads, self.dilations, self.groups
        return ConvTranspose(x.shape[2:], *fields)(gradient, g), Conv(*fields)(x, g)

    def numpy(self, x: Array, gradient: Array) -> Array:
        patches = columns(x, self.window, self.groups)
        (batch, outs), groups = gradient.shape[:2], self.groups
        grouped = gradient.reshape(batch, groups, outs // groups, patches.shape[3])
        total: Array = (grouped @ patches.swapaxes(2, 3)).sum(0, dtype=x.dtype)
        return total.reshape(outs, x.shape[1] // groups, *self.kernel)

    def onnx(self, o: OnnxEmitter, x: str, gradient: str) -> str:
        loops = goes_by_example(o, self.window, self.groups)

        def composed(x: Value, gradient: Value) -> tuple[Value]:
            if loops:
                return (by_example(x, gradient, self.window),)
            return (weight_gradient(x, gradient, self.window, self.groups),)

        return composed_onnx(o, composed, x, gradient)[0]

    def torch(self, t: TorchEmitter, x: str, gradient: str) -> str:
        window = self.window
        _torch_axes(window)
        x, pads = _torch_padded(t, x, window)
        where = list(window.strides), pads, list(window.dilations), self.groups
        args = ", ".join(map(t.text, (x, gradient, t.type.shape, *where)))
        # torch.export cannot choose by a size that only data tell.
        function = "convolution_weight_gradient" + ("_of_few" if t.scans else "")
        return t.emit(f"{function}({args})", "weight_gradient")

    def native(self, x: Type, gradient: Type) -> Kernel | None:
        kernel = self.window.kernel
        return _kernel("ConvolutionWeightGradient", x, self.window, self.groups, kernel=kernel)

    def macs(self, result: Type, x: Type, gradient: Type) -> Dim:
        return product((*gradient.shape, *result.shape[1:]))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for (x, results, strides, pads, dilations, groups), w in examples():
            op = cls(w[2:], strides, pads, dilations, groups)
            yield Sample(op, (f32[x], f32[(x[0], w[0], *results)]))
        square = cls((3, 3), (1, 1), (1,) * 4, (1, 1))
        yield Sample(square, (f32["n", 16, "h", "m"], f32["n", 2, "h", "m"]))
        yield Sample(square, (f64["n", 2, "h", "m"], f64["n", 2, "h", "m"]))


def _all_but_channels(x: Value) -> Ints:
    return (0, *range(2, x.rank))


def _onnx_attributes(window: Window, groups: int) -> dict[str, Any]:
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.strides),
        "pads": list(window.pads),
        "dilations": list(window.dilations),
        "group": groups,
    }


def _kernel(name: str, x: Type, window: Window, groups: int, **sizes: Ints) -> Kernel | None:
    """A native kernel, for float32 along up to three axes."""
    if x.dtype is not f32 or window.rank not in NATIVE_AXES:
        return None
    attributes = _onnx_attributes(window, groups)
    del attributes["kernel_shape"]
    return Kernel(name, **attributes, **sizes)


def _torch_axes(window: Window) -> int:
    if window.rank not in TORCH_AXES:
        raise BackendError(f"torch has no convolution along {window.rank} axes")
    return window.rank


def _torch_padded(t: TorchEmitter, x: str, window: Window) -> tuple[str, list[int]]:
    """x and the padding that is left to do: torch's is as large before an axis as after it."""
    if window.is_symmetric:
        return x, list(window.before)
    pairs = list(zip(window.before, window.after, strict=True))[::-1]
    widths = [width for pair in pairs for width in pair]
    return t.call("torch.nn.functional.pad", x, widths), [0] * window.rank
