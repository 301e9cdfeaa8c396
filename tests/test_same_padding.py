"""padding="same" with strides on axes whose sizes only the data tell: one graph, and one file, for
sizes that leave every rest of the stride, against those of fixed sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import AveragePool2d, Conv2d, MaxPool2d, SeparableConv2d, f32, f64, grad, model, relu
from nncompile.backends.onnx import to_model
from nncompile.ir.dims import floordiv, same, symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops import average_pool, const, conv, max_pool
from nncompile.ops.windows.same_padding import same_padding
from nncompile.program.initialization import initial_values
from tests.backends import script_of, session
from tests.everywhere import with_gradients
from tests.gradient_checks import check_gradient
from tests.leaves import leaf
from tests.tolerances import assert_close

SIZES = range(1, 9)


@pytest.mark.parametrize("extent", range(1, 7))
@pytest.mark.parametrize("stride", range(1, 6))
def test_symbolic_padding_is_that_of_each_size(extent: int, stride: int) -> None:
    n: Any = symbol("n")
    before, after, count = (np.asarray(d) for d in same_padding(n, extent, stride))
    assert same(count.item(), floordiv(n + stride - 1, stride)) is True

    def at(d: Any, size: int) -> int:
        return int(d.item().subs(n, size)) if hasattr(d.item(), "subs") else d.item()

    for size in range(1, 30):
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        assert at(before, size) == total // 2 == same_padding(size, extent, stride)[0]
        # Up to the end of the last window, which may be before that of the axis.
        covered = (-(-size // stride) - 1) * stride + extent
        known = total - total // 2 if isinstance(after.item(), int) else covered - total // 2 - size
        assert at(after, size) == known


def filters(rank: int, kernel: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 3, *kernel[:rank]))


KERNELS = [((3, 2, 2), (2, 3, 2)), ((2, 5, 1), (3, 2, 2)), ((1, 4, 3), (2, 4, 2))]

CASES: dict[str, tuple[Callable[[Value], Value], Type]] = {}
for rank, (kernel, stride) in itertools.product((1, 2, 3), KERNELS):
    if rank == 3 and kernel[0] != 3:
        continue
    type_ = f64[("n", 3, "h", "w", "d")[: rank + 2]]
    k, s, w = kernel[:rank], stride[:rank], filters(rank, kernel)
    CASES |= {
        f"conv {k} {s}": (
            lambda x, w=w, s=s: conv(x, const(w, x.dtype), stride=s, padding="same"),
            type_,
        ),
        f"max {k} {s}": (lambda x, k=k, s=s: max_pool(x, k, s, "same"), type_),
        f"average {k} {s}": (lambda x, k=k, s=s: average_pool(x, k, s, "same"), type_),
    }
CASES["conv dilated"] = (
    lambda x: conv(
        x, const(filters(2, (3, 2)), x.dtype), stride=2, padding="same", dilation=(2, 3)
    ),
    f64["n", 3, "h", "w"],
)


def spaces(rank: int) -> list[tuple[int, ...]]:
    return [tuple(1 + (size + 3 * i) % 7 for i in range(rank)) for size in SIZES]


def at_size(
    function: Callable[[Value], Value], space: tuple[int, ...], rng: np.random.Generator
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The function and its gradients for images of one size, and data for them."""
    fixed = with_gradients(function, [f64[(2, 3, *space)]])
    return fixed, {name: rng.normal(size=x.shape) for name, x in fixed.leaves.items()}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_fixed_sizes(case: str) -> None:
    """Of the first and the second order, in numpy and, of float32, in onnxruntime."""
    function, type_ = CASES[case]
    graph = with_gradients(function, [type_])
    run = session(to_model(with_gradients(function, [Type(f32, type_.shape)])))
    rng = np.random.default_rng(0)
    for space in spaces(type_.rank - 2):
        fixed, feeds = at_size(function, space, rng)
        expected, found = evaluate(fixed, feeds), evaluate(graph, feeds)
        actual = run({n: x.astype(np.float32) for n, x in feeds.items()}, expected)
        for name, wanted in expected.items():
            assert_close(found[name], wanted, "float64", f"{name} at {space}")
            assert_close(actual[name], wanted, "float32", f"onnx {name} at {space}")


@pytest.mark.parametrize("size", [4, 5, 6])
def test_gradients_are_differences(size: int) -> None:
    x, w = np.random.default_rng(0).normal(size=(1, 2, size)), np.ones((2, 2, 3))
    check_gradient(lambda a, b: conv(a, b, stride=2, padding="same"), x, w)


def of_images() -> Any:
    @model
    def net(image=f32["n", 3, "h", "w"]):  # type: ignore[no-untyped-def]
        y = image >> Conv2d(4, 3, 2, "same", activation=relu) >> MaxPool2d(3, 2, "same")
        y = y >> SeparableConv2d(5, 3, 2, "same") >> AveragePool2d(2, 3, "same")
        return {"y": y, "loss": (y**2).sum()}

    return net


def test_one_file_of_layers_takes_images_of_every_size() -> None:
    """And the gradients at all weights, which training takes."""
    net = of_images()
    outputs = {"y": net.outputs["y"]}
    leaves = net.parameters
    found = grad(net.outputs["loss"], list(leaves.values()))
    outputs |= {f"d {path}": gradient for path, gradient in zip(leaves, found, strict=True)}
    graph = Graph("step", outputs, tuple(net.graph.leaves.values()))
    run = session(to_model(graph))
    weights = initial_values(net, 0)
    rng = np.random.default_rng(0)
    for height, width in ((1, 2), (7, 8), (9, 12), (13, 5), (16, 11), (10, 17)):
        image = rng.normal(size=(2, 3, height, width)).astype(np.float32)
        feeds = {**{p: weights[p] for p in leaves}, "image": image}
        wide = {n: x.astype(np.float64) for n, x in feeds.items()}
        expected = evaluate(graph, wide, np.float64)
        for name, actual in run(feeds, expected).items():
            assert_close(actual, expected[name], "float32", f"{name} at {height}×{width}")
        sizes = (2, 5, *(-(-size // 24) for size in (height, width)))
        assert expected["y"].shape == sizes


def test_torchscript_takes_images_of_every_size() -> None:
    for case in ("conv (3, 2) (2, 3)", "max (2, 5) (3, 2)", "average (1, 4) (2, 4)"):
        function, type_ = CASES[case]
        graph = with_gradients(function, [type_])
        run = script_of(graph)
        rng = np.random.default_rng(0)
        for space in spaces(type_.rank - 2):
            _, feeds = at_size(function, space, rng)
            actual = run(feeds)
            for name, wanted in evaluate(graph, feeds).items():
                assert_close(actual[name], wanted, "float64", f"{case} {name} at {space}")


def test_a_fixed_size_and_a_multiple_of_the_stride_need_no_padding_of_their_own() -> None:
    w = const(np.ones((2, 3, 3)))
    for size, count in ((9, 0), ("2*m", 0), ("m", 1)):
        graph = Graph("g", {"y": conv(leaf("x", f64["n", 3, size]), w, stride=2, padding="same")})
        assert [v.op.label for v in graph.nodes].count("pad") == count
