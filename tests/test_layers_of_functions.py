"""Layers that have nothing to learn: each makes the very node of its function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dsl
from dsl import f32
from nncompile import ops
from nncompile.ir.op import Value
from tests.layer_checks import built
from tests.leaves import leaf

UNEVEN = ((1, 0), (0, 1))

CASES: list[tuple[Any, Callable[[Value], Value]]] = [
    (dsl.MaxPool2d(3, 2, 1), lambda x: ops.max_pool(x, 3, 2, 1)),
    (dsl.MaxPool2d(3, 2, UNEVEN), lambda x: ops.max_pool(x, 3, 2, UNEVEN)),
    (dsl.AveragePool2d(2, ceil_mode=True), lambda x: ops.average_pool(x, 2, ceil_mode=True)),
    (
        dsl.AveragePool2d(3, 2, UNEVEN, dilation=2),
        lambda x: ops.average_pool(x, 3, 2, UNEVEN, dilation=2),
    ),
    (dsl.GlobalAveragePool(), ops.global_average_pool),
    (dsl.AdaptiveAveragePool2d(3), lambda x: ops.adaptive_average_pool(x, 3)),
    (dsl.LPPool2d(2, 3, 2, True), lambda x: ops.lp_pool(x, 2, 3, 2, True)),
    (dsl.LocalResponseNorm(3, k=2.0), lambda x: ops.local_response_norm(x, 3, k=2.0)),
    (dsl.PixelShuffle(2), lambda x: ops.pixel_shuffle(x, 2)),
    (dsl.PixelUnshuffle(2), lambda x: ops.pixel_unshuffle(x, 2)),
    (dsl.Unfold(3, padding=1), lambda x: ops.unfold(x, 3, padding=1)),
    (
        lambda x: x >> dsl.Unfold(3, padding=1) >> dsl.Fold(("2*h", 6), 3, padding=1),
        lambda x: ops.fold(ops.unfold(x, 3, padding=1), ("2*h", 6), 3, padding=1),
    ),
    (dsl.Upsample(2), lambda x: ops.resize(x, scale_factor=2)),
    (dsl.Upsample(size=4, mode="bilinear"), lambda x: ops.resize(x, 4, mode="linear")),
    (
        dsl.Upsample(2, "bicubic", align_corners=True),
        lambda x: ops.resize(x, scale_factor=2, mode="cubic", align_corners=True),
    ),
    (
        dsl.Upsample(size=(4, 5), mode="bilinear", antialias=True),
        lambda x: ops.resize(x, (4, 5), mode="linear", antialias=True),
    ),
]


@pytest.mark.parametrize(("layer", "function"), CASES)
def test_layers_are_the_functions(layer: Any, function: Callable[[Value], Value]) -> None:
    type_ = f32["n", 4, "2*h", 6]
    assert built(layer, type_).graph.outputs["y"] is function(leaf("x", type_))
