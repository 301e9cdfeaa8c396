"""Where a result is NaN or infinite, its gradient is torch's, in every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.autodiff.grad import grad
from nncompile.elementwise import maximum, minimum
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32, f64
from nncompile.ops.indexing.scattering import ScatterMax, ScatterMin
from tests.array_checks import Everywhere

NAN, INF = np.nan, np.inf
# The second row of each is finite, or infinite without NaN.
ROWS = [
    [[3, NAN, 1], [1, 2, 3]],
    [[-INF, 2, NAN], [INF, -INF, 0]],
    [[NAN, 5, 1], [INF, 2, 7]],
    [[INF, NAN, -INF], [0, -INF, -INF]],
]
PLACES = np.array([[0, 0], [0, 1]])

# Ours, and torch's, of x[2, 3].
FUNCTIONS: dict[str, tuple[Callable[[Value], Value], Callable[[Any, Any], Any]]] = {
    "max": (lambda x: ops.max(x, 1), lambda torch, x: x.amax(1)),
    "min": (lambda x: ops.min(x, 1), lambda torch, x: x.amin(1)),
    "max of all": (lambda x: ops.max(x), lambda torch, x: x.amax((0, 1))),
    "min, kept": (lambda x: ops.min(x, 0, True), lambda torch, x: x.amin(0)),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), lambda torch, x: x.logsumexp(1)),
    "maximum": (lambda x: maximum(x, 1.5), lambda torch, x: torch.maximum(x, x.new_full((), 1.5))),
    "minimum": (lambda x: minimum(x, 1.5), lambda torch, x: torch.minimum(x, x.new_full((), 1.5))),
    "cummax": (lambda x: ops.cummax(x, 1)[0], lambda torch, x: x.cummax(1)[0]),
    "median": (lambda x: ops.median(x, 1), lambda torch, x: x.quantile(0.5, 1)),
    "quantile": (lambda x: ops.quantile(x, 0.75, 1), lambda torch, x: x.quantile(0.75, 1)),
    "scatter max": (
        lambda x: ScatterMax(1)(x, ops.const(PLACES), x[:, 1:]),
        lambda torch, x: x.scatter_reduce(1, torch.tensor(PLACES), x[:, 1:], "amax"),
    ),
    "scatter min": (
        lambda x: ScatterMin(1)(x, ops.const(PLACES), x[:, 1:]),
        lambda torch, x: x.scatter_reduce(1, torch.tensor(PLACES), x[:, 1:], "amin"),
    ),
}


@pytest.mark.parametrize("dtype", [f32, f64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_is_torchs(name: str, dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = FUNCTIONS[name]
    gradient = Everywhere(lambda x: grad(ops.sum(ours(x)), [x])[0], dtype[2, 3])
    for rows in ROWS:
        x = torch.tensor(rows, dtype=getattr(torch, dtype.name))
        x.requires_grad_()
        theirs(torch, x).sum().backward()
        found = gradient(np.array(rows))
        np.testing.assert_allclose(found, x.grad.numpy(), 1e-6, err_msg=f"{name} at {rows}")


def test_the_gradient_of_a_maximum_is_lost_nowhere_before_it() -> None:
    """A gradient of the loss goes through what the maximum was taken of."""
    x = [[1.0, NAN], [2.0, 3.0]]
    gradient = Everywhere(
        lambda x: grad(ops.sum(ops.global_max_pool(ops.reshape(x * x, (2, 1, 2)))), [x])[0],
        f32[2, 2],
    )
    np.testing.assert_array_equal(gradient(x), [[NAN, NAN], [0, 6]])
