"""Norms against numpy's, their gradients at zeros against torch's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.autodiff.grad import vjp
from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import DType, f32, f64
from nncompile.ops import const
from tests.gradient_checks import check_gradient, gradient_at
from tests.leaves import leaf
from tests.reduction_checks import assert_as_numpy
from tests.scan_checks import check_everywhere

ORDERS = [-np.inf, -2, -0.5, 0, 0.3, 0.5, 1, 1.5, 2, 2.5, 3, 4, np.inf]


@pytest.mark.parametrize("order", ORDERS)
def test_norms(order: float) -> None:
    x = np.random.default_rng(0).uniform(-2, 2, (3, 4))
    expected = np.linalg.norm(x, order, axis=1)
    assert_as_numpy(ops.norm(const(x), order, axis=1), expected)
    check_gradient(lambda v: ops.norm(v, order, axis=1), x)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [f32, f64])
def test_gradients_of_norms_at_zeros_are_torchs(
    order: float, dtype: DType, torchscript: SimpleNamespace
) -> None:
    torch = torchscript.torch
    points = np.array([[0, 0, 0.0], [0, 1, -2], [3, -3, 1], [2, 0, 0]], dtype.numpy)
    weights = np.array([1, 2, 3, 4], dtype.numpy)
    x, w, u = leaf("x", dtype["n", 3]), leaf("w", dtype["n"]), leaf("u", dtype["n", 3])
    y = ops.norm(x, order, axis=1)
    (dx,) = vjp([y], [x], [w])
    (ddx,) = vjp([dx], [x], [u])
    graph = Graph("norm", {"y": y, "dx": dx, "ddx": ddx}, (x, w, u))
    feeds = {"x": points, "w": weights, "u": np.arange(12, dtype=dtype.numpy).reshape(4, 3)}
    check_everywhere(graph, feeds)
    found = evaluate(graph, feeds, np.float64)
    theirs = torch.tensor(points.astype(np.float64), requires_grad=True)
    length = torch.linalg.vector_norm(theirs, order, dim=1)
    expected = np.zeros_like(points)
    if order != 0:  # which is constant, and has no gradient in torch
        (length * torch.tensor(weights.astype(np.float64))).sum().backward()
        expected = theirs.grad.numpy()
    np.testing.assert_allclose(found["y"], length.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(found["dx"], expected, rtol=1e-12)
    assert np.isfinite(found["ddx"]).all()


@pytest.mark.parametrize("order", [np.nan, "fro"])
def test_norm_needs_a_number(order: Any) -> None:
    with pytest.raises(ShapeError, match="norm: the order must be a number"):
        ops.norm(leaf("x", f32[3]), order)


def test_lengths_are_flat_at_the_origin() -> None:
    assert not gradient_at(ops.norm, np.zeros(3)).any()
    assert not gradient_at(ops.std, np.full(3, 2.0)).any()
