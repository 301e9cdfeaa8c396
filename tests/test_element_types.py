"""Element types: which one two of them come to, what a cast makes, which numbers a type takes."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import bf16, f16, f32, i64, u8
from nncompile import Graph
from nncompile.diagnostics.errors import DTypeError
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import (
    DTYPES,
    FLOATS,
    INTEGERS,
    DType,
    dtype_of,
    holds,
    i8,
    promote,
    u16,
    u64,
)
from nncompile.ops import cast
from tests.case_names import for_each
from tests.element_type_checks import HALVES, computed
from tests.leaves import leaf
from tests.tolerances import assert_close


def undefined(a: DType, b: DType) -> bool:
    """Whether no type holds both: uint64 with a signed one."""
    return u64 in (a, b) and any(d.is_integer and d.is_signed for d in (a, b))


@for_each("a", DTYPES)
@for_each("b", DTYPES)
def test_promotion_is_that_of_torch_and_of_numpy(
    a: DType, b: DType, torchscript: SimpleNamespace
) -> None:
    torch = torchscript.torch
    if undefined(a, b):
        with pytest.raises(DTypeError, match="no integer type holds both"):
            promote(a, b)
        return
    found = promote(a, b)
    assert found is promote(b, a)
    if a.is_float or b.is_float or u64 not in (a, b):
        kinds = (getattr(torch, d.name) for d in (a, b))
        try:
            assert str(torch.promote_types(*kinds)) == f"torch.{found.name}"
        except RuntimeError:  # torch leaves its newer unsigned types out here and there
            assert not {u16, dsl.u32, u64}.isdisjoint((a, b))
    if not (a.is_float or b.is_float):
        assert np.promote_types(a.numpy, b.numpy) == found.numpy


@for_each("wide", DTYPES)
@for_each("dtype", DTYPES)
def test_what_holds_a_type_gives_its_numbers_back(wide: DType, dtype: DType) -> None:
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        numbers = [limits.min, limits.min + 1, limits.max - 1, limits.max, 0, 1]
    else:
        numbers = [0, 1] if dtype.is_bool else [1 + 2.0 ** -(7 if dtype is bf16 else 10), 3.0, 1e38]
    with np.errstate(all="ignore"):
        x = np.asarray(numbers).astype(dtype.numpy)
        same = np.array_equal(x.astype(wide.numpy).astype(dtype.numpy), x)
        same = same and (wide.is_float or not dtype.is_float)
        # Integers that wrap round come back, too.
        same = same and bool((x.astype(wide.numpy).astype(float) == x.astype(float)).all())
    assert same or not holds(wide, dtype)


@pytest.mark.parametrize("source", DTYPES)
@for_each("target", DTYPES)
def test_casts(source: DType, target: DType, torchscript: SimpleNamespace) -> None:
    """Integers wrap round, reals go towards zero; what is no number of the target is undefined."""
    numbers: Any = [0, 1, 2, 100]
    if source.is_integer:
        limits = np.iinfo(source.numpy)
        numbers = [0, 1, limits.max, limits.max - 1, limits.max // 2 + 3, limits.min, 7]
        if target.is_half:
            numbers = [0, 1, 100]  # beyond 65504 are none of float16
    elif source.is_float:
        numbers = [0.0, 0.75, 1.5, 100.25] + ([] if not target.is_signed else [-1.5, -100.75])
    x = np.asarray(numbers, None if source.is_float else source.numpy).astype(source.numpy)
    graph = Graph("casts", {"y": cast(leaf("x", source["n"]), target)})
    with np.errstate(all="ignore"):
        expected = x.astype(target.numpy)
    script = torchscript.backend.to_function(graph)
    for found in (computed(graph, x=x)["y"], script({"x": x})["y"], evaluate(graph, {"x": x})["y"]):
        assert found.dtype == target.numpy
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_numbers_that_meet_a_type_take_it(dtype: DType) -> None:
    x = leaf("x", dtype["n"])
    assert [v.dtype for v in (x + 1, 0.5 * x, x > 0, x**2, -x)] == [dtype] * 2 + [
        dsl.boolean,
        dtype,
        dtype,
    ]
    assert (leaf("k", i8["n"]) + x).dtype is dtype


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_divided_into_reals(dtype: DType) -> None:
    n = leaf("n", dtype["n"])
    assert (n / 2).dtype is f32 and (n // 2).dtype is dtype and (n * 0.5).dtype is f32
    assert dsl.sqrt(n).dtype is f32
    total = dsl.sum(n)
    assert total.dtype is (u64 if dtype is u64 else i64)


def test_a_number_that_a_type_does_not_have_is_refused() -> None:
    with pytest.raises(DTypeError, match="u8 cannot hold 300"):
        leaf("x", u8["n"]) + 300
    with pytest.raises(DTypeError, match="does not fit in u8"):
        dsl.const(300, u8)


@pytest.mark.parametrize("dtype", HALVES)
def test_arrays_and_numbers_become_values(dtype: DType) -> None:
    x = np.asarray([1.5, 2.5], dtype.numpy)
    assert dsl.const(x).dtype is dtype and dtype_of(x) is dtype and dtype_of(x[0]) is dtype
    assert (leaf("x", dtype[2]) * x[0]).dtype is dtype
    assert_close(evaluate(dsl.const(x) * 2, {}), x.astype(float) * 2, dtype.name)


@pytest.mark.parametrize("source", [f16, bf16, u8, i64, f32])
def test_a_transposition_a_cast_and_a_product(source: DType) -> None:
    """onnxruntime joins the three, and ended the process where the first axis moves."""
    target = dsl.f64 if source is f32 else f32
    x, w = leaf("x", source["a", "b", 3]), leaf("w", target[3, "c"])
    turned = dsl.transpose(x, (1, 0, 2)).astype(target)
    flat = x[:, :, 0].T.astype(target)
    graph = Graph("turned", {"y": turned @ w, "z": flat @ x[:, :, 1].astype(target)})
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.integers(0, 9, (2, 4, 3)).astype(source.numpy),
        "w": rng.integers(0, 9, (3, 5)).astype(target.numpy),
    }
    found, expected = computed(graph, **feeds), evaluate(graph, feeds)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_of_numpy_and_torch_name_element_types(dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    x = Input("x", dsl.f32["n"])()
    assert x.astype(dtype.numpy.type).dtype is dtype
    assert x.astype(getattr(torch, dtype.name)).dtype is dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_copy_is_the_same_element_type(dtype: DType) -> None:
    """They are compared by `is`, also by those that come from another process."""
    assert copy.copy(dtype) is copy.deepcopy(dtype) is dtype
    assert pickle.loads(pickle.dumps(dtype)) is dtype
