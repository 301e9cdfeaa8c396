"""Systems of equations, inverses, determinants, Cholesky's factors, distances: against numpy and
torch, in numpy, ONNX and TorchScript."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array, f32, f64, i64
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

RANDOM = np.random.default_rng(0)
NAN, INF = np.nan, np.inf


def conditioned(n: int, condition: float) -> Array:
    """A matrix whose singular values go from 1 to 1/condition."""
    u, v = (np.linalg.qr(RANDOM.normal(size=(n, n)))[0] for _ in range(2))
    return np.asarray(u * np.geomspace(1, 1 / condition, n) @ v)


def definite(n: int, condition: float) -> Array:
    u = np.linalg.qr(RANDOM.normal(size=(n, n)))[0]
    product = u * np.geomspace(1, 1 / condition, n) @ u.T
    return np.asarray((product + product.T) / 2)


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


# Gradients, and gradients of gradients, against torch's.

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
