"""Convolutions: torch's numbers and slopes, node lists of the slope at the weights, sizes that only
the data tell, padding by name, layers, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64, i64, model, relu, sgd, training
from nncompile.backends.onnx import to_model
from nncompile.compiler import compile_model, compile_step
from nncompile.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.grad import vjp
from nncompile.graph import Graph, Value
from nncompile.ops import conv, conv_transpose
from nncompile.ops.convolution import Conv, ConvTranspose, ConvWeightGradient
from nncompile.reference import evaluate
from nncompile.step import initial_values
from nncompile.types import Array, DType, Type
from tests.card_checks import session, valid_model
from tests.pass_checks import after
from tests.slopes import leaf
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional

NAMES = "hdw"  # of spatial sizes


@dataclass(frozen=True)
class Setting:
    """A convolution's options and sizes, drawn at random."""

    seed: int
    rank: int
    ins: int
    outs: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    more: tuple[int, ...]  # output padding

    @property
    def options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self, batch: int, first: int, transposed: bool = False) -> list[Array]:
        """x, w and bias; spatial sizes from `first` on, at least as large as the kernel."""
        rng = np.random.default_rng(self.seed)
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        sizes = [max(span, first + i) for i, span in enumerate(spans)]
        channels = self.outs if not transposed else self.ins
        other = self.outs if transposed else self.ins
        shapes = [
            (batch, self.ins, *sizes),
            (channels, other // self.groups, *self.kernel),
            (self.outs,),
        ]
        return [rng.uniform(-1, 1, shape) for shape in shapes]

    def types(self, dtype: DType, transposed: bool = False) -> list[Type]:
        """Those of the arrays, with names for the batch and the spatial sizes."""
        _, w, b = self.arrays(1, 1, transposed)
        names = NAMES[: self.rank]
        return [dtype["n", self.ins, *names], dtype[w.shape], dtype[b.shape]]


def drawn(seed: int) -> Setting:
    rng = np.random.default_rng(seed)
    rank = 1 + seed % 3
    groups = int(rng.choice([1, 1, 2, 3]))
    ins, outs = (groups * int(n) for n in rng.choice([1, 2, 3, 9], 2))

    def each(numbers: list[int]) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.choice(numbers, rank))

    stride = each([1, 1, 2, 3]) if seed % 2 else (1,) * rank
    dilation = each([1, 1, 2])
    more = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
    kernel = each([1, 2, 3])
    return Setting(seed, rank, ins, outs, groups, kernel, stride, each([0, 1, 2]), dilation, more)


SETTINGS = [drawn(seed) for seed in range(20)]
each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"seed{s.seed}")


def with_slopes(y: Value, leaves: list[Value]) -> Graph:
    """y, and the slopes at the leaves from one at y, which is an input, too."""
    g = leaf("g", y.type)
    slopes = vjp([y], leaves, [g])
    named = {f"slope{i}": s for i, s in enumerate(slopes)}
    return Graph("test", {"y": y, **named}, (*leaves, g))


