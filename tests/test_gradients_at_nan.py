"""Where a result is NaN or infinite, its gradient is torch's, in every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile import ops
from nncompile.autodiff.grad import grad
from nncompile.elementwise import equal, maximum, minimum, where
from nncompile.ir.basic import const
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
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


@pytest.mark.parametrize("function", [ops.softmax, ops.log_softmax])
def test_rows_of_a_softmax_that_a_choice_leaves_out_have_no_gradient(
    function: Callable[..., Value],
) -> None:
    """As in an attention of which one place sees nothing: its row is NaN, and left out."""
    scores = np.array([[1.0, 2, 0.5], [3, 1, 2]])
    bias = Input("bias", f64[2, 3])()

    def seen(x: Value) -> Value:
        empty = equal(ops.max(bias, 1, keepdims=True), -INF)
        return where(empty, 0.0, function(x + bias)) @ const([1.0, -2.0, 4.0])

    x = Input("x", f64[2, 3])()
    gradient = grad(ops.sum(seen(x) ** 2), x)
    second = grad(ops.sum(gradient**2), x)
    hidden = np.array([[0, 0, 0], [-INF] * 3])
    for value in (gradient, second):
        found = evaluate(value, {"x": scores, "bias": hidden})
        wanted = evaluate(value, {"x": scores, "bias": np.zeros((2, 3))})
        np.testing.assert_array_equal(found, [wanted[0], [0, 0, 0]])
        assert wanted.all()
