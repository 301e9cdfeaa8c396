"""Systems of equations, inverses, determinants, Cholesky's factors, distances: against numpy and
torch, in numpy, ONNX and TorchScript."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32, f64, i64
from nncompile.ops import (
    cdist,
    cholesky,
    det,
    eye,
    inv,
    logdet,
    matrix_power,
    slogdet,
    solve,
    solve_triangular,
)
from nncompile.ops.loops.scan import scan
from tests.backends import everywhere
from tests.leaves import leaf
from tests.linear_algebra_checks import RANDOM, conditioned, definite

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("condition", [1.0, 1e3])
def test_errors_grow_with_the_condition_number(dtype: Any, n: int, condition: float) -> None:
    """The relative error of a backward stable method is the condition number times the unit
    roundoff, times a modest function of n."""
    data = np.stack([conditioned(n, condition) for _ in range(3)]).astype(dtype.numpy)
    spd = np.stack([definite(n, condition) for _ in range(3)]).astype(dtype.numpy)
    right = RANDOM.normal(size=(3, n, 2)).astype(dtype.numpy)
    a, s = leaf("a", dtype["b", "n", "n"]), leaf("s", dtype["b", "n", "n"])
    b = leaf("b", dtype["b", "n", 2])
    sign, logarithm = slogdet(a)
    outputs = {
        "inv": inv(a),
        "solve": solve(a, b),
        "det": det(a),
        "sign": sign,
        "log": logarithm,
        "cholesky": cholesky(s),
    }
    feeds = {"a": data, "b": right, "s": spd}
    exact = evaluate(Graph("exact", outputs), feeds, np.float64)
    bound = 4 * n * condition * np.finfo(dtype.numpy).eps
    if np.abs(exact["det"]).min() < np.finfo(dtype.numpy).tiny:
        del outputs["det"]  # which is why there is its logarithm
    for backend, found in everywhere(outputs, feeds).items():
        np.testing.assert_array_equal(found["sign"], exact["sign"])
        np.testing.assert_allclose(found["log"], exact["log"], 0, bound * n, err_msg=backend)
        for name in outputs.keys() - {"sign", "log"}:
            axes = (-2, -1) if name != "det" else -1
            apart = np.sqrt(np.square(found[name] - exact[name]).sum(axes))
            size = np.sqrt(np.square(exact[name]).sum(axes))
            assert (apart <= bound * size).all(), (backend, name, apart / size, bound)


def test_float64_against_mpmath() -> None:
    """Hilbert's matrix of six rows, whose inverse is of integers; condition 1.5e7."""
    import mpmath

    n = 6
    data = np.array([[1 / (i + j + 1) for j in range(n)] for i in range(n)])
    with mpmath.workdps(50):
        matrix = mpmath.matrix(data.tolist())
        inverse = np.array((matrix**-1).tolist(), dtype=np.float64)
        determinant = float(mpmath.det(matrix))
        factor = np.array(mpmath.cholesky(matrix).tolist(), dtype=np.float64)
    x = leaf("x", f64["n", "n"])
    outputs = {"inv": inv(x), "det": det(x), "cholesky": cholesky(x)}
    for backend, found in everywhere(outputs, {"x": data}).items():
        np.testing.assert_allclose(found["inv"], inverse, 1e-8, err_msg=backend)
        np.testing.assert_allclose(found["det"], determinant, 1e-9, err_msg=backend)
        np.testing.assert_allclose(found["cholesky"], factor, 1e-9, 1e-16, err_msg=backend)


def test_rows_change_places() -> None:
    """Permutations and matrices with zeros on the diagonal need pivots."""
    data = np.stack(
        [
            np.eye(4)[[1, 0, 2, 3]],
            np.eye(4)[[1, 2, 3, 0]],
            np.eye(4)[[3, 2, 1, 0]] * 2,
            np.array([[0, 1, 2, 3], [1, 0, 1, 1], [1e-20, 1, 1, 0], [2, 0, 0, 1]]),
        ]
    )
    x = leaf("x", f64["b", "n", "n"])
    sign, logarithm = slogdet(x)
    outputs = {"inv": inv(x), "det": det(x), "sign": sign, "log": logarithm}
    for backend, found in everywhere(outputs, {"x": data}).items():
        np.testing.assert_allclose(found["inv"], np.linalg.inv(data), 1e-13, 1e-15, backend)
        np.testing.assert_allclose(found["det"], np.linalg.det(data), 1e-13, 1e-15, backend)
        np.testing.assert_allclose(found["sign"], np.linalg.slogdet(data)[0], err_msg=backend)
        np.testing.assert_allclose(found["log"], np.linalg.slogdet(data)[1], 1e-13, 1e-15, backend)


