"""What the gradients of convolutions are made of, and a bias that is added afterwards."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from dsl import f32, f64
from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.dims import symbols
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import DType
from nncompile.ops import conv
from nncompile.ops.convolution.convolve import ConvWeightGradient
from tests.backends import session, valid_model
from tests.convolution_checks import nodes
from tests.leaves import leaf
from tests.pass_checks import after
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional


def weight_gradient(
    x: tuple[Any, ...], w: tuple[int, ...], dtype: DType = f32, **options: Any
) -> tuple[Value, Value, Value]:
    """The gradient of a convolution at its weights, and the leaves."""
    data, weights = leaf("x", dtype[x]), leaf("w", dtype[w])
    y = conv(data, weights, **options)
    g = leaf("g", y.type)
    (gradient,) = vjp([y], [weights], [g])
    assert isinstance(gradient.op, ConvWeightGradient)
    return gradient, data, g


TAP = ["Slice", "Transpose", "MatMul", "ReduceSum"]

GROUPED_TAP = ["Slice", "Reshape", "Transpose", "MatMul", "ReduceSum"]

WIDE = ["Pad", "Reshape", "Pad", "Reshape"]  # x, and the gradient with rows as long as those of x

# x, and the gradient, which has zeros for the taps on the left, and for those on the right.
SHIFTED = ["Reshape", "Pad", "Reshape", "Mul", "Mul"]

JOINED = ["Concat", "Transpose", "Reshape"]


def test_gradient_at_weights_of_kernel_one() -> None:
    """One product an image, summed over the batch."""
    found = nodes(*weight_gradient(("n", 16, 8, 8), (32, 16, 1, 1)))
    assert found == ["Reshape", "Reshape", "Transpose", "MatMul", "ReduceSum", "Reshape"]


def test_gradient_at_weights_with_stride() -> None:
    """A strided slice for each tap, the product with the gradient, the sum over the batch."""
    found = nodes(*weight_gradient(("n", 16, 8, 8), (32, 16, 3, 3), stride=2, padding=1))
    assert sorted(found) == sorted(["Pad", "Reshape", *GROUPED_TAP * 9, *JOINED])
    found = nodes(*weight_gradient(("n", 16, 8, 8), (32, 16, 1, 1), stride=2))
    assert sorted(found) == sorted(["Reshape", *GROUPED_TAP, "Reshape"])


def test_gradient_at_weights_of_many_taps_with_stride() -> None:
    """A strided slice for each of four phases, of which taps are contiguous slices."""
    found = nodes(*weight_gradient(("n", 16, 8, 8), (32, 16, 4, 4), stride=2, padding=1))
    phases = ["Slice", "Reshape"] * 4
    assert sorted(found) == sorted(["Pad", "Pad", "Reshape", *phases, *TAP * 16, *JOINED])


def test_gradient_at_weights_of_few_places() -> None:
    """One product over examples and places for each tap, where one for each example would be larger
    than its factors."""
    found = nodes(*weight_gradient(("n", 16, 2, 4), (32, 16, 1, 1)))
    assert Counter(found)["MatMul"] == 1 and "ReduceSum" not in found
    found = nodes(*weight_gradient(("n", 16, 3, 3), (32, 16, 1, 1)))
    assert Counter(found)["MatMul"] == Counter(found)["ReduceSum"] == 1


def test_gradient_at_weights_of_many_channels() -> None:
    """Each tap is one contiguous slice of x with its rows joined."""
    found = nodes(*weight_gradient(("n", 16, 8, 8), (32, 16, 3, 3), padding=1))
    assert sorted(found) == sorted([*SHIFTED, *TAP * 9, *JOINED])
    wide = nodes(*weight_gradient(("n", 16, 8, 8), (32, 16, 3, 3)))
    assert sorted(wide) == sorted([*WIDE, *TAP * 9, *JOINED])


def test_gradient_at_weights_of_few_channels() -> None:
    """The taps below each other, and one product."""
    found = nodes(*weight_gradient(("n", 3, 8, 8), (16, 3, 3, 3), padding=1))
    product = ["Concat", "Transpose", "MatMul", "ReduceSum", "Reshape", "Transpose", "Reshape"]
    assert sorted(found) == sorted([*WIDE, *["Slice"] * 9, *product])


def test_gradient_at_weights_of_groups() -> None:
    """The groups are a batch of products."""
    found = nodes(*weight_gradient(("n", 32, 8, 8), (32, 8, 3, 3), padding=1, groups=4))
    assert sorted(found) == sorted([*SHIFTED, *GROUPED_TAP * 9, *["Reshape"] * 4, *JOINED])


@pytest.mark.parametrize("size", [8, 32, "h"])
def test_gradient_at_weights_of_single_channels(size: int | str) -> None:
    """Elementwise products, whatever the size of the image."""
    found = nodes(*weight_gradient(("n", 8, size, 8), (8, 1, 3, 3), padding=1, groups=8))
    assert "MatMul" not in found and "Conv" not in found
    taps = ["Slice", "Reshape", "Mul", "ReduceSum"]
    assert found.count("ReduceSum") == 9 + 1
    if size != "h":  # which is computed with, too
        products = [*taps * 9, "Concat", "ReduceSum", "Reshape"]
        assert sorted(found) == sorted([*SHIFTED, *["Reshape"] * 3, *products])
    alone = nodes(*weight_gradient(("n", 8, size, 8), (8, 1, 1, 1), groups=8))
    assert "MatMul" not in alone


def test_the_batch_of_a_recipe_says_how_gradients_at_weights_are_summed() -> None:
    """An exported step for up to 64 images has the nodes of the one that is trained; one for more
    adds up blocks of them. Where any batch may come each sum chooses, and nothing else."""
    gradient, *leaves = weight_gradient(("n", 16, 8, 8), (32, 16, 3, 3), padding=1)
    graph, few = Graph("test", {"y": gradient}, tuple(leaves)), nodes(gradient, *leaves)
    (n,) = symbols([gradient.args[0].shape[0]])

    def operators(**options: Any) -> list[str]:
        return [node.op_type for node in to_model(graph, **options).graph.node]

    assert operators(sizes={n: 32}) == operators(sizes={n: 64}) == few
    many = Counter(operators(sizes={n: 65}))
    assert many["ReduceSum"] == many["Cast"] == 2 * 9 and many["If"] == 0
    assert many["MatMul"] == few.count("MatMul") and many["Slice"] == few.count("Slice")
    some = Counter(operators())
    assert some["If"] == 9 and some["ReduceSum"] == 0
    shapes = ("Shape", "Reshape", "LessOrEqual")  # the size of the batch, once
    assert some - Counter(few) == Counter({"If": 9, **dict.fromkeys(shapes, 1)})


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
        ((16, "h", "w"), (8, 16, 4, 4), {"stride": 2, "padding": 1}),
        ((16, 8, 9), (8, 8, 3, 3), {"stride": (2, 1), "padding": 1, "groups": 2}),
        ((8, "h", "w"), (8, 1, 4, 5), {"stride": (1, 3), "padding": 2, "groups": 8}),
        ((8, "h", "w"), (8, 8, 4, 4), {"stride": 2, "dilation": (2, 1), "padding": 3}),
        ((16, 2, 2), (32, 16, 3, 3), {"padding": 1}),
        ((32, 4, 3), (16, 32, 3, 3), {"stride": 2, "padding": 1}),
    ],
)
@pytest.mark.parametrize("dtype", [f32, f64])
def test_every_form_of_the_gradient_at_weights_is_right_at_every_size(
    x: tuple[Any, ...], w: tuple[int, ...], options: dict[str, Any], dtype: DType
) -> None:
    gradient, data, g = weight_gradient(("n", *x), w, dtype, **options)
    graph = Graph("test", {"gradient": gradient}, (data, g))
    run = session(valid_model(graph))
    rng = np.random.default_rng(0)
    for n, h, wide in [(3, 9, 7), (1, 6, 8), (4, 7, 6), (0, 7, 6), (130, 6, 7)]:
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
        assert_close(
            run(feeds, {"gradient": w})["gradient"], expected.numpy(), dtype.name, str(sizes)
        )


@pytest.mark.parametrize("kernel", [(7,), (3, 3, 3)])
def test_gradient_at_weights_with_stride_along_other_numbers_of_axes(
    kernel: tuple[int, ...],
) -> None:
    rank = len(kernel)
    shape, weights = (2, 8, *(7, 6, 5)[:rank]), (8, 8, *kernel)
    gradient, data, g = weight_gradient(shape, weights, f64, stride=2, padding=2)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=shape), torch.zeros(weights, dtype=torch.float64, requires_grad=True)
    convolved = functional.conv1d if rank == 1 else functional.conv3d
    y = convolved(torch.tensor(x), w, stride=2, padding=2)
    above = rng.normal(size=y.shape)
    (expected,) = torch.autograd.grad(y, w, torch.tensor(above))
    run = session(valid_model(Graph("test", {"gradient": gradient}, (data, g))))
    found = run({"x": x, "g": above}, {"gradient": weights})["gradient"]
    assert_close(found, expected.numpy(), "float64", f"{rank} axes")


def test_gradient_at_data_is_a_transposed_convolution() -> None:
    w = leaf("w", f32[8, 3, 3, 3])

    def gradient(x: Value) -> tuple[Value, Value]:
        y = conv(x, w, stride=2, padding=1)
        g = leaf("g", y.type)
        return vjp([y], [x], [g])[0], g

    fixed, g = gradient(leaf("x", f32["n", 3, 8, 9]))
    (node,) = to_model(Graph("test", {"y": fixed}, (g, w))).graph.node
    assert node.op_type == "ConvTranspose"
    attributes = {a.name: list(a.ints) for a in node.attribute if a.ints}
    assert attributes["output_padding"] == [1, 0]
    x = leaf("x", f32["n", 3, "h", "w"])
    open_, g = gradient(x)
    found = nodes(open_, x, g, w)
    assert found.count("ConvTranspose") == 1 and found[-1] == "Slice"


def test_double_precision_has_no_convolution_in_onnx() -> None:
    x, w = leaf("x", f64["n", 4, "h", "w"]), leaf("w", f64[4, 2, 3, 3])
    y = conv(x, w, stride=2, padding=1, groups=2)
    dx, dw = vjp([y], [x, w], [leaf("g", y.type)])
    graph = Graph("test", {"y": y, "dx": dx, "dw": dw})
    found = {node.op_type for node in to_model(graph).graph.node}
    assert not found & {"Conv", "ConvTranspose"} and "MatMul" in found


def test_gradients_close_under_differentiation() -> None:
    """The three ops are all that a gradient of any order is made of."""
    x, w = leaf("x", f32["n", 2, "h", 5]), leaf("w", f32[3, 2, 3, 3])
    values: list[Value] = [conv(x, w, padding=1)]
    for _ in range(3):
        values = vjp(values, [x, w], [leaf(f"g{i}", v.type) for i, v in enumerate(values)])
    op_types = {
        type(v.op) for v in Graph("test", {str(i): v for i, v in enumerate(values)}).nodes if v.args
    }
    names = {op_type.__name__ for op_type in op_types}
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
