"""The parts of metrics, added up over batches."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nncompile.ir.dims import solve, substitute
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, as_bfloat16
from nncompile.program.metric_aggregation import Accumulation


class Added(NamedTuple):
    """What was added up over so many batches."""

    batches: int
    examples: int
    totals: Mapping[str, Any]
    weights: Mapping[str, float]
    parts: int  # of which each pool consists


@dataclass
class Sums:
    """The parts of metrics over the batches so far."""

    plan: Accumulation
    inputs: Mapping[str, Value]
    # Replaced in one assignment: an interrupt leaves a batch out, or adds the whole of it.
    added: Added = field(default_factory=lambda: Added(0, 0, {}, {}, 0))
    _pools: dict[str, list[Array]] = field(default_factory=dict)  # may be a part ahead
    _counts: dict[Any, dict[str, float | None]] = field(default_factory=dict)

    def add(self, batch: Mapping[str, Any], outputs: Mapping[str, Any], examples: int) -> None:
        """Adds what the graph gave for a batch of so many examples."""
        counts = self._counted(batch, examples)
        added = self.added
        totals, weights = dict(added.totals), dict(added.weights)
        for name, weight in counts.items():
            x = outputs[name]
            if weight is None:
                pool = self._pools.setdefault(name, [])
                pool[added.parts :] = [np.array(x)]
                continue
            if type(x) is not float:
                x = np.asarray(x, np.float64)[()]
            totals[name] = totals.get(name, 0.0) + (x * weight if weight != 1 else x)
            weights[name] = weights.get(name, 0.0) + weight
        so_far = added.examples + examples
        self.added = Added(added.batches + 1, so_far, totals, weights, added.parts + 1)

    @property
    def names(self) -> Set[str]:
        """The parts that were added up; without a batch, those that are to be."""
        added = self.added
        return {*added.totals, *self.pools} if added.batches else self.plan.parts.keys()

    @property
    def pools(self) -> dict[str, Array]:
        """Of each pooled part, the rows of all batches."""
        count = self.added.parts
        pools = self._pools.items() if count else ()
        return {name: np.concatenate(arrays[:count]) for name, arrays in pools}

    def stored(self) -> dict[str, Any]:
        """The sums as JSON has them; see `restored`."""
        totals = self.added.totals.items()
        return {
            "examples": self.added.examples,
            "totals": {n: x if isinstance(x, float) else x.tolist() for n, x in totals},
            "weights": dict(self.added.weights),
            "pools": {name: _text(rows) for name, rows in self.pools.items()},
        }

    @classmethod
    def restored(
        cls,
        plan: Accumulation,
        inputs: Mapping[str, Value],
        batches: int = 0,
        examples: int = 0,
        totals: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        pools: Mapping[str, str] | None = None,
    ) -> Sums:
        """Sums over so many batches as they were `stored`. Raises `ValueError` or `TypeError` for
        anything else."""
        parts = 1 if pools else 0
        known = {n: np.asarray(x, np.float64)[()] for n, x in (totals or {}).items()}
        added = Added(batches, examples, known, dict(weights or {}), parts)
        arrays = {name: [_array(text)] for name, text in (pools or {}).items()}
        return cls(plan, inputs, added, arrays)

    def joined(self, others: Sequence[Mapping[str, Any]]) -> Sums:
        """The sums of several parts of the batches, each as it is `stored`."""
        totals: dict[str, Any] = {}
        weights: dict[str, float] = {}
        pools: dict[str, list[Array]] = {}
        for part in others:
            for name, x in part["totals"].items():
                totals[name] = totals.get(name, 0.0) + np.asarray(x, np.float64)[()]
                weights[name] = weights.get(name, 0.0) + part["weights"][name]
            for name, text in part["pools"].items():
                pools.setdefault(name, []).append(_array(text))
        examples = sum(part["examples"] for part in others)
        added = Added(len(others), examples, totals, weights, len(others))
        return Sums(self.plan, self.inputs, added, pools)

    def _counted(self, batch: Mapping[str, Any], examples: int) -> dict[str, float | None]:
        """What the batch weighs in each part: a total once, a mean as often as it says, and
        nothing that is pooled."""
        key = tuple([x.shape for x in batch.values()]), examples
        counts = self._counts.get(key)
        if counts is None:
            names = [name for name in self.inputs if name in batch]
            sizes = solve(
                [self.inputs[name].shape for name in names],
                [np.shape(batch[name]) for name in names],
            )
            counts = self._counts[key] = {
                name: None
                if part.kind == "pooled"
                else 1.0
                if part.kind != "mean"
                else float(examples)
                if part.count is None
                else float(substitute(part.count, sizes))
                for name, part in self.plan.parts.items()
            }
        return counts

    def results(self) -> dict[str, Any]:
        """The metrics of all batches: numbers, and arrays for tables."""
        added = self.added
        values: dict[str, Any] = dict(self.pools)
        for name, part in self.plan.parts.items():
            if part.kind == "mean":
                values[name] = added.totals[name] / max(added.weights[name], 1)
            elif part.kind != "pooled":
                values[name] = added.totals[name]
        return {name: self._result(name, values) for name in self.plan.results}

    def _result(self, name: str, values: Mapping[str, Any]) -> Any:
        result = self.plan.results[name]
        x = values.get(name)
        if x is None:
            graph = Graph(name, {name: result})
            feeds = {
                leaf: np.asarray(values[leaf], np.float64 if v.dtype.is_float else v.dtype.numpy)
                for leaf, v in graph.leaves.items()
            }
            x = evaluate(graph, feeds, precision=np.float64)[name]
        return float(x) if np.ndim(x) == 0 else np.asarray(x, result.dtype.numpy)


def _text(array: Array) -> str:
    """An array as text, bit by bit."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _array(text: str) -> Array:
    return as_bfloat16(np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False))
