"""A gradient half with the sums over processes that its layers need.

A batch normalization over the rows of all processes needs sums over them, in the forward pass and
in the backward pass. What is added up is computed before, and an input stands for the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from nncompile.diagnostics.errors import GradientError
from nncompile.elementwise import where
from nncompile.ir.basic import cast, const
from nncompile.ir.graph import Graph, Input, Item, toposort
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ir.types import f64
from nncompile.ops.normalization.gradients import BatchNormGradient
from nncompile.ops.normalization.shared import SharedBatchNorm, gradient_sums, gradients_by
from nncompile.program.step import Step

Sums = list[tuple[Value, Value]]
"""Vectors that are added up, each with the leaf that stands for the sum of all processes."""


def shares_statistics(step: Step) -> bool:
    """Whether a layer of it normalizes by statistics of the rows of all processes."""
    return any(isinstance(v.op, SharedBatchNorm) for v in step.gradient.nodes)


def sharing(step: Step, graph: Graph) -> tuple[Graph, Sums]:
    """A gradient half with sums over all processes, in an order in which they can be taken, and
    these. Gradients are multiplied by what the rows weigh: rows of no weight change the statistics,
    and through them the gradients. Raises `GradientError` where losses that weigh differently share
    statistics, and where one depends on running statistics."""
    _check_losses(step)
    weight = _weight(step)
    weight = where(weight > 0, weight, 1.0)  # of a gradient of the loss that is 0 then
    weighted = {n: v * cast(weight, v.dtype) for n, v in graph.outputs.items()
                if n in step.reductions.gradients}  # fmt: skip
    shared = _Sharing(weight)
    outputs = {**graph.outputs, **weighted}
    values = transformed(list(outputs.values()), shared.made)
    graph = replace(graph, outputs=dict(zip(outputs, values, strict=True)))
    return graph, shared.needed(values)


def _check_losses(step: Step) -> None:
    outputs = step.recipe.trained_model.outputs
    for v in toposort([outputs[name] for name in step.recipe.losses]):
        if isinstance(v.op, Item) and v.op.index and isinstance(v.args[0].op, SharedBatchNorm):
            raise GradientError(
                "a loss depends on running statistics that processes share",
                hint="BatchNorm(sync=False)",
            )


def _weight(step: Step) -> Value:
    """What the rows of a process weigh in the loss."""
    rules = {step.reductions.by_name[name] for name in step.reductions.gradients}
    if len(rules) > 1:
        raise GradientError(
            "several losses that weigh differently share the statistics of a batch",
            hint="BatchNorm(sync=False), or one loss that is their sum",
        )
    (rule,) = rules
    if rule.weight is None:
        return const(1.0, f64)
    return cast(step.reductions.weights_in_turn[rule.weight], f64)


@dataclass
class _Sharing:
    """Puts sums over all processes into a graph: `sums` are what is added up of each, and the
    leaves that stand for the result."""

    weight: Value
    sums: Sums = field(default_factory=list)
    _results: dict[Value, tuple[Value, ...]] = field(default_factory=dict)
    _totals: dict[Value, Value] = field(default_factory=dict)  # by the mean of a batch

    def needed(self, outputs: Iterable[Value]) -> Sums:
        """The sums that the outputs need, also for other sums: each of them is made of earlier
        ones. Without a gradient at the data, that of the first layer is not."""
        found: Sums = []
        needed = set(toposort(outputs))
        for summed, leaf in reversed(self.sums):
            if leaf in needed:
                found.insert(0, (summed, leaf))
                needed.update(toposort([summed]))
        return found

    def made(self, v: Value, args: list[Value]) -> Value:
        if isinstance(v.op, Item) and v.args[0] in self._results:
            return self._results[v.args[0]][v.op.index]
        if isinstance(v.op, SharedBatchNorm):
            total = self._shared(v.op.sums_of(args[0]))
            self._results[v] = results = v.op.normalized_by(total, *args)
            self._totals[results[3]] = total
            return results[0]
        if isinstance(v.op, BatchNormGradient) and args[3] in self._totals:
            g, x, _, centre, _ = args
            total = self._shared(gradient_sums(g, x, centre, self.weight))
            count = self._totals[centre][-1]
            self._results[v] = results = gradients_by(total, count, self.weight, *args)
            return results[0]
        return rebuilt(v, args)

    def _shared(self, summed: Value) -> Value:
        leaf = apply(Input(f"shared.{len(self.sums)}", summed.type, "input"))
        self.sums.append((summed, leaf))
        return leaf
