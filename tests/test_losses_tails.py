"""Losses of two classes far out in both tails, through onnxruntime in single precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from nncompile.autodiff.grad import grad
from nncompile.ir.basic import as_value
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import apply
from nncompile.ir.types import f32
from nncompile.passes import optimize
from tests.backends import in_onnxruntime

LOGITS = np.float32([-200, -100, -20, -18, -15, -10, -1, 0, 1, 10, 16, 20, 100, 200] * 2)
TAIL_TARGETS = np.repeat(np.float32([0, 1]), 14)


@pytest.mark.parametrize("spelling", ["with_logits", "of_sigmoid"])
def test_binary_cross_entropy_is_right_in_both_tails(spelling: str) -> None:
    """Relative to the loss itself where it is small, and in its gradient where it is large."""

    def loss(z: Any) -> Any:
        target = as_value(TAIL_TARGETS)
        if spelling == "with_logits":
            return dsl.binary_cross_entropy_with_logits(z, target, reduction="none")
        return dsl.binary_cross_entropy(dsl.sigmoid(z), target, reduction="none")

    z = apply(Input("z", f32[28]))
    losses = loss(z)
    graph = optimize(Graph("tails", {"y": losses, "gradient": grad(losses.sum(), z)}, (z,)))
    got = in_onnxruntime(graph, {"z": LOGITS}, {"y": (28,), "gradient": (28,)})
    double, target = LOGITS.astype(np.float64), TAIL_TARGETS.astype(np.float64)
    signed = np.where(target == 1, -double, double)
    expected = np.logaddexp(0, signed)
    np.testing.assert_allclose(got["y"], expected, rtol=1e-5, atol=1e-38)
    gradient = 1 / (1 + np.exp(-double)) - target
    np.testing.assert_allclose(got["gradient"], gradient, rtol=1e-5, atol=2e-7)