def torchs(function: Callable[..., Any], arrays: list[Array]) -> tuple[dict[str, Array], Array]:
    """The same numbers in torch, in double, and the slope that they come from."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = function(*tensors)
    g = torch.tensor(np.random.default_rng(1).uniform(-1, 1, y.shape))
    slopes = torch.autograd.grad(y, tensors, g)
    found = {f"slope{i}": s.numpy() for i, s in enumerate(slopes)}
    return {"y": y.detach().numpy(), **found}, g.numpy()


def check_everywhere(
    ours: Callable[..., Value],
    theirs: Callable[..., Any],
    types: Callable[[DType], list[Type]],
    data: list[list[Array]],
) -> None:
    """Values and slopes are torch's: in numpy, and in onnxruntime for both element types, where one
    file runs at all sizes."""
    for dtype in (f64, f32):
        leaves = [leaf(f"x{i}", t) for i, t in enumerate(types(dtype))]
        graph = with_slopes(ours(*leaves), leaves)
        run = session(valid_model(graph))
        for arrays in data:
            expected, g = torchs(theirs, arrays)
            feeds = {f"x{i}": a for i, a in enumerate(arrays)} | {"g": g}
            given = {name: a.astype(dtype.numpy) for name, a in feeds.items()}
            if dtype is f64:
                for name, found in evaluate(graph, given).items():
                    assert_close(found, expected[name], "float64", f"numpy {name}")
            results = run(given, {name: a.shape for name, a in expected.items()})
            for name, found in results.items():
                assert_close(found, expected[name], dtype.name, f"onnxruntime {name}")


@each_setting
def test_convolutions_and_their_slopes_are_torchs_at_every_size(setting: Setting) -> None:
    names = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
    check_everywhere(
        lambda x, w, b: conv(x, w, b, **setting.options),
        lambda x, w, b: names[setting.rank](x, w, b, **setting.options),
        setting.types,
        [setting.arrays(3, 5), setting.arrays(2, 8), setting.arrays(1, 4)],
    )


@each_setting
def test_transposed_convolutions_are_torchs_at_every_size(setting: Setting) -> None:
    names = {
        1: functional.conv_transpose1d,
        2: functional.conv_transpose2d,
        3: functional.conv_transpose3d,
    }
    options = setting.options | {"output_padding": setting.more}
    check_everywhere(
        lambda x, w, b: conv_transpose(x, w, b, **options),
        lambda x, w, b: names[setting.rank](x, w, b, **options),
        lambda dtype: setting.types(dtype, transposed=True),
        [setting.arrays(3, 6, True), setting.arrays(2, 8, True)],
    )


@pytest.mark.parametrize("ndim", [1, 2])
def test_more_axes_than_torch_has(ndim: int) -> None:
    """Along axes of size one a convolution is that of fewer axes."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 2, *(5,) * ndim)), rng.normal(size=(3, 2, *(3,) * ndim))
    ones = (1,) * (4 - ndim)
    plain = evaluate(conv(x, w, stride=2, padding=1), {})
    options = {"stride": (*ones, *(2,) * ndim), "padding": (*(0,) * len(ones), *(1,) * ndim)}
    wide = conv(
        x.reshape(2, 2, *ones, *x.shape[2:]), w.reshape(3, 2, *ones, *w.shape[2:]), **options
    )
    assert wide.rank == 6
    np.testing.assert_allclose(evaluate(wide, {}).reshape(plain.shape), plain)