def test_what_has_no_inverse() -> None:
    """One matrix of a batch does not spoil the others."""
    singular = np.array([[1.0, 2], [2, 4]])
    fine = np.array([[2.0, 1], [1, 3]])
    data = np.stack([fine, singular, np.zeros((2, 2)), [[NAN, 1], [1, 2]], [[INF, 1], [1, 2]]])
    right = np.array([[1.0, INF], [2.0, 1.0]])
    x, b = leaf("x", f64["b", 2, 2]), leaf("b", f64[2, 2])
    sign, logarithm = slogdet(x)
    outputs = {
        "inv": inv(x),
        "solve": solve(x, b),
        "det": det(x),
        "sign": sign,
        "log": logarithm,
        "logdet": logdet(-x[:, ::-1]),
        "cholesky": cholesky(x),
        "upper": solve_triangular(x, b),
    }
    nothing = np.full((2, 2), NAN)
    solved = np.linalg.solve(fine, [[1.0], [2.0]])
    for backend, found in everywhere(outputs, {"x": data, "b": right}).items():
        expected: dict[str, Any] = {
            "inv": [np.linalg.inv(fine), *[nothing] * 4],
            "solve": [np.hstack([solved, nothing[:, 1:]]), *[nothing] * 4],
            "det": [5, 0, 0, NAN, NAN],
            "sign": [1, 0, 0, NAN, NAN],
            "log": [math.log(5), -INF, -INF, NAN, NAN],
            "logdet": [NAN, -INF, -INF, NAN, NAN],
            "cholesky": [np.linalg.cholesky(fine), *[nothing] * 4],
        }
        for name, wanted in expected.items():
            np.testing.assert_allclose(
                found[name], np.array(wanted), 1e-12, 1e-15, err_msg=f"{backend} {name}"
            )
        first = np.linalg.solve(np.triu(fine), [1.0, 2.0])
        np.testing.assert_allclose(found["upper"][0, :, 0], first, 1e-14, err_msg=backend)
        assert np.isnan(found["upper"][0, :, 1]).all() and np.isnan(found["upper"][2:]).all()


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 2, 2), (1, 1), (0, 0, 0)])
@pytest.mark.parametrize("named", [False, True])
def test_nothing_and_single_numbers(shape: tuple[int, ...], named: bool) -> None:
    names = ("n", "n") if len(shape) == 2 else ("b", "n", "n")
    x = leaf("x", f64[names if named else shape])
    data = np.full(shape, 4.0) + np.eye(shape[-1])
    b = np.ones((*shape[:-1], 2))
    right = leaf("b", f64[(*x.shape[:-1], 2)])
    sign, logarithm = slogdet(x)
    outputs = {
        "inv": inv(x) + 0,
        "solve": solve(x, right) + 0,
        "det": det(x),
        "sign": sign,
        "log": logarithm,
        "cholesky": cholesky(x) + 0,
    }
    expected = {
        "inv": np.linalg.inv(data),
        "solve": np.linalg.solve(data, b),
        "det": np.linalg.det(data),
        "sign": np.linalg.slogdet(data)[0],
        "log": np.linalg.slogdet(data)[1],
        "cholesky": np.linalg.cholesky(data),
    }
    for backend, found in everywhere(outputs, {"x": data, "b": b}).items():
        for name, wanted in expected.items():
            np.testing.assert_allclose(found[name], wanted, 1e-13, err_msg=f"{backend} {name}")


def test_shapes_that_broadcast() -> None:
    a, b = leaf("a", f32["b", 1, "n", "n"]), leaf("b", f32[4, "n", 2])
    assert solve(a, b).type == f32["b", 4, "n", 2]
    assert solve(a, leaf("v", f32["n"])).type == f32["b", 1, "n"]
    assert solve_triangular(leaf("l", f32["n", "n"]), b).type == f32[4, "n", 2]
    assert eye(3, "m").type == f32[3, "m"]
    np.testing.assert_array_equal(evaluate(eye(3, 4, 1, f64), {}), np.eye(3, 4, 1))
    np.testing.assert_array_equal(evaluate(eye(3, 2, -1), {}), np.eye(3, 2, -1))


@pytest.mark.parametrize("ahead", [(), (1,), (2,), (4, 1), (0,)])
def test_one_matrix_for_many(ahead: tuple[int, ...]) -> None:
    """A matrix without leading axes is eliminated once."""
    a, b = leaf("a", f64["n", "n"]), leaf("b", f64[("b", "c", "n", "m")[2 - len(ahead) :]])
    feeds = {"a": conditioned(3, 4) + 3 * np.eye(3), "b": RANDOM.normal(size=(*ahead, 3, 2))}
    y, lower = solve(a, b), solve_triangular(a, b, lower=True)
    outputs = {"y": y, "lower": lower, "gradient": grad((y * y).sum(), a)}
    at = np.linalg.solve(feeds["a"], feeds["b"])
    back = 2 * np.linalg.solve(feeds["a"].T, at)
    gradient = -(back @ np.swapaxes(at, -1, -2)).reshape(-1, 3, 3).sum(0)
    for backend, found in everywhere(outputs, feeds).items():
        np.testing.assert_allclose(found["y"], at, 1e-11, 1e-13, err_msg=backend)
        np.testing.assert_allclose(found["gradient"], gradient, 1e-10, 1e-12, err_msg=backend)
        expected = np.linalg.solve(np.tril(feeds["a"]), feeds["b"])
        np.testing.assert_allclose(found["lower"], expected, 1e-11, 1e-13, err_msg=backend)


