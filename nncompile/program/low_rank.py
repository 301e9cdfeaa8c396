"""Low-rank changes of weights (LoRA, Hu et al. 2021): their factors, and what these add."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from nncompile.ir.dims import Shape
from nncompile.ir.op import Value
from nncompile.ops.shape.reshape import reshape

Layout = Literal["in out", "out in", "kernel"]
"""How a weight lies: matrices that vectors are multiplied by from the left (`in out`) or from the
right (`out in`), the last two axes of it; or kernels [out, in, *kernel] of a convolution."""
LAYOUTS = get_args(Layout)


@dataclass(frozen=True)
class LowRank:
    """A change of the weight `path`, (alpha/rank)·A·B: A takes what enters the layer to `rank`
    numbers, B these to what leaves it. `a` and `b` are their paths.

    Beside W[..., n, m] of `in out` are A[..., n, rank] and B[..., rank, m], of `out in`
    A[..., rank, m] and B[..., n, rank]. Beside kernels W[n, m, *kernel] are A[rank, m, *kernel], a
    convolution of few filters, and B[n, rank, 1, …], one of kernel 1 after it.
    """

    path: str
    rank: int
    alpha: float
    layout: Layout
    a: str
    b: str

    def check(self) -> None:
        """Raises `ValueError` for what is none, as a file may have it."""
        names = self.path, self.a, self.b
        numbers = type(self.rank) is int and self.rank > 0 and math.isfinite(self.alpha)
        if not numbers or self.layout not in LAYOUTS or not all(type(x) is str for x in names):
            raise ValueError(self)

    def shapes(self, weight: Shape) -> tuple[Shape, Shape]:
        """The shapes of A and B beside a weight of that shape."""
        if self.layout == "kernel":
            rows, columns, *kernel = weight
            return (self.rank, columns, *kernel), (rows, self.rank, *(1 for _ in kernel))
        *batch, rows, columns = weight
        left, right = (*batch, rows, self.rank), (*batch, self.rank, columns)
        return (left, right) if self.layout == "in out" else (right, left)

    def fans(self, weight: Shape) -> tuple[int, int]:
        """How many numbers enter each of A's results, and how many each of them goes on to."""
        if self.layout == "kernel":
            taps = math.prod(map(int, weight[2:]))
            return int(weight[1]) * taps, self.rank * taps
        return int(weight[-2 if self.layout == "in out" else -1]), self.rank

    def changed(self, weight: Value, a: Value, b: Value) -> Value:
        """The weight with its change."""
        factor = self.alpha / self.rank
        if self.layout == "kernel":  # one convolution after the other is one, of their product
            rows, columns, *kernel = weight.shape
            filters = reshape(a * factor, (self.rank, columns * math.prod(kernel)))
            product = reshape(b, (rows, self.rank)) @ filters
            return weight + reshape(product, weight.shape)
        # The factor on the smaller of the two: B is as wide as the layer.
        return weight + ((a * factor) @ b if self.layout == "in out" else b @ (a * factor))


def factor_names(path: str) -> tuple[str, str]:
    """The paths of A and B: `dense.lora_a` beside `dense.weight`, `dense.lora_a_kernel` beside
    `dense.kernel`, and `w.lora_a` of a parameter `w` of no layer."""
    owner, _, name = path.rpartition(".")
    if not owner:
        owner, name = name, "weight"
    suffix = "" if name == "weight" else f"_{name}"
    return f"{owner}.lora_a{suffix}", f"{owner}.lora_b{suffix}"


def is_factor(path: str) -> bool:
    """Whether it is the path of a factor."""
    return path.rpartition(".")[2].startswith("lora_")
