"""Blocks whose inner values are computed again for the gradient, and not kept until then.

Gradient checkpointing (T. Chen et al., "Training deep nets with sublinear memory cost", 2016): of
each block only what enters it is kept. It costs one more forward pass through the blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import LocationTable, message_name
from nncompile.ir.graph import Input, Item, items, toposort
from nncompile.ir.names import matches
from nncompile.ir.op import Value
from nncompile.ir.transform import rebuilt, replace
from nncompile.ir.types import Type
from nncompile.ops.core.annotations import GradientAnchor
from nncompile.ops.core.checkpoint import Recompute


@suggests_names
def recompute(function: Callable[..., Any]) -> Callable[..., Any]:
    """The layer or function of values with the same results, whose inner values are computed again
    for the gradient instead of being kept: memory for time.

    Values among its arguments are kept. It returns a value, or a tuple, list or dict of
    them; anything else raises `ModelError`.

    >>> from nncompile.ir.types import f32
    >>> from nncompile.elementwise import exp
    >>> x = Input("x", f32["n"])()
    >>> recompute(lambda x: exp(exp(x)))(x)
    <item : f32[n]>
    """

    @functools.wraps(function, updated=())
    @message_name()
    def wrapper(*args: Any, **options: Any) -> Any:
        entering: list[Value] = []

        def hold(x: Any) -> Any:
            if not isinstance(x, Value):
                return x
            entering.append(GradientAnchor()(x))
            return entering[-1]

        result = function(*map(hold, args), **{name: hold(x) for name, x in options.items()})
        results = _values(result)
        leaves = [v for v in _inside(results, entering) if isinstance(v.op, Input)]
        recomputed = _recomputed(results, entering, leaves)
        if isinstance(result, Value):
            return recomputed[0]
        if isinstance(result, Mapping):
            return dict(zip(result, recomputed, strict=True))
        return type(result)(recomputed)

    return wrapper


def _inside(results: Sequence[Value], entering: Sequence[Value]) -> Iterator[Value]:
    """What the results are computed from behind what enters."""
    cut = {x: Input(f"entering {i}", x.type)() for i, x in enumerate(entering)}
    formals = set(cut.values())
    return (v for v in toposort(replace(results, cut)) if v not in formals)


def _values(result: Any) -> list[Value]:
    values: list[Any] = []
    if isinstance(result, Value):
        values = [result]
    elif isinstance(result, Mapping):
        values = list(result.values())
    elif isinstance(result, list | tuple):
        values = list(result)
    if not values or not all(isinstance(v, Value) for v in values):
        raise ModelError(
            f"a recomputed function must return values, got {result!r}",
            hint="recompute(layer)(x), where layer(x) is a value or a tuple or dict of values",
        )
    return values


def _recomputed(
    results: Sequence[Value], entering: Sequence[Value], leaves: Sequence[Value]
) -> tuple[Value, ...]:
    return items(Recompute(len(results), len(entering))(*results, *entering, *leaves))


def recomputed(
    outputs: Sequence[Value], locations: LocationTable, patterns: Sequence[str]
) -> list[Value]:
    """The outputs with the layers whose path one of the patterns matches made blocks that are
    recomputed, each layer a block of its own.

    Raises `ModelError` for a pattern that matches no layer, and where two blocks need each other.
    """
    return _Blocks(outputs, locations, patterns).run()


@dataclass(eq=False)
class _Block:
    """Nodes of one layer, arguments first: no path between two of them leaves the layer."""

    path: str
    nodes: list[Value] = field(default_factory=list)


class _Blocks:
    """A graph cut into blocks and single nodes, and its reconstruction unit by unit."""

    def __init__(
        self, outputs: Sequence[Value], locations: LocationTable, patterns: Sequence[str]
    ) -> None:
        self.outputs, self.locations, self.patterns = outputs, locations, patterns
        self.order = toposort(outputs)
        self.positions = {v: i for i, v in enumerate(self.order)}
        self.final: dict[Value, Value] = {}
        self.block_of: dict[Value, _Block] = {}
        paths = self._paths()
        for path in dict.fromkeys(paths.values()):
            self._cut(path, [v for v in self.order if paths.get(v) == path])
        self.outside: dict[_Block, dict[Value, None]] = {}
        for v in self.order:
            for a in v.args:
                block = self.block_of.get(a)
                if block is not None and self.block_of.get(v) is not block:
                    self.outside.setdefault(block, {})[a] = None
        for v in outputs:
            if v in self.block_of:
                self.outside.setdefault(self.block_of[v], {})[v] = None

    def _paths(self) -> dict[Value, str]:
        """The path of the outermost matching layer of each node that depends on data."""
        paths: dict[Value, str] = {}
        fed: set[Value] = set()
        matched: dict[str, str | None] = {}
        matched_patterns: set[str] = set()
        for v in self.order:
            if isinstance(v.op, Input):
                if v.op.kind != "parameter":
                    fed.add(v)
                continue
            if not any(a in fed for a in v.args):
                continue
            fed.add(v)
            if isinstance(v.op, Item):
                if v.args[0] in paths:
                    paths[v] = paths[v.args[0]]
                continue
            location = self.locations.location(v)
            scope = location.scope if location is not None else ""
            if scope not in matched:
                matched[scope] = self._matched(scope, matched_patterns)
            path = matched[scope]
            if path is not None:
                paths[v] = path
        self._check_used(matched_patterns, matched)
        return paths

    def _check_used(self, matched_patterns: set[str], scopes: Iterable[str]) -> None:
        """Raises `ModelError` for a pattern that matches no layer of these scopes."""
        for pattern in self.patterns:
            if pattern not in matched_patterns:
                layers = sorted({path for scope in scopes for path in _layers(scope)})
                raise ModelError(
                    f"no layer matches {pattern!r}: there is nothing to recompute",
                    rows=[("layer", path) for path in layers],
                    hint=did_you_mean(pattern, layers),
                )

    def _matched(self, scope: str, matched_patterns: set[str]) -> str | None:
        for path in _layers(scope):
            for pattern in self.patterns:
                if matches(path, pattern):
                    matched_patterns.add(pattern)
                    return path
        return None

    def _cut(self, path: str, nodes: Sequence[Value]) -> None:
        """Blocks of the nodes of one layer. Where a path leaves it and comes back, as between two
        calls of one layer, another block begins."""
        within, positions = set(nodes), self.positions
        depths: dict[Value, int] = {}
        blocks: dict[int, _Block] = {}
        for v in self.order[positions[nodes[0]] : positions[nodes[-1]] + 1]:
            if v in within:
                depth = max(
                    (depths[a] + (a not in within) for a in v.args if a in depths), default=1
                )
                self.block_of[v] = blocks.setdefault(depth, _Block(path))
                self.block_of[v].nodes.append(v)
                depths[v] = depth
            elif above := [depths[a] for a in v.args if a in depths]:
                depths[v] = max(above)

    def run(self) -> list[Value]:
        """Rebuilds all that the outputs need, blocks and nodes, arguments first."""
        open_: set[int] = set()
        stack: list[tuple[Value, bool]] = [(v, False) for v in reversed(self.outputs)]
        while stack:
            v, ready = stack.pop()
            if v in self.final:
                continue
            block = self.block_of.get(v)
            unit = v if block is None else block
            if ready:
                self._finish(v) if block is None else self._finish_block(block)
                continue
            if id(unit) in open_:
                raise ModelError(
                    f"the layer {block.path if block else ''} cannot be recomputed as one block: "
                    "it depends on another recomputed layer, which depends on it",
                    hint="name layers that contain both, or layers inside of them",
                )
            open_.add(id(unit))
            stack.append((v, True))
            dependencies = v.args if block is None else self._entering(block)
            stack.extend((a, False) for a in reversed(list(dependencies)) if a not in self.final)
        return [self.final[v] for v in self.outputs]

    def _entering(self, block: _Block) -> dict[Value, None]:
        """What the nodes of the block need of others."""
        return {a: None for v in block.nodes for a in v.args if self.block_of.get(a) is not block}

    def _finish(self, v: Value) -> None:
        with self.locations.located(v):
            self.final[v] = rebuilt(v, [self.final[a] for a in v.args])

    def _finish_block(self, block: _Block) -> None:
        local: dict[Value, Value] = {}
        entering, leaves = [], []
        for a in self._entering(block):
            if isinstance(a.op, Input) and a.op.kind == "parameter":
                leaves.append(self.final[a])
            elif a.args or isinstance(a.op, Input):
                local[a] = GradientAnchor()(self.final[a])
                entering.append(local[a])
        for v in block.nodes:
            with self.locations.located(v):
                local[v] = rebuilt(v, [local.get(a, self.final.get(a, a)) for a in v.args])
        self.final |= {v: local[v] for v in block.nodes}
        results = [v for v in self.outside.get(block, {}) if isinstance(v.type, Type)]
        if results and entering:
            with self.locations.located(results[0]):
                recomputed = _recomputed([local[v] for v in results], entering, leaves)
            self.final |= dict(zip(results, recomputed, strict=True))


def _layers(scope: str) -> list[str]:
    """The paths of the layers of a scope, the outermost first."""
    parts = scope.split("/")[1:]  # the first is the model
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
