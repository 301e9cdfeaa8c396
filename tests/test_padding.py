"""Padding: `pad` against numpy, convolutions of padded and cropped inputs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64, i32, i64, model
from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.basic import const
from nncompile.ir.dims import symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import conv, conv_transpose, pad
from tests import everywhere
from tests.backends import session, valid_model
from tests.everywhere import torch_function
from tests.leaves import leaf

COPIES = ("edge", "reflect", "symmetric", "wrap")


@pytest.mark.parametrize("mode", COPIES)
def test_pad_is_numpys(mode: str) -> None:
    """Also where a width is larger than the axis, and copies are copied in turn."""
    for n, before, after in itertools.product((1, 2, 3, 5), (0, 1, 4, 9), (0, 2, 7)):
        x = np.arange(2 * n).reshape(2, n)
        widths = ((0, 0), (before, after))
        np.testing.assert_array_equal(
            evaluate(pad(const(x), widths, mode), {}), np.pad(x, widths, mode)
        )


@pytest.mark.parametrize("mode", COPIES)
@pytest.mark.parametrize("dtype", [f32, f64, i32, i64])
def test_pad_of_sizes_that_only_the_data_tell(mode: str, dtype: Any) -> None:
    x = leaf("x", dtype["n", "m"])
    y = pad(x, ((0, 1), (3, 2)), mode)
    cases = []
    for shape in ((1, 1), (2, 2), (3, 3), (2, 4), (4, 7)):
        data = np.arange(np.prod(shape), dtype=dtype.numpy).reshape(shape)
        cases.append(({"x": data}, np.pad(data, ((0, 1), (3, 2)), mode)))
    everywhere.check_values(y, [x], *cases)


@pytest.mark.parametrize("mode", COPIES)
def test_widths_that_only_the_data_tell(mode: str) -> None:
    n = symbol("n")
    x = leaf("x", f32["n"])
    y = pad(x, (n, 2 * n), mode)
    assert y.shape == (4 * n,)
    data = np.arange(3, dtype=np.float32)
    everywhere.check_values(y, [x], ({"x": data}, np.pad(data, (3, 6), mode)))


@pytest.mark.parametrize("mode", COPIES)
def test_an_empty_batch_is_padded(mode: str) -> None:
    x = leaf("x", f32["n", "m"])
    empty = np.zeros((0, 5), np.float32)
    y = pad(x, ((0, 0), (2, 3)), mode)
    everywhere.check_values(y, [x], ({"x": empty}, np.zeros((0, 10), np.float32)))


def test_an_empty_axis_has_nothing_to_copy() -> None:
    with pytest.raises(ShapeError, match=r"axis 1 of f32\[2, 0\] has no elements to copy"):
        pad(leaf("x", f32[2, 0]), ((0, 0), (1, 1)), "wrap")


def test_known_axes_are_sliced() -> None:
    """A gather's gradient scatters, which is slower."""
    for mode, shape in (("reflect", "h + 3"), ("wrap", "h + 2"), ("symmetric", 2)):
        x = leaf("x", f32["n", 2, shape])
        padded = pad(x, ((0, 0), (0, 0), (2, 2)), mode)
        model_ = valid_model(Graph("pad", {"y": padded}, (x,)))
        assert "Gather" not in [node.op_type for node in model_.graph.node]


TORCHS = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}


@pytest.mark.parametrize("mode", TORCHS)
def test_gradients_of_pads_are_torchs(mode: str) -> None:
    for space in (("h",), (5,)):
        everywhere.check(
            lambda x: pad(x, ((0, 0), (0, 0), (2, 3)), mode),
            torch_function("pad", (2, 3), TORCHS[mode]),
            [("n", 2, *space)],
            [(2, 2, 5)],
            *([] if space == (5,) else [[(1, 2, 4)]]),
        )


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
def test_convolution_layers_pad_as_torchs(padding_mode: str, padding: Any) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Conv2d(
        2, 3, (3, 2), padding=padding, padding_mode=padding_mode, dilation=(1, 2)
    )

    def theirs(x: Any, w: Any, b: Any) -> Any:
        return torch.func.functional_call(layer, {"weight": w, "bias": b}, (x,))

    everywhere.check(
        lambda x, w, b: conv(x, w, b, padding=padding, padding_mode=padding_mode, dilation=(1, 2)),
        theirs,
        [("n", 2, "h", "w"), (3, 2, 3, 2), (3,)],
        [(2, 2, 5, 4), (3, 2, 3, 2), (3,)],
        [(1, 2, 4, 6), (3, 2, 3, 2), (3,)],
    )


