"""Gradients of linear algebra, and gradients of those, against torch's; the determinant's at
singular matrices, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array, f32, f64
from nncompile.ops import (
    cdist,
    cholesky,
    det,
    inv,
    logdet,
    matrix_power,
    slogdet,
    solve,
    solve_triangular,
)
from tests.backends import everywhere
from tests.leaves import leaf
from tests.linear_algebra_checks import RANDOM, conditioned, definite

Function = Callable[..., Any]
DIFFERENTIATED: dict[str, tuple[Function, Function, Sequence[Array]]] = {
    "inv": (inv, lambda t, x: t.linalg.inv(x), [conditioned(3, 5)]),
    "solve": (
        solve,
        lambda t, a, b: t.linalg.solve(a, b),
        [conditioned(3, 5), RANDOM.normal(size=(3, 2))],
    ),
    "solve for a vector": (
        solve,
        lambda t, a, b: t.linalg.solve(a, b),
        [conditioned(3, 5), RANDOM.normal(size=3)],
    ),
    "det": (det, lambda t, x: t.linalg.det(x), [conditioned(3, 5)]),
    "slogdet": (lambda x: slogdet(x)[1], lambda t, x: t.linalg.slogdet(x)[1], [conditioned(3, 5)]),
    "logdet": (logdet, lambda t, x: t.logdet(x), [definite(3, 5)]),
    "cholesky": (cholesky, lambda t, x: t.linalg.cholesky(x), [definite(3, 5)]),
    "upper cholesky": (
        lambda x: cholesky(x, upper=True),
        lambda t, x: t.linalg.cholesky(x, upper=True),
        [definite(3, 5)],
    ),
    "solve_triangular": (
        lambda a, b: solve_triangular(a, b, lower=True),
        lambda t, a, b: t.linalg.solve_triangular(t.tril(a), b, upper=False),
        [conditioned(3, 5) + 2 * np.eye(3), RANDOM.normal(size=(3, 2))],
    ),
    "solve_triangular with ones": (
        lambda a, b: solve_triangular(a, b, unit_diagonal=True),
        lambda t, a, b: t.linalg.solve_triangular(
            t.triu(a, 1) + t.eye(3, dtype=a.dtype), b, upper=True, unitriangular=True
        ),
        [conditioned(3, 5), RANDOM.normal(size=(3, 2))],
    ),
    "matrix_power": (
        lambda x: matrix_power(x, -3),
        lambda t, x: t.linalg.matrix_power(x, -3),
        [conditioned(3, 5)],
    ),
    **{
        f"cdist of order {p}": (
            lambda x, y, p=p: cdist(x, y, p),
            lambda t, x, y, p=p: t.cdist(x, y, p, compute_mode="donot_use_mm_for_euclid_dist"),
            [RANDOM.normal(size=(3, 2)), RANDOM.normal(size=(4, 2))],
        )
        for p in (1.0, 2.0, 3.0, math.inf)
    },
}


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_are_those_of_torch(name: str, torchscript: SimpleNamespace) -> None:
    ours, theirs, arrays = DIFFERENTIATED[name]
    torch = torchscript.torch
    leaves = [leaf(f"x{i}", f64[a.shape]) for i, a in enumerate(arrays)]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, expected = ours(*leaves), theirs(torch, *tensors)
    weight = RANDOM.normal(size=expected.shape)
    gradients = grad((y * weight).sum(), leaves)
    by = torch.autograd.grad((expected * torch.tensor(weight)).sum(), tensors, create_graph=True)
    outputs = {"y": y, **{f"s{i}": s for i, s in enumerate(gradients)}}
    wanted = {"y": expected, **{f"s{i}": s for i, s in enumerate(by)}}
    if "cdist" not in name or "3" in name:  # torch does not differentiate others twice
        directions = [RANDOM.normal(size=a.shape) for a in arrays]
        along = sum((s * d).sum() for s, d in zip(gradients, directions, strict=True))
        twice = sum((s * torch.tensor(d)).sum() for s, d in zip(by, directions, strict=True))
        if "cdist" not in name:
            outputs |= {f"h{i}": h for i, h in enumerate(grad(along, leaves))}
            wanted |= {
                f"h{i}": h
                for i, h in enumerate(torch.autograd.grad(twice, tensors, allow_unused=True))
            }
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    for backend, found in everywhere(outputs, feeds).items():
        for key, value in wanted.items():
            array = 0.0 if value is None else value.detach().numpy()
            np.testing.assert_allclose(
                found[key], array, 1e-9, 1e-11, err_msg=f"{backend} {key} of {name}"
            )


def test_the_gradient_of_det_at_singular_matrices() -> None:
    """It is made of the determinants of the smaller matrices; of rank n − 2 it is 0."""
    data = np.stack(
        [
            [[1.0, 2, 3], [2, 4, 6], [0, 1, 5]],
            [[0, 0, 0], [0, 1, 2], [0, 3, 5]],
            [[0, 0, 1], [0, 0, 2], [0, 0, 3]],
            np.zeros((3, 3)),
            [[1, 2, 3], [4, 5, 6], [7, 8, 10]],
        ]
    )
    minors = np.empty((5, 3, 3))
    for b, i, j in np.ndindex(minors.shape):
        rest = np.delete(np.delete(data[b], i, 0), j, 1)
        minors[b, i, j] = (-1) ** (i + j) * (rest[0, 0] * rest[1, 1] - rest[0, 1] * rest[1, 0])
    for dtype in (f32, f64):
        x = leaf("x", dtype["b", "n", "n"])
        outputs = {"gradient": grad(det(x).sum(), x)}
        near = 1e-5 if dtype is f32 else 1e-13
        for backend, found in everywhere(outputs, {"x": data.astype(dtype.numpy)}).items():
            np.testing.assert_allclose(found["gradient"], minors, near, near, err_msg=backend)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_derivatives_of_det_at_singular_matrices_are_those_of_a_polynomial(n: int) -> None:
    """Against differences of fourth order of the gradient, and of the gradient of that."""
    rng = np.random.default_rng(n)
    left, right = rng.normal(size=(2, n + 1, n, n))
    for rank in range(n + 1):
        left[rank, :, rank:] = 0
    data, direction = left @ right, rng.normal(size=(n, n))
    x = leaf("x", f64[n + 1, n, n])
    gradient = grad(det(x).sum(), x)
    second = grad((gradient * direction).sum(), x)
    third = grad((second * direction).sum(), x)
    graph = Graph("gradients", {"gradient": gradient, "second": second}, (x,))
    step = 1e-3

    def differences(name: str) -> Any:
        far, near, before, behind = (
            evaluate(graph, {"x": data + side * step * direction})[name] for side in (2, 1, -1, -2)
        )
        return (8 * (near - before) - (far - behind)) / (12 * step)

    expected = {"second": differences("gradient"), "third": differences("second")}
    outputs = {"second": second, "third": third}
    for backend, found in everywhere(outputs, {"x": data}).items():
        for name, array in expected.items():
            assert np.isfinite(found[name]).all()
            np.testing.assert_allclose(found[name], array, 1e-8, 1e-8, err_msg=f"{backend} {name}")
