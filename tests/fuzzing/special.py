"""Programs on special data: NaN, infinities, zeros of both signs, the largest and smallest numbers.

Passes and formulas are real mathematics, which does not hold for what is not finite: 0·x is 0. So
it is the graph as written that is compared here, and an element is right where it is numpy's in
double or in the declared element types: NaN for NaN, infinite for infinite. What noise in the last
place turns from one kind into another is not judged.

Sums of products are computed in an order of the kernel's own, where ∞ may meet −∞: programs with
such an op get NaN alone, and may have it in more places, never in fewer. Where one of two ways
multiplies the zeros of a padding or of a matrix of weights and the other leaves them out, NaN is in
other places: programs with such an op get no special data.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from tests.fuzzing.arithmetic import SINGLE, Computation
from tests.fuzzing.checks import loaded
from tests.fuzzing.comparison import CLOSE, MARGIN, Mismatch, shown
from tests.fuzzing.program import Program
from tests.op_types import Feeds, Sizes

RUNS = 12  # with noise
OWN_ORDER = re.compile(
    "MatMul|Gemm|Einsum|LayerNorm|Attention|LogSumExp|Softmax|CumSum|Scan|"
    "Solve|Determinant|Cofactors|Cholesky|Inverse"
)
ZEROS = re.compile("Conv|BatchNorm|ChannelAffine|Moment|Average|Resize|Enlarge")


def special_values(dtype: np.dtype[Any]) -> np.ndarray:
    """The numbers of a real element type at which arithmetic is special."""
    known = ml_dtypes.finfo(dtype)
    signed = [0.0, known.smallest_normal, 1.0, known.max, np.inf]
    return np.array([np.nan, *signed, *(-x for x in signed)], dtype)


def with_special_data(program: Program) -> Program:
    """The program with one more binding: the sizes of the first, and special numbers among its
    real data."""
    if any(map(ZEROS.search, program.op_types)):
        return program
    rng = program.rng(7)
    own_order = any(map(OWN_ORDER.search, program.op_types))
    feeds: Feeds = {}
    for x in program.inputs:
        name = x.op.name  # type: ignore[attr-defined]
        array = program.feeds[0][name].copy()
        if x.dtype.is_float and array.size and rng.random() < 0.7:
            count = rng.integers(1, 1 + max(1, array.size // 4))
            places = rng.choice(array.size, count, replace=False)
            special = special_values(array.dtype)[: 1 if own_order else None]
            array.reshape(-1)[places] = rng.choice(special, count)
        feeds[name] = array
    sizes = (*program.sizes, program.sizes[0])
    return dataclasses.replace(program, sizes=sizes, feeds=(*program.feeds, feeds), special=True)


@dataclasses.dataclass
class SpecialReference:
    """What a graph gives at special data, and how near is right, element by element."""

    graph: Graph
    sizes: Sizes
    feeds: Feeds

    def __post_init__(self) -> None:
        compute = Computation(self.graph, self.sizes)
        self.double = compute(self.feeds)
        with np.errstate(all="ignore"):
            self.single: Feeds = evaluate(self.graph, self.feeds)
        self.spread = compute.spread(self.feeds, self.double, SINGLE, RUNS)
        op_types = {type(v.op).__name__ for v in self.graph.nodes}
        self.own_order = any(map(OWN_ORDER.search, op_types))

    def compare(self, kind: str, actual: Mapping[str, Any]) -> None:
        """Raises where an element is neither numpy's in double nor in the declared types."""
        for name, expected in self.double.items():
            found, single = np.asarray(actual[name]), self.single[name]
            if found.shape != expected.shape:
                raise Mismatch(kind, f"{name} has shape {found.shape}, not {expected.shape}")
            with np.errstate(all="ignore"):
                bound = MARGIN * self.spread[name] + self._unit(name, expected)
                right = ~np.isfinite(self.spread[name])
                right |= self.own_order & np.isnan(found)
                for known in (expected, single):
                    near = np.abs(found.astype(np.float64) - known.astype(np.float64)) <= bound
                    right |= near | (found == known) | ((found != found) & (known != known))
            if not right.all():
                place = tuple(map(int, np.argwhere(~right)[0]))
                raise Mismatch(
                    f"special data in {kind}",
                    f"{name}{list(place)} is {found[place]}, not {expected[place]} "
                    f"({single[place]} in the declared types); {name} is {shown(found)}, "
                    f"not {shown(expected)}",
                )

    def _unit(self, name: str, expected: np.ndarray) -> np.ndarray:
        relative = CLOSE.get(self.graph.outputs[name].dtype.name, 0.0)
        size = np.where(np.isfinite(expected), np.abs(expected), 0).astype(np.float64)
        return relative * np.maximum(size, 1.0)


def check_special_data(graph: Graph, sizes: Sizes, feeds: Feeds, torch: Any = None) -> None:
    """onnxruntime and, with its checks as `torch`, TorchScript treat special data as numpy
    does."""
    reference = SpecialReference(graph, sizes, feeds)
    reference.compare("onnxruntime", loaded(to_model(graph), "disabled")(feeds))
    if torch is not None:
        reference.compare("torch", torch.computed(graph, feeds))
