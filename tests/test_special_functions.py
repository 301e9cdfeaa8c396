"""Special functions against mpmath in 40 digits, in numpy, ONNX and TorchScript."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import pytest

from nncompile import elementwise as e
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import FormulaError
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import apply
from nncompile.ir.types import DType, f32, f64
from tests.backends import everywhere

Function = Callable[[Any], Any]

_rng = np.random.default_rng(0)


def _between(low: float, high: float, count: int = 150) -> np.ndarray:
    return _rng.uniform(low, high, count)


def _near(place: float, sign: float = 1.0) -> np.ndarray:
    """Points that come closer and closer to a place."""
    return place + sign * 10.0 ** np.linspace(-6, -1, 21)


POSITIVE = np.concatenate(
    [_between(0.01, 13), 10.0 ** np.linspace(-30, 30, 61), _near(1), _near(1, -1), _near(2, -1)]
)
NEGATIVE = -_between(0.01, 25)
# Ours, mpmath's, where, and how near: relative in float64, and absolute beside roots.
EXACT: dict[str, tuple[Function, Function, np.ndarray, float, float]] = {
    "lgamma": (e.lgamma, lambda x: mpmath.re(mpmath.loggamma(x)), POSITIVE, 2e-14, 0),
    "lgamma below 0": (
        e.lgamma,
        lambda x: mpmath.re(mpmath.loggamma(x)),
        NEGATIVE,
        1e-14,
        1e-14,
    ),
    "digamma": (e.digamma, mpmath.digamma, POSITIVE, 1e-14, 2e-15),
    "digamma below 0": (e.digamma, mpmath.digamma, NEGATIVE, 1e-13, 1e-14),
    **{
        f"polygamma {n}": (
            lambda x, n=n: e.polygamma(n, x),
            lambda x, n=n: mpmath.psi(n, x),
            np.concatenate([_between(0.01, 30), 10.0 ** np.linspace(-5, 5, 11)]),
            1e-13,
            0,
        )
        for n in (1, 2, 3, 4, 7, 20)
    },
    **{
        f"polygamma {n} below 0": (
            lambda x, n=n: e.polygamma(n, x),
            lambda x, n=n: mpmath.psi(n, x),
            NEGATIVE,
            1e-13,
            1e-9,
        )
        for n in (1, 2, 3, 4)
    },
    "erfc": (e.erfc, mpmath.erfc, np.concatenate([_between(-6, 1), _between(0, 26)]), 2e-15, 0),
    "erfinv": (
        e.erfinv,
        mpmath.erfinv,
        np.concatenate([_between(-1, 1), 10.0 ** np.linspace(-30, -1, 30), _near(1, -1)]),
        2e-15,
        0,
    ),
    **{
        f"i{n}": (
            getattr(e, f"i{n}"),
            lambda x, n=n: mpmath.besseli(n, x),
            np.concatenate([_between(-40, 40), _between(600, 712, 20), _near(0)]),
            3e-14,  # the exponential at 700
            0,
        )
        for n in (0, 1)
    },
    **{
        f"i{n}e": (
            getattr(e, f"i{n}e"),
            lambda x, n=n: mpmath.besseli(n, x) * mpmath.exp(-abs(x)),
            np.concatenate([_between(-40, 40), 10.0 ** np.linspace(-9, 9, 19), _near(0)]),
            2e-15,
            0,
        )
        for n in (0, 1)
    },
    "logit": (
        e.logit,
        lambda x: mpmath.log(x / (1 - x)),
        np.concatenate([_between(0.001, 0.999), _near(0.5), _near(0), _near(1, -1)]),
        1e-15,
        0,
    ),
}


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", EXACT)
def test_they_are_right(name: str, dtype: DType) -> None:
    ours, exact, points, relative, absolute = EXACT[name]
    points = points.astype(dtype.numpy)
    with mpmath.workdps(40):
        expected = np.array([float(exact(mpmath.mpf(float(x)))) for x in points])
    limits = np.finfo(dtype.numpy)
    kept = (limits.tiny < np.abs(expected)) & (np.abs(expected) < limits.max)
    points = points[kept]
    x = apply(Input("x", dtype["n"]))
    if dtype is f32:
        relative, absolute = 2e-6, max(absolute, 2e-6) if absolute else 0
    for backend, found in everywhere({"y": ours(x)}, {"x": points}).items():
        np.testing.assert_allclose(found["y"], expected[kept], relative, absolute, err_msg=backend)


# Special values: what scipy says of them, in float64 and float32.
INF, NAN = np.inf, np.nan
AT_SPECIAL: dict[str, tuple[Function, list[float], list[float]]] = {
    "lgamma": (
        e.lgamma,
        [0.0, -0.0, -1, -2, INF, -INF, NAN, 1, 2, 1e308, -(2.0**60), 5e-324, -5e-324],
        [INF] * 6 + [NAN, 0, 0, INF, INF, 744.4400719213812, 744.4400719213812],
    ),
    "digamma": (
        e.digamma,
        [0.0, -0.0, -1, -2, INF, -INF, NAN, -(2.0**60)],
        [-INF, INF, NAN, NAN, INF, NAN, NAN, NAN],
    ),
    "polygamma 1": (
        lambda x: e.polygamma(1, x),
        [0.0, -0.0, -1, -2, INF, -INF, NAN],
        [INF, INF, INF, INF, 0, NAN, NAN],
    ),
    "polygamma 2": (
        lambda x: e.polygamma(2, x),
        [0.0, -0.0, -1, -2, INF, -INF, NAN],
        [-INF, -INF, -INF, -INF, -0.0, NAN, NAN],
    ),
    "erfc": (e.erfc, [0.0, -0.0, INF, -INF, NAN, 40, -40], [1, 1, 0, 2, NAN, 0, 2]),
    "erfinv": (
        e.erfinv,
        [0.0, -0.0, 1, -1, 1.5, -1.5, INF, NAN],
        [0, -0.0, INF, -INF, NAN, NAN, NAN, NAN],
    ),
    "i0": (e.i0, [0.0, -0.0, INF, -INF, NAN, 1e308], [1, 1, INF, INF, NAN, INF]),
    "i1": (e.i1, [0.0, -0.0, INF, -INF, NAN, -1e308], [0, -0.0, INF, -INF, NAN, -INF]),
    "i0e": (e.i0e, [0.0, -0.0, INF, -INF, NAN], [1, 1, 0, 0, NAN]),
    "i1e": (e.i1e, [0.0, -0.0, INF, -INF, NAN], [0, -0.0, 0, 0, NAN]),
    "logit": (e.logit, [0.0, 1, 0.5, -1, 2, NAN], [-INF, INF, 0, NAN, NAN, NAN]),
    "logit of limited": (lambda x: e.logit(x, 0.25), [0.0, 1], [-np.log(3), np.log(3)]),
}


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", AT_SPECIAL)
def test_special_values(name: str, dtype: DType) -> None:
    ours, points, expected = AT_SPECIAL[name]
    with np.errstate(over="ignore"):
        data = np.array(points).astype(dtype.numpy)
    wanted = np.array(expected)
    if dtype is f32:  # what float64 alone can hold
        held = np.isfinite(data) == np.isfinite(points)
        held &= (data == 0) == (np.array(points) == 0)
        data, wanted = data[held], wanted[held]
    x = apply(Input("x", dtype["n"]))
    for backend, found in everywhere({"y": ours(x)}, {"x": data}).items():
        np.testing.assert_allclose(found["y"], wanted, 1e-6, 0, err_msg=backend)
        zeros = wanted == 0
        np.testing.assert_array_equal(
            np.signbit(found["y"][zeros]), np.signbit(wanted[zeros]), err_msg=backend
        )


@pytest.mark.parametrize("name", ["xlogy", "xlog1py"])
def test_products_with_logarithms(name: str, torchscript: SimpleNamespace) -> None:
    """As torch's with gradients, but for 0/0 in that by y, which is 0 here."""
    torch = torchscript.torch
    numbers = np.array([0.0, -0.0, 1, -1, 0.5, 3, INF, -INF, NAN])
    left, right = (a.ravel() for a in np.meshgrid(numbers, numbers))
    x, y = (apply(Input(n, f64["n"])) for n in "xy")
    product = getattr(e, name)(x, y)
    gradients = grad(product.sum(), [x, y])
    a, b = (torch.tensor(v, requires_grad=True) for v in (left, right))
    theirs = getattr(torch.special, name)(a, b)
    by = torch.autograd.grad(theirs.sum(), [a, b])
    expected = {"product": theirs.detach(), "s0": by[0], "s1": by[1]}
    outputs = {"product": product, "s0": gradients[0], "s1": gradients[1]}
    of_log = right if name == "xlogy" else right + 1
    nothing = (left == 0) & (of_log <= 0)
    for backend, found in everywhere(outputs, {"x": left, "y": right}).items():
        for key, array in expected.items():
            wanted = np.where(nothing, 0.0, array.numpy())
            np.testing.assert_allclose(found[key], wanted, 1e-12, 0, err_msg=f"{backend} {key}")


