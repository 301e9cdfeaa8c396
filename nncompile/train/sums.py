"""The parts of metrics, added up over batches."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncompile.ir.dims import solve, substitute
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, as_bfloat16
from nncompile.program.metric_aggregation import Accumulation

Mark = tuple[int, dict[str, Any], dict[str, float], dict[str, int]]


@dataclass
class Sums:
    """The parts of metrics over the batches so far."""

    plan: Accumulation
    inputs: Mapping[str, Value]
    examples: int = 0
    totals: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    pools: dict[str, list[Array]] = field(default_factory=dict)
    _counts: dict[Any, dict[str, float]] = field(default_factory=dict)

    def add(self, batch: Mapping[str, Any], outputs: Mapping[str, Any], examples: int) -> None:
        """Adds what the graph gave for a batch of so many examples."""
        counts = self._counted(batch, examples)
        self.examples += examples
        for name, part in self.plan.parts.items():
            x = outputs[name]
            if part.kind == "pooled":
                self.pools.setdefault(name, []).append(np.array(x))
                continue
            x = x if isinstance(x, float) else np.asarray(x, np.float64)[()]
            weight = counts[name]
            self.totals[name] = self.totals.get(name, 0.0) + (x * weight if weight != 1 else x)
            self.weights[name] = self.weights.get(name, 0.0) + weight

    def stored(self) -> dict[str, Any]:
        """The sums as JSON has them; see `restored`."""
        totals = {n: x if isinstance(x, float) else x.tolist() for n, x in self.totals.items()}
        pools = {name: _text(np.concatenate(arrays)) for name, arrays in self.pools.items()}
        weights = dict(self.weights)
        return {"examples": self.examples, "totals": totals, "weights": weights, "pools": pools}

    @classmethod
    def restored(
        cls,
        plan: Accumulation,
        inputs: Mapping[str, Value],
        examples: int = 0,
        totals: Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
        pools: Mapping[str, str] | None = None,
    ) -> Sums:
        """Sums as they were `stored`. Raises `ValueError` or `TypeError` for
        anything else."""
        arrays = {name: [_array(text)] for name, text in (pools or {}).items()}
        return cls(plan, inputs, examples, dict(totals or {}), dict(weights or {}), arrays)

    def mark(self) -> Mark:
        """The present sums, for `restore`."""
        pooled = {name: len(arrays) for name, arrays in self.pools.items()}
        return self.examples, dict(self.totals), dict(self.weights), pooled

    def restore(self, mark: Mark) -> None:
        """Forgets what was added since the mark."""
        self.examples, totals, weights, pooled = mark
        self.totals, self.weights = dict(totals), dict(weights)
        self.pools = {name: self.pools[name][:count] for name, count in pooled.items()}

    def _counted(self, batch: Mapping[str, Any], examples: int) -> dict[str, float]:
        """What the batch weighs in each part: a total once, a mean as often as it says."""
        key = tuple(np.shape(x) for x in batch.values()), examples
        if key not in self._counts:
            names = [name for name in self.inputs if name in batch]
            sizes = solve(
                [self.inputs[name].shape for name in names],
                [np.shape(batch[name]) for name in names],
            )
            self._counts[key] = {
                name: 1.0
                if part.kind != "mean"
                else float(examples)
                if part.count is None
                else float(substitute(part.count, sizes))
                for name, part in self.plan.parts.items()
            }
        return self._counts[key]

    def results(self) -> dict[str, Any]:
        """The metrics of all batches: numbers, and arrays for tables."""
        values: dict[str, Any] = {}
        for name, part in self.plan.parts.items():
            if part.kind == "pooled":
                values[name] = np.concatenate(self.pools[name])
            elif part.kind == "mean":
                values[name] = self.totals[name] / max(self.weights[name], 1)
            else:
                values[name] = self.totals[name]
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