# Padding by name.


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 1)])
def test_same_padding_is_torchs(kernel: int, dilation: int) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 9, 7)), rng.normal(size=(4, 3, kernel, kernel))
    y = evaluate(conv(x, w, padding="same", dilation=dilation), {})
    expected = functional.conv2d(
        torch.tensor(x), torch.tensor(w), padding="same", dilation=dilation
    )
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", range(4, 10))
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (5, 3), (1, 2), (2, 3)])
def test_same_padding_with_strides_is_kerass(size: int, kernel: int, stride: int) -> None:
    """⌈size/stride⌉ results; of the zeros, ⌊half⌋ come before (TensorFlow's `SAME`)."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 1, size)), rng.normal(size=(1, 1, kernel))
    y = evaluate(conv(x, w, stride=stride, padding="same"), {})
    results = -(-size // stride)
    zeros = max((results - 1) * stride + kernel - size, 0)
    padded = functional.pad(torch.tensor(x), (zeros // 2, zeros - zeros // 2))
    assert y.shape[2] == results
    expected = functional.conv1d(padded, torch.tensor(w), stride=stride)
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-12, atol=1e-12)


def test_same_padding_of_sizes_that_only_the_data_tell() -> None:
    w = leaf("w", f32[4, 3, 3, 3])
    assert conv(leaf("x", f32["n", 3, "h", "w"]), w, padding="same").type == f32["n", 4, "h", "w"]
    even = conv(leaf("x", f32["n", 3, "2*h", "4*w"]), w, stride=2, padding="same")
    assert even.type == f32["n", 4, "h", "2*w"]
    assert even.op == Conv((2, 2), (0, 0, 1, 1), (1, 1))
    point = conv(leaf("x", f32["n", 3, "h", "w"]), leaf("w", f32[4, 3, 1, 1]), None, 2, "same")
    assert point.type == f32["n", 4, "(h + 1)//2", "(w + 1)//2"]
    with pytest.raises(ShapeError, match=r"depends on the size h(.|\n)*such as \"2\*n\""):
        conv(leaf("x", f32["n", 3, "h", 8]), w, stride=2, padding="same")


def test_causal_padding_does_not_look_ahead() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 2, 10)), rng.normal(size=(3, 2, 3))
    y = evaluate(conv(x, w, padding="causal", dilation=2), {})
    assert y.shape == (1, 3, 10)
    later = x.copy()
    later[..., 6:] += 1
    changed = evaluate(conv(later, w, padding="causal", dilation=2), {}) != y
    np.testing.assert_array_equal(changed.all((0, 1)), np.arange(10) >= 6)
    np.testing.assert_array_equal(changed.any((0, 1)), np.arange(10) >= 6)


def test_padding_as_pairs() -> None:
    x, w = np.random.default_rng(0).normal(size=(1, 1, 4, 5)), np.ones((1, 1, 2, 2))
    y = evaluate(conv(x, w, padding=((1, 0), (0, 2))), {})
    padded = functional.pad(torch.tensor(x), (0, 2, 1, 0))
    np.testing.assert_allclose(y, functional.conv2d(padded, torch.tensor(w)).numpy())


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (1, 2), (4, 3), (3, 1)])
def test_same_padding_of_a_transposed_convolution_multiplies_the_size(
    kernel: int, stride: int
) -> None:
    """It is the slope of the convolution with padding="same"."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 5)), rng.normal(size=(3, 4, kernel))
    y = conv_transpose(x, w, stride=stride, padding="same")
    assert y.shape == (2, 4, 5 * stride)
    long = leaf("long", f64[2, 4, 5 * stride])
    (slope,) = vjp([conv(long, w, stride=stride, padding="same")], [long], [x])
    np.testing.assert_allclose(evaluate(y, {}), evaluate(slope, {"long": np.zeros(long.shape)}))


# What the slopes are made of.


def nodes(value: Value, *leaves: Value) -> list[str]:
    """The ONNX operators of a value, in order."""
    model_ = to_model(Graph("test", {"y": value}, leaves))
    return [node.op_type for node in model_.graph.node]


def weight_slope(
    x: tuple[Any, ...], w: tuple[int, ...], dtype: DType = f32, **options: Any
) -> tuple[Value, Value, Value]:
    """The slope of a convolution at its weights, and the leaves."""
    data, weights = leaf("x", dtype[x]), leaf("w", dtype[w])
    y = conv(data, weights, **options)
    g = leaf("g", y.type)
    (slope,) = vjp([y], [weights], [g])
    assert isinstance(slope.op, ConvWeightGradient)
    return slope, data, g


TAP = ["Slice", "Transpose", "MatMul", "ReduceSum"]
GROUPED_TAP = ["Slice", "Reshape", "Transpose", "MatMul", "ReduceSum"]
WIDE = ["Pad", "Reshape", "Pad", "Reshape"]  # x, and the slope with rows as long as those of x
JOINED = ["Concat", "Transpose", "Reshape"]


def test_slope_at_weights_of_kernel_one() -> None:
    """One product an image, summed over the batch."""
    found = nodes(*weight_slope(("n", 16, 8, 8), (32, 16, 1, 1)))
    assert found == ["Reshape", "Reshape", "Transpose", "MatMul", "ReduceSum", "Reshape"]


