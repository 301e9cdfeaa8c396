"""A gradient half in stages, between which processes put together what their rows gave.

They add up what a batch normalization over the rows of all needs. And where an update sees what an
earlier one of the same step changed, they reduce the gradients of the earlier one before those of
the later one are computed: at the state that the earlier one makes of them, which the later stage
computes for itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nncompile.ir.graph import input_of, toposort
from nncompile.ir.op import Value
from nncompile.program.shared_statistics import Sums, shares_statistics, sharing
from nncompile.program.stages import Stage, cut
from nncompile.program.step import Step

Sources = Mapping[Value, Sequence[Value]]
"""What stands before a leaf, as its arguments stand before another node."""


def stages_of(step: Step, of_sums: bool = False) -> list[Stage]:
    """The stages of the gradient half of some rows of a batch, which may be given sums of gradients
    (see `Step.in_turn_of_rows`); none where nothing is put together within it. Raises what
    `sharing` does."""
    if step.in_turn is None and not shares_statistics(step):
        return []
    graph = step.in_turn_of_rows(of_sums)
    sums: Sums = []
    if shares_statistics(step):
        graph, sums = sharing(step, graph)
    data = step.recipe.trained_model.inputs
    summed_by = {leaf: (summed,) for summed, leaf in sums}
    reduced_by = {
        leaf: (graph.outputs[name],)
        for name, leaf in graph.leaves.items()
        if name in graph.outputs and name not in data
    }
    outputs = [*(summed for summed, _ in sums), *graph.outputs.values()]
    round_of = _depths(outputs, {**summed_by, **reduced_by}, reduced_by)
    # What is reduced together comes before all that needs any of it.
    together: dict[int, list[Value]] = {}
    for leaf, sources in reduced_by.items():
        together.setdefault(round_of[leaf], []).extend(sources)
    before = summed_by | {leaf: tuple(together[round_of[leaf]]) for leaf in reduced_by}
    stage_of = _depths(outputs, before, before)
    count = 1 + max(stage_of.values())
    wanted: list[dict[str, Value]] = [{} for _ in range(count)]
    for summed, leaf in sums:
        wanted[stage_of[summed]][input_of(leaf).name] = summed
    lengths = [{name: int(v.shape[0]) for name, v in outs.items()} for outs in wanted]
    for name, value in graph.outputs.items():
        wanted[stage_of[value]][name] = value
    reduced = [
        tuple(input_of(leaf).name for leaf in reduced_by if stage_of[leaf] == i + 1)
        for i in range(count)
    ]
    graphs = cut(graph, wanted, stage_of, toposort(outputs, before))
    return [Stage(*parts) for parts in zip(graphs, lengths, reduced, strict=True)]


def _depths(
    outputs: Sequence[Value], sources: Sources, counted: Collection[Value]
) -> dict[Value, int]:
    """How many of the `counted` leaves stand one after the other up to each node, with itself."""
    depths: dict[Value, int] = {}
    for v in toposort(outputs, sources):
        before = max((depths[a] for a in sources.get(v, v.args)), default=0)
        depths[v] = before + (v in counted)
    return depths
