"""A function of one value against torch's: values, first and second gradients, one file for several
sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Type
from tests.backends import session
from tests.tolerances import assert_close

Function = Callable[[Any], Any]


def leaf(type_: Type, name: str = "x") -> Value:
    return apply(Input(name, type_))


def ties(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Numbers of which many are equal."""
    return rng.integers(-2, 3, shape).astype(dtype)


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
    torch = pytest.importorskip("torch")
    graph, y = gradients(ours, type_)
    run = session(to_model(graph))
    rng = np.random.default_rng(7)
    dtype = type_.dtype.numpy
    for shape in shapes:
        for draw in (ties, lambda r, s, d: r.normal(size=s).astype(d)):
            x = torch.tensor(draw(rng, shape, dtype), requires_grad=True)
            expected = theirs(x)
            g = torch.tensor(rng.normal(size=expected.shape).astype(dtype), requires_grad=True)
            u = torch.tensor(rng.normal(size=shape).astype(dtype))
            (dx,) = torch.autograd.grad(expected, x, g, create_graph=True)
            (dg,) = torch.autograd.grad(dx, g, u)
            feeds = {"x": x.detach().numpy(), "g": g.detach().numpy(), "u": u.numpy()}
            reference = evaluate(graph, feeds)
            actual = run(feeds)
            for name, value in (("y", expected), ("dx", dx), ("dg", dg)):
                wanted = value.detach().numpy()
                assert_close(reference[name], wanted, type_.dtype.name, f"numpy {name} {shape}")
                assert_close(actual[name], wanted, type_.dtype.name, f"onnx {name} {shape}")
    assert y.dtype is type_.dtype


def torch_function(name: str, *args: Any, **options: Any) -> Function:
    functional = pytest.importorskip("torch").nn.functional
    return lambda x: getattr(functional, name)(x, *args, **options)
