"""Files of a graph for batches of different sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

import sympy as sp

from nncompile.ir.dims import Dim, product, substitute, symbols
from nncompile.ir.graph import Graph
from nncompile.ir.types import component_types

MOST = 3
"""Files of a graph that are made for sizes of batches, before one that chooses at run time."""
CACHE = 2**20
"""Bytes: the second-level cache of today's processors, or half of it."""

Sizes = Mapping[sp.Symbol, int]


class SizedFile(NamedTuple):
    """The file of a graph that sums as suits batches of some sizes, the bounds up to which it is
    right, and whether its tensors fit into the processor's cache."""

    content: bytes
    bounds: dict[Dim, int]
    fits: bool

    def takes(self, sizes: Sizes) -> bool:
        """Whether it is right for batches of these sizes."""
        bounded = ((substitute(size, sizes), bound) for size, bound in self.bounds.items())
        return all(isinstance(n, int) and n <= bound for n, bound in bounded)


class SizedFiles:
    """Files of one graph, which choose no ways of summing at run time, unless batches are of very
    different sizes. Each is `made` when it is first needed; `whole` makes the one that chooses, and
    `usual` are the sizes of the batches of the recipe."""

    def __init__(
        self, made: Callable[[Sizes], SizedFile], whole: Callable[[], bytes], usual: Sizes
    ) -> None:
        self._made, self._whole = made, whole
        self.files = [made(usual)]

    @property
    def first(self) -> SizedFile:
        """That for the batches of the recipe."""
        return self.files[0]

    @cached_property
    def general(self) -> bytes:
        """The file for batches of any size, which chooses when it runs."""
        return self._whole()

    def of(self, sizes: Sizes) -> bytes:
        """The file for a batch of these sizes."""
        if not any(file.takes(sizes) for file in self.files) and len(self.files) < MOST:
            self.files.append(self._made(sizes))
        found = next((file.content for file in self.files if file.takes(sizes)), None)
        return self.general if found is None else found


def fits_cache(graph: Graph, size: int) -> bool:
    """Whether all tensors that the graph computes fit together, every unknown size being `size`."""
    total = 0
    for node in graph.nodes:
        for t in component_types(node.type):
            elements = substitute(product(t.shape), dict.fromkeys(symbols(t.shape), size))
            total += int(elements) * t.dtype.numpy.itemsize if node.args else 0
        if total > CACHE:
            return False
    return True
