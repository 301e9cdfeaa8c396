"""Losses and activations against torch's, and what tests of losses share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile.autodiff.grad import grad
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from tests.leaves import leaf

CLASS = np.array([0.5, 2.0, 1.0, 0.25])  # weights of four classes


def agree(
    ours: Callable[..., Value], theirs: Callable[..., Any], *arrays: Array, gradient_of: int = 1
) -> None:
    """Value and gradients (at the first `gradient_of` arguments) are torch's, in double precision.

    Within 10⁻⁶: torch keeps some constants (1/6, α) in single precision.
    """
    torch = pytest.importorskip("torch")
    types = [dsl.i64 if a.dtype.kind == "i" else dsl.f64 for a in arrays]
    leaves = [leaf(f"x{i}", t[a.shape]) for i, (t, a) in enumerate(zip(types, arrays, strict=True))]
    value = ours(*leaves)
    total = value.sum() if value.rank else value
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    found, *gradients = evaluate([value, *grad(total, leaves[:gradient_of])], feeds)
    tensors = [torch.tensor(a, requires_grad=i < gradient_of) for i, a in enumerate(arrays)]
    expected = theirs(*tensors)
    expected.sum().backward()
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6, atol=1e-9)
    for gradient, x in zip(gradients, tensors, strict=False):
        np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-6, atol=1e-9)


def largest(x: Value, y: Value) -> Value:
    return dsl.max(dsl.abs(x - y), -1)