def test_slope_at_weights_with_stride() -> None:
    """A strided slice for each tap, the product with the slope, the sum over the batch."""
    found = nodes(*weight_slope(("n", 16, 8, 8), (32, 16, 3, 3), stride=2, padding=1))
    assert sorted(found) == sorted(["Pad", "Reshape", *GROUPED_TAP * 9, *JOINED])
    found = nodes(*weight_slope(("n", 16, 8, 8), (32, 16, 1, 1), stride=2))
    assert sorted(found) == sorted(["Reshape", *GROUPED_TAP, "Reshape"])


def test_slope_at_weights_of_many_channels() -> None:
    """Each tap is one contiguous slice of x with its rows joined."""
    found = nodes(*weight_slope(("n", 16, 8, 8), (32, 16, 3, 3), padding=1))
    assert sorted(found) == sorted([*WIDE, *TAP * 9, *JOINED])


def test_slope_at_weights_of_few_channels() -> None:
    """The taps below each other, and one product."""
    found = nodes(*weight_slope(("n", 3, 8, 8), (16, 3, 3, 3), padding=1))
    product = ["Concat", "Transpose", "MatMul", "ReduceSum", "Reshape", "Transpose", "Reshape"]
    assert sorted(found) == sorted([*WIDE, *["Slice"] * 9, *product])


def test_slope_at_weights_of_groups() -> None:
    """The groups are a batch of products."""
    found = nodes(*weight_slope(("n", 32, 8, 8), (32, 8, 3, 3), padding=1, groups=4))
    assert sorted(found) == sorted([*WIDE, "Reshape", *GROUPED_TAP * 9, "Reshape", *JOINED])


def test_slope_at_weights_of_single_channels() -> None:
    """Where the image is large, a product for each; where it is small, elementwise products."""
    large = nodes(*weight_slope(("n", 8, 32, 32), (8, 1, 3, 3), padding=1, groups=8))
    assert sorted(large) == sorted([*WIDE, "Reshape", *GROUPED_TAP * 9, "Reshape", *JOINED])
    unknown = nodes(*weight_slope(("n", 8, "h", "w"), (8, 1, 3, 3), padding=1, groups=8))
    assert unknown.count("MatMul") == 9 and "Conv" not in unknown
    small = nodes(*weight_slope(("n", 8, 8, 8), (8, 1, 3, 3), padding=1, groups=8))
    products = ["Slice", "Reshape", "Mul", "ReduceSum"] * 9
    assert sorted(small) == sorted([*WIDE, "Reshape", *products, "Concat", "ReduceSum", "Reshape"])


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((16, "h", "w"), (8, 16, 3, 3), {"padding": 1}),
        ((16, "h", "w"), (8, 16, 3, 3), {"stride": 2, "dilation": 2, "padding": 2}),
        ((3, "h", "w"), (8, 3, 5, 5), {"padding": ((2, 1), (0, 2))}),
        ((8, "h", "w"), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
        ((8, "h", "w"), (16, 1, 3, 3), {"padding": 1, "groups": 8}),
        ((8, 32, 32), (8, 1, 3, 3), {"padding": 1, "groups": 8}),
        ((8, 8, 8), (8, 1, 3, 3), {"padding": 1, "groups": 8, "stride": 2}),
        ((32, "h", "w"), (32, 8, 3, 3), {"padding": 1, "groups": 4}),
        ((16, "h", "w"), (8, 16, 1, 1), {"stride": 3}),
    ],
)
@pytest.mark.parametrize("dtype", [f32, f64])
def test_every_form_of_the_slope_at_weights_is_right_at_every_size(
    x: tuple[Any, ...], w: tuple[int, ...], options: dict[str, Any], dtype: DType
) -> None:
    slope, data, g = weight_slope(("n", *x), w, dtype, **options)
    graph = Graph("test", {"slope": slope}, (data, g))
    run = session(valid_model(graph))
    rng = np.random.default_rng(0)
    for n, h, wide in [(3, 9, 7), (1, 6, 8), (4, 7, 6), (0, 7, 6)]:
        sizes = {"n": n, "h": h, "w": wide}
        array = rng.normal(size=[sizes.get(str(d), d) for d in data.shape])
        pads = options.get("padding", 0)
        tensor = torch.tensor(array)
        if isinstance(pads, tuple):
            (top, bottom), (left, right) = pads
            tensor = functional.pad(tensor, (left, right, top, bottom))
        rest = {k: v for k, v in options.items() if k != "padding" or isinstance(v, int)}
        weights = torch.zeros(w, dtype=torch.float64, requires_grad=True)
        y = functional.conv2d(tensor, weights, **rest)
        above = rng.normal(size=y.shape)
        (expected,) = torch.autograd.grad(y, weights, torch.tensor(above))
        feeds = {"x": array.astype(dtype.numpy), "g": above.astype(dtype.numpy)}
        assert_close(run(feeds, {"slope": w})["slope"], expected.numpy(), dtype.name, str(sizes))


