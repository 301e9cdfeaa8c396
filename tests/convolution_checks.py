"""Convolutions with random options, and comparisons of them with torch's everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from tests.everywhere import check

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

    def shapes(self, batch: Any, first: Any, transposed: bool = False) -> list[tuple[Any, ...]]:
        """Those of x, w and bias: spatial sizes from `first` on, at least as large as the kernel,
        or names."""
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        names = list(NAMES[: self.rank])
        sizes = names if first is None else [max(s, first + i) for i, s in enumerate(spans)]
        channels, other = (self.ins, self.outs) if transposed else (self.outs, self.ins)
        weight = channels, other // self.groups, *self.kernel
        return [(batch, self.ins, *sizes), weight, (self.outs,)]

    def check(self, ours: Any, theirs: Any, *sizes: tuple[int, int], transposed: bool) -> None:
        """Values and gradients are torch's everywhere, where one file runs for batches and spatial
        sizes of those sizes."""
        shapes = [self.shapes(*pair, transposed) for pair in sizes]
        symbolic = self.shapes("n", None, transposed)
        check(ours, theirs, symbolic, *shapes, draw=lambda r, s: r.uniform(-1, 1, s), order=1)


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


# What the gradients are made of.


def nodes(value: Value, *leaves: Value) -> list[str]:
    """The ONNX operators of a value, in order, as in the step of a training on batches of usual
    size: where sums need no blocks, and nothing chooses when it runs."""
    bounds: dict[Any, int] = {}
    model_ = to_model(Graph("test", {"y": value}, leaves), bounds=bounds)
    assert all(limit >= 64 for limit in bounds.values()), bounds
    return [node.op_type for node in model_.graph.node]
