"""Whether a loss compares an output with an input."""

from __future__ import annotations

from collections.abc import Iterable

from nncompile.ir.graph import toposort
from nncompile.ir.op import Value
from nncompile.program.recipe import Recipe, minimize


def meets(recipe: Recipe, output: Value, target: Value) -> bool:
    """Whether, on the way to a loss that is minimized and behind the output, something is computed
    of what the output is made of and of the target, as it is fed: without parameters between.

    A discriminator's loss is computed of images that are fed and of drawn ones, but of neither
    without its own weights; they do not meet.
    """
    model = recipe.model
    losses = [model.outputs[u.loss] for u in recipe.updates if isinstance(u, minimize)]
    order = toposort([*losses, output])
    before = set(toposort([output]))
    learned = _reached(order, model.parameters.values())
    fed = _reached(order, [target])
    learned_nodes = [v for v in order if v in before and v in learned and v.args]
    of_output = _reached(order, learned_nodes)
    return any(
        v not in before
        and not v.op.moves
        and any(a in fed and a not in learned for a in v.args)
        and any(a in of_output for a in v.args)
        for v in order
    )


def _reached(order: Iterable[Value], start: Iterable[Value]) -> set[Value]:
    """These values and all that are computed of them."""
    reached = set(start)
    for v in order:
        if any(a in reached for a in v.args):
            reached.add(v)
    return reached
