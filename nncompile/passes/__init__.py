"""Passes: functions from a valid graph to a valid graph that computes the same.

`PASSES` is the whole list, in order. They are for graphs whose derivatives have been taken, but
for `stabilise` and `inference`, which keep a graph fit to be differentiated.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Collection, Sequence

from nncompile.diagnostics.errors import CompileError, ModelError, did_you_mean
from nncompile.diagnostics.locations import located_nowhere
from nncompile.ir.gc_pause import without_collection
from nncompile.ir.graph import Graph
from nncompile.passes.algebra import algebra
from nncompile.passes.common_subexpressions import common
from nncompile.passes.constant_folding import fold
from nncompile.passes.convolution import convolutions
from nncompile.passes.dead_code import dead
from nncompile.passes.gemm import gemms, updates
from nncompile.passes.hoist import hoist
from nncompile.passes.horizontal_fusion import pack, pack_early
from nncompile.passes.indexing import scatters
from nncompile.passes.inference import inference
from nncompile.passes.layout import casts, reshapes, transposes
from nncompile.passes.loops import loops, merge
from nncompile.passes.losses_first import losses_first
from nncompile.passes.matmul_reassociation import chains
from nncompile.passes.rewriter import RulePass, rewrite, same_type
from nncompile.passes.stabilise import stabilise
from nncompile.passes.strip_annotations import release

Pass = Callable[[Graph], Graph]
Observer = Callable[[str, Graph, Graph], object]

PASSES: dict[str, Pass] = {
    "merge": merge,
    "release": release,
    "fold": fold,
    "algebra": algebra,
    "stabilise": stabilise,
    "casts": casts,
    "reshapes": reshapes,
    "common": common,
    "scatters": scatters,
    "dead": dead,
    "loops": loops,
    "transposes": transposes,
    "hoist": hoist,
    "chains": chains,
    "gemm": gemms,
    "convolution": convolutions,
    "update": updates,
    "pack": pack,
}

# They are one rewriting each, which makes a graph anew once and not for every pass. Numbers are
# folded before formulas are joined, which ask how often a value is needed; so do `common` (for what
# else there is) and the products at the end.
TOGETHER = (
    ("release", "fold"),
    ("algebra", "stabilise", "casts", "reshapes"),
    ("scatters", "dead"),
    ("transposes", "hoist"),
    ("gemm", "convolution", "update"),
)

# Once, when the others are done: what it joins they would no longer see through. It may leave a
# section that nobody uses. It runs before them as well, on what gains in any case.
LAST = "pack"
EARLY = pack_early
CLEANING = "dead"

ROUNDS = 8  # a later pass may make work for an earlier one; two or three are usual


def check_passes(names: Collection[str]) -> None:
    """Raises `ModelError`, which lists the passes, where a name is none of theirs."""
    if isinstance(names, str):
        raise ModelError(
            f"the passes to skip must be a list of names, got {names!r}",
            hint=f"without=[{names!r}]",
        )
    for name in names:
        if name not in PASSES:
            raise ModelError(
                f"there is no pass {name!r}; the passes are {', '.join(PASSES)}",
                hint=did_you_mean(name, PASSES, "nncompile show --list-passes says what they do"),
            )


@without_collection
def optimize(
    graph: Graph,
    without: Collection[str] = (),
    observe: Observer | None = None,
    losses: Collection[str] = (),
) -> Graph:
    """The graph after all passes but those named in `without`, in rounds until nothing changes. It
    takes less time where it is known which outputs are `losses` whose gradients are taken.

    `observe(name, before, after)` is called for each pass: for it they are done one by one, and
    then, for the result, as ever. Raises `ModelError` for the name of a pass that does not exist.
    """
    check_passes(without)
    selected = [name for name in PASSES if name not in without]
    own = graph.with_own_locations()
    with located_nowhere():
        if observe is not None:
            _run([(name,) for name in selected], own, observe)
        after = _run(_stages(selected), own, losses=losses)
    return graph if same_outputs(graph, after) else after


Stage = tuple[str, ...]


def _stages(names: Sequence[str]) -> list[Stage]:
    """The passes, those that are done together as one."""
    group_of = {name: group for group in TOGETHER for name in group}
    stages: dict[Stage, Stage] = {}
    for name in names:
        alone = name not in group_of or not isinstance(PASSES[name], RulePass)
        group = (name,) if alone else group_of[name]
        stages[group] = (*stages.get(group, ()), name)
    return list(stages.values())


def _run(
    stages: Sequence[Stage],
    graph: Graph,
    observe: Observer | None = None,
    losses: Collection[str] = (),
) -> Graph:
    """The graph after rounds of these until nothing changes, and what comes once before and after
    them."""
    selected = set().union(*stages)
    if LAST in selected:
        graph = _applied((LAST,), graph, observe, [EARLY])
    behind = common.changes if "common" in selected else ()  # which would make most of it anew
    graph = losses_first(graph, losses, lambda part: _in_rounds(stages, part), behind)
    graph = _in_rounds(stages, graph, observe)
    for name in (LAST, CLEANING):
        if name in selected:
            graph = _applied((name,), graph, observe)
    return graph


def _in_rounds(stages: Sequence[Stage], graph: Graph, observe: Observer | None = None) -> Graph:
    """The graph after rounds of these until nothing changes."""
    rounds = [stage for stage in stages if stage != (LAST,)]
    unchanged = 0  # stages in a row that found nothing to do
    for stage in itertools.chain.from_iterable(itertools.repeat(rounds, ROUNDS)):
        if unchanged == len(rounds):
            break
        after = _applied(stage, graph, observe)
        unchanged = unchanged + 1 if same_outputs(graph, after) else 0
        graph = after
    return graph


def _applied(
    stage: Stage, graph: Graph, observe: Observer | None, passes: Sequence[Pass] = ()
) -> Graph:
    """The graph after those `passes`, or else those that the stage names."""
    passes = passes or [PASSES[name] for name in stage]
    if len(passes) == 1:
        after = passes[0](graph)
    else:
        after = rewrite(graph, [c for p in passes if isinstance(p, RulePass) for c in p.changes])
    _check(stage, graph, after)
    if observe is not None:
        observe(stage[0], graph, after)
    return after


def same_outputs(a: Graph, b: Graph) -> bool:
    """Whether two graphs are one: their outputs are the same nodes."""
    return a is b or (
        list(a.outputs) == list(b.outputs)
        and all(map(operator.is_, a.outputs.values(), b.outputs.values()))
    )


def _check(stage: Stage, before: Graph, after: Graph) -> None:
    """That a pass kept the names and types of the outputs."""
    if after is before:
        return
    for output, old in before.outputs.items():
        new = after.outputs.get(output)
        if new is old:
            continue
        if new is None or not same_type(new.type, old.type):
            got = "nothing" if new is None else str(new.type)
            raise CompileError(
                f"pass {' or '.join(stage)} is wrong: it turns output {output} into {got}",
                rows=[(output, str(old.type))],
            )


__all__ = [
    "PASSES",
    "Observer",
    "Pass",
    "check_passes",
    "inference",
    "optimize",
    "same_outputs",
    "stabilise",
]
