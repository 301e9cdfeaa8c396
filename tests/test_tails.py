"""Where functions are small beside one, and at zeros with a sign, infinities and NaN: values and
gradients in float32 against numpy in float64, in onnxruntime and TorchScript."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from nncompile import elementwise as e
from nncompile.autodiff.grad import vjp
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import apply
from nncompile.ir.types import DType, f32, f64
from tests.backends import everywhere

ONE = apply(Input("one", f32["n"]))
X = apply(Input("x", f32["n"]))
BELOW = -np.concatenate([np.linspace(0.01, 20, 200), np.linspace(20, 85, 131)]).astype(np.float32)


SMALL: dict[str, tuple[Any, int]] = {  # with the sign of x where it is small
    "sigmoid": (e.sigmoid, 1),
    "silu": (dsl.silu, 1),
    "mish": (dsl.mish, 1),
    "softplus": (e.softplus, 1),
    "log_sigmoid": (dsl.log_sigmoid, -1),
    "gelu_tanh": (dsl.gelu_tanh, 1),
    "squareplus": (dsl.squareplus, 1),
    "exp": (e.exp, 1),
}
# Whose gradients are small, though the functions are not.
SLOPES: dict[str, tuple[Any, int]] = SMALL | {
    "elu": (dsl.elu, 1),
    "celu": (dsl.celu, 1),
    "selu": (dsl.selu, 1),
    "expm1": (e.expm1, 1),
}
SLOPES.pop("sigmoid")  # σ − σ² at x above 0; below it is right
SLOPES["sigmoid below 0"] = (e.sigmoid, 1)


def test_what_is_small_is_right_to_five_digits() -> None:
    outputs = {}
    for name, (function, sign) in SMALL.items():
        outputs[name] = function(sign * X)
    for name, (function, sign) in SLOPES.items():
        (outputs[f"{name}'"],) = vjp([function(sign * X)], [X], [ONE])
    graph = Graph("tails", outputs, (X, ONE))
    feeds = {"x": BELOW, "one": np.ones_like(BELOW)}
    expected = evaluate(graph, feeds, precision=np.float64)
    for found in everywhere(graph, feeds).values():
        for name, array in expected.items():
            normal = np.abs(array) > 1e-34  # factors of it may be smaller than normal ones
            off = np.abs(found[name] - array)[normal]
            # Gradients pass through zero near −1.
            allowed = 1e-5 * np.abs(array) + np.where(BELOW > -5, 2e-7, 0)
            assert (off <= allowed[normal]).all(), (name, BELOW[normal][off > allowed[normal]])


def test_a_gate_is_the_sigmoid_to_within_a_ten_millionth() -> None:
    graph = Graph("gates", {"gate": e.gate(X)}, (X,))
    points = np.linspace(-100, 100, 4001).astype(np.float32)
    expected = 1 / (1 + np.exp(-points.astype(np.float64)))
    for found in everywhere(graph, {"x": points}).values():
        np.testing.assert_allclose(found["gate"], expected, atol=2e-7)


def test_functions_keep_their_digits_beside_zero() -> None:
    functions = {
        name: getattr(e, name)
        for name in ("tanh", "erf", "log1p", "expm1", "sinh", "arctan", "arcsinh", "arctanh", "sin")
    }
    graph = Graph("near", {name: f(X) for name, f in functions.items()}, (X,))
    sizes = np.logspace(-30, -1, 120).astype(np.float32)
    feeds = {"x": np.concatenate([-sizes, sizes])}
    expected = evaluate(graph, feeds, precision=np.float64)
    for found in everywhere(graph, feeds).values():
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, 1e-6, err_msg=name)


SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 3.0, 0.5)
PAIRS = ("arctan2", "copysign", "hypot", "power", "fmod", "mod", "floor_divide", "float_power")


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
@pytest.mark.parametrize("name", [*PAIRS, "logaddexp", "heaviside", "maximum", "minimum", "fmax"])
def test_pairs_of_special_numbers_are_numpys(name: str, dtype: DType) -> None:
    values = np.asarray(SPECIAL, dtype.numpy)
    a, b = (g.reshape(-1) for g in np.meshgrid(values, values))
    x, y = (apply(Input(n, dtype["n"])) for n in "xy")
    graph = Graph("pairs", {"z": getattr(e, name)(x, y)}, (x, y))
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(a, b)
    for found in everywhere(graph, {"x": a, "y": b}).values():
        np.testing.assert_allclose(found["z"], expected, 1e-6)
        if name in ("arctan2", "copysign"):
            signs = (np.where(np.isnan(z), False, np.signbit(z)) for z in (found["z"], expected))
            np.testing.assert_array_equal(*signs)


def test_signs_are_seen_on_zeros() -> None:
    graph = Graph("signs", {"s": e.signbit(X)}, (X,))
    values = np.asarray([0.0, -0.0, -1e-45, 1e-45, np.inf, -np.inf, -2.0], np.float32)
    for found in everywhere(graph, {"x": values}).values():
        np.testing.assert_array_equal(found["s"], np.signbit(values))


@pytest.mark.parametrize(
    "name",
    [
        *("relu6", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "softsign", "hard_tanh"),
        *("hard_sigmoid", "hard_swish", "log_sigmoid", "tanh_shrink", "soft_shrink"),
        *("hard_shrink", "threshold", "gelu", "gelu_tanh", "softplus", "relu", "squareplus"),
    ],
)
def test_nan_is_the_value_of_every_activation_at_nan(name: str) -> None:
    y = getattr(dsl, name)(X)
    (gradient,) = vjp([y], [X], [ONE])
    graph = Graph("nan", {"y": y, "gradient": gradient}, (X, ONE))
    feeds = {"x": np.asarray([np.nan, 1.0], np.float32), "one": np.ones(2, np.float32)}
    expected = evaluate(graph, feeds)
    assert np.isnan(expected["y"][0])
    for found in everywhere(graph, feeds).values():
        for output in ("y", "gradient"):
            np.testing.assert_allclose(found[output], expected[output], 1e-6, err_msg=output)
