"""A gradient half in stages, between which processes add up what their rows share.

A batch normalization over the rows of all processes needs sums over them, in the forward pass and
in the backward pass. Each sum is an input of the stages after it and an output of the one before;
what a stage computes and a later one needs is handed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from nncompile.diagnostics.errors import GradientError
from nncompile.elementwise import where
from nncompile.ir.basic import Constant, cast, const
from nncompile.ir.graph import Graph, Input, Item, input_of, toposort
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ir.transform import replace as replaced
from nncompile.ir.types import f64
from nncompile.ops.normalization.gradients import BatchNormGradient
from nncompile.ops.normalization.shared import SharedBatchNorm, gradient_sums, gradients_by
from nncompile.program.step import Step


@dataclass(frozen=True)
class Stage:
    """A graph, of whose outputs the vectors `sums`, of these lengths, are added up over the
    processes before the next stage. Other outputs are inputs of later ones, or results."""

    graph: Graph
    sums: Mapping[str, int]


def stages_of(step: Step) -> list[Stage]:
    """The stages of `step.gradient_of_rows`; none where nothing is shared within it. Gradients are
    multiplied by what the rows weigh: rows of no weight change the statistics, and through them
    the gradients. Raises `GradientError` where losses that weigh differently share statistics, and
    where one depends on running statistics."""
    graph = step.gradient_of_rows
    if not any(isinstance(v.op, SharedBatchNorm) for v in graph.nodes):
        return []
    _check_losses(step)
    weight = _weight(step)
    weight = where(weight > 0, weight, 1.0)  # of a gradient of the loss that is 0 then
    weighted = {n: v * cast(weight, v.dtype) for n, v in graph.outputs.items()
                if n in step.reductions.gradients}  # fmt: skip
    return _Sharing(weight).staged(replace(graph, outputs={**graph.outputs, **weighted}))


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
    weight = const(1.0, f64) if rule.weight is None else step.reductions.weights[rule.weight]
    result: Value = weight.astype(f64)
    return result


@dataclass
class _Sharing:
    """Puts sums over all processes into a graph: `sums` are what is added up of each, and the
    leaves that stand for the result."""

    weight: Value
    sums: list[tuple[Value, Value]] = field(default_factory=list)
    _results: dict[Value, tuple[Value, ...]] = field(default_factory=dict)
    _totals: dict[Value, Value] = field(default_factory=dict)  # by the mean of a batch

    def staged(self, graph: Graph) -> list[Stage]:
        """The stages of the graph."""
        values = transformed(list(graph.outputs.values()), self._made)
        outputs = dict(zip(graph.outputs, values, strict=True))
        self.sums = self._needed(values)
        every = [*(summed for summed, _ in self.sums), *values]
        stage_of = self._stage_of(every)
        count = 1 + max(stage_of.values())
        wanted: list[dict[str, Value]] = [{} for _ in range(count)]
        for summed, leaf in self.sums:
            wanted[stage_of[summed]][input_of(leaf).name] = summed
        sums = [{name: int(v.shape[0]) for name, v in outs.items()} for outs in wanted]
        for name, value in outputs.items():
            wanted[stage_of[value]][name] = value
        leaves: dict[Value, Value] = {}
        for i, v in enumerate(_handed_over(every, stage_of)):
            leaves[v] = apply(Input(f"handed.{i}", v.type, "input"))
            wanted[stage_of[v]][f"handed.{i}"] = v
        return [
            Stage(_cut(graph, i, outs, leaves, stage_of), sums[i]) for i, outs in enumerate(wanted)
        ]

    def _needed(self, outputs: Iterable[Value]) -> list[tuple[Value, Value]]:
        """The sums that the outputs need, also for other sums: each of them is made of earlier
        ones. Without a gradient at the data, that of the first layer is not."""
        found: list[tuple[Value, Value]] = []
        needed = set(toposort(outputs))
        for summed, leaf in reversed(self.sums):
            if leaf in needed:
                found.insert(0, (summed, leaf))
                needed.update(toposort([summed]))
        return found

    def _made(self, v: Value, args: list[Value]) -> Value:
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

    def _stage_of(self, outputs: Iterable[Value]) -> dict[Value, int]:
        """The stage in which each node can be computed: after that of the sums that it needs."""
        summed_by = {leaf: summed for summed, leaf in self.sums}
        stage_of: dict[Value, int] = {}
        # A sum comes before what needs it, as they were made in the order of the graph.
        for v in toposort([*(summed for summed, _ in self.sums), *outputs]):
            if v in summed_by:
                stage_of[v] = stage_of[summed_by[v]] + 1
            else:
                stage_of[v] = max((stage_of[a] for a in v.args), default=0)
        return stage_of


def _handed_over(outputs: Iterable[Value], stage_of: Mapping[Value, int]) -> list[Value]:
    """What is computed in one stage and needed in a later one."""
    pairs = ((v, a) for v in toposort(outputs) for a in v.args)
    later = (a for v, a in pairs if stage_of[a] < stage_of[v])
    return list(dict.fromkeys(a for a in later if not isinstance(a.op, Input | Constant)))


def _cut(
    graph: Graph,
    number: int,
    outputs: Mapping[str, Value],
    leaves: Mapping[Value, Value],
    stage_of: Mapping[Value, int],
) -> Graph:
    """One stage, in which leaves stand for what earlier ones hand over."""
    earlier = {v: leaf for v, leaf in leaves.items() if stage_of[v] < number}
    values = replaced(list(outputs.values()), earlier)
    name = f"{graph.name}_{number}"
    return replace(graph, name=name, outputs=dict(zip(outputs, values, strict=True)), inputs=())
