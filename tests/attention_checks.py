"""Values, their gradients and gradients of gradients: in onnxruntime from one file for all sizes,
in TorchScript, in numpy, and by torch's autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dsl.building import building
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.passes import optimize
from tests.backends import graph_of, session
from tests.leaves import leaf

Feeds = dict[str, Array]
# How near: in double, and in single precision.
DOUBLE = {"rtol": 1e-9, "atol": 1e-11}
SINGLE = {"rtol": 2e-5, "atol": 4e-6}


def built(function: Callable[..., Value], **types: Type) -> tuple[Value, dict[str, Value]]:
    """The function of layers of those inputs, and the parameters that it declared."""
    with building() as builder:
        value = function(**{name: leaf(name, type_) for name, type_ in types.items()})
    return value, builder.leaves


def probe(value: Value) -> Value:
    """A number that each element enters by a function of its own, as `torch_probe`'s."""
    return (value * value).sum() + value.sum()


def torch_probe(value: Any) -> Any:
    return (value * value).sum() + value.sum()


def gradients(value: Value, at: Sequence[Value], order: int = 1) -> dict[str, Value]:
    """The value and the gradients of its `probe`, and of theirs up to the order."""
    found = {"y": value}
    total = probe(value)
    for n in range(1, order + 1):
        steps = grad(total, list(at))
        found |= {f"d{n}.{x.op.name}": s for x, s in zip(at, steps, strict=True)}  # type: ignore[attr-defined]
        total = sum(((s * s).sum() for s in steps), start=0.0 * total)
    return found


def torch_gradients(
    function: Callable[..., Any], feeds: Mapping[str, Any], at: Sequence[str], order: int = 1
) -> Feeds:
    """What `gradients` are by torch's autograd, in the double precision of the feeds."""
    import torch

    tensors = {name: torch.tensor(x) for name, x in feeds.items()}
    for name in at:
        tensors[name].requires_grad_()
    value = function(**tensors)
    found, total = {"y": value}, torch_probe(value)
    for n in range(1, order + 1):
        wrt = [tensors[name] for name in at]
        steps = torch.autograd.grad(total, wrt, create_graph=True)
        found |= {f"d{n}.{name}": s for name, s in zip(at, steps, strict=True)}
        total = sum((s * s).sum() for s in steps)
    return {name: x.detach().numpy() for name, x in found.items()}


def session_of(values: Mapping[str, Value]) -> Callable[..., Feeds]:
    """One ONNX file of the values after all passes."""
    return session(to_model(optimize(graph_of(values))))


def in_numpy(values: Mapping[str, Value], feeds: Mapping[str, Array]) -> Feeds:
    return evaluate(Graph("test", dict(values)), dict(feeds))  # type: ignore[return-value]


def in_single(feeds: Mapping[str, Array]) -> Feeds:
    """The feeds with float32 in place of float64."""
    return {n: x.astype(np.float32) if x.dtype == np.float64 else x for n, x in feeds.items()}


def assert_all_close(
    found: Mapping[str, Array], expected: Mapping[str, Any], rtol: float, atol: float
) -> None:
    """Each near what is expected: relative to the largest element of it, for sums cancel."""
    assert set(found) == set(expected)
    for name, x in expected.items():
        scale = max(1.0, float(np.abs(x).max(initial=0)))
        np.testing.assert_allclose(found[name], x, rtol, atol * scale, err_msg=name)
