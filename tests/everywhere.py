"""A function of several values against another implementation, in every backend: values, first and
second gradients in numpy, onnxruntime and TorchScript, one file for several sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType, Type, f32, f64
from tests.backends import Arrays, everywhere, script_of, session
from tests.leaves import leaf
from tests.tolerances import assert_close

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def check(
    ours: Callable[..., Value],
    theirs: Callable[..., Any],
    shapes: Sequence[tuple[Any, ...]],
    *sizes: Sequence[tuple[int, ...]],
    draw: Draw = lambda rng, shape: rng.normal(size=shape),
    and_drawn: Sequence[Draw] = (),
    dtypes: Sequence[DType] = (f32, f64),
    order: int = 2,
) -> None:
    """`ours`, of values of those shapes, is `theirs`, of torch's tensors, at all sizes: the result,
    the gradient at each argument and (order 2) the gradient of that. Data are drawn in one or more
    ways."""
    torch = pytest.importorskip("torch")
    data = []
    for way in (draw, *and_drawn):
        rng = np.random.default_rng(11)
        data += [[way(rng, shape) for shape in each] for each in sizes]
    for dtype in dtypes:
        graph = with_gradients(ours, [dtype[shape] for shape in shapes], order)
        assert graph.outputs["y"].dtype is dtype
        run, script = session(to_model(graph)), script_of(graph)
        for arrays in data:
            rounded = [a.astype(dtype.numpy).astype(np.float64) for a in arrays]
            feeds, expected = _torchs(torch, theirs, rounded, order)
            given = {name: a.astype(dtype.numpy) for name, a in feeds.items()}
            expected = {name: expected[name] for name in graph.outputs}
            found = {
                "numpy": evaluate(graph, given, precision=np.float64),
                "onnxruntime": run(given, expected),
                "TorchScript": script(given),
            }
            for backend, results in found.items():
                accuracy = "float64" if backend == "numpy" else dtype.name
                for name, result in results.items():
                    label = f"{backend} {dtype} {name} at {[a.shape for a in arrays]}"
                    assert_close(result, expected[name], accuracy, label)


def check_values(ours: Value, leaves: Sequence[Value], *cases: tuple[Arrays, Any]) -> None:
    """The value is exactly what is expected of those feeds, of any type, in every backend."""
    graph = Graph("values", {"y": ours}, tuple(leaves))
    for feeds, wanted in cases:
        for backend, found in everywhere(graph, feeds).items():
            assert found["y"].dtype == ours.dtype.numpy
            np.testing.assert_array_equal(found["y"], wanted, err_msg=backend)


def results(ours: Value, leaves: Sequence[Value], feeds: Arrays) -> list[np.ndarray]:
    """The value in every backend."""
    graph = Graph("values", {"y": ours}, tuple(leaves))
    return [found["y"] for found in everywhere(graph, feeds).values()]


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of which many are equal."""
    return rng.integers(-2, 3, shape).astype(np.float64)


def check_against_torch(
    ours: Callable[[Any], Any],
    theirs: Callable[[Any], Any],
    shape: tuple[Any, ...],
    *sizes: tuple[int, ...],
    dtypes: Sequence[DType] = (f32, f64),
) -> None:
    """The same of a function of one value, ties included."""
    check(ours, theirs, [shape], *([size] for size in sizes), and_drawn=[ties], dtypes=dtypes)


def torch_function(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
    """The function of torch's tensors, with these options behind them."""
    function = getattr(pytest.importorskip("torch").nn.functional, name)
    return lambda *tensors: function(*tensors, *args, **options)


def with_gradients(ours: Callable[..., Value], types: Sequence[Type], order: int = 2) -> Graph:
    """A graph of y, of the gradients at all arguments x0, … of Σ g·y, and of those, at these and
    at g, of Σ u·(that gradient)."""
    leaves = [leaf(f"x{i}", t) for i, t in enumerate(types)]
    y = ours(*leaves)
    outputs = {"y": y}
    inputs = list(leaves)
    if order >= 1:
        g = leaf("g", y.type)
        first = vjp([y], leaves, [g])
        outputs |= {f"dx{i}": d for i, d in enumerate(first)}
        inputs.append(g)
    if order >= 2:
        us = [leaf(f"u{i}", t) for i, t in enumerate(types)]
        second = vjp(first, [*leaves, g], us)
        outputs |= {f"ddx{i}": d for i, d in enumerate(second)}
        inputs += us
    return Graph("check", outputs, tuple(inputs))


def _torchs(torch: Any, theirs: Any, arrays: list[np.ndarray], order: int) -> tuple[Arrays, Arrays]:
    """What the graph is fed with and what torch makes of it, in double."""
    rng = np.random.default_rng(5)
    xs = [torch.tensor(a, requires_grad=order > 0) for a in arrays]
    y = theirs(*xs)
    feeds = {f"x{i}": a for i, a in enumerate(arrays)}
    found = {"y": y}
    # Numbers that float32 has, so that both element types compute the same; none is 0, of which
    # some gradients of torch take the logarithm.
    drawn = lambda shape: (2 * rng.integers(-8, 8, tuple(shape)) + 1) / 8  # noqa: E731
    if order >= 1:
        feeds["g"] = drawn(y.shape)
        g = torch.tensor(feeds["g"], requires_grad=True)
        first = torch.autograd.grad(y, xs, g, create_graph=order > 1)
        found |= {f"dx{i}": d for i, d in enumerate(first)}
    if order >= 2:
        us = [drawn(x.shape) for x in xs]
        feeds |= {f"u{i}": u for i, u in enumerate(us)}
        total = sum((d * torch.tensor(u)).sum() for d, u in zip(first, us, strict=True))
        second = torch.autograd.grad(total, [*xs, g], allow_unused=True, materialize_grads=True)
        found |= {f"ddx{i}": d for i, d in enumerate(second)}
    return feeds, {name: v.detach().numpy() for name, v in found.items()}
