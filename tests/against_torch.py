"""A function of one value against torch's: values, first and second gradients, one file for several
sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import vjp
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Type
from tests.everywhere import check

Function = Callable[[Any], Any]


def leaf(type_: Type, name: str = "x") -> Value:
    return apply(Input(name, type_))


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which many are equal."""
    return rng.integers(-2, 3, shape).astype(np.float64)


def gradients(ours: Function, type_: Type) -> tuple[Graph, Value]:
    """A graph of y, the gradient for x of Σ g·y, and the gradient for g of Σ u·(that gradient)."""
    x = leaf(type_)
    y = ours(x)
    g = leaf(y.type, "g")
    dx = vjp(y, x, g)
    u = leaf(x.type, "u")
    dg = vjp(dx, g, u)
    return Graph("gradients", {"y": y, "dx": dx, "dg": dg}, (x, g, u)), y


def check_against_torch(
    ours: Function, theirs: Function, type_: Type, *shapes: tuple[int, ...]
) -> None:
    """One file, several sizes: values, first and second gradients are torch's, ties included."""
    sizes = [[shape] for shape in shapes]
    check(ours, theirs, [type_.shape], *sizes, and_drawn=[ties], dtypes=[type_.dtype])
    assert ours(leaf(type_)).dtype is type_.dtype


def torch_function(name: str, *args: Any, **options: Any) -> Function:
    functional = pytest.importorskip("torch").nn.functional
    return lambda x: getattr(functional, name)(x, *args, **options)