def test_slope_at_data_is_a_transposed_convolution() -> None:
    w = leaf("w", f32[8, 3, 3, 3])

    def slope(x: Value) -> tuple[Value, Value]:
        y = conv(x, w, stride=2, padding=1)
        g = leaf("g", y.type)
        return vjp([y], [x], [g])[0], g

    fixed, g = slope(leaf("x", f32["n", 3, 8, 9]))
    (node,) = to_model(Graph("test", {"y": fixed}, (g, w))).graph.node
    assert node.op_type == "ConvTranspose"
    attributes = {a.name: list(a.ints) for a in node.attribute if a.ints}
    assert attributes["output_padding"] == [1, 0]
    x = leaf("x", f32["n", 3, "h", "w"])
    open_, g = slope(x)
    found = nodes(open_, x, g, w)
    assert found.count("ConvTranspose") == 1 and found[-1] == "Slice"


def test_double_precision_has_no_convolution_in_onnx() -> None:
    x, w = leaf("x", f64["n", 4, "h", "w"]), leaf("w", f64[4, 2, 3, 3])
    y = conv(x, w, stride=2, padding=1, groups=2)
    graph = with_slopes(y, [x, w])
    found = {node.op_type for node in to_model(graph).graph.node}
    assert not found & {"Conv", "ConvTranspose"} and "MatMul" in found


def test_slopes_close_under_differentiation() -> None:
    """The three cards are all that a slope of any order is made of."""
    x, w = leaf("x", f32["n", 2, "h", 5]), leaf("w", f32[3, 2, 3, 3])
    values: list[Value] = [conv(x, w, padding=1)]
    for _ in range(3):
        values = vjp(values, [x, w], [leaf(f"g{i}", v.type) for i, v in enumerate(values)])
    cards = {
        type(v.op) for v in Graph("test", {str(i): v for i, v in enumerate(values)}).nodes if v.args
    }
    names = {card.__name__ for card in cards}
    assert {"Conv", "ConvTranspose", "ConvWeightGradient"} >= names - {"Map", "Expand"}


# A bias that is added afterwards.


def test_a_bias_is_part_of_the_convolution() -> None:
    x, w = leaf("x", f32["n", 4, 6, 6]), leaf("w", f32[2, 2, 3, 3])
    b = leaf("b", f32[2])
    y = conv(x, w, padding=1, groups=2)
    for shape in ((2, 1, 1), (1, 2, 1, 1)):
        (fused, _) = after("convolution", y + b.reshape(shape))
        assert fused is conv(x, w, b, padding=1, groups=2)
    (twice, _, _) = after("convolution", y + b.reshape(2, 1, 1), y)
    assert twice is y + b.reshape(2, 1, 1)
    for other in (leaf("row", f32[6]), leaf("plane", f32[2, 6, 1]), leaf("one", f32[()])):
        (kept, _) = after("convolution", y + other)
        assert kept is y + other
    biased = conv(x, w, b, groups=2) + b.reshape(2, 1, 1)
    assert after("convolution", biased)[0] is biased


