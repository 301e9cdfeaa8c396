"""Convolutions with random options, and comparisons of them with torch's everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dsl import f32, f64
from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type
from tests.backends import session, valid_model
from tests.leaves import leaf
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="torch is the reference here")

NAMES = "hdw"  # of spatial sizes


@dataclass(frozen=True)
class Setting:
    """A convolution's options and sizes, drawn at random."""

    seed: int
    rank: int
    ins: int
    outs: int
    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    more: tuple[int, ...]  # output padding

    @property
    def options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def arrays(self, batch: int, first: int, transposed: bool = False) -> list[Array]:
        """x, w and bias; spatial sizes from `first` on, at least as large as the kernel."""
        rng = np.random.default_rng(self.seed)
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        sizes = [max(span, first + i) for i, span in enumerate(spans)]
        channels = self.outs if not transposed else self.ins
        other = self.outs if transposed else self.ins
        shapes = [
            (batch, self.ins, *sizes),
            (channels, other // self.groups, *self.kernel),
            (self.outs,),
        ]
        return [rng.uniform(-1, 1, shape) for shape in shapes]

    def types(self, dtype: DType, transposed: bool = False) -> list[Type]:
        """Those of the arrays, with names for the batch and the spatial sizes."""
        _, w, b = self.arrays(1, 1, transposed)
        names = NAMES[: self.rank]
        return [dtype["n", self.ins, *names], dtype[w.shape], dtype[b.shape]]


def drawn(seed: int) -> Setting:
    rng = np.random.default_rng(seed)
    rank = 1 + seed % 3
    groups = int(rng.choice([1, 1, 2, 3]))
    ins, outs = (groups * int(n) for n in rng.choice([1, 2, 3, 9], 2))

    def each(numbers: list[int]) -> tuple[int, ...]:
        return tuple(int(n) for n in rng.choice(numbers, rank))

    stride = each([1, 1, 2, 3]) if seed % 2 else (1,) * rank
    dilation = each([1, 1, 2])
    more = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True))
    kernel = each([1, 2, 3])
    return Setting(seed, rank, ins, outs, groups, kernel, stride, each([0, 1, 2]), dilation, more)


SETTINGS = [drawn(seed) for seed in range(20)]

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"seed{s.seed}")


def with_gradients(y: Value, leaves: list[Value]) -> Graph:
    """y, and the gradients at the leaves from one at y, which is an input, too."""
    g = leaf("g", y.type)
    gradients = vjp([y], leaves, [g])
    named = {f"gradient{i}": s for i, s in enumerate(gradients)}
    return Graph("test", {"y": y, **named}, (*leaves, g))


def torchs(function: Callable[..., Any], arrays: list[Array]) -> tuple[dict[str, Array], Array]:
    """The same numbers in torch, in double, and the gradient that they come from."""
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = function(*tensors)
    g = torch.tensor(np.random.default_rng(1).uniform(-1, 1, y.shape))
    gradients = torch.autograd.grad(y, tensors, g)
    found = {f"gradient{i}": s.numpy() for i, s in enumerate(gradients)}
    return {"y": y.detach().numpy(), **found}, g.numpy()


def check_everywhere(
    ours: Callable[..., Value],
    theirs: Callable[..., Any],
    types: Callable[[DType], list[Type]],
    data: list[list[Array]],
) -> None:
    """Values and gradients are torch's: in numpy, and in onnxruntime for both element types, where
    one file runs at all sizes."""
    for dtype in (f64, f32):
        leaves = [leaf(f"x{i}", t) for i, t in enumerate(types(dtype))]
        graph = with_gradients(ours(*leaves), leaves)
        run = session(valid_model(graph))
        for arrays in data:
            expected, g = torchs(theirs, arrays)
            feeds = {f"x{i}": a for i, a in enumerate(arrays)} | {"g": g}
            given = {name: a.astype(dtype.numpy) for name, a in feeds.items()}
            if dtype is f64:
                for name, found in evaluate(graph, given).items():
                    assert_close(found, expected[name], "float64", f"numpy {name}")
            results = run(given, expected)
            for name, found in results.items():
                assert_close(found, expected[name], dtype.name, f"onnxruntime {name}")


# What the gradients are made of.


def nodes(value: Value, *leaves: Value) -> list[str]:
    """The ONNX operators of a value, in order, as in the step of a training on batches of usual
    size: where sums need no blocks, and nothing chooses when it runs."""
    bounds: dict[Any, int] = {}
    model_ = to_model(Graph("test", {"y": value}, leaves), bounds=bounds)
    assert all(limit >= 64 for limit in bounds.values()), bounds
    return [node.op_type for node in model_.graph.node]
