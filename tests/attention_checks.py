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
from nncompile.ir.types import Array, Type, f32, f64
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


class Differentiated:
    """A layer of real inputs of those shapes, and of masks, with the gradients at all inputs and
    parameters: in double precision, and in single precision from one file for all sizes."""

    def __init__(
        self,
        layer: Callable[..., Value],
        inputs: Mapping[str, tuple[Any, ...]],
        masks: Mapping[str, Type] | None = None,
    ):
        made = {}
        for dtype in (f32, f64):
            types = {n: dtype[shape] for n, shape in inputs.items()} | dict(masks or {})
            y, self.parameters = built(layer, **types)
            at = [leaf(n, types[n]) for n in inputs] + list(self.parameters.values())
            made[dtype] = gradients(y, at)
        self.inputs = list(inputs)
        self.double, self.single = made[f64], session_of(made[f32])

    def assert_gives(
        self, feeds: Feeds, expected: Mapping[str, Any], single: Mapping[str, float] = SINGLE
    ) -> None:
        assert_all_close(in_numpy(self.double, feeds), expected, **DOUBLE)
        assert_all_close(self.single(in_single(feeds)), expected, **single)

    def assert_is(self, theirs: Callable[..., Any], **feeds: Array) -> None:
        """With drawn weights, the function of torch's tensors by the names of inputs, masks and
        parameters."""
        rng = np.random.default_rng(0)
        weights = {n: rng.normal(0, 0.4, p.shape) for n, p in self.parameters.items()}
        at = {n: x for n, x in feeds.items() if n in self.inputs} | weights
        self.assert_gives(feeds | weights, torch_gradients(theirs, at, list(at)))


def assert_is_torchs(
    layer: Differentiated,
    function: Callable[..., Any],
    weights: Callable[[bool], Feeds],
    shapes: Sequence[Feeds],
    single: Mapping[str, float] = SINGLE,
) -> None:
    """The layer with the weights of a module of torch's is that function of the module, and the
    gradients at the weights are its own, at all shapes."""
    import torch

    for feeds in shapes:
        named = {n: x for n, x in feeds.items() if n in layer.inputs}
        masks = {n: torch.tensor(x) for n, x in feeds.items() if n not in named}
        expected = torch_gradients(lambda **x: function(**x, **masks), named, list(named))  # noqa: B023
        torch_probe(function(**{n: torch.tensor(x) for n, x in named.items()}, **masks)).backward()
        expected |= {f"d1.{path}": x for path, x in weights(True).items()}
        layer.assert_gives(feeds | weights(False), expected, single)


def heads_of(theirs: Any, path: str, gradient: bool = False) -> Feeds:
    """The weights of torch's attention (or their gradients) by our names under the path; its
    matrices are transposed, and mostly those of all three projections are one."""
    apart = {"q_proj_weight": "query", "k_proj_weight": "key", "v_proj_weight": "value"}
    found: Feeds = {}
    for name, p in theirs.named_parameters():
        x = (p.grad if gradient else p).detach().numpy().T
        part = "bias" if name.endswith("bias") else "weight"
        packed = name.startswith("in_proj")
        kinds = ("query", "key", "value") if packed else (apart.get(name, "output"),)
        for kind, y in zip(kinds, np.split(x, len(kinds), -1), strict=True):
            found[f"{path}.{kind}.{part}"] = y.copy()
    return found


def assert_all_close(
    found: Mapping[str, Array], expected: Mapping[str, Any], rtol: float, atol: float
) -> None:
    """Each near what is expected: relative to the largest element of it, for sums cancel."""
    assert set(found) == set(expected)
    for name, x in expected.items():
        scale = max(1.0, float(np.abs(x).max(initial=0)))
        np.testing.assert_allclose(found[name], x, rtol, atol * scale, err_msg=name)