# Layers.


def built(layer: Any, type_: Type = f32["batch", 4, 8, 8]) -> Any:
    @model
    def net(x=type_):  # type: ignore[no-untyped-def]
        return {"y": x >> layer}

    return net


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in net.parameters.items()}


LAYERS: dict[str, tuple[Any, Type, Any, tuple[str, ...]]] = {
    "Conv1d": (
        dsl.Conv1d(6, 3, stride=2, padding=1),
        f32["n", 4, "t"],
        lambda: torch.nn.Conv1d(4, 6, 3, stride=2, padding=1),
        ("conv1d.weight", "conv1d.bias"),
    ),
    "Conv2d": (
        dsl.Conv2d(6, (3, 2), padding=(1, 0), dilation=2, groups=2),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=2, groups=2),
        ("conv2d.weight", "conv2d.bias"),
    ),
    "Conv3d": (
        dsl.Conv3d(2, 2, padding="same", use_bias=False),
        f32["n", 3, "d", "h", "w"],
        lambda: torch.nn.Conv3d(3, 2, 2, padding="same", bias=False),
        ("conv3d.weight",),
    ),
    "DepthwiseConv2d": (
        dsl.DepthwiseConv2d(3, multiplier=2, stride=2),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.Conv2d(4, 8, 3, stride=2, groups=4),
        ("depthwise_conv2d.weight", "depthwise_conv2d.bias"),
    ),
    "SeparableConv2d": (
        dsl.SeparableConv2d(6, 3, padding=1),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.Sequential(
            torch.nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), torch.nn.Conv2d(4, 6, 1)
        ),
        (
            "separable_conv2d.depthwise.weight",
            "separable_conv2d.pointwise.weight",
            "separable_conv2d.pointwise.bias",
        ),
    ),
    "ConvTranspose1d": (
        dsl.ConvTranspose1d(6, 4, stride=2, padding=1),
        f32["n", 4, "t"],
        lambda: torch.nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1),
        ("conv_transpose1d.weight", "conv_transpose1d.bias"),
    ),
    "ConvTranspose2d": (
        dsl.ConvTranspose2d(6, 3, stride=2, padding=1, output_padding=1, groups=2),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
        ("conv_transpose2d.weight", "conv_transpose2d.bias"),
    ),
    "ConvTranspose3d": (
        dsl.ConvTranspose3d(2, 2, use_bias=False),
        f32["n", 3, "d", "h", "w"],
        lambda: torch.nn.ConvTranspose3d(3, 2, 2, bias=False),
        ("conv_transpose3d.weight",),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_torchs(name: str) -> None:
    """The same parameters, under their names, give the same numbers in onnxruntime."""
    layer, type_, theirs, paths = LAYERS[name]
    torch.manual_seed(0)
    peer = theirs()
    net = built(layer, type_)
    weights = dict(zip(paths, peer.parameters(), strict=True))
    assert shapes(net) == {path: tuple(p.shape) for path, p in weights.items()}
    run = session(compile_model(net).model)
    for first in (5, 6):
        sizes = [d if isinstance(d, int) else first + i for i, d in enumerate(type_.shape)]
        x = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
        expected = peer(torch.tensor(x)).detach().numpy()
        feeds = {"x": x} | {path: p.detach().numpy() for path, p in weights.items()}
        assert_close(run(feeds, {"y": expected.shape})["y"], expected, "float32", name)


def test_training_is_torchs() -> None:
    """Ten steps of gradient descent on images: every weight within float32 rounding."""

    @model
    def net(image=f32["batch", 3, "h", "w"], label=i64["batch"]):  # type: ignore[no-untyped-def]
        y = image >> dsl.Conv2d(8, 3, padding=1, activation=relu, name="a")
        y = y >> dsl.Conv2d(16, 3, stride=2, padding=1, activation=relu, name="b")
        y = y >> dsl.DepthwiseConv2d(3, padding=1, name="c") >> relu
        y = y >> dsl.ConvTranspose2d(6, 2, stride=2, name="d")
        return {"loss": dsl.cross_entropy(y.mean((2, 3)), label)}

    step = compile_step(training(net, minimize="loss", optimizer=sgd(0.1), batch=4))
    state = step.source.initial(seed=0)
    start = {path: state[path] for path in net.parameters}
    runner = step.runner(state)
    peer = torch.nn.ModuleDict(
        {
            "a": torch.nn.Conv2d(3, 8, 3, padding=1),
            "b": torch.nn.Conv2d(8, 16, 3, stride=2, padding=1),
            "c": torch.nn.Conv2d(16, 16, 3, padding=1, groups=16),
            "d": torch.nn.ConvTranspose2d(16, 6, 2, stride=2),
        }
    )
    peer.load_state_dict({path: torch.tensor(a) for path, a in start.items()})
    peer.double()
    optimizer = torch.optim.SGD(peer.parameters(), 0.1)
    rng = np.random.default_rng(0)
    for i in range(10):
        size = 8 + i % 3  # one step for every size of image
        image = rng.normal(size=(4, 3, size, size + 1)).astype(np.float32)
        label = rng.integers(0, 6, 4)
        runner.step({"image": image, "label": label})
        y = torch.relu(peer["a"](torch.tensor(image, dtype=torch.float64)))
        y = torch.relu(peer["c"](torch.relu(peer["b"](y))))
        loss = functional.cross_entropy(peer["d"](y).mean((2, 3)), torch.tensor(label))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(runner.metrics()["loss"], loss.item(), rtol=1e-5)
    for path, expected in peer.state_dict().items():
        # Measured: 2e-7 of weights of size 0.5.
        np.testing.assert_allclose(runner.state()[path], expected.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (dsl.Conv2d(64, 3, init=dsl.he_normal), 32 * 9),
        (dsl.Conv2d(64, 3, groups=4, init=dsl.he_normal), 8 * 9),
        (dsl.DepthwiseConv2d(5, multiplier=4, init=dsl.he_normal), 25),
        (dsl.ConvTranspose2d(64, 4, stride=2, init=dsl.he_normal), 32 * 4),
    ],
)
def test_initial_weights_keep_the_size_of_what_flows(layer: Any, fans: int) -> None:
    """The variance is 2 over the numbers that enter into a result."""
    net = built(layer, f32["batch", 32, 8, 8])
    (path,) = (p for p in net.parameters if p.endswith("weight"))
    weights = initial_values(net, seed=0)[path]
    assert abs(weights.std() / np.sqrt(2 / fans) - 1) < 0.08