def test_small_factors_keep_their_logarithm() -> None:
    """x·log(x) is differentiated with x in both places."""
    x = apply(Input("x", f64["n"]))
    points = np.array([0.0, 1e-300, 0.5])
    np.testing.assert_allclose(
        evaluate(e.xlogy(x, x), {"x": points}), [0, -6.907755e-298, -0.3465736], 1e-6
    )
    gradient = grad(e.xlogy(x, x).sum(), x)
    np.testing.assert_allclose(evaluate(gradient, {"x": points})[1:], np.log(points[1:]) + 1)


# Gradients of higher orders, by mpmath's derivatives.
DIFFERENTIATED: dict[str, tuple[Function, Function, list[float]]] = {
    "lgamma": (e.lgamma, mpmath.loggamma, [0.3, 1.0, 2.5, 12.0]),
    "erfc": (e.erfc, mpmath.erfc, [-1.0, 0.0, 0.7, 3.0]),
    "erfinv": (e.erfinv, mpmath.erfinv, [-0.7, 0.0, 0.3, 0.9]),
    "i0": (e.i0, lambda x: mpmath.besseli(0, x), [-2.0, 0.0, 1e-4, 3.0, 33.0]),
    "i1": (e.i1, lambda x: mpmath.besseli(1, x), [-2.0, 0.0, 1e-4, 3.0, 33.0]),
    "i1e": (e.i1e, lambda x: mpmath.besseli(1, x) * mpmath.exp(-x), [0.5, 3.0, 33.0]),
    "logit": (e.logit, lambda x: mpmath.log(x / (1 - x)), [0.1, 0.5, 0.8]),
}


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_gradients_of_four_orders(name: str) -> None:
    ours, theirs, points = DIFFERENTIATED[name]
    x = apply(Input("x", f64["n"]))
    outputs, y = {}, ours(x)
    for order in range(1, 5):
        y = grad(y.sum(), x)
        outputs[f"order {order}"] = y
    data = np.array(points)
    for backend, found in everywhere(outputs, {"x": data}).items():
        for order in range(1, 5):
            with mpmath.workdps(40):
                expected = [float(mpmath.re(mpmath.diff(theirs, p, order))) for p in points]
            np.testing.assert_allclose(
                found[f"order {order}"], expected, 1e-9, 1e-12, err_msg=f"{backend} {order}"
            )


def test_plain_numbers_and_orders() -> None:
    assert e.polygamma(1, 1.0) == pytest.approx(np.pi**2 / 6, rel=1e-14)
    assert e.polygamma(0, 1.0) == e.digamma(1.0) == e.psi(1.0)
    assert e.gammaln(5.0) == e.lgamma(5.0) == pytest.approx(np.log(24), rel=1e-14)
    assert e.lgamma(5) == pytest.approx(np.log(24), rel=1e-14)
    for order in (-1, 1.0, True, np.ones(2)):
        with pytest.raises(FormulaError, match="order n must be an integer"):
            e.polygamma(order, np.ones(2))
    x = apply(Input("x", f32["n"]))
    with pytest.raises(FormulaError, match="order n must be an integer"):
        e.polygamma(x, 1)
