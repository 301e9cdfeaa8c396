"""Metrics over several batches: what each batch gives, and how the result follows from it.

An average over all examples is not the mean of the averages of batches: a last batch of one, or
one of which a mask leaves little, would weigh too much. So what is a total in a metric (`ratio`,
`total`, a mean over a number of examples) is taken from each batch and added up, what is `pooled`
is put together, and what the metric computes of them is computed once, at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sympy as sp

from nncompile.elementwise.map import Map, body_of, is_plain
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import Cast, SizeOf, size_value
from nncompile.ir.dims import Dim, symbols
from nncompile.ir.graph import Input, toposort
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import DType, Type
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.reduction.totals import Average, ConcatenatedState, SumState
from nncompile.program.linear_terms import (
    depending,
    divides_by_data,
    divisor_of_mean,
    is_data,
    linear_terms,
    of_batch,
)

Kind = Literal["total", "mean", "pooled"]


@dataclass(frozen=True, eq=False)
class Part:
    """What a batch gives towards a metric: a `total` is added up, a `mean` is weighted by the
    number of examples of the batch, or by `count` (a mean over tokens), and `pooled` values are
    concatenated along the first axis."""

    kind: Kind
    value: Value
    count: Dim | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for parts that different metrics share."""
        return self.kind, id(self.value), self.count


@dataclass(frozen=True)
class Accumulation:
    """How named metrics follow from batches: each batch gives `parts`, and `results` are the
    metrics, of leaves named as the parts. A metric that is a mean over examples is its own part."""

    parts: Mapping[str, Part]
    results: Mapping[str, Value]

    @property
    def extra(self) -> dict[str, Value]:
        """The parts that are not metrics themselves: further outputs of a graph."""
        return {name: p.value for name, p in self.parts.items() if name not in self.results}


def accumulation(metrics: Mapping[str, Value], examples: Dim | None) -> Accumulation:
    """How `metrics` follow from batches of `examples`, the name of the size that data are cut
    along. A metric that is not known to consist of totals is the mean of its values for each
    batch."""
    cuts = {name: _Cut(value, examples) for name, value in metrics.items()}
    undivided = {name: cut.parts[cut.metric] for name, cut in cuts.items() if cut.is_whole}
    parts, results = dict(undivided), dict[str, Value]()
    names = {part.key: name for name, part in undivided.items()}
    used = set(metrics)
    for name, cut in cuts.items():
        if cut.is_whole:
            results[name] = _leaf(name, cut.metric)
            continue
        leaves: dict[Value, Value] = {}
        for i, (v, part) in enumerate(cut.parts.items()):
            key_name = names.get(part.key)
            if key_name is None:
                key_name = names[part.key] = unused_name(f"{name}.{_label(cut, i, part)}", used)
                used.add(key_name)
                parts[key_name] = part
            leaves[v] = _leaf(key_name, v)
        results[name] = cut.result(leaves)
    return Accumulation(parts, results)


def weight_of(loss: Value, examples: Dim | None) -> Value | None:
    """How much a batch weighs in the mean of a loss over several: the weight of an `Average`, the
    number of elements of a mean over something else than the examples, and otherwise the number
    of examples; as a value of the type of the loss. None where all batches weigh the same.

    Numbers times such means, and their sums with each other and with what no data are in, weigh
    as the means do, where those weigh alike."""
    weights = [_weight(v, examples, loss.dtype) for v in linear_terms(loss, examples).terms]
    if weights and all(w is weights[0] for w in weights):
        return weights[0]
    return None if examples is None else size_value(examples, loss.dtype)


def is_sum(loss: Value, examples: Dim | None) -> bool:
    """Whether the loss of several batches is the sum of theirs: it is made of sums over the
    examples."""
    terms = linear_terms(loss, examples).terms
    return bool(terms) and all(_is_sum_of(v, examples) for v in terms)