def test_a_causal_layer_and_activations() -> None:
    net = built(dsl.Conv1d(3, 2, padding="causal", activation=relu), f32["n", 2, "t"])
    assert net.graph.outputs["y"].type == f32["n", 3, "t"]
    feeds = initial_values(net, seed=0) | {"x": np.ones((1, 2, 4), np.float32)}
    assert evaluate(net.graph, feeds)["y"].min() >= 0


REFUSED: dict[str, tuple[Callable[[], Any], type[CompileError], str]] = {
    "a kernel larger than the image": (
        lambda: built(dsl.Conv2d(8, 11, padding=1, name="stem")).graph,
        ShapeError,
        r"spans 11 is larger than spatial axis 0, which has 8 elements and 2 of padding(.|\n)*"
        r"f32\[batch, 4, 8, 8\](.|\n)*stem.weight(.|\n)*in net / stem",
    ),
    "groups that do not divide the channels": (
        lambda: built(dsl.Conv2d(9, 3, groups=3, name="stem")).graph,
        ShapeError,
        r"Conv2d: 3 groups do not divide the 4 channels(.|\n)*in net / stem",
    ),
    "groups that do not divide the filters": (
        lambda: dsl.Conv2d(8, 3, groups=3),
        ModelError,
        "3 groups do not divide 8 filters",
    ),
    "another rank": (
        lambda: built(dsl.Conv2d(8, 3, name="stem"), f32["batch", 8, 8]).graph,
        ShapeError,
        r"needs \[batch, channels, height, width\], x is f32\[batch, 8, 8\](.|\n)*stem(.|\n)*hint",
    ),
    "channels that only the data tell": (
        lambda: built(dsl.Conv1d(8, 3), f32["batch", "c", 8]).graph,
        ShapeError,
        "a known number of channels",
    ),
    "integers": (
        lambda: built(dsl.Conv1d(8, 3), i64["batch", 4, 8]).graph,
        DTypeError,
        r"floating(.|\n)*astype",
    ),
    "an activation in the place of the stride": (
        lambda: dsl.Conv2d(8, 3, relu),
        ModelError,
        "activation=relu",
    ),
    "an activation by name": (
        lambda: dsl.Conv2d(8, 3, activation="relu"),
        ModelError,
        "is a function, got 'relu'",
    ),
    "a kernel of another rank": (
        lambda: dsl.ConvTranspose1d(8, (3, 3)),
        ModelError,
        r"kernel of ConvTranspose1d \(3, 3\) is not a number for each of 1",
    ),
    "no filters": (lambda: dsl.Conv2d(0, 3), ModelError, "filters must be at least 1"),
    "an unknown padding": (
        lambda: built(dsl.Conv2d(8, 3, padding="full")).graph,
        ShapeError,
        "same, valid, causal, got 'full'",
    ),
    "causal images": (
        lambda: built(dsl.Conv2d(8, 3, padding="causal")).graph,
        ShapeError,
        "one spatial axis",
    ),
    "padding that leaves nothing": (
        lambda: built(dsl.ConvTranspose2d(8, 3, padding=9, name="up")).graph,
        ShapeError,
        "its size would be -8(.|\n)*net / up",
    ),
    "too much output padding": (
        lambda: built(dsl.ConvTranspose2d(8, 3, stride=2, output_padding=2)).graph,
        ShapeError,
        "output padding 2 is not less than stride 2",
    ),
    "a causal transpose": (
        lambda: built(dsl.ConvTranspose1d(8, 3, padding="causal"), f32["n", 4, 8]).graph,
        ShapeError,
        'got "causal"',
    ),
    "weights for other channels": (
        lambda: conv(leaf("x", f32["n", 3, 8]), leaf("w", f32[4, 2, 3])),
        ShapeError,
        "x has 3 channels, the weights are for 2(.|\n)*in/groups",
    ),
    "weights of another rank": (
        lambda: conv(leaf("x", f32["n", 3, 8]), leaf("w", f32[4, 3, 3, 3])),
        ShapeError,
        r"conv: needs \[batch, channels, \*sizes\](.|\n)*f32\[n, 3, 8\](.|\n)*f32\[4, 3, 3, 3\]",
    ),
    "weights of another type": (
        lambda: conv_transpose(leaf("x", f32["n", 3, 8]), leaf("w", f64[3, 3, 3])),
        DTypeError,
        "conv_transpose: element types differ, f32 ≠ f64",
    ),
    "a bias of another size": (
        lambda: conv(leaf("x", f32["n", 3, 8]), leaf("w", f32[4, 3, 3]), leaf("b", f32[3])),
        ShapeError,
        r"one number for each of 4 channels, got f32\[3\]",
    ),
    "a kernel without a number": (
        lambda: conv(leaf("x", f32["n", 3, 8]), leaf("w", f32[4, 3, "k"])),
        ShapeError,
        "sizes of a kernel are numbers",
    ),
    "a size that no stride makes": (
        lambda: ConvTranspose((9,), (2,), (0, 0), (1,))(
            leaf("x", f32["n", 3, 8]), leaf("w", f32[3, 3, 3])
        ),
        ShapeError,
        r"of sizes \[9\] the window makes \[4\], got f32\[n, 3, 8\]",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    make, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        make()