def test_layers_pass_the_mode_on() -> None:
    @model
    def net(x=f32["n", 2, "h", "w"]):  # type: ignore[no-untyped-def]
        wrapped = x >> dsl.Conv2d(2, 3, padding=1, padding_mode="circular", name="a")
        return {
            "a": wrapped,
            "b": x >> dsl.DepthwiseConv2d(3, padding=1, padding_mode="reflect", name="b"),
            "c": x >> dsl.SeparableConv2d(4, 3, padding=1, padding_mode="replicate", name="c"),
        }

    x, p = leaf("x", f32["n", 2, "h", "w"]), net.parameters
    outputs = net.graph.outputs
    assert outputs["a"] is conv(x, p["a.weight"], p["a.bias"], padding=1, padding_mode="circular")
    expected = conv(x, p["b.weight"], p["b.bias"], padding=1, groups=2, padding_mode="reflect")
    assert outputs["b"] is expected
    rolled = np.random.default_rng(0).normal(size=(1, 2, 4, 5)).astype(np.float32)
    params = {n: np.ones(v.shape, np.float32) for n, v in p.items()}
    results = [
        evaluate(outputs["a"], {"x": data, **params}) for data in (rolled, np.roll(rolled, 1, -1))
    ]
    np.testing.assert_allclose(np.roll(results[0], 1, -1), results[1], rtol=1e-5, atol=1e-5)


def test_causal_padding_of_another_mode() -> None:
    """Elements before the first are copies, and there are none behind the last."""
    x, w = np.arange(1.0, 5.0).reshape(1, 1, 4), np.array([[[1.0, 10.0]]])
    y = conv(x, w, padding="causal", padding_mode="replicate")
    np.testing.assert_array_equal(evaluate(y, {}), [[[11, 21, 32, 43]]])


def test_same_padding_that_removes_elements() -> None:
    """Strides larger than the kernel, of a size that only the data tell."""
    w = const(np.ones((1, 1, 1), np.float32))
    x = leaf("x", f32["n", 1, "m"])
    y = conv(x, w, None, 3, "same", padding_mode="circular")
    cases = []
    for size in range(1, 8):
        data = np.arange(size, dtype=np.float32).reshape(1, 1, size)
        zeros = evaluate(conv(data, w, None, 3, "same"), {})
        cases.append(({"x": data}, zeros))
    everywhere.check_values(y, [x], *cases)


# Negative padding removes elements, and its transpose puts zeros there.


@pytest.mark.parametrize("pads", [(-1, -1), (-1, 2), (2, -1), (0, -2), (-2, 0), (-1, 0)])
@pytest.mark.parametrize("stride", [1, 2])
def test_negative_padding_removes_elements(pads: tuple[int, int], stride: int) -> None:
    functional = pytest.importorskip("torch").nn.functional
    everywhere.check(
        lambda x, w: conv(x, w, None, stride, (pads, (1, 0))),
        lambda x, w: functional.conv2d(functional.pad(x, (1, 0, *pads)), w, None, stride),
        [("n", 2, "h", "w"), (3, 2, 2, 3)],
        [(2, 2, 6, 4), (3, 2, 2, 3)],
        [(1, 2, 5, 5), (3, 2, 2, 3)],
    )


@pytest.mark.parametrize("pads", [(-1, -1), (-1, 1), (1, -2), (0, -2)])
def test_negative_padding_of_transposed_convolutions(pads: tuple[int, int]) -> None:
    """It is the transpose of the same convolution: ⟨conv(x), y⟩ = ⟨x, transposed(y)⟩."""
    functional = pytest.importorskip("torch").nn.functional
    cut = [-p for p in pads]
    everywhere.check(
        lambda x, w: conv_transpose(x, w, None, 2, (pads,)),
        lambda x, w: functional.pad(functional.conv_transpose1d(x, w, None, 2), cut),
        [("n", 2, "m"), (2, 3, 3)],
        [(2, 2, 4), (2, 3, 3)],
        [(1, 2, 5), (2, 3, 3)],
    )
    rng = np.random.default_rng(0)
    y, w = rng.normal(size=(1, 2, 4)), rng.normal(size=(2, 3, 3))
    spread = evaluate(conv_transpose(y, w, None, 2, (pads,)), {})
    x = rng.normal(size=spread.shape)
    assert np.isclose((evaluate(conv(x, w, None, 2, (pads,)), {}) * y).sum(), (x * spread).sum())


def test_more_is_removed_than_there_is() -> None:
    x, w = leaf("x", f32[1, 1, 4]), leaf("w", f32[1, 1, 1])
    with pytest.raises(ShapeError, match="a kernel that spans 1 is larger than the length"):
        conv(x, w, padding=-2)
    with pytest.raises(ShapeError, match="removes more than the 4 elements of the length"):
        conv(x, w, padding=((-5, 3),))


def test_an_empty_batch_is_convolved() -> None:
    x, w = leaf("x", f32["n", 1, "m"]), leaf("w", f32[2, 1, 2])
    y = conv(x, w, padding=((-1, 2),), padding_mode="circular")
    run = session(valid_model(Graph("y", {"y": y}, (x, w))))
    feeds = {"x": np.zeros((0, 1, 5), np.float32), "w": np.ones((2, 1, 2), np.float32)}
    assert run(feeds, {"y": (0, 2, 5)})["y"].shape == (0, 2, 5)
