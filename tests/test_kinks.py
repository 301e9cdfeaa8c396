"""Gradients where a function has a kink: those of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile import elementwise as e
from nncompile.autodiff.grad import grad
from nncompile.elementwise.formula import formula
from nncompile.ir.graph import Input
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32
from tests.backends import optimized

torch = pytest.importorskip("torch")
functional = torch.nn.functional

Pair = tuple[Callable[..., Any], Callable[..., Any], tuple[tuple[float, ...], ...]]


def number(x: float) -> Any:
    return torch.tensor(x)


# Ours, torch's, and the points.
CASES: dict[str, Pair] = {
    "relu": (e.relu, torch.relu, ((0.0,),)),
    "abs": (e.abs, torch.abs, ((0.0,),)),
    "sign": (e.sign, torch.sign, ((0.0,),)),
    "relu6": (dsl.relu6, functional.relu6, ((0.0,), (6.0,), (3.0,), (7.0,))),
    "hard_tanh": (dsl.hard_tanh, functional.hardtanh, ((-1.0,), (1.0,), (0.0,), (2.0,))),
    "hard_tanh between others": (
        lambda x: dsl.hard_tanh(x, -2.0, 0.5),
        lambda x: functional.hardtanh(x, -2.0, 0.5),
        ((-2.0,), (0.5,), (0.0,)),
    ),
    "hard_sigmoid": (dsl.hard_sigmoid, functional.hardsigmoid, ((-3.0,), (3.0,), (0.0,))),
    "hard_swish": (dsl.hard_swish, functional.hardswish, ((-3.0,), (3.0,), (0.0,), (4.0,))),
    "leaky_relu": (dsl.leaky_relu, functional.leaky_relu, ((0.0,),)),
    "elu": (dsl.elu, functional.elu, ((0.0,),)),
    "celu": (dsl.celu, functional.celu, ((0.0,),)),
    "selu": (dsl.selu, functional.selu, ((0.0,),)),
    "soft_shrink": (dsl.soft_shrink, functional.softshrink, ((0.5,), (-0.5,), (1.0,))),
    "hard_shrink": (dsl.hard_shrink, functional.hardshrink, ((0.5,), (-0.5,), (1.0,))),
    "threshold": (
        lambda x: dsl.threshold(x, 0.5, 0.1),
        lambda x: functional.threshold(x, 0.5, 0.1),
        ((0.5,),),
    ),
    "prelu": (dsl.prelu, functional.prelu, ((0.0, 0.3), (1.0, 0.3), (-1.0, 0.3))),
    "maximum": (e.maximum, torch.maximum, ((2.0, 2.0), (1.0, 2.0))),
    "minimum": (e.minimum, torch.minimum, ((2.0, 2.0), (1.0, 2.0))),
    "maximum of a number": (
        lambda x: e.maximum(x, 0),
        lambda x: torch.maximum(x, number(0.0)),
        ((0.0,), (1.0,)),
    ),
    "minimum of a number": (
        lambda x: e.minimum(6, x),
        lambda x: torch.minimum(number(6.0), x),
        ((6.0,), (1.0,)),
    ),
    "clip": (lambda x: e.clip(x, 0, 6), lambda x: torch.clamp(x, 0, 6), ((0.0,), (6.0,), (7.0,))),
    "clip below": (lambda x: e.clip(x, 0), lambda x: torch.clamp(x, min=0), ((0.0,), (-1.0,))),
    "fmax": (e.fmax, torch.fmax, ((2.0, 2.0), (1.0, 2.0))),
    "fmin": (e.fmin, torch.fmin, ((2.0, 2.0), (1.0, 2.0))),
    "copysign": (e.copysign, torch.copysign, ((0.0, 1.0), (-2.0, 3.0))),
    "arctan2": (e.arctan2, torch.atan2, ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, -1.0))),
    "logaddexp2": (e.logaddexp2, torch.logaddexp2, ((1.0, 1.0), (2.0, 1.0))),
    "sinc": (e.sinc, torch.sinc, ((0.0,), (0.5,))),
    "nan_to_num": (e.nan_to_num, torch.nan_to_num, ((float("nan"),), (float("inf"),), (1.0,))),
}


def run(values: list[Value], *points: float) -> list[float]:
    feeds = {f"x{i}": np.float32([p]) for i, p in enumerate(points)}
    found = optimized({str(i): v for i, v in enumerate(values)}, **feeds)
    return [float(x[0]) for x in found.values()]


@pytest.mark.parametrize("name", CASES)
def test_gradients_at_kinks_are_torchs(name: str) -> None:
    ours, theirs, all_points = CASES[name]
    for points in all_points:
        tensors = [torch.tensor([p], requires_grad=True) for p in points]
        expected = torch.autograd.grad(theirs(*tensors).sum(), tensors)
        leaves = [apply(Input(f"x{i}", f32[1])) for i in range(len(points))]
        for function in (ours, formula(lambda *xs: ours(*xs))):
            gradients = run(grad(function(*leaves).sum(), leaves), *points)
            np.testing.assert_allclose(gradients, [float(g) for g in expected], 1e-6)


def test_length_of_nothing_has_gradient_zero() -> None:
    x, y = (apply(Input(f"x{i}", f32[1])) for i in range(2))
    assert run(grad(e.hypot(x, y).sum(), [x, y]), 0.0, 0.0) == [0, 0]
    assert run(grad(e.hypot(x, y).sum(), [x, y]), 3e30, -4e30) == pytest.approx([0.6, -0.8])
