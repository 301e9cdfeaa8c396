"""Programs that are swept with special values: their outputs, their gradients, and the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nncompile.autodiff.grad import vjp
from nncompile.diagnostics.errors import GradientError
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32, f64
from tests.op_types import Feeds

FLOATS = (f32, f64)  # those of 16 bits are computed in float32


def special(dtype: DType) -> np.ndarray:
    """What kernels get wrong: the ends of the range, what lies beside zero, and what overflows or
    cancels in common formulas."""
    if dtype.is_bool:
        return np.asarray([False, True])
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        numbers = [0, 1, 2, 3, 7, limits.bits - 1, limits.bits, limits.bits + 1, 2 * limits.bits]
        numbers += [-n for n in numbers]
        numbers += [limits.min, limits.min + 1, limits.max // 2 + 1, limits.max - 1, limits.max]
        kept = {n for n in numbers if limits.min <= n <= limits.max}
        return np.asarray(sorted(kept), dtype.numpy)
    limits = np.finfo(dtype.numpy)
    sizes = [0.0, limits.smallest_subnormal, limits.tiny / 3, limits.tiny, 1e-20, 1e-8, 0.3, 0.5]
    sizes += [1.0, 1.5, 2.0, 2.5, 3.0, 17.0, 30.0, 88.0, 100.0, 1e8, 1e20, limits.max, np.inf]
    return np.asarray([np.nan, *sizes, *(-x for x in sizes)], dtype.numpy)


@dataclass(frozen=True)
class Output:
    """A value of a program, or its gradient at an argument."""

    program: str
    name: str
    value: Value


@dataclass(frozen=True)
class Sweep:
    """Programs over the same leaves, and the data that they are fed, each of a kind."""

    outputs: tuple[Output, ...]
    leaves: tuple[Value, ...]
    data: tuple[tuple[str, Feeds], ...]
    signs: bool = False  # whether zeros are compared with their signs

    @property
    def graph(self) -> Graph:
        named = {f"y{i}": output.value for i, output in enumerate(self.outputs)}
        return Graph("sweep", named, self.leaves)


def with_gradients(
    program: str,
    results: Sequence[Value],
    leaves: Sequence[Value],
    weights: Callable[[Value], Value],
) -> Iterator[Output]:
    """The results, and their gradients at the leaves from the weights."""
    for i, y in enumerate(results):
        yield Output(program, f"value {i}" if len(results) > 1 else "value", y)
    real = {i: x for i, x in enumerate(leaves) if x.dtype.is_float}
    ys = [y for y in results if y.dtype.is_float]
    if not real or not ys:
        return
    try:
        gradients = vjp(ys, list(real.values()), [weights(y) for y in ys])
    except GradientError:
        return
    for i, gradient in zip(real, gradients, strict=True):
        yield Output(program, f"gradient {i}", gradient)
