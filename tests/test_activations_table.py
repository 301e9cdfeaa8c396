"""Every activation of the table: against torch's in value, gradient and gradient of the gradient,
where inputs are usual and where they are extreme, in onnxruntime, and as the activation of a layer.

Points at a kink are left to the tests of kinks. The bounds are for double precision against
torch's, and for onnxruntime in single precision against ours in double.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, activations, f32, f64, model
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.program.initialization import initial_values
from tests.attention_checks import built
from tests.backends import optimized
from tests.leaves import leaf
from tests.loss_checks import agree

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional


@dataclass(frozen=True)
class Case:
    """Our activation and torch's; how many features it makes one of."""

    ours: Callable[[Any], Any]
    theirs: Callable[[Any], Any]
    joins: int = 1


def halves(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def gated(x: Any) -> Any:
        a, b = x.chunk(2, -1)
        return function(a) * b

    return gated


def step(x: Any) -> Any:
    return (x >= 0).to(x.dtype) + 0 * x


TABLE: dict[str, Case] = {
    "step": Case(dsl.step, step),
    "linear": Case(dsl.linear, lambda x: x),
    "sigmoid": Case(dsl.sigmoid, torch.sigmoid),
    "tanh": Case(dsl.tanh, torch.tanh),
    "relu": Case(dsl.relu, torch.relu),
    "leaky relu": Case(dsl.leaky_relu, functional.leaky_relu),
    "leaky relu 0.3": Case(
        lambda x: dsl.leaky_relu(x, 0.3), lambda x: functional.leaky_relu(x, 0.3)
    ),
    "prelu": Case(
        lambda x: dsl.prelu(x, 0.25),
        lambda x: functional.prelu(x, torch.full((1,), 0.25, dtype=x.dtype)),
    ),
    "elu": Case(dsl.elu, functional.elu),
    "elu 2": Case(lambda x: dsl.elu(x, 2), lambda x: functional.elu(x, 2.0)),
    "selu": Case(dsl.selu, functional.selu),
    "celu": Case(lambda x: dsl.celu(x, 0.7), lambda x: functional.celu(x, 0.7)),
    "gelu": Case(dsl.gelu, functional.gelu),
    "gelu tanh": Case(dsl.gelu_tanh, lambda x: functional.gelu(x, approximate="tanh")),
    "silu": Case(dsl.silu, functional.silu),
    "swish": Case(lambda x: dsl.swish(x, 1.5), lambda x: x * torch.sigmoid(1.5 * x)),
    "mish": Case(dsl.mish, lambda x: x * torch.tanh(functional.softplus(x, threshold=1e9))),
    "softplus": Case(dsl.softplus, lambda x: functional.softplus(x, threshold=1e9)),
    "softsign": Case(dsl.softsign, functional.softsign),
    "hard sigmoid": Case(dsl.hard_sigmoid, lambda x: torch.clamp(x / 6 + 0.5, 0, 1)),
    "hard swish": Case(dsl.hard_swish, lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1)),
    "hard tanh": Case(dsl.hard_tanh, functional.hardtanh),
    "relu6": Case(dsl.relu6, functional.relu6),
    "log sigmoid": Case(dsl.log_sigmoid, functional.logsigmoid),
    "tanh shrink": Case(dsl.tanh_shrink, functional.tanhshrink),
    "soft shrink": Case(dsl.soft_shrink, functional.softshrink),
    "hard shrink": Case(dsl.hard_shrink, functional.hardshrink),
    "threshold": Case(
        lambda x: dsl.threshold(x, 0.1, 20.0), lambda x: functional.threshold(x, 0.1, 20.0)
    ),
    "gaussian": Case(dsl.gaussian, lambda x: torch.exp(-x * x)),
    "squareplus": Case(dsl.squareplus, lambda x: (x + torch.sqrt(x * x + 4)) / 2),
    "softmax": Case(dsl.softmax, lambda x: x.softmax(-1)),
    "log softmax": Case(dsl.log_softmax, lambda x: x.log_softmax(-1)),
    "glu": Case(dsl.glu, functional.glu, 2),
    "swiglu": Case(dsl.swiglu, halves(functional.silu), 2),
    "geglu": Case(dsl.geglu, halves(functional.gelu), 2),
    "reglu": Case(dsl.reglu, halves(torch.relu), 2),
    "maxout": Case(dsl.maxout, lambda x: x.unflatten(-1, (-1, 2)).amax(-1), 2),
    "maxout 3": Case(lambda x: dsl.maxout(x, 3), lambda x: x.unflatten(-1, (-1, 3)).amax(-1), 3),
}

# Apart from each other and from kinks; far out, e^x overflows in single precision.
USUAL = np.array([-4.1, -2.3, -1.2, -0.6, -0.05, 0.07, 0.4, 1.3, 2.2, 3.6, 5.2, 7.4])
EXTREME = np.array([-1e4, -200, -88, -30, -14, -9, 9.5, 14, 31, 89, 210, 1.1e4])
POINTS = {"usual": USUAL, "extreme": EXTREME}


def orders(y: Value, x: Value) -> list[Value]:
    """The value, its gradients and theirs, each element weighed in its own way."""
    weights = dsl.const(np.linspace(0.5, 1.5, 12)).astype(x.dtype)
    (first,) = grad((y * weights[: y.shape[-1]]).sum(), [x])
    (second,) = grad((first * weights).sum(), [x])
    return [y, first, second]


