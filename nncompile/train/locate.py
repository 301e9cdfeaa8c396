"""Where a number that is not finite comes from: the node, the user's line, what it was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import Row
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import Location
from nncompile.diagnostics.printable import element
from nncompile.ir.graph import Graph, Input, input_of, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.printer import expression
from nncompile.ir.types import Array, is_real


@dataclass(frozen=True)
class NonFinite:
    """The node at which numbers stop being finite: all that it was given are.

    `what` is how it is computed, `name` the leaf where it is one, which `is_state` where it is no
    data; `kind` is NaN or infinite, which `count` of `size` elements are, the first at `index`.
    `location` is the user's line, `arguments` the smallest and largest number of each floating
    argument. `output` is the result that it was found from. Where these are infinities that made
    NaN further on, `then` is the node that did.
    """

    output: str
    what: str
    name: str | None
    is_state: bool
    kind: str
    count: int
    size: int
    index: tuple[int, ...]
    location: Location | None
    arguments: tuple[tuple[str, float, float], ...]
    then: NonFinite | None = None
    is_narrow: bool = False  # of f16, which ends at 65504

    @property
    def rows(self) -> list[Row]:
        """What an error message shows of it."""
        return [*self._rows("first in"), *(self.then._rows("then in") if self.then else ())]

    def _rows(self, label: str) -> list[Row]:
        location = (self.location.place, self.location.text) if self.location else ("", "")
        count = f"{self.count:,} of {self.size:,} {self.kind}"
        ranges = [("given", n, f"from {low:.6g} to {high:.6g}") for n, low, high in self.arguments]
        return [(label, self.what, count, *location), *ranges]

    def __str__(self) -> str:
        location = f" at {self.location}" if self.location else ""
        arguments = ", ".join(f"{n} from {a:.6g} to {b:.6g}" for n, a, b in self.arguments)
        counts = f"{self.count:,} of {self.size:,}"
        return f"{element(self.what, self.index)} is {self.kind}{location} ({counts})" + (
            f", given {arguments}" if arguments else ""
        )


@suggests_names
def locate_nonfinite(
    graph: Graph,
    feeds: Mapping[str, Any],
    outputs: Sequence[str] = (),
    precision: Any = None,
) -> NonFinite | None:
    """The first node that makes a number that is not finite of finite ones, on the way to
    `outputs` (all of the graph's by default); None where these are finite.

    The graph is evaluated node by node in numpy, in its own element types or in `precision`. From
    an output that is not finite the search goes back to an argument that is not, until there is
    none: an infinity that is meant (a mask's, say) and reaches no output is passed over, and so is
    one that is written as a number. Raises `FeedError` as `evaluate` does.
    """
    targets = {name: graph.outputs[name] for name in outputs or graph.outputs}
    order = toposort(targets.values())
    fed = [leaf for leaf in graph.inputs if input_of(leaf).name in feeds]
    every = [*order, *(leaf for leaf in fed if leaf not in set(order))]
    arrays = dict(zip(every, evaluate(every, feeds, precision), strict=True))
    depths: dict[Value, int] = {}
    for value in every:
        depths[value] = 1 + max((depths[a] for a in value.args), default=0)
    for name, value in targets.items():
        if _badness(arrays[value]):
            last = _origin(value, arrays, depths, _badness(arrays[value]))
            first = _origin(last, arrays, depths, 1)
            then = _described(graph, name, last, arrays, None) if last is not first else None
            return _described(graph, name, first, arrays, then)
    return None


def _origin(
    value: Value, arrays: Mapping[Value, Any], depths: Mapping[Value, int], least: int
) -> Value:
    """The earliest ancestor whose numbers are as bad as `least`. Of several arguments, the search
    follows the one of the least depth: of two terms of a gradient that of the value itself,
    whichever comes first."""
    while True:
        bad = [a for a in value.args if not _is_number(a) and _badness(arrays[a]) >= least]
        if not bad:
            return value
        value = min(bad, key=depths.__getitem__)


def _is_number(value: Value) -> bool:
    """Whether it is written in the model, as the infinity of a mask may be."""
    return not value.args and not isinstance(value.op, Input)


def _badness(x: Any) -> int:
    """2 where NaN is in an array (or one of several), 1 where infinities are, 0 where neither."""
    if isinstance(x, tuple):
        return max(map(_badness, x), default=0)
    if not is_real(x.dtype) or np.isfinite(x).all():
        return 0
    return 2 if np.isnan(x).any() else 1


def _described(
    graph: Graph,
    output: str,
    value: Value,
    arrays: Mapping[Value, Any],
    then: NonFinite | None,
) -> NonFinite:
    result = arrays[value]
    x: Array = max(result, key=_badness) if isinstance(result, tuple) else result
    is_nan = bool(np.isnan(x).any())
    positions = np.argwhere(np.isnan(x) if is_nan else np.isinf(x))
    names = {a: _name(graph, a, i) for i, a in enumerate(value.args)}
    leaf = value.op.name if isinstance(value.op, Input) else None
    return NonFinite(
        is_narrow=x.dtype == np.float16,
        output=output,
        what=f"{value.op.kind} {leaf}" if isinstance(value.op, Input) else expression(value, names),
        name=leaf,
        is_state=isinstance(value.op, Input) and value.op.kind != "input",
        kind="NaN" if is_nan else "infinite",
        count=len(positions),
        size=x.size,
        index=tuple(map(int, positions[0])),
        location=graph.locations.location(value),
        arguments=tuple(
            (names[a], float(arrays[a].min()), float(arrays[a].max()))
            for a in value.args
            if not isinstance(arrays[a], tuple) and is_real(arrays[a].dtype) and arrays[a].size
        ),
        then=then,
    )


def _name(graph: Graph, value: Value, position: int) -> str:
    """What an argument is called: a leaf by its name, a number as itself, another by its
    position."""
    if isinstance(value.op, Input):
        return value.op.name
    if not value.args and value.rank == 0:
        return expression(value, {})
    return chr(ord("a") + position) if position < 26 else f"argument {position}"
