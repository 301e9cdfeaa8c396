"""Integer arithmetic at the ends of the range, by 0 and by −1, and shifts by any number: numpy's,
in onnxruntime and TorchScript, where the kernels would end the run or the process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile import elementwise as e
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import apply
from nncompile.ir.types import INTEGERS, DType, i32, i64
from tests.backends import everywhere
from tests.test_integers_of_all_widths import ends

BESIDE: dict[str, Callable[..., Any]] = {
    "floor_divide": np.floor_divide,
    "mod": np.mod,
    "left_shift": np.left_shift,
    "right_shift": np.right_shift,
}


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", BESIDE)
def test_integers_are_numpys_beside_a_number(name: str, dtype: DType) -> None:
    a = ends(dtype)
    x = apply(Input("x", dtype["n"]))
    numbers = [n for n in ends(dtype).tolist() if n or "shift" in name]
    made = {str(n): getattr(e, name)(x, n) for n in numbers}
    made |= {f"from {n}": getattr(e, name)(n, x) for n in numbers}
    graph = Graph("numbers", made, (x,))
    function = BESIDE[name]
    # onnx's own inference of shapes computes with such numbers, and refuses those that wrap.
    for found in everywhere(graph, {"x": a}, to_model).values():
        for n in numbers:
            number = dtype.numpy.type(n)
            with np.errstate(all="ignore"):
                np.testing.assert_array_equal(found[str(n)], function(a, number), str(n))
                np.testing.assert_array_equal(found[f"from {n}"], function(number, a), str(n))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_powers_of_integers_wrap_and_do_not_round(dtype: DType) -> None:
    bases, exponents = ends(dtype), ends(dtype)
    a, b = (g.reshape(-1) for g in np.meshgrid(bases, exponents[exponents >= 0]))
    x, y = (apply(Input(n, dtype["n"])) for n in "xy")
    graph = Graph("powers", {"z": x**y, "cube": x**3, "one": x**0}, (x, y))
    with np.errstate(all="ignore"):
        expected = {"z": a**b, "cube": a**3, "one": np.ones_like(a)}
    for found in everywhere(graph, {"x": a, "y": b}).values():
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, name)


def test_a_negative_power_of_an_integer_is_its_inverse_towards_zero() -> None:
    x, y = (apply(Input(n, i64["n"])) for n in "xy")
    graph = Graph("powers", {"z": x**y}, (x, y))
    feeds = {
        "x": np.asarray([-2, -1, -1, 0, 1, 2, np.iinfo(np.int64).min, 5]),
        "y": np.asarray([-1, -1, -2, -1, -3, -5, -1, np.iinfo(np.int64).min]),
    }
    for found in everywhere(graph, feeds).values():
        np.testing.assert_array_equal(found["z"], [0, -1, 1, 0, 1, 0, 0, 0])


def test_a_guarded_quotient_runs_where_there_is_nothing_to_divide_by() -> None:
    s, n = (apply(Input(name, i64["n"])) for name in "sn")
    guarded = e.where(n > 0, s // n, -1)
    graph = Graph("mean", {"guarded": guarded, "left": e.where(n > 0, s % n, -1)}, (s, n))
    feeds = {"s": np.asarray([7, 7, 8]), "n": np.asarray([2, 0, 3])}
    for found in everywhere(graph, feeds).values():
        np.testing.assert_array_equal(found["guarded"], [3, -1, 2])
        np.testing.assert_array_equal(found["left"], [1, -1, 2])


def test_the_compiler_divides_constants_alike() -> None:
    least = np.iinfo(np.int32).min
    x = apply(Input("x", i32["n"]))
    a = e.floor_divide(np.asarray([least, 7, -7], np.int32), np.asarray([-1, 0, 2], np.int32))
    np.testing.assert_array_equal(a, [least, 0, -4])
    made = x * 0 + least
    graph = Graph("folded", {"z": made // -1, "m": made % -1}, (x,))
    for found in everywhere(graph, {"x": np.zeros(2, np.int32)}).values():
        np.testing.assert_array_equal(found["z"], [least, least])
        np.testing.assert_array_equal(found["m"], [0, 0])