def follows_from_parts(loss: Value, examples: Dim | None) -> bool:
    """Whether the loss of a batch is the sum of those of its parts, or their mean by `weight_of`.
    Neither are a mean plus a sum, means that weigh differently, a sum divided by a sum, and a sum
    plus a penalty of parameters, which each of the parts would have. What is not linear in totals
    otherwise, such as a product of means, counts as a mean over the examples."""
    found = linear_terms(loss, examples)
    if is_sum(loss, examples):
        return all(is_data(leaf) for leaf in found.leaves_of_rest)
    weights = [_weight(v, examples, loss.dtype) for v in found.terms]
    apart = any(_is_sum_of(v, examples) or divides_by_data(v, examples) for v in found.terms)
    return examples is None or (not apart and all(w is weights[0] for w in weights))


def is_contraction(value: Value, examples: Dim | None) -> bool:
    """Whether a value is made of sums over the examples, also those within a matrix product."""
    terms = linear_terms(value, examples).terms
    return all(_sums(v, examples) or _contracts(v, examples) for v in terms)


def _contracts(v: Value, examples: Dim | None) -> bool:
    if examples is None or not isinstance(v.op, MatMul):
        return False
    return symbols([examples]) <= symbols([v.args[0].shape[-1]])


def is_mean(value: Value, examples: Dim | None) -> bool:
    """Whether the value is made of means over data, and of what no data are in."""
    terms = linear_terms(value, examples).terms
    return all(isinstance(v.op, Average) or divisor_of_mean(v) is not None for v in terms)


def _weight(mean: Value, examples: Dim | None, dtype: DType) -> Value | None:
    if isinstance(mean.op, Average):
        return mean.args[1]
    size = divisor_of_mean(mean)
    counted = None if size is None else _count(size, examples)
    size = examples if counted is None else counted
    return None if size is None or isinstance(size, int) else size_value(size, dtype)


def _is_sum_of(v: Value, examples: Dim | None) -> bool:
    return type(v.op) is SumState or _sums(v, examples)


def _sums(v: Value, examples: Dim | None) -> bool:
    """Whether the value is a sum over the examples."""
    if examples is None or not isinstance(v.op, Sum):
        return False
    summed = symbols([v.args[0].shape[axis] for axis in v.op.axes])
    return symbols([examples]) <= summed


def _counts_examples(size: Dim, examples: Dim | None) -> bool:
    """Whether the size is the number of examples, or a fixed number for each."""
    if examples is None or isinstance(size, int):
        return False
    return bool(sp.cancel(size / examples).is_number)


def _count(size: Dim, examples: Dim | None) -> Dim | None:
    """What a mean over so many weighs where that is not as much as the batch has examples."""
    if examples is None:
        return size
    varies = not _counts_examples(size, examples) and symbols([examples]) <= symbols([size])
    return size if varies else None


def _label(cut: _Cut, i: int, part: Part) -> str:
    is_average = isinstance(cut.metric.op, Average) and part.kind == "total"
    return "weight" if is_average and i else part.kind


def _leaf(name: str, value: Value) -> Value:
    return Input(name, value.type)()


