"""Convolutions and transposed ones: torch's numbers and gradients at every size, sizes that only
the data tell, padding by name."""

from __future__ import annotations

import numpy as np
import pytest

from dsl import f32, f64
from nncompile.autodiff.grad import vjp
from nncompile.ir.interpreter import evaluate
from nncompile.ops import conv, conv_transpose
from nncompile.ops.convolution.convolve import Conv
from tests.convolution_checks import Setting, each_setting
from tests.leaves import leaf

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional


@each_setting
def test_convolutions_and_their_gradients_are_torchs_at_every_size(setting: Setting) -> None:
    names = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
    setting.check(
        lambda x, w, b: conv(x, w, b, **setting.options),
        lambda x, w, b: names[setting.rank](x, w, b, **setting.options),
        *((3, 5), (2, 8), (1, 4)),
        transposed=False,
    )


@each_setting
def test_transposed_convolutions_are_torchs_at_every_size(setting: Setting) -> None:
    names = {
        1: functional.conv_transpose1d,
        2: functional.conv_transpose2d,
        3: functional.conv_transpose3d,
    }
    options = setting.options | {"output_padding": setting.more}
    setting.check(
        lambda x, w, b: conv_transpose(x, w, b, **options),
        lambda x, w, b: names[setting.rank](x, w, b, **options),
        *((3, 6), (2, 8)),
        transposed=True,
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
    odd = conv(leaf("x", f32["n", 3, "h", 8]), w, stride=2, padding="same")
    assert odd.type == f32["n", 4, "(h + 1)//2", 4]
    assert odd.op == Conv((2, 2), (0, 0, 0, 1), (1, 1))  # the height is padded before it


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
    """It is the gradient of the convolution with padding="same"."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 5)), rng.normal(size=(3, 4, kernel))
    y = conv_transpose(x, w, stride=stride, padding="same")
    assert y.shape == (2, 4, 5 * stride)
    long = leaf("long", f64[2, 4, 5 * stride])
    (gradient,) = vjp([conv(long, w, stride=stride, padding="same")], [long], [x])
    np.testing.assert_allclose(evaluate(y, {}), evaluate(gradient, {"long": np.zeros(long.shape)}))
