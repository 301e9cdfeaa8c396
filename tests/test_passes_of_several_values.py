"""Rules that look at several values at once: what is shared, becomes a product, or is hoisted."""

from __future__ import annotations

from nncompile.elementwise import exp, relu, where
from nncompile.elementwise.formula import formula
from nncompile.ir.graph import toposort
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64, u32
from nncompile.ops import (
    broadcast_to,
    const,
    log_softmax,
    logsumexp,
    reshape,
    scatter_add,
    softmax,
    transpose,
    zeros_like,
)
from nncompile.ops import max as maximum_of
from nncompile.ops import sum as total
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.random.generator import Dropout
from nncompile.ops.shape.gathering import ScatterAdd
from tests.leaves import leaf
from tests.pass_checks import LABEL, A, B, G, S, after


def test_common_knows_a_reduction_by_its_other_form() -> None:
    for op in (total, maximum_of, logsumexp):
        flat, kept = after("common", op(A, 1), op(A, 1, keepdims=True))[:2]
        assert flat is op(A, 1)
        assert kept is reshape(flat, ("n", 1))


def test_common_makes_a_softmax_of_its_logarithm() -> None:
    logarithm, share = after("common", log_softmax(A, 1), softmax(A, 1))[:2]
    assert share is exp(logarithm)
    assert after("common", log_softmax(A, 0), softmax(A, 1))[1] is softmax(A, 1)


def test_common_asks_what_was_rectified_for_the_sign() -> None:
    x = A - 1
    y, gradient = after("common", relu(x), where(x > 0, B, 0))[:2]
    assert gradient is where(y > 0, B, 0)
    kept = where(x > 1, B, x)  # needs more of x than its sign
    assert after("common", relu(x), kept)[1] is kept


def test_scatters_into_few_rows_are_a_product() -> None:
    """Up to √(512·2) = 32 rows of two numbers, whether of zeros or not."""
    for rows in (5, 32, 33):
        table = leaf("table", f32[rows, 2])
        for base in (table, zeros_like(table)):
            made, *_ = after("scatters", scatter_add(base, LABEL[:, 0], G))
            assert isinstance(made.op, Gemm) is (rows <= 32)
            assert len(made.args) == (2 if made.op == Gemm(True) and base is not table else 3)
    own = ScatterAdd(0)(leaf("t", f32[5, 2]), leaf("places", i64["n", 2]), G)
    assert after("scatters", own)[0] is own  # each number has a row of its own


def test_scatters_that_are_broadcast_stay() -> None:
    """They would have to be made in every row."""
    indices, updates = leaf("indices", i64[2]), leaf("updates", f32[2])
    scattered = ScatterAdd(0)(broadcast_to(const(0.0), (3,)), indices, updates)
    (found, *_) = after("scatters", A + scattered)
    assert found is A + scattered


def test_common_sums_products_where_they_are_narrow() -> None:
    keys = leaf("keys", f32[5, 7, 2])
    weights, gradient = leaf("weights", f32[5, 3, 7]), leaf("gradient", f32[5, 3, 2])
    wide = gradient @ transpose(keys, (0, 2, 1))
    together = weights @ keys
    for keep in (False, True):
        summed = total(weights * wide, 2, keepdims=keep)
        assert after("common", summed, together)[0] is total(gradient * together, 2, keepdims=keep)
        assert after("common", summed)[0] is summed  # the other product would be more work
    over_others = total(weights * wide, 1)
    assert after("common", over_others, together)[0] is over_others
    one, bits = leaf("one", f32[5, 3, 1]), leaf("bits", u32[5, 3, 7])
    dropped = total(one * Dropout(0.5)(wide, bits), 2)  # a column is not what was dropped
    assert after("common", dropped, together)[0] is dropped


def test_hoist_computes_numbers_first() -> None:
    r = leaf("r", f32[()])
    (made, *_) = after("hoist", leaf("x", f32["n", 3]) * 3)
    assert made is leaf("x", f32["n", 3]) * 3

    @formula
    def scaled(x: Value, s: Value, r: Value) -> Value:
        return -2 * x * s / r + x * exp(s)

    (made, *_) = after("hoist", scaled(A, S, r))
    small = [v for v in toposort([made]) if v.args and v.rank == 0]
    assert len(small) == 2
    assert not any(v.rank and any(a is S for a in v.args) for v in toposort([made]))