def test_within_a_loop() -> None:
    """A body that solves: a loop in a loop."""
    a, xs = leaf("a", f64["n", "n"]), leaf("xs", f64["t", "n"])
    last, _ = scan(lambda c, x: (solve(a + eye(a.shape[-1], dtype=f64), c + x), c), xs[0], xs)
    outputs = {"y": last, "gradient": grad(last.sum(), a)}
    feeds = {"a": definite(3, 4), "xs": RANDOM.normal(size=(4, 3))}
    expected = feeds["xs"][0]
    for x in feeds["xs"]:
        expected = np.linalg.solve(feeds["a"] + np.eye(3), expected + x)
    found = everywhere(outputs, feeds)
    for backend in found:
        np.testing.assert_allclose(found[backend]["y"], expected, 1e-12, err_msg=backend)
        np.testing.assert_allclose(
            found[backend]["gradient"], found["numpy"]["gradient"], 1e-11, err_msg=backend
        )


def test_powers() -> None:
    data = conditioned(3, 4)
    x = leaf("x", f64["n", "n"])
    for n in (-2, -1, 0, 1, 2, 7):
        outputs = Graph("powers", {"y": matrix_power(x, n)}, (x,))
        for backend, found in everywhere(outputs, {"x": data}).items():
            np.testing.assert_allclose(
                found["y"], np.linalg.matrix_power(data, n), 1e-12, 1e-14, err_msg=f"{backend} {n}"
            )


def test_distances(torchscript: SimpleNamespace) -> None:
    """Of any order, of near points, of one point; the gradient where points meet is 0."""
    torch = torchscript.torch
    x, y = leaf("x", f64["b", "n", "d"]), leaf("y", f64["m", "d"])
    feeds = {"x": RANDOM.normal(size=(2, 3, 4)), "y": RANDOM.normal(size=(5, 4))}
    feeds["x"][0, 1] = feeds["y"][2]
    tensors = {name: torch.tensor(a, requires_grad=True) for name, a in feeds.items()}
    for p in (0.0, 0.5, 1.0, 1.5, 2.0, 4.0, math.inf):
        distances = cdist(x, y, p)
        assert distances.type == f64["b", "n", "m"]
        theirs = torch.cdist(tensors["x"], tensors["y"], p)
        outputs = {"distances": distances}
        expected = {"distances": theirs.detach().numpy()}
        if p:
            outputs["gradient"] = grad(distances.sum(), y)
            by = torch.autograd.grad(theirs.sum(), tensors["y"])[0]
            expected["gradient"] = by.numpy()
        for backend, found in everywhere(outputs, feeds).items():
            for key, wanted in expected.items():
                np.testing.assert_allclose(
                    found[key], wanted, 1e-7, 1e-12, err_msg=f"{backend} {key} of order {p}"
                )
    near = np.array([[1e4, 1e4], [1e4 + 1e-3, 1e4]], np.float32)
    z = leaf("z", f32["n", 2])
    for backend, found in everywhere({"d": cdist(z, z)}, {"z": near}).items():
        apart = float(near[1, 0]) - float(near[0, 0])
        np.testing.assert_allclose(found["d"], [[0, apart], [apart, 0]], 1e-6, err_msg=backend)


def test_mistakes() -> None:
    with pytest.raises(ShapeError, match="the last two axes must be a square matrix"):
        inv(leaf("x", f32[2, 3]))
    with pytest.raises(ShapeError, match="must be a square matrix"):
        det(leaf("x", f32["n", "m"]))
    with pytest.raises(DTypeError, match="elements must be f32 or f64, got i64"):
        cholesky(leaf("x", i64[2, 2]))
    with pytest.raises(ShapeError, match="not a system of equations"):
        solve(leaf("x", f32[2, 2]), leaf("b", f32[3, 1]))
    with pytest.raises(ShapeError, match=r"points must be \[…, n, d\] and \[…, m, d\]"):
        cdist(leaf("x", f32[2, 2]), leaf("b", f32[2, 3]))
    with pytest.raises(ShapeError, match="p must be a non-negative number"):
        cdist(leaf("x", f32[2, 2]), leaf("b", f32[2, 2]), -1)
