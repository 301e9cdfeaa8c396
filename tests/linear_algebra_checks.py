"""Matrices of a given condition, for the tests of linear algebra."""

from __future__ import annotations

import numpy as np

from nncompile.ir.types import Array

RANDOM = np.random.default_rng(0)


def conditioned(n: int, condition: float) -> Array:
    """A matrix whose singular values go from 1 to 1/condition."""
    u, v = (np.linalg.qr(RANDOM.normal(size=(n, n)))[0] for _ in range(2))
    return np.asarray(u * np.geomspace(1, 1 / condition, n) @ v)


def definite(n: int, condition: float) -> Array:
    """A symmetric one whose eigenvalues go from 1 to 1/condition."""
    u = np.linalg.qr(RANDOM.normal(size=(n, n)))[0]
    product = u * np.geomspace(1, 1 / condition, n) @ u.T
    return np.asarray((product + product.T) / 2)
