"""Where an op says that it computes row by row, rows are apart: a row is made of its own alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from nncompile.ir.dims import Dim
from nncompile.ir.op import Op, Sample
from nncompile.ir.types import Type, dtype_of, f32
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.reduction.operands import Reduction
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.slicing import Pad, Slice
from tests.case_names import case_named
from tests.op_types import Case, import_all, registered_ops
from tests.test_ops import CASES

# An op that says nothing is not taken for harmless: predictions look at the numbers then.
DEFAULT = Op.rowwise
OPS = list(dict.fromkeys(type(case.sample.op) for case in CASES))


def claims(case: Case) -> Iterator[tuple[tuple[int | None, ...], int]]:
    """Each choice of one axis, or none, of each argument for which an axis of the result is
    claimed."""
    types = case.sample.types
    every = [[None, *range(t.rank)] for t in types]
    for places in itertools.islice(itertools.product(*every), 1, 4096):
        axis = case.sample.op.rowwise(places, *types)
        if axis is not None:
            yield places, axis


def check_rows(case: Case, places: tuple[int | None, ...], axis: int) -> bool:
    """Whether there were rows to look at."""
    looked = False
    for sizes in case.bindings:
        feeds = case.feeds(sizes)
        arrays = [feeds[leaf.op.name] for leaf in case.leaves]  # type: ignore[attr-defined]
        counts = {a.shape[p] for a, p in zip(arrays, places, strict=True) if p is not None}
        if len(counts) != 1 or min(counts) < 2:
            continue  # arguments of other sizes do not stand side by side
        (count,) = counts
        looked = True

        def results(
            given: list[np.ndarray], feeds: Any = feeds, sizes: Any = sizes
        ) -> tuple[Any, ...]:
            names = [leaf.op.name for leaf in case.leaves]  # type: ignore[attr-defined]
            return case.numpy({**feeds, **dict(zip(names, given, strict=True))}, sizes)

        def rows(x: np.ndarray, place: int | None, order: Any) -> np.ndarray:
            return x if place is None else np.take(x, order, place)

        before = results(arrays)
        order = np.roll(np.arange(count), 1)
        turned = [rows(x, p, order) for x, p in zip(arrays, places, strict=True)]
        alone = [rows(x, p, [0] * count) for x, p in zip(arrays, places, strict=True)]
        for old, new, single in zip(before, results(turned), results(alone), strict=True):
            assert old.shape[axis] == count
            np.testing.assert_allclose(new, np.take(old, order, axis), 1e-5, 1e-6)
            np.testing.assert_allclose(single, np.take(old, [0] * count, axis), 1e-5, 1e-6)
    return looked


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_rows_are_apart_where_an_op_says_so(op: type[Op]) -> None:
    for case in CASES:
        if type(case.sample.op) is op:
            with case_named(case.name):
                for places, axis in claims(case):
                    check_rows(case, places, axis)


def ways(op: type[Op]) -> list[str]:
    """How an op says which axes it mixes."""
    said = {"rowwise": op.rowwise is not DEFAULT, "varies": op.varies, "mixes": op.mixes}
    return [way for way, used in said.items() if used]


def test_every_op_says_which_axes_it_mixes() -> None:
    """In one way: what an op leaves out is not an oversight."""
    import_all()
    ours = {op for (module, _), op in Op.registry.items() if module.startswith("nncompile.")}
    unclear = {op.__name__: ways(op) for op in ours if len(ways(op)) != 1}
    assert not unclear, "an op says it in one way: it defines rowwise, or sets varies or mixes"


def test_what_keeps_dimensions_is_a_reduction() -> None:
    """Which the rules for all of them take it for."""
    fields = {op: set(op.__annotations__) for op in registered_ops()}
    assert {op for op in fields if "keepdims" in fields[op]} <= {
        op for op in fields if issubclass(op, Reduction)
    }


def test_an_op_that_does_not_say_is_seen() -> None:
    class Silent(Op):
        pass

    class Contradictory(Sum):
        mixes = True

    for op in (Silent, Contradictory):
        Op.registry.pop((op.__module__, op.__qualname__))
    assert not ways(Silent) and len(ways(Contradictory)) == 2
    assert Silent().rowwise((0,), f32["n"]) is None


@pytest.mark.parametrize(
    "op_type", [c for c in registered_ops() if not c.mixes], ids=lambda c: c.__name__
)
def test_what_an_op_says_is_looked_at(op_type: type[Op]) -> None:
    """There is a sample with rows, of which it says an axis."""
    ours = [case for case in CASES if type(case.sample.op) is op_type]
    found = [check_rows(case, *claim) for case in ours for claim in claims(case)]
    name = op_type.__name__
    assert any(found), f"no sample of {name} has rows of which it says an axis; or it sets mixes"


def check_batched(case: Case) -> bool:
    """Whether there was an op for stacked arguments, which does to each row what the op does."""
    for sizes in case.bindings:
        op = case.sample.op.at(sizes)
        stacked = op.batched(2)
        if stacked is None:
            return False
        feeds = case.feeds(sizes)
        one = [feeds[leaf.op.name] for leaf in case.leaves]  # type: ignore[attr-defined]
        other = [np.flip(x).copy() for x in one]
        both = [np.stack(rows) for rows in zip(one, other, strict=True)]
        types = [Type(dtype_of(x), x.shape) for x in both]
        assert stacked.rowwise([0] * len(types), *types) == 0
        for i, row in enumerate((one, other)):
            for whole, part in zip(outputs(stacked, both), outputs(op, row), strict=True):
                np.testing.assert_array_equal(whole[i], part)
    return True


def outputs(op: Op, arrays: list[np.ndarray]) -> tuple[Any, ...]:
    with np.errstate(all="ignore"):
        results = op.numpy(*arrays)
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("op", registered_ops(), ids=lambda op: op.__name__)
def test_a_batched_op_works_row_by_row(op: type[Op]) -> None:
    found = [check_batched(case) for case in CASES if type(case.sample.op) is op]
    assert not found or all(found) is (op.batched is not Op.batched or bool(op.varies))


def test_a_wrong_batched_op_is_found() -> None:
    class Wrong(Pad):
        def batched(self, length: Dim) -> Pad:
            return Pad((0, *self.before), (0, *self.before), self.value)

    Op.registry.pop((Wrong.__module__, Wrong.__qualname__))
    with pytest.raises(AssertionError):
        check_batched(Case("wrong", Sample(Wrong((1,), (2,)), (f32["n"],))))


def check_copies(case: Case) -> None:
    """A function of one number commutes with an op that copies elements."""

    def changed(x: np.ndarray) -> np.ndarray:
        return ~x if x.dtype == bool else 2 * x + np.ones((), x.dtype)

    for sizes in case.bindings:
        feeds = case.feeds(sizes)
        names = [leaf.op.name for leaf in case.leaves]  # type: ignore[attr-defined]
        copied = names[: case.sample.op.copies]
        after = case.numpy({**feeds, **{n: changed(feeds[n]) for n in copied}}, sizes)
        for old, new in zip(case.numpy(feeds, sizes), after, strict=True):
            np.testing.assert_array_equal(new, changed(old))


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.sample.op.copies != 0], ids=lambda case: case.name
)
def test_an_op_copies_elements_where_it_says_so(case: Case) -> None:
    check_copies(case)


def test_a_wrong_claim_of_copies_is_found() -> None:
    class Wrong(Pad):
        copies = 1

    Op.registry.pop((Wrong.__module__, Wrong.__qualname__))
    with pytest.raises(AssertionError):
        check_copies(Case("wrong", Sample(Wrong((1,), (0,)), (f32["n"],))))


def test_a_wrong_claim_is_found() -> None:
    class Wrong(Sum):
        def rowwise(self, row_axes: Any, *types: Any) -> int | None:
            return 0 if self.axes == (1,) else row_axes[0]

    along_rows = Case("right", Sample(Wrong((1,)), (f32["n", 3],)))
    assert check_rows(along_rows, (0,), 0)
    mixed = Case("wrong", Sample(Wrong((0,), True), (f32["n", 3],)))
    with pytest.raises(AssertionError):
        check_rows(mixed, (0,), 0)
    Op.registry.pop((Wrong.__module__, Wrong.__qualname__))


def test_what_is_said() -> None:
    a, b = f32["n", 3], f32[3, "m"]
    assert MatMul().rowwise((0, None), a, b) == 0
    assert MatMul().rowwise((None, 1), a, b) == 1
    assert MatMul().rowwise((1, None), a, b) is None
    assert MatMul().rowwise((1, 0), a, b) is None
    assert Sum((0,)).rowwise((1,), a) == 0
    assert Sum((0,)).rowwise((0,), a) is None
    assert Slice((0, 0), (a.shape[0], 2), (1, 1)).rowwise((0,), a) == 0
    assert Slice((1, 0), (1, 3), (1, 1)).rowwise((0,), a) is None
