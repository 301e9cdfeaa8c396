"""Where labels stand beside the edges of a drawing, so that no line runs through them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from nncompile.graphics.layered import Point

_BESIDE = 6.0  # pixels from an edge to its label
_ABOVE, _BELOW = 9.0, 3.0  # what a line of text takes of its baseline
_SAMPLES = 16  # of each piece of an edge
_SQUARE = 64.0  # pixels of a side

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def sampled(points: Sequence[Point]) -> list[Point]:
    """Points, close to each other, of the curve through these that `svg.curve` draws."""
    samples = [points[0]]
    for (x, y), (next_x, next_y) in pairwise(points):
        for i in range(1, _SAMPLES + 1):
            t = i / _SAMPLES
            across = 3 * (1 - t) * t**2 + t**3
            down = 1.5 * (1 - t) * t + t**3
            samples.append((x + across * (next_x - x), y + down * (next_y - y)))
    return samples


class Occupied:
    """What a label must not touch: the points of lines and the rectangles of a drawing, found by
    the square of the drawing that they are in."""

    def __init__(self, lines: Iterable[Sequence[Point]], taken: Iterable[Rectangle]) -> None:
        self._points: dict[tuple[int, int], list[Point]] = {}
        self._rectangles: dict[tuple[int, int], list[Rectangle]] = {}
        for line in lines:
            for x, y in line:
                square = int(x // _SQUARE), int(y // _SQUARE)
                self._points.setdefault(square, []).append((x, y))
        for rectangle in taken:
            self.take(rectangle)

    def take(self, rectangle: Rectangle) -> None:
        """From now on the rectangle is taken."""
        for square in _squares(rectangle):
            self._rectangles.setdefault(square, []).append(rectangle)

    def touched(self, box: Rectangle) -> int:
        """How much the box touches: the points within it, and 100 for each rectangle."""
        count = 0
        rectangles: set[Rectangle] = set()
        for square in _squares(box):
            count += sum(_inside(point, box) for point in self._points.get(square, ()))
            rectangles.update(r for r in self._rectangles.get(square, ()) if _overlap(box, r))
        return count + 100 * len(rectangles)


def _squares(box: Rectangle) -> Iterator[tuple[int, int]]:
    """The squares of the drawing that a rectangle is in."""
    left, top, right, bottom = (int(edge // _SQUARE) for edge in box)
    for across in range(left, right + 1):
        for down in range(top, bottom + 1):
            yield across, down


def place(
    beside: Iterable[Sequence[Point]], width: float, occupied: Occupied
) -> tuple[float, float, Rectangle]:
    """The left end and the baseline of a label of that width beside one of some edges, and the
    rectangle that it takes: the first place, from their beginnings on, which touches nothing that
    is `occupied`; of several that all do, the one that least does."""
    best: tuple[int, float, float, Rectangle] | None = None
    points = (point for edge in beside for point in edge[2 : max(3, len(edge) - 2)])
    for x, y in points:
        for left, baseline in (
            (x + _BESIDE, y + 8.0),
            (x - _BESIDE - width, y + 8.0),
            (x + _BESIDE, y - 4.0),
            (x - _BESIDE - width, y - 4.0),
        ):
            box = left - 2.0, baseline - _ABOVE, left + width + 2.0, baseline + _BELOW
            touched = occupied.touched(box)
            if best is None or touched < best[0]:
                best = touched, left, baseline, box
            if not touched:
                return left, baseline, box
    assert best is not None  # an edge has points
    return best[1:]


def _inside(point: Point, box: Rectangle) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
