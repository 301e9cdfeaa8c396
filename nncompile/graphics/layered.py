"""Where the boxes of a graph stand in a drawing: in layers, from top to bottom.

Sugiyama's method (K. Sugiyama, S. Tagawa and M. Toda, "Methods for visual understanding of
hierarchical system structures", 1981): ranks by the longest path, an order within each that lets
edges cross little, and places near the neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_SWEEPS = 8
_BETWEEN = 28.0  # pixels from one box to the next in a rank
_RANKS = 46.0  # pixels from one rank to the next
_STRAIGHT = 8.0  # how much more than a box an edge that only passes keeps its place

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """The center of each box, the points that each edge passes, and the size of the whole."""

    width: float
    height: float
    centers: list[Point]
    paths: dict[tuple[int, int], list[Point]]


@dataclass
class _Layered:
    """Boxes and passing points (of size zero) in ranks; edges go from one rank to the next."""

    sizes: list[tuple[float, float]]
    ranks: list[list[int]]
    chains: dict[tuple[int, int], list[int]]
    above: list[list[int]] = field(default_factory=list)
    below: list[list[int]] = field(default_factory=list)


def layered(sizes: Sequence[tuple[float, float]], edges: Iterable[tuple[int, int]]) -> Layout:
    """The layout of boxes of these sizes (width, height); an edge goes from one number to a larger
    one, so that there are no circles."""
    known = list(dict.fromkeys(edges))
    drawing = _split(sizes, known)
    _order(drawing)
    x = _columns(drawing)
    y: list[float] = [0.0] * len(drawing.sizes)
    top = 0.0
    heights = {}
    for rank in drawing.ranks:
        height = max((drawing.sizes[i][1] for i in rank), default=0.0)
        for i in rank:
            y[i] = top + height / 2
            heights[i] = height
        top += height + _RANKS
    left = min((x[i] - drawing.sizes[i][0] / 2 for i in range(len(x))), default=0.0)
    right = max((x[i] + drawing.sizes[i][0] / 2 for i in range(len(x))), default=0.0)
    x = [value - left for value in x]
    paths = {}
    for edge, chain in drawing.chains.items():
        first, *passing, last = chain
        points = [(x[first], y[first] + sizes[first][1] / 2)]
        for i in passing:  # straight through the rank, between its boxes
            points += [(x[i], y[i] - heights[i] / 2), (x[i], y[i] + heights[i] / 2)]
        points.append((x[last], y[last] - sizes[last][1] / 2))
        paths[edge] = points
    centers = [(x[i], y[i]) for i in range(len(sizes))]
    return Layout(right - left, max(0.0, top - _RANKS), centers, paths)


def _split(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> _Layered:
    """The ranks, and each edge as a chain of boxes and passing points."""
    rank = [0] * len(sizes)
    for a, b in sorted(edges):
        rank[b] = max(rank[b], rank[a] + 1)
    following: dict[int, list[int]] = {}
    for a, b in edges:
        following.setdefault(a, []).append(b)
    entered = {b for _, b in edges}
    for a, several in following.items():
        if a not in entered:  # what begins a branch stands right above it
            rank[a] = min(rank[b] for b in several) - 1
    boxes = list(sizes)
    ranks: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
    for i, r in enumerate(rank):
        ranks[r].append(i)
    drawing = _Layered(boxes, ranks, {})
    for a, b in edges:
        chain = [a]
        for r in range(rank[a] + 1, rank[b]):
            chain.append(len(boxes))
            boxes.append((0.0, 0.0))
            ranks[r].append(chain[-1])
        drawing.chains[a, b] = [*chain, b]
    drawing.above = [[] for _ in boxes]
    drawing.below = [[] for _ in boxes]
    for chain in drawing.chains.values():
        for a, b in pairwise(chain):
            drawing.below[a].append(b)
            drawing.above[b].append(a)
    return drawing


def _order(drawing: _Layered) -> None:
    """Sorts each rank by the mean place of the neighbours, down and up in turn; the best order that
    was met stays."""
    best, fewest = [list(rank) for rank in drawing.ranks], _crossings(drawing)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        neighbours = drawing.above if down else drawing.below
        for r in range(1, len(drawing.ranks)):
            rank = drawing.ranks[r if down else -1 - r]
            fixed = drawing.ranks[r - 1 if down else -r]
            place = {i: n for n, i in enumerate(fixed)}
            own = {i: n for n, i in enumerate(rank)}
            rank.sort(key=lambda i: (_mean([place[j] for j in neighbours[i]], own[i]), own[i]))
        crossings = _crossings(drawing)
        if crossings < fewest:
            best, fewest = [list(rank) for rank in drawing.ranks], crossings
    drawing.ranks = best


def _mean(numbers: Sequence[float], default: float) -> float:
    return sum(numbers) / len(numbers) if numbers else default


def _crossings(drawing: _Layered) -> int:
    """How many pairs of edges between two ranks cross."""
    count = 0
    for upper, lower in pairwise(drawing.ranks):
        place = {i: n for n, i in enumerate(lower)}
        ends = [n for i in upper for n in sorted(place[j] for j in drawing.below[i])]
        count += sum(a > b for n, a in enumerate(ends) for b in ends[n + 1 :]) if ends else 0
    return count


def _columns(drawing: _Layered) -> list[float]:
    """The x of each box: near the mean of its neighbours, in the order of its rank."""
    x = [0.0] * len(drawing.sizes)
    for rank in drawing.ranks:
        _place(rank, drawing.sizes, dict.fromkeys(rank, 0.0), x)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        neighbours = drawing.above if down else drawing.below
        for rank in drawing.ranks if down else reversed(drawing.ranks):
            wanted = {i: _mean([x[j] for j in neighbours[i]], x[i]) for i in rank}
            _place(rank, drawing.sizes, wanted, x)
    return x


def _place(
    rank: Sequence[int],
    sizes: Sequence[tuple[float, float]],
    wanted: Mapping[int, float],
    x: list[float],
) -> None:
    """Puts the boxes of a rank, in their order and apart, as near to the wanted places as can be:
    an isotonic regression of the places less what stands to the left."""
    blocks: list[tuple[float, float, list[int]]] = []  # the sum of weights · places, weights, boxes
    offset = 0.0
    offsets: dict[int, float] = {}
    before: int | None = None
    for i in rank:
        if before is not None:
            offset += (sizes[before][0] + sizes[i][0]) / 2 + _BETWEEN
        offsets[i], before = offset, i
        weight = 1.0 if sizes[i][0] else _STRAIGHT
        block = (weight * (wanted[i] - offset), weight, [i])
        while blocks and blocks[-1][0] / blocks[-1][1] > block[0] / block[1]:
            total, weights, boxes = blocks.pop()
            block = (total + block[0], weights + block[1], boxes + block[2])
        blocks.append(block)
    for total, weights, boxes in blocks:
        for i in boxes:
            x[i] = total / weights + offsets[i]
