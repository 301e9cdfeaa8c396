"""Which values of a model have rows that no other example of the batch influences."""

from __future__ import annotations

from collections.abc import Mapping

import sympy as sp

from nncompile.elementwise.map import Map
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import Dim, product, same, symbols
from nncompile.ir.graph import Graph, Input, Item, input_of, toposort
from nncompile.ir.op import Value
from nncompile.ir.types import TupleType
from nncompile.ops.shape.reshape import Reshape

METADATA_KEY = "nncompile.rows"
"""The key of an inference model's metadata: the size along which its rows are apart."""


def rows_apart(graph: Graph) -> dict[str, str]:
    """What an ONNX file says of its rows: where all inputs and outputs begin with one size, and
    each row of the outputs follows from that row of the inputs alone, the name of the size. Then
    examples of different people may be computed together."""
    inputs = [leaf for leaf in graph.leaves.values() if input_of(leaf).kind == "input"]
    firsts = {v.shape[0] if v.shape else None for v in (*inputs, *graph.outputs.values())}
    size = firsts.pop() if len(firsts) == 1 else None
    if not isinstance(size, sp.Symbol):
        return {}
    rowwise = Rowwise(size)
    is_apart = all(rowwise(v) and rowwise.axes[v] == 0 for v in graph.outputs.values())
    return {METADATA_KEY: size.name} if inputs and is_apart else {}


class Mixed(Exception):
    """The rows of an example are not next to each other, or it is not known whether they are."""


class Rowwise:
    """Which values have rows that no other example of the batch influences."""

    def __init__(self, examples: Dim | None) -> None:
        self.examples = examples
        self.axes: dict[Value, int] = {}
        self.constant: set[Value] = set()  # the same for all batches
        self.first: Value | None = None  # the first that is not, or not known to be

    def __call__(self, value: Value) -> bool:
        """Whether the value is known to be, with its rows along an axis."""
        for v in toposort([value]):
            if not self._enter(v) and (self.first is None or not self.first.args):
                self.first = v  # an op rather than a size beside it
        return value in self.axes

    def is_known(self, v: Value) -> bool:
        """Whether the value is known to be, or is the same for all batches. Its arguments must have
        been asked for before."""
        self._enter(v)
        return v in self.axes or v in self.constant

    def _enter(self, v: Value) -> bool:
        if v in self.axes or v in self.constant or isinstance(v.type, TupleType):
            return True  # the items of a tuple are checked instead
        sources = sources_of(v)
        symbols_ = symbols([self.examples or 0])
        if isinstance(v.op, Input) or not sources:
            return self._leaf(v, symbols_)
        if all(a in self.constant for a in sources):
            if not is_of_batch(v, self.examples) and not symbols_ & _op_symbols(v):
                self.constant.add(v)
                return True
            axes = axes_of_batch(v, self.examples)
            if (
                isinstance(v.op, Expand)
                and len(axes) == 1
                and not is_of_batch(sources[0], self.examples)
            ):
                self.axes[v] = axes[0]
                return True
            return False
        if any(a not in self.axes and a not in self.constant for a in sources):
            return True  # an argument is reported already
        source_axes = {a: self.axes[a] for a in sources if a in self.axes}
        if isinstance(v.op, Reshape):
            axes = axes_of_batch(v, self.examples)
            try:
                axis = reshaped(v, axes[0], *next(iter(source_axes.items())), self.examples)
            except (Mixed, IndexError):
                return False
            if len(axes) == 1:
                self.axes[v] = axis
            return len(axes) == 1
        row_axis = rows_of(v, source_axes)
        if row_axis is not None:
            self.axes[v] = row_axis
        return row_axis is not None

    def _leaf(self, v: Value, names: set[sp.Symbol]) -> bool:
        axes = axes_of_batch(v, self.examples)
        if isinstance(v.op, Input) and axes:
            if len(axes) == 1:
                self.axes[v] = axes[0]
            return len(axes) == 1
        if names & _op_symbols(v):  # how many examples there are, and which of them it is
            return False
        self.constant.add(v)
        return True


def rows_of(v: Value, axes: Mapping[Value, int]) -> int | None:
    """The axis along which the op computes row by row; see `Op.rowwise`."""
    source = v.args[0] if isinstance(v.op, Item) else v
    if any(isinstance(a.type, TupleType) for a in source.args):
        return None
    return source.op.rowwise([axes.get(a) for a in source.args], *(a.type for a in source.args))


def reshaped(v: Value, axis: int, source: Value, source_axis: int, examples: Dim | None) -> int:
    """The batch axis of `v`, reshaped from `source`. Raises `Mixed` where it mixes examples."""
    outside = same(product(v.shape[:axis]), product(source.shape[:source_axis]))
    per_example = sp.cancel(sp.sympify(v.shape[axis]) / sp.sympify(examples))
    if outside is not True or symbols([examples or 0]) & per_example.free_symbols:
        raise Mixed(
            f"{source.type} as {v.type} mixes the numbers of an example with those of others"
        )
    return axis


def sources_of(v: Value) -> list[Value]:
    """The tensors that the value is computed from: of a result of several, those of the op."""
    args = v.args[0].args if isinstance(v.op, Item) else v.args
    flat = []
    for a in args:
        flat += sources_of(a) if isinstance(a.type, TupleType) else [a]
    return flat


def axes_of_batch(v: Value, examples: Dim | None) -> list[int]:
    """The axes whose sizes depend on the batch."""
    names = symbols([examples or 0])
    return [i for i, size in enumerate(v.shape) if symbols([size]) & names]


def is_of_batch(v: Value, examples: Dim | None) -> bool:
    """Whether an axis of `v` counts the examples of a batch."""
    return bool(axes_of_batch(v, examples))


def _op_symbols(v: Value) -> set[sp.Symbol]:
    if isinstance(v.op, Input | Map):
        return set()
    sizes = (d for x in v.op.attributes.values() for d in (x if isinstance(x, tuple) else (x,)))
    return symbols(d for d in sizes if isinstance(d, sp.Expr))
