"""Softmax and logsumexp, far from zero and of nothing possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompile import ops
from nncompile.diagnostics.errors import ShapeError
from nncompile.elementwise import exp
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from nncompile.ops import const
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.reduction.sums import LogSumExp
from tests.gradient_checks import check_runtime, gradient_at
from tests.reduction_checks import reductions


def test_softmax_far_from_zero() -> None:
    x = np.array([[1e4, 1e4 - 1, -1e4], [-1e4, -1e4, -1e4 - 2]], np.float32)
    for op_type in (Softmax(1), LogSoftmax(1), LogSumExp((1,))):
        assert np.isfinite(evaluate(op_type(const(x)), {})).all()
        check_runtime(op_type, x)
    assert np.isfinite(gradient_at(lambda v: ops.logsumexp(v, 1), x)).all()


def test_logsumexp_of_nothing_possible() -> None:
    x = np.array([[-np.inf, -np.inf], [-np.inf, 1.0], [-np.inf, -200.0], [np.inf, 1.0]])
    sums = evaluate(ops.logsumexp(const(x), 1), {})
    np.testing.assert_array_equal(sums, [-np.inf, 1, -200, np.inf])
    gradients = gradient_at(lambda v: ops.logsumexp(v, 1), x[:3])
    np.testing.assert_array_equal(gradients, [[0, 0], [0, 1], [0, 1]])
    check_runtime(lambda v: ops.logsumexp(v, 1), x.astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(reductions(smallest=1), st.integers(-4, 3))
def test_softmax_sums_to_one(given_: tuple[Array, dict[str, Any]], axis: int) -> None:
    x, _ = given_
    if not -x.ndim <= axis < x.ndim:
        with pytest.raises(ShapeError, match=f"softmax: axis {axis} does not exist"):
            ops.softmax(const(x), axis)
        return
    y, logarithm = ops.softmax(const(x), axis), ops.log_softmax(const(x), axis)
    np.testing.assert_allclose(evaluate(ops.sum(y, axis), {}), np.ones(ops.sum(y, axis).shape))
    np.testing.assert_allclose(evaluate(exp(logarithm), {}), evaluate(y, {}))
    check_runtime(lambda v: ops.softmax(v, axis), x.astype(np.float32))