def their_orders(case: Case, points: Any) -> list[Any]:
    x = torch.tensor(points, requires_grad=True)
    weights = torch.linspace(0.5, 1.5, 12, dtype=x.dtype)
    y = case.theirs(x)
    (first,) = torch.autograd.grad((y * weights[: y.shape[-1]]).sum(), x, create_graph=True)
    if first.requires_grad:
        (second,) = torch.autograd.grad((first * weights).sum(), x, allow_unused=True)
    else:
        second = None
    second = torch.zeros_like(x) if second is None else second
    return [z.detach().numpy() for z in (y, first, second)]


def called(function: Callable[[Any], Any]) -> set[str]:
    """The names of `dsl` that a function of the table is, or calls."""
    ours = {name for name in dsl.__all__ if getattr(dsl, name) is function}
    return ours or {*function.__code__.co_names}


def test_every_activation_is_in_the_table() -> None:
    names = set().union(*(called(case.ours) for case in TABLE.values()))
    assert not {*activations.__all__} - names


@pytest.mark.parametrize("where", POINTS)
@pytest.mark.parametrize("name", TABLE)
def test_values_and_gradients_are_torchs(name: str, where: str) -> None:
    """To 10⁻⁹, but that torch keeps constants (α of SELU) in single precision: 10⁻⁶. What
    torch's formula makes NaN (0·∞ far out) is asked to be finite."""
    x = leaf("x", f64[12])
    points = np.random.default_rng(0).permutation(POINTS[where])
    found = evaluate(orders(TABLE[name].ours(x), x), {"x": points})
    for order, (ours, theirs) in enumerate(
        zip(found, their_orders(TABLE[name], points), strict=True)
    ):
        label = f"{name}, order {order}"
        assert np.isfinite(ours).all(), label
        known = np.isfinite(theirs)
        assert known.mean() > 0.5, label
        bound = 1e-6 if name in ("selu", "celu") else 1e-9
        np.testing.assert_allclose(ours[known], theirs[known], bound, 1e-12, err_msg=label)


@pytest.mark.parametrize("where", POINTS)
@pytest.mark.parametrize("name", TABLE)
def test_onnxruntime_computes_them(name: str, where: str) -> None:
    """In single precision, to 2·10⁻⁵ of the value and 4·10⁻⁶ of the largest one; second gradients
    to 10⁻⁴, for they have 1 − σ times x (and the gate) in them: at 14 that is 14·89·2⁻²⁴. NaN and ∞
    do not occur."""
    points = np.random.default_rng(0).permutation(POINTS[where]).astype(np.float32)
    x, double = leaf("x", f32[12]), leaf("x", f64[12])
    values = orders(TABLE[name].ours(x), x)
    found = optimized({str(i): v for i, v in enumerate(values)}, x=points)
    wide = points.astype(np.float64)
    expected = evaluate(orders(TABLE[name].ours(double), double), {"x": wide})
    for order, exact in enumerate(expected):
        ours = found[str(order)]
        assert np.isfinite(ours).all()
        bound = (4e-6, 4e-6, 1e-4)[order] * max(1.0, float(np.abs(exact).max()))
        np.testing.assert_allclose(ours, exact, 2e-5, bound, err_msg=f"{name}, order {order}")


@pytest.mark.parametrize("name", TABLE)
def test_each_is_the_activation_of_a_layer(name: str) -> None:
    case = TABLE[name]
    width = 12 // case.joins

    @model
    def net(x=f32["batch", 3]):
        return x >> Dense(12, case.ours)

    assert net.outputs["output"].type == f32["batch", width]
    rng = np.random.default_rng(0)
    feeds: Any = initial_values(net, 0) | {"x": rng.normal(size=(5, 3)).astype(np.float32)}
    plain = feeds["x"] @ feeds["dense.weight"] + feeds["dense.bias"]
    expected = case.theirs(torch.tensor(plain, dtype=torch.float64)).numpy()
    found = evaluate(net.graph, feeds)["output"]  # type: ignore[call-overload]
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("name", TABLE)
def test_values_and_gradients_are_finite_at_kinks_and_far_out(name: str) -> None:
    x = leaf("x", f32["n", 12])
    y = TABLE[name].ours(x)
    points = np.array([-1e4, -100, -20, -3, -0.5, 0, 0.1, 0.5, 3, 6, 100, 1e4], np.float32)
    for value in evaluate([y, *grad(y.sum(), [x])], {"x": points[None]}):
        assert np.isfinite(value).all()


def test_prelu_trains_its_slope() -> None:
    random = np.random.default_rng(1)
    agree(
        dsl.prelu,
        functional.prelu,
        random.normal(size=(6, 3)),
        random.normal(size=3),
        gradient_of=2,
    )


def test_gates_along_another_axis() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    (found,) = evaluate([dsl.glu(leaf("x", f64[4, 3]), axis=0)], {"x": x})
    np.testing.assert_allclose(found, functional.glu(torch.tensor(x), 0).numpy(), 1e-12)


def test_features_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"glu halves the features, but f32\[n, 5\] has 5"):
        built(Dense(5, dsl.glu), x=f32["n", 2])
    with pytest.raises(ShapeError, match="swiglu halves the features"):
        dsl.swiglu(leaf("x", f32[3]))
    with pytest.raises(ShapeError, match=r"maximum of each 3 features, x is f32\[n, 8\]"):
        dsl.maxout(leaf("x", f32["n", 8]), 3)
    with pytest.raises(ShapeError, match="maximum of each 2 features"):
        dsl.maxout(leaf("x", f32[()]))
    assert math.isclose(float(dsl.linear(2.5)), 2.5)