class _Cut:
    """The outermost totals of a metric, and what else it is computed of.

    Where that cannot be had over several batches (a tensor with a row for each example that is not
    pooled), the metric itself is its one part.
    """

    def __init__(self, metric: Value, examples: Dim | None) -> None:
        self.metric, self.examples = metric, examples
        order = toposort([metric])
        self._data = of_batch(order, examples)
        # Beside a marked sum over the examples, other sums over them count as such, too: a sum of
        # losses divided by a count of one's own.
        beside = any(type(v.op) is SumState for v in order)
        self._sums = depending(order if beside else (), lambda v: _sums(v, examples))
        self._pools = depending(order, lambda v: isinstance(v.op, ConcatenatedState))
        self._marked = depending(order, lambda v: self._declared_parts(v) is not None)
        self.parts: dict[Value, Part] = {}
        self._inner: set[Value] = set()
        single = {metric: Part("mean", metric)}
        if metric not in self._marked or not self._is_composed() or self._is_linear():
            self.parts = self.parts if metric in self.parts else single

    @property
    def is_whole(self) -> bool:
        """Whether the metric is its own part."""
        return self.parts.keys() == {self.metric}

    def result(self, leaves: Mapping[Value, Value]) -> Value:
        """The metric as it follows from the parts."""
        return replace([self.metric], leaves)[0]

    def _declared_parts(self, v: Value) -> dict[Value, Part] | None:
        """The parts of a value that is a total or a mean."""
        if v in self._pools:
            return {v: Part("pooled", v)} if isinstance(v.op, ConcatenatedState) else None
        if isinstance(v.op, Average):
            return {a: Part("total", a) for a in v.args} if v.type.is_static else None
        if type(v.op) is SumState:
            return {v: Part("total", v)} if v.type.is_static else None
        size = divisor_of_mean(v)
        if size is not None and v.type.is_static:
            return {v: Part("mean", v, _count(size, self.examples))}
        return None

    def _is_composed(self) -> bool:
        """Whether the metric is computed of parts alone; collects them."""
        waiting, visited = [self.metric], set[Value]()
        while waiting:
            v = waiting.pop()
            if v in visited:
                continue
            visited.add(v)
            onward = self._onward(v)
            if onward is None:
                return False
            waiting += reversed(onward)
        return not self._is_mixed()

    def _onward(self, v: Value) -> Sequence[Value] | None:
        """The arguments to search next, where the value is neither a part nor computed of parts
        alone; None where it does not follow from any."""
        declared = self._declared_parts(v)
        if declared is not None:
            self.parts |= declared
            if v not in declared:
                self._inner.add(v)
            return ()
        static = isinstance(v.type, Type) and v.type.is_static
        if v in self._marked:
            if not static and v not in self._pools:
                return None
            self._inner.add(v)
            return v.args
        if self._is_total(v, static):
            self.parts[v] = Part("total", v)
        elif static and v in self._sums and isinstance(v.op, Map | Cast):
            self._inner.add(v)
            return v.args
        elif not self._is_known(v):
            if not isinstance(v.type, Type) or not v.dtype.is_float:
                return None
            if v in self._data and v.rank:
                return None
            self.parts[v] = Part("mean", v)
        return ()

    def _is_total(self, v: Value, static: bool) -> bool:
        """Whether the value counts the examples, or sums over them."""
        if isinstance(v.op, SizeOf) and _counts_examples(v.op.size, self.examples):
            return True
        return static and v in self._sums and _sums(v, self.examples)

    def _is_mixed(self) -> bool:
        """Whether a number of examples would be added up, and what it divides would not; or a sum
        over the examples, and what it stands beside would not."""
        means = any(p.kind == "mean" and v in self._data for v, p in self.parts.items())
        if not means:
            return False
        sizes = any(isinstance(v.op, SizeOf) for v in self.parts)
        marked = any(type(v.op) is SumState for v in self.parts)
        sums = any(p.kind == "total" for p in self.parts.values())
        return sizes or marked or (sums and all(_is_linear(v) for v in self._inner))

    def _is_known(self, v: Value) -> bool:
        """Whether the value is a constant."""
        return not any(isinstance(a.op, Input | SizeOf) for a in toposort([v]))

    def _is_linear(self) -> bool:
        """Whether the mean of the metric's values is the metric of the means."""
        kinds = {(part.kind, part.count) for part in self.parts.values()}
        return kinds == {("mean", None)} and all(_is_linear(v) for v in self._inner)


def _is_linear(v: Value) -> bool:
    if not isinstance(v.op, Map) or not is_plain(v) or not v.dtype.is_float:
        return False
    names = [placeholder(i) for i in range(len(v.args))]
    body = body_of(v)
    return bool(body.is_polynomial(*names)) and sp.Poly(body, *names).total_degree() <= 1
