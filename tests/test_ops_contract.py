"""Matrix products and index notation against numpy, beside what every op is tested for."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.graph import toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import boolean, f32, f64, i32, i64
from nncompile.ops import const, dot, einsum, gemm, matmul, outer, sum, tensordot
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from tests.gradient_checks import check_gradient, check_runtime
from tests.leaves import leaf

SIZES = st.integers(0, 4)


def draw_array(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, shape)


@st.composite
def factors(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays that numpy multiplies: vectors, matrices, and broadcasting stacks of them."""
    n, k, m = draw(SIZES), draw(SIZES), draw(SIZES)
    batch = draw(st.lists(SIZES, max_size=2))

    def leading() -> list[int]:
        kept = batch[draw(st.integers(0, len(batch))) :]
        return [1 if draw(st.booleans()) else size for size in kept]

    a = draw(st.sampled_from([(k,), (*leading(), n, k)]))
    b = draw(st.sampled_from([(k,), (*leading(), k, m)]))
    return draw_array(1, *a), draw_array(2, *b)


@given(factors())
def test_matmul_is_numpys(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair
    y = const(a) @ const(b)
    assert y.shape == (a @ b).shape
    np.testing.assert_allclose(evaluate(y, {}), a @ b, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(factors())
def test_matmul_gradients(pair: tuple[np.ndarray, np.ndarray]) -> None:
    check_gradient(matmul, *pair)


def test_matmul_takes_numbers_in_lists_and_promotes() -> None:
    y = const([[1, 2]], i64) @ leaf("w", f32[2, 3])
    assert y.type == f32[1, 3]
    np.testing.assert_array_equal(
        evaluate([[1.0, 2.0]] @ leaf("w", f32[2, 1]), {"w": np.ones((2, 1), np.float32)}), [[3]]
    )


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (f32["batch", 784], f32[512, 128], "matmul: inner sizes differ, 784 ≠ 512"),
        (f32["batch", "a"], f32["b", 2], "cannot tell whether the inner sizes a and b are equal"),
        (f32[()], f32[2], "a scalar has no rows or columns"),
        (f32[2, 3, 4], f32[3, 4, 5], "sizes 2 ≠ 3 on axis -1 do not broadcast"),
    ],
)
def test_matmul_errors_name_both_types(left: object, right: object, message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        leaf("x", left) @ leaf("y", right)  # type: ignore[arg-type]
    text = str(caught.value)
    assert message in text
    assert str(left) in text and str(right) in text and "test_ops_contract.py" in text


def test_no_products_of_truth_values() -> None:
    with pytest.raises(DTypeError, match="booleans have no products"):
        leaf("x", boolean[2, 2]) @ leaf("y", boolean[2, 2])


def test_gradient_of_a_shared_matrix_is_one_product() -> None:
    x, w = leaf("x", f32["b", "t", 3]), leaf("w", f32[3, 4])
    gradient = grad(sum(x @ w * 2), w)
    products = [v.op for v in toposort([gradient]) if isinstance(v.op, MatMul | Gemm)]
    assert products == [Gemm(True, False)]
    assert gradient.type == w.type


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("shape", [None, (), (1,), (4,), (2, 1), (1, 4), (2, 4)])
def test_gemm(transpose_a: bool, transpose_b: bool, shape: tuple[int, ...] | None) -> None:
    a, b = draw_array(1, 2, 3), draw_array(2, 3, 4)
    expected = 0.5 * a @ b
    given = [a.T if transpose_a else a, b.T if transpose_b else b]
    if shape is not None:
        given.append(draw_array(3, *shape))
        expected = expected - 2 * given[-1]

    def product(*args: object) -> object:
        return gemm(*args, transpose_a=transpose_a, transpose_b=transpose_b, alpha=0.5, beta=-2)

    np.testing.assert_allclose(evaluate(product(*map(const, given)), {}), expected)
    check_gradient(product, *given)
    check_runtime(product, *map(np.float32, given))


def test_gemm_errors() -> None:
    with pytest.raises(ShapeError, match=r"gemm: needs matrices, got ranks 3 and 2"):
        gemm(leaf("a", f32[2, 3, 4]), leaf("b", f32[4, 5]))
    with pytest.raises(DTypeError, match="real"):
        gemm(leaf("a", i64[2, 3]), leaf("b", i64[3, 5]))
    with pytest.raises(ShapeError, match=r"inner sizes differ, 2 ≠ 4"):
        gemm(leaf("a", f32[2, 3]), leaf("b", f32[4, 5]), transpose_a=True)
    with pytest.raises(ShapeError, match=r"f32\[3, 2, 5\] does not broadcast to \[2, 5\]"):
        gemm(leaf("a", f32[2, 3]), leaf("b", f32[3, 5]), leaf("c", f32[3, 2, 5]))


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ji,jk->ki", [(3, 2), (3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("...ij,...jk->...ik", [(2, 1, 3, 4), (5, 4, 2)]),
        ("...ij,...jk", [(2, 3, 4), (4, 2)]),
        ("i...,i...->...", [(3, 2, 4), (3, 1, 4)]),
        ("...,...", [(2, 3), (3,)]),
        ("...->...", [(2, 3)]),
        ("...i->i...", [(2, 3)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("iij,jk->ik", [(2, 2, 3), (3, 4)]),
        ("ijij->ji", [(2, 3, 2, 3)]),
        ("iii->i", [(3, 3, 3)]),
        ("ij->", [(2, 3)]),
        ("ij->ji", [(2, 3)]),
        ("ba", [(2, 3)]),
        ("i,j->ij", [(2,), (3,)]),
        ("i,j,ij->", [(2,), (3,), (2, 3)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
        ("a,ab,abc->abc", [(2,), (2, 3), (2, 3, 4)]),
        ("ij,kl->", [(2, 3), (4, 2)]),
        ("ij,j->", [(2, 3), (3,)]),
        ("ij,jk->ik", [(2, 1), (3, 4)]),
        ("i,i->i", [(1,), (3,)]),
        (",ij->ij", [(), (2, 3)]),
        (",->", [(), ()]),
        ("->", [()]),
        ("ij,jk->ik", [(2, 0), (0, 3)]),
        ("ii->", [(0, 0)]),
        ("bij,bij->b", [(2, 3, 4), (2, 3, 4)]),
        (" i j , j k -> i k ", [(2, 3), (3, 4)]),
    ],
)
def test_einsum(subscripts: str, shapes: list[tuple[int, ...]]) -> None:
    arrays = [draw_array(i, *shape) for i, shape in enumerate(shapes)]
    expected = np.einsum(subscripts, *arrays)
    y = einsum(subscripts, *map(const, arrays))
    assert y.shape == expected.shape
    np.testing.assert_allclose(evaluate(y, {}), expected, rtol=1e-12, atol=1e-12)
    check_gradient(lambda *x: einsum(subscripts, *x), *arrays)
    check_runtime(lambda *x: einsum(subscripts, *x), *map(np.float32, arrays))


@st.composite
def notations(draw: st.DrawFn) -> tuple[str, list[np.ndarray]]:
    """Any notation over four letters, each of one size, repeated letters and lone ones too."""
    letters = string.ascii_lowercase[:4]
    sizes = {letter: draw(st.integers(0, 3)) for letter in letters}
    terms = draw(st.lists(st.text(letters, max_size=3), min_size=1, max_size=3))
    known = sorted(set("".join(terms)))
    output = draw(st.permutations(known))[: draw(st.integers(0, len(known)))]
    arrays = [draw_array(i, *(sizes[x] for x in term)) for i, term in enumerate(terms)]
    return f"{','.join(terms)}->{''.join(output)}", arrays


@given(notations())
@settings(deadline=None)
def test_any_einsum_is_numpys(notation: tuple[str, list[np.ndarray]]) -> None:
    subscripts, arrays = notation
    expected = np.einsum(subscripts, *arrays)
    y = einsum(subscripts, *map(const, arrays))
    assert y.shape == expected.shape
    np.testing.assert_allclose(evaluate(y, {}), expected, rtol=1e-9, atol=1e-9)


@given(notations())
@settings(deadline=None, max_examples=25)
def test_any_einsum_runs(notation: tuple[str, list[np.ndarray]]) -> None:
    subscripts, arrays = notation
    check_runtime(lambda *x: einsum(subscripts, *x), *map(np.float32, arrays))


def test_einsum_of_integers_keeps_their_type() -> None:
    x = np.arange(9, dtype=np.int32).reshape(3, 3)
    for subscripts in ("ii->i", "ij->i", "ij,jk->ik"):
        arrays = [x] * (subscripts.count(",") + 1)
        y = einsum(subscripts, *map(const, arrays))
        assert y.dtype is i32
        np.testing.assert_array_equal(evaluate(y, {}), np.einsum(subscripts, *arrays))


@pytest.mark.parametrize(
    ("subscripts", "types", "message"),
    [
        ("ij,jk", [f32[2, 3]], "2 terms for 1 operands"),
        ("ij->i", [f32[2, 3, 4]], "'ij' for a tensor of rank 3"),
        ("ijk...->i", [f32[2, 3]], "for a tensor of rank 2"),
        ("ij->k", [f32[2, 3]], "a result 'k'"),
        ("ij->ii", [f32[2, 3]], "letter twice"),
        ("i...->i", [f32[2, 3]], 'no "..." in the result'),
        ("i1->i", [f32[2, 3]], "not a letter"),
        ("i....->i", [f32[2, 3]], "not a letter"),
        ("ij,jk->ik", [f32[2, 3], f32[4, 5]], "index j has sizes 3 ≠ 4"),
        ("ij,jk->ik", [f32[2, "n"], f32["m", 5]], "sizes n and m of index j are equal"),
        ("ii->i", [f32[2, 3]], "index i has sizes 2 ≠ 3"),
    ],
)
def test_einsum_errors(subscripts: str, types: list[object], message: str) -> None:
    leaves = [leaf(f"x{i}", t) for i, t in enumerate(types)]  # type: ignore[arg-type]
    with pytest.raises(ShapeError) as caught:
        einsum(subscripts, *leaves)
    assert str(caught.value).startswith("einsum: ") and message in str(caught.value)


@pytest.mark.parametrize(
    ("a", "b"),
    [((), (3,)), ((3,), (3,)), ((2, 3), (3,)), ((2, 3), (3, 2)), ((2, 3), (4, 3, 2)), ((3,), ())],
)
def test_dot_and_outer_are_numpys(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = draw_array(1, *a), draw_array(2, *b)
    np.testing.assert_allclose(evaluate(dot(const(x), const(y)), {}), np.dot(x, y))
    np.testing.assert_allclose(evaluate(outer(const(x), const(y)), {}), np.outer(x, y))


@pytest.mark.parametrize("axes", [0, 1, 2, ((1, 2), (0, 1)), ((-1, 1), (1, 0)), ((), ())])
def test_tensordot_is_numpys(axes: object) -> None:
    x, y = draw_array(1, 2, 3, 4), draw_array(2, 3, 4, 2)
    if axes == 1:
        y = draw_array(2, 4, 3)
    expected = np.tensordot(x, y, axes)  # type: ignore[arg-type]
    np.testing.assert_allclose(evaluate(tensordot(const(x), const(y), axes), {}), expected)


def test_tensordot_errors() -> None:
    with pytest.raises(ShapeError, match="2 axes cannot pair with 1"):
        tensordot(leaf("x", f64[2, 3]), leaf("y", f64[2, 3]), ((0, 1), (0,)))
    with pytest.raises(ShapeError, match="axis 2 does not exist"):
        tensordot(leaf("x", f64[2, 3]), leaf("y", f64[2, 3]), ((2,), (0,)))
