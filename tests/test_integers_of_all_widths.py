"""Integers of every width against numpy: all pairs of numbers at the ends of the type and between,
through every operation that integers have, in ONNX and in TorchScript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile import Graph
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import DTYPES, INTEGERS, DType, i64, u64
from nncompile.ops import argmax, argmin, cast, cumsum, sort
from tests.backends import everywhere
from tests.leaves import leaf

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "floor_divide": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "fmod": dsl.fmod,
    "bitwise_and": lambda x, y: x & y,
    "bitwise_or": lambda x, y: x | y,
    "bitwise_xor": lambda x, y: x ^ y,
    "left_shift": lambda x, y: x << y,
    "right_shift": lambda x, y: x >> y,
    "less": lambda x, y: x < y,
    "less_equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "equal": lambda x, y: x == y,
    "not_equal": lambda x, y: x != y,
    "maximum": dsl.maximum,
    "minimum": dsl.minimum,
}
UNARY: dict[str, Callable[[Any], Any]] = {
    "negative": lambda x: -x,
    "abs": dsl.abs,
    "sign": dsl.sign,
    "invert": lambda x: ~x,
    "square": dsl.square,
    "max": lambda x: dsl.max(x, 0),
    "min": lambda x: dsl.min(x, 0),
    "sum": lambda x: dsl.sum(x, 0),
    "sort": sort,
    "cumsum": lambda x: cumsum(x, 0),
    "argmax": lambda x: argmax(x, 0),
    "argmin": lambda x: argmin(x, 0),
    "scatter": lambda x: dsl.scatter_add(dsl.zeros_like(x), dsl.iota(x.shape[0]) // 2, x),
    "half": lambda x: dsl.where(x > x // 2, x, x // 2),
}


def ends(dtype: DType) -> np.ndarray:
    """Numbers at the ends of the type, beside zero and about the widths of shifts, in no order."""
    limits = np.iinfo(dtype.numpy)
    bits = limits.bits
    numbers = [0, 1, 2, 3, 7, bits - 2, bits - 1, bits, bits + 1, 2 * bits]
    numbers += [-n for n in numbers]
    numbers += [limits.min, limits.min + 1, limits.min + 7, limits.max // 3, limits.max // 2]
    numbers += [limits.max // 2 + 1, limits.max - 1, limits.max]
    kept = {n for n in numbers if limits.min <= n <= limits.max}
    return np.array(sorted(kept, key=lambda n: n * 37 % 1009), dtype.numpy)


def check(graph: Graph, feeds: dict[str, np.ndarray]) -> None:
    found = everywhere(graph, feeds)
    for kind, results in found.items():
        for name, array in found["numpy"].items():
            assert results[name].dtype == array.dtype, f"{kind}: {name}"
            np.testing.assert_array_equal(results[name], array, f"{kind}: {name}")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_pairs(dtype: DType) -> None:
    one = ends(dtype)
    x, y = (a.ravel() for a in np.meshgrid(one, one, indexing="ij"))
    graph = Graph(
        "pairs", {n: f(leaf("x", dtype["n"]), leaf("y", dtype["n"])) for n, f in BINARY.items()}
    )
    feeds = {"x": x, "y": y}
    with np.errstate(all="ignore"):
        expected = {name: getattr(np, name)(x, y) for name in BINARY}
    for name, array in evaluate(graph, feeds).items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name], name)
    check(graph, feeds)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_single_numbers(dtype: DType) -> None:
    graph = Graph("single", {name: f(leaf("x", dtype["n"])) for name, f in UNARY.items()})
    x = ends(dtype)
    check(graph, {"x": x})
    found = evaluate(graph, {"x": x})
    wide = np.uint64 if dtype is u64 else np.int64
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found["sum"], x.sum(dtype=wide))
    np.testing.assert_array_equal(found["sort"], np.sort(x))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_literals(dtype: DType) -> None:
    """Numbers beside a value, the greatest ones too."""
    limits = np.iinfo(dtype.numpy)
    x = leaf("x", dtype["n"])
    outputs = {}
    for i, number in enumerate((limits.max, limits.max // 2 + 1, 3, limits.min)):
        outputs |= {f"add {i}": x + number, f"less {i}": x < number, f"or {i}": x | number}
        outputs |= {f"max {i}": dsl.maximum(x, number), f"from {i}": number - x}
        outputs |= {f"where {i}": dsl.where(x > 1, x, number), f"equal {i}": number == x}
        if number:
            outputs |= {f"by {i}": x // number, f"rest {i}": x % number}
    check(Graph("literals", outputs), {"x": ends(dtype)})


@pytest.mark.parametrize("dtype", INTEGERS)
def test_conversions(dtype: DType) -> None:
    """To every type, where numbers of it wrap round, and rounded once to reals."""
    x = leaf("x", dtype["n"])
    outputs = {d.name: cast(x, d) for d in DTYPES if d is not dtype}
    if dtype.bits > 16:  # what is beyond the greatest number of float16 is none of it
        outputs.pop("float16")
    check(Graph("conversions", outputs), {"x": ends(dtype)})


@pytest.mark.parametrize("dtype", INTEGERS)
def test_products_of_matrices_wrap_round(dtype: DType) -> None:
    a, b = Input("a", dtype["n", 3])(), Input("b", dtype[3, "m"])()
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype.numpy)
    feeds = {
        name: rng.integers(limits.min, limits.max, shape, dtype.numpy, endpoint=True)
        for name, shape in (("a", (4, 3)), ("b", (3, 2)))
    }
    graph = Graph("product", {"y": a @ b, "z": dsl.einsum("ij,jk->ki", a, b)})
    check(graph, feeds)
    found = evaluate(graph, feeds)["y"]
    exact = feeds["a"].astype(object) @ feeds["b"].astype(object)
    wrapped = np.array(exact % 2**dtype.bits, np.uint64).astype(dtype.numpy)
    np.testing.assert_array_equal(found, wrapped)


@pytest.mark.parametrize("dtype", [d for d in INTEGERS if d is not i64])
def test_indices_of_every_width(dtype: DType) -> None:
    table = Input("table", dsl.f32[5, 2])()
    places = leaf("places", dtype["n"])
    graph = Graph("rows", {"y": table[places], "z": dsl.take(table, places, 0)})
    chosen = [4, 0, 3] + ([-1] if dtype.is_signed else [2])
    feeds = {
        "table": np.arange(10, dtype=np.float32).reshape(5, 2),
        "places": np.array(chosen, dtype.numpy),
    }
    check(graph, feeds)


@pytest.mark.parametrize("source", [dsl.f32, dsl.f64])
@pytest.mark.parametrize("target", INTEGERS)
def test_negative_reals_wrap_round(source: DType, target: DType) -> None:
    """By way of i64, in which unsigned numbers are carried in TorchScript."""
    x = leaf("x", source["n"])
    y = cast(cast(x, i64), target)
    feeds = {"x": np.array([-1, -2.5, 3.5, -300, -70000], source.numpy)}
    check(Graph("negative", {"y": y, "more": cast(y, dsl.f64) + 1}), feeds)
