"""What convolution layers refuse, and their messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dsl
from dsl import f32, f64, i64, relu
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ops import conv, conv_transpose
from nncompile.ops.convolution.convolve import ConvTranspose
from tests.layer_checks import built
from tests.leaves import leaf

REFUSED: dict[str, tuple[Callable[[], Any], type[CompileError], str]] = {
    "a kernel larger than the image": (
        lambda: built(dsl.Conv2d(8, 11, padding=1, name="stem")).graph,
        ShapeError,
        r"Conv2d: a kernel that spans 11 is larger than the height \(axis 2\) of 8 elements and 2 "
        r"of padding(.|\n)*f32\[batch, 4, 8, 8\](.|\n)*11×11(.|\n)*in net / stem",
    ),
    "groups that do not divide the channels": (
        lambda: built(dsl.Conv2d(9, 3, groups=3, name="stem")).graph,
        ShapeError,
        r"Conv2d: 3 groups do not divide the 4 channels(.|\n)*in net / stem",
    ),
    "groups that do not divide the filters": (
        lambda: dsl.Conv2d(8, 3, groups=3),
        ModelError,
        "3 groups do not divide out_channels=8",
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
        "must be a function, got 'relu'",
    ),
    "a kernel of another rank": (
        lambda: dsl.ConvTranspose1d(8, (3, 3)),
        ModelError,
        r"kernel_size of ConvTranspose1d \(3, 3\) is not a number for each of 1",
    ),
    "no filters": (lambda: dsl.Conv2d(0, 3), ModelError, "out_channels must be at least 1"),
    "an unknown padding": (
        lambda: built(dsl.Conv2d(8, 3, padding="full")).graph,
        ShapeError,
        "Conv2d: padding must be .*same, valid, causal, got 'full'(.|\n)*padding=2: what the "
        "kernel",
    ),
    "an unknown padding of a long kernel": (
        lambda: dsl.Conv2d(8, (3, 5), padding="full", dilation=2),
        ShapeError,
        r"padding=\(4, 8\)",
    ),
    "a mode of padding": (
        lambda: dsl.Conv2d(8, 3, padding_mode="Reflect"),
        ShapeError,
        "Conv2d: padding_mode must be one of zeros, reflect, replicate, circular(.|\n)*mean "
        "'reflect'",
    ),
    "padding of another rank": (
        lambda: dsl.DepthwiseConv2d(3, padding=((1, 1),)),
        ShapeError,
        r"DepthwiseConv2d: padding \(\(1, 1\),\) is not a pair for each of 2",
    ),
    "a flag that is a number": (
        lambda: dsl.Conv2d(8, 3, bias=8),
        ModelError,
        "bias of Conv2d must be True or False, got 8",
    ),
    "causal images": (
        lambda: built(dsl.Conv2d(8, 3, padding="causal")).graph,
        ShapeError,
        r"Conv2d: padding=\"causal\" is for a sequence, .*not for \[batch, channels, height, ",
    ),
    "padding that leaves nothing": (
        lambda: built(dsl.ConvTranspose2d(8, 3, padding=9, name="up")).graph,
        ShapeError,
        r"ConvTranspose2d: .*the height \(axis 2\) off: its size would be -8(.|\n)*net / up",
    ),
    "too much output padding": (
        lambda: built(dsl.ConvTranspose2d(8, 3, stride=2, output_padding=2)).graph,
        ShapeError,
        "ConvTranspose2d: the output padding 2 is not less than stride 2",
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
        "sizes of a kernel must be numbers",
    ),
    "a size that no stride makes": (
        lambda: ConvTranspose((9,), (2,), (0, 0), (1,))(
            leaf("x", f32["n", 3, 8]), leaf("w", f32[3, 3, 3])
        ),
        ShapeError,
        r"sizes \[9\] give \[4\] with this window, got f32\[n, 3, 8\]",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    make, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        make()
