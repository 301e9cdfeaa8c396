"""The kernel `Elementwise`: each operation, shapes of all kinds, and instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from nncompile.backends.onnx.native.program import LETTERS, OPERATIONS
from nncompile.runtime.buffers import array_of, buffer_at, buffer_of
from tests.native_checks import called, feeds, needs_library, run, session

pytestmark = needs_library
ROOT = Path(__file__).parent.parent

DTYPES = {letter: dtype.numpy for dtype, letter in LETTERS.items()}
ELEMENT = {letter: helper.np_dtype_to_tensor_dtype(x) for letter, x in DTYPES.items()}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan, 1e-40, 3e38, -3e38, 88.8, -104.0]
ONE = {"Neg", "Abs", "Sign", "Relu", "Sqrt", "Exp", "Log", "Tanh", "Erf", "Floor", "Ceil", "Round"}
ONE |= {"Sin", "Cos", "Sigmoid", "IsNaN", "Not", "BitwiseNot"}
# Neither side rounds these right; the runtime's logistic function is off by 10⁻⁷.
ROUGH = dict.fromkeys(("Erf", "Tanh", "Exp", "Log", "Pow", "Sin", "Cos"), (3e-7, 1e-37))
ROUGH["Sigmoid"] = 3e-7, 2e-7
# onnxruntime has no kernel for these.
ABSENT = {("Erf", "d"), ("Cos", "d"), ("Relu", "d")}
ABSENT |= {("Less", "b"), ("LessOrEqual", "b"), ("Max", "l"), ("Min", "l")}
CASES = [
    pytest.param(operator, letter, id=f"{operator}-{letter}")
    for operator, (_, letters) in OPERATIONS.items()
    for letter in letters
    if (operator, letter) not in ABSENT
]


def numbers(letter: str, count: int, seed: int) -> np.ndarray[Any, Any]:
    """Numbers of that element type; of real ones those that are special, too."""
    rng = np.random.default_rng(seed)
    if letter == "b":
        return rng.random(count) < 0.5
    if letter in "liu":
        return rng.integers(0 if letter == "u" else -9, 9, count).astype(DTYPES[letter])
    x = rng.normal(size=count) * np.exp(rng.normal(size=count))
    x[: len(SPECIAL)] = rng.permutation(SPECIAL)[:count]
    with np.errstate(over="ignore"):
        return x.astype(DTYPES[letter])


@pytest.mark.parametrize(("operator", "letter"), CASES)
def test_an_operation_is_that_of_onnx(operator: str, letter: str) -> None:
    name, _ = OPERATIONS[operator]
    arrays = [numbers(letter, 1031, seed) for seed in range(1 if operator in ONE else 2)]
    inputs = [f"x{i}" for i in range(len(arrays))]
    body = [
        helper.make_node(operator, inputs, ["result"]),
        helper.make_node("Cast", ["result"], ["y0"], to=onnx.TensorProto.FLOAT),
    ]
    gives_bool = name in ("less", "less_equal", "equal", "is_nan", "not", "and", "or", "xor")
    result = "b" if gives_bool else letter
    places = " ".join(map(str, range(len(arrays))))
    program = f"{name}.{letter} {places};cast.{result}f {len(arrays)}"
    attributes = {
        "program": program if result != "f" else program.partition(";")[0],
        "results": [len(arrays) + (result != "f")],
        "types": letter * len(arrays),
        "own": len(arrays),
    }
    model = called("Elementwise", arrays, attributes, body)
    expected = run(model, feeds(arrays))["y0"]
    found = run(model, feeds(arrays), with_library=True)["y0"]
    if operator == "Erf":  # of NaN, onnxruntime 1.23 makes a number
        expected = np.where(np.isnan(arrays[0]), np.float32(np.nan), expected)
    rtol, atol = ROUGH.get(operator, (0.0, 0.0))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


EXACT: dict[str, Callable[[Any], Any]] = {"exp": np.exp, "log": np.log, "tanh": np.tanh}


@pytest.mark.parametrize("name", EXACT)
def test_a_function_is_right_to_two_roundings(name: str) -> None:
    x = np.concatenate([numbers("f", 20011, 3), np.linspace(-90, 90, 5003, dtype=np.float32)])
    attributes = {"program": f"{name}.f 0", "results": [1], "types": "f", "own": 1}
    found = run(called("Elementwise", [x], attributes), feeds([x]), with_library=True)["y0"]
    with np.errstate(all="ignore"):
        expected = EXACT[name](x.astype(np.float64))
        rounded = expected.astype(np.float32)
        size = np.spacing(np.maximum(np.abs(rounded), np.float32(1e-37)))
        finite = np.isfinite(rounded)
        assert (np.abs(found - expected)[finite] <= 2 * size[finite]).all()
    np.testing.assert_array_equal(found[~finite], rounded[~finite])


@pytest.mark.parametrize("name", ["left", "right"])
def test_shifts_by_the_width_and_more_leave_nothing(name: str) -> None:
    x, y = np.full(40, 0xDEADBEEF, np.uint32), np.arange(0, 80, 2, dtype=np.uint32)
    attributes = {"program": f"{name}.u 0 1;cast.uf 2", "results": [3], "types": "uu", "own": 2}
    found = run(called("Elementwise", [x, y], attributes), feeds([x, y]), with_library=True)["y0"]
    shifted = np.left_shift(x, y) if name == "left" else np.right_shift(x, y)
    assert not shifted[16:].any()
    np.testing.assert_array_equal(found, shifted.astype(np.float32))


SHAPES = [
    [(0,), (0,), ()],
    [(1,), (1,), (1,)],
    [(), (), ()],
    [(7, 3), (3,), (7, 1)],
    [(7, 1), (1, 5), (1,)],
    [(2, 3, 1, 5), (3, 4, 1), (5,)],
    [(513,), (513,), ()],
    [(1, 300, 7), (2, 1, 7), (300, 1)],
    [(0, 3), (3,), (1, 3)],
    [(300_001,), (300_001,), (1,)],
    [(1100, 1200), (1200,), ()],
]


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_shapes_are_broadcast(shapes: list[tuple[int, ...]], threads: int) -> None:
    rng = np.random.default_rng(0)
    a, b, c = (np.asarray(rng.normal(size=s), np.float32) for s in shapes)
    attributes = {
        "program": "mul.f 0 1;add.f 3 2;number.f 0x1.8p+0;mul.f 4 5;sub.f 6 3",
        **{"results": [4, 7], "types": "fff", "own": 3, "together": 2**25},
    }
    model = called("Elementwise", [a, b, c], attributes, results=2)
    found = run(model, feeds([a, b, c]), with_library=True, threads=threads)
    with np.errstate(all="ignore"):
        first = a * b + c
        second = first * np.float32(1.5) - a * b
    np.testing.assert_array_equal(found["y0"], first)
    np.testing.assert_array_equal(found["y1"], second)


def test_groups_have_shapes_of_their_own() -> None:
    rng = np.random.default_rng(0)
    rate = np.float32(0.5)
    arrays = [np.asarray(rate)]
    for shape in ((4, 3), (5,), (1,), (600,)):
        arrays += [np.asarray(rng.normal(size=shape), np.float32) for _ in range(2)]
    attributes = {
        "program": "mul.f 0 2;sub.f 1 3",
        **{"results": [4], "types": "fff", "shared": 1, "own": 2, "groups": 4},
    }
    found = run(
        called("Elementwise", arrays, attributes, results=4), feeds(arrays), with_library=True
    )
    for i in range(4):
        w, g = arrays[1 + 2 * i : 3 + 2 * i]
        np.testing.assert_array_equal(found[f"y{i}"], w - rate * g)


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("size", [3, 300, 300_001])
def test_results_may_lie_where_inputs_do(size: int, threads: int) -> None:
    """Also where what is written over is read again for another result."""
    rng = np.random.default_rng(0)
    arrays = [np.asarray(rng.normal(size=size), np.float32) for _ in range(4)]
    attributes = {
        "program": "add.f 0 1;mul.f 2 0;sub.f 3 1",
        **{"results": [2, 4], "types": "ff", "own": 2, "groups": 2, "together": 2**25},
    }
    model = called("Elementwise", arrays, attributes, results=4)
    expected = []
    for a, b in (arrays[:2], arrays[2:]):
        expected += [a + b, (a + b) * a - b]
    made = session(model, threads=threads)
    binding = made.io_binding()
    buffers = [buffer_of(x) for x in arrays]
    for i, buffer in enumerate(buffers):
        binding.bind_ortvalue_input(f"x{i}", buffer)
        binding.bind_ortvalue_output(f"y{i}", buffer)
    made.run_with_iobinding(binding)
    for buffer, x in zip(buffers, expected, strict=True):
        np.testing.assert_array_equal(array_of(buffer), x)


def placed(x: np.ndarray[Any, Any], offset: int) -> np.ndarray[Any, Any]:
    """A copy, so many bytes behind the start of a line of the caches."""
    room = np.empty(x.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + offset
    copy = room[start : start + x.nbytes].view(x.dtype)
    copy[...] = x
    return copy


IN_PLACE = {  # programs of four inputs, and their results
    "adam": ("mul.f 0 1;add.f 4 2;mul.f 0 0;add.f 6 1;sqrt.f 7;div.f 5 8;add.f 3 9", [5, 7, 10]),
    "read again": ("add.f 0 1;add.f 2 3;mul.f 0 4;mul.f 5 1;sub.f 7 2", [4, 5, 8]),
    "given out": ("neg.f 0;add.f 4 1", [1, 4, 5]),
    "twice": ("add.f 0 1;mul.f 4 3", [4, 4, 5]),
}


@pytest.mark.parametrize("size", [7, 1000, 100_003])
@pytest.mark.parametrize("name", IN_PLACE)
def test_any_result_may_lie_where_any_input_does(name: str, size: int) -> None:
    """Or in a place of its own, wherever that begins, and past the caches."""
    rng = np.random.default_rng(size)
    program, results = IN_PLACE[name]
    arrays = [np.asarray(rng.random(size) + 0.5, np.float32) for _ in range(4)]
    attributes = {"program": program, "results": results, "types": "ffff", "own": 4}
    made = session(called("Elementwise", arrays, {**attributes, "together": 2**25}, results=3))
    expected = made.run(None, feeds(arrays))
    computed = [i for i, value in enumerate(results) if value >= len(arrays)]
    for _ in range(12):
        sources = [placed(x, 4 * int(rng.integers(16))) for x in arrays]
        places = rng.permutation(len(arrays))  # of the inputs, for some of the results
        over = {i: int(places[i]) for i in computed if rng.random() < 0.6}
        targets = [
            sources[over[i]] if i in over else placed(x, 4 * int(rng.integers(16)))
            for i, x in enumerate(expected)
        ]
        binding = made.io_binding()
        for i, x in enumerate(sources):
            binding.bind_ortvalue_input(f"x{i}", buffer_at(x))
        for i, x in enumerate(targets):
            binding.bind_ortvalue_output(f"y{i}", buffer_at(x))
        made.run_with_iobinding(binding)
        for i, (x, exact) in enumerate(zip(targets, expected, strict=True)):
            np.testing.assert_array_equal(x, exact, f"{over}, result {i}")


WRONG = {
    "operation": {"program": "frobnicate.f 0", "results": [1], "types": "f", "own": 1},
    "value": {"program": "neg.f 5", "results": [1], "types": "f", "own": 1},
    "output": {"program": "neg.f 0", "results": [9], "types": "f", "own": 1},
    "nothing": {"program": "neg.f 0", "types": "f", "own": 1},
    "types": {"program": "neg.f 0", "results": [1], "types": "ff", "own": 1},
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_program_that_is_wrong_is_an_error(kind: str) -> None:
    x = np.zeros(3, np.float32)
    with pytest.raises(Exception, match="Elementwise: "):
        run(called("Elementwise", [x], WRONG[kind]), feeds([x]), with_library=True)


def test_shapes_that_do_not_fit_are_an_error() -> None:
    x, y = np.zeros(3, np.float32), np.zeros(4, np.float32)
    attributes = {"program": "add.f 0 1", "results": [2], "types": "ff", "own": 2}
    with pytest.raises(Exception, match="shapes that do not fit"):
        run(called("Elementwise", [x, y], attributes), feeds([x, y]), with_library=True)


INSTRUCTIONS = """
import nncompile_kernels
from tests import test_native_elementwise as tests
for case in tests.CASES:
    tests.test_an_operation_is_that_of_onnx(*case.values)
for name in tests.EXACT:
    tests.test_a_function_is_right_to_two_roundings(name)
for shapes in tests.SHAPES:
    for threads in (1, 2):
        tests.test_shapes_are_broadcast(shapes, threads)
print(nncompile_kernels.instruction_set())
"""


@pytest.mark.parametrize("instructions", ("baseline", "avx2"))
def test_instruction_sets_give_the_same(instructions: str) -> None:
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", INSTRUCTIONS],
        env={**os.environ, "NNCOMPILE_KERNELS_ISA": instructions},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    if process.stdout.strip() != instructions:
        pytest.skip(f"this processor has no {instructions}")
