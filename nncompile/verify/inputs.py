"""What a model is verified on: random and edge inputs that it accepts, at several sizes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CompileError, FeedError, ShapeError, did_you_mean
from nncompile.elementwise.map import Map
from nncompile.ir.basic import Cast
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import Shape, solve, substitute, symbol, symbols
from nncompile.ir.graph import Graph, Item
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.transform import dependent
from nncompile.ir.types import Array, is_real
from nncompile.ops.contraction.einsum import Einsum
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.normalization.layer import LayerNorm
from nncompile.ops.reduction.softmax import Softmax
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import Reshape, Transpose
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from nncompile.program.shape_check import SizeCheck, trained
from nncompile.train.indices import RangeCheck, claimed
from nncompile.verify.ranges import integer_ranges

Arrays = dict[str, Array]
Sizes = dict[Any, int]

EXAMPLES = 5  # of a batch
SMALLEST = 6  # of other sizes, each another, so that exchanged axes show
LARGEST = 256  # that is tried where a model does not accept small ones
LARGE = 1e4  # what edge inputs are times a sign
JITTER = 0.05  # moves parameters off their first values, many of which are equal
ELEMENTS = 20_000  # of the data's own rows, above which they are left to the small sizes
ROWS = "rows of the data"
ATTEMPTS = 4  # at numbers that fit together, as lengths and times do
# What numpy raises for data that mean nothing to an op, such as an index beyond an axis.
REFUSALS = (CompileError, IndexError, ValueError, ZeroDivisionError, OverflowError)
# Ops that have a result for any numbers.
_TAKES_ALL = (
    Map,
    Cast,
    MatMul,
    Gemm,
    Einsum,
    LayerNorm,
    Softmax,
    Sum,
    Reshape,
    Transpose,
    Expand,
    Item,
)


@dataclass(frozen=True)
class Case:
    """One set of inputs: how they were made, the sizes of the names of dimensions, and the arrays
    of the data, parameters and states."""

    kind: str
    sizes: Mapping[str, int]
    seed: int
    feeds: Arrays

    def __str__(self) -> str:
        sizes = "".join(f", {name}={size}" for name, size in self.sizes.items())
        return f"{self.kind}{sizes}, seed {self.seed}"


class Inputs:
    """Draws inputs for a model, from `data` where there are any: their numbers show what each
    input takes. Other integers go as far as the model accepts them, and numbers whose range the
    model claims stay in it. `state` is the first state, with that of optimizers;
    without it, that of the model."""

    def __init__(
        self,
        model: Model,
        data: Mapping[str, Array] | None,
        seed: int,
        state: Mapping[str, Array] | None = None,
    ) -> None:
        self.model = model
        self.seed = seed
        self.start = dict(state) if state is not None else _first_state(model, seed)
        self.data = {n: x for n, x in (data or {}).items() if n in model.inputs}
        self.refused: list[str] = []
        self._ranges: dict[tuple[Any, ...], dict[str, tuple[int, int]]] = {}
        dims = symbols(d for leaf in model.inputs.values() for d in leaf.shape)
        self.names = sorted(dims, key=str)
        graph = trained(model.whole)
        self._size_check = SizeCheck(graph, model.inputs)
        self._range_check = RangeCheck(graph, model.examples)
        self._claims = claimed(graph)

    def base(self, fixed: Mapping[str, int]) -> Sizes:
        """Sizes that the model accepts: those `fixed`, small ones for the rest. Raises `FeedError`
        for an unknown name, or where none are accepted."""
        names = {str(s) for s in self.names}
        for name in fixed:
            if name not in names:
                raise FeedError(
                    f"model {self.model.name} has no size {name!r}", hint=did_you_mean(name, names)
                )
        for sizes in self._tried({symbol(name): size for name, size in fixed.items()}):
            if self._case("random", sizes, 0) is not None:
                self.refused.clear()
                return sizes
        hint = "nncompile verify --sizes names others" if self.names else None
        reason = self.refused[-1] if self.refused else "their sizes do not fit together"
        raise FeedError(f"model {self.model.name} accepts no inputs: {reason}", hint=hint)

    def _tried(self, fixed: Sizes) -> Iterator[Sizes]:
        """Sizes to try, those `fixed` among them: small ones, each time twice as large, and those
        of the data."""
        full, sizes, axis = self._full, {}, self.model.examples
        for position, s in enumerate(self.names):
            small = EXAMPLES if s == axis else SMALLEST + position
            sizes[s] = fixed.get(s, min(small, full.get(s, small)))
        still = {*fixed, axis} if len(self.names) > 1 else set(fixed)
        grown = sizes
        while True:
            yield grown
            larger = {s: n if s in still else min(2 * n, LARGEST) for s, n in grown.items()}
            if larger == grown:
                break
            grown = larger
        if full:
            yield {s: n if s in still else full.get(s, n) for s, n in sizes.items()}

    def cases(self, base: Sizes, rounds: int, edges: bool = True) -> Iterator[Case]:
        """Inputs of every kind: rows of the data, `rounds` random ones, and with `edges` zeros,
        ones, large numbers, both ends of integers, and other values of every size. Raises
        `FeedError` for rows that do not fit the model."""
        kinds = [ROWS, *["random"] * rounds]
        if edges:
            kinds += ["zeros", "ones", "large"]
        for number, kind in enumerate(kinds):
            sizes = self._rows_sizes() if kind == ROWS else base
            case = self._case(kind, sizes, number) if sizes is not None else None
            if case is not None:
                yield case
        if not edges:
            return
        for position, s in enumerate(self.names):
            for size in (1, 2 * base[s] + 1, 0):
                case = self._case("random", {**base, s: size}, 100 + position)
                if case is not None and size != base[s]:
                    yield case

    def batch(self, sizes: Sizes, number: int) -> Case:
        """Random data for a training step, without a state."""
        for attempt in range(ATTEMPTS):
            case = self._case("random", sizes, 1000 + number + 100 * attempt)
            if case is not None:
                return case
        raise FeedError(f"model {self.model.name} accepts no more inputs: {self.refused[-1]}")

    @cached_property
    def _full(self) -> Sizes:
        """The sizes of the data. Raises `FeedError` where these do not fit the model."""
        shapes = {n: self.data[n].shape for n in self.model.inputs if n in self.data}
        if len(shapes) == len(self.model.inputs):
            return dict(self._size_check(shapes))
        try:
            return dict(solve([self.model.inputs[n].shape for n in shapes], list(shapes.values())))
        except ShapeError as error:
            raise FeedError(f"the data do not fit the inputs: {error.problem}") from None

    def _rows_sizes(self) -> Sizes | None:
        """The sizes of a few rows of the data; None where there are no such data."""
        if set(self.data) != set(self.model.inputs) or not self.data:
            return None
        sizes = dict(self._full)
        axis = self.model.examples
        if axis in sizes:
            sizes[axis] = min(EXAMPLES, sizes[axis])
        shapes = [_static(leaf.shape, sizes) for leaf in self.model.inputs.values()]
        return sizes if sum(map(np.prod, shapes)) <= ELEMENTS else None

    def _case(self, kind: str, sizes: Sizes, number: int) -> Case | None:
        """Inputs of that kind, or None where the model does not accept them."""
        if not self._fit(sizes):
            return None
        feeds: Arrays = {}
        for attempt in range(ATTEMPTS if kind == "random" else 1):
            random = np.random.default_rng((self.seed, number, attempt))
            data = self._drawn_inputs(kind, sizes, random)
            if data is None:
                return None
            feeds = {**self._state(kind, number, random), **data}
            if self._accepted(feeds, sizes, self.model.whole, kind == ROWS):
                sizes_by_name = {str(s): n for s, n in sizes.items()}
                return Case(kind, sizes_by_name, self.seed, feeds)
        return None

    def _state(self, kind: str, number: int, random: np.random.Generator) -> Arrays:
        state = dict(self.start)
        state["step"] = np.asarray(number % 7, np.int64)
        if kind != "zeros":  # where kinks and ties are as they are at the start
            for path in self.model.parameters:
                x = state[path]
                moved = x + JITTER * random.normal(size=x.shape)
                state[path] = moved.astype(x.dtype) if is_real(x.dtype) else x
        return state

    def _drawn_inputs(self, kind: str, sizes: Sizes, random: np.random.Generator) -> Arrays | None:
        if kind == ROWS:
            return self._rows(sizes, random)
        ranges = self._integers(sizes)
        if ranges is None:
            return None
        arrays = {}
        for name, leaf in self.model.inputs.items():
            shape, dtype = _static(leaf.shape, sizes), leaf.dtype
            low, high = ranges.get(name, (0, 1))
            x: Any
            if dtype.is_float:
                x = self._real(kind, name, shape, random)
            elif kind in ("zeros", "ones"):
                x = np.full(shape, low if kind == "zeros" else high)
            else:
                x = random.integers(low, high + 1, shape)
            arrays[name] = np.asarray(x).astype(dtype.numpy)
        return arrays

    def _real(
        self, kind: str, name: str, shape: tuple[int, ...], random: np.random.Generator
    ) -> Array:
        if kind in ("zeros", "ones"):
            return np.full(shape, float(kind == "ones"))
        if kind == "large":
            return LARGE * random.choice([-1.0, 1.0], shape)
        data, claim = self.data.get(name), self._claims.get(name)
        if data is not None and data.size:
            return np.asarray(random.choice(data.ravel()[:ELEMENTS], shape))
        if claim is not None and isinstance(claim.low, int):
            high = claim.high if isinstance(claim.high, int) else claim.low + 1
            return np.asarray(random.uniform(claim.low, high, shape))
        return np.asarray(random.normal(size=shape))

    def _rows(self, sizes: Sizes, random: np.random.Generator) -> Arrays:
        axis = self.model.examples
        count = self._full.get(axis, 0)
        chosen = np.sort(random.choice(count, sizes[axis], replace=False)) if count else None
        return {
            name: self.data[name][chosen]
            if leaf.rank and leaf.shape[0] == axis and chosen is not None
            else self.data[name]
            for name, leaf in self.model.inputs.items()
        }

    def _integers(self, sizes: Sizes) -> dict[str, tuple[int, int]] | None:
        """The least and the largest number that each input of integers takes at these sizes;
        None where the model accepts none."""
        key = tuple(sizes[s] for s in self.names)
        if key not in self._ranges:
            ranges = self._measured(sizes)
            if ranges is None:
                return None
            self._ranges[key] = ranges
        return self._ranges[key]

    def _measured(self, sizes: Sizes) -> dict[str, tuple[int, int]] | None:
        random = np.random.default_rng((self.seed, 7))
        leaves = {n: x for n, x in self.model.inputs.items() if x.dtype.is_integer}
        defaults: Arrays = {
            name: np.asarray(
                self._real("random", name, _static(leaf.shape, sizes), random)
                if leaf.dtype.is_float
                else np.zeros(_static(leaf.shape, sizes))
            ).astype(leaf.dtype.numpy)
            for name, leaf in self.model.inputs.items()
        }
        state = self._state("zeros", 0, random)

        def accepts(numbers: Mapping[str, int]) -> bool:
            filled = {
                n: np.full(_static(leaves[n].shape, sizes), x, leaves[n].dtype.numpy)
                for n, x in numbers.items()
            }
            return self._accepted({**state, **defaults, **filled}, sizes, self._refusing)

        data = {n: self.data[n] for n in leaves if n in self.data and self.data[n].size}
        longest = max([1, *(n for s, n in sizes.items() if s != self.model.examples)])
        return integer_ranges(list(leaves), data, longest, accepts)

    def _fit(self, sizes: Sizes) -> bool:
        """Whether there is a model at these sizes."""
        negative = [f"{s}={n}" for s, n in sizes.items() if n < 0]
        if negative:
            self.refused.append(f"{negative[0]} is negative")
            return False
        shapes = {name: _static(leaf.shape, sizes) for name, leaf in self.model.inputs.items()}
        try:
            self._size_check(shapes)
        except FeedError as error:
            self.refused.append(error.message)
            return False
        return True

    @cached_property
    def _refusing(self) -> Graph:
        """What is computed of the inputs and may be refused for its numbers, as an index may: not
        the arithmetic that follows."""
        whole = self.model.whole
        order = whole.nodes
        of_data = dependent(order, list(self.model.inputs.values()))
        found = [v for v in order if v in of_data and v.args and _may_refuse(v, of_data)]
        return whole.with_outputs({str(i): v for i, v in enumerate(found)})

    def _accepted(self, feeds: Arrays, sizes: Sizes, graph: Graph, must: bool = False) -> bool:
        """Whether the data are what the model claims of them, and numpy can compute the outputs of
        the graph. Raises `FeedError` where they are not and `must` be."""
        try:
            self._range_check({name: feeds[name] for name in self.model.inputs}, sizes)
            evaluate(graph, feeds, np.float64)
        except REFUSALS as error:
            if must and isinstance(error, FeedError):
                raise
            self.refused.append(" ".join(str(error).split("\n")[0].split()))
            return False
        return True


def _may_refuse(v: Value, of_data: Collection[Value]) -> bool:
    """Whether an op may have no result for some numbers, of those that depend on the data."""
    if v.op.indexes:
        return v.args[1] in of_data
    return not isinstance(v.op, _TAKES_ALL)


def _first_state(model: Model, seed: int) -> Arrays:
    first = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    return {**first, **initial_values(model, seed)}


def _static(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    return tuple(int(substitute(d, sizes)) for d in shape)
