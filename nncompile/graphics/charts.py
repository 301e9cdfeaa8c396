"""Charts as SVG: lines over a number, points, and bars. Colors are those of the page, `--c0` to
`--c5`, so that one chart is right in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from nncompile.graphics.svg import element, label, shortened, width_of

COLORS = 6
_MOST = 800  # points of a line; of more, every n-th and the last
_WIDTH, _HEIGHT = 440.0, 250.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 14.0, 40.0

Points = tuple[Sequence[float], Sequence[float]]


class _Axis:
    """Numbers to pixels, and where the ticks are; logarithmic where asked for."""

    def __init__(
        self, numbers: Sequence[float], first: float, last: float, log: bool, whole: bool = False
    ) -> None:
        self.log, self._whole = log, whole
        low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
        if log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-12 * max(abs(high), 1.0):
            margin = abs(high) * 0.1 or 1.0
            low, high = low - margin, high + margin
        self._low, self._high, self._first, self._last = low, high, first, last

    def __call__(self, x: float) -> float:
        x = math.log10(x) if self.log else x
        share = (x - self._low) / (self._high - self._low)
        return self._first + share * (self._last - self._first)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The places and the texts of some four to seven ticks, of round numbers."""
        step = _round_step((self._high - self._low) / 5)
        if self._whole:
            step = max(1.0, step)
        if self.log:
            step = max(1.0, math.ceil(step))
            if self._high - self._low < 2:  # less than two powers of ten
                powers = range(math.floor(self._low), math.ceil(self._high) + 1)
                values = [n * 10.0**power for power in powers for n in (1, 2, 5)]
                inside = [x for x in values if self._low <= math.log10(x) <= self._high]
                return [(x, f"{x:.3g}") for x in inside]
        begin = math.ceil(self._low / step - 1e-9)
        end = math.floor(self._high / step + 1e-9)
        values = [n * step for n in range(begin, end + 1)]
        if self.log:
            return [(10.0**value, f"1e{value:.0f}") for value in values]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(value, _number(value, digits)) for value in values]


def line_chart(lines: Mapping[str, Points], x_label: str = "", log: bool = False) -> str:
    """Lines by name, each of its x and its y. What is not finite is left out, and with `log` what
    is not positive; nothing is drawn where nothing is left."""
    kept = {name: _kept(points, log) for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return ""
    every = [point for points in kept.values() for point in points]
    x, y = _axes(every, log)
    parts = [_frame(x, y, x_label)]
    for i, points in enumerate(kept.values()):
        color = f"var(--c{i % COLORS})"
        path = "M" + "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in points)
        parts.append(element("path", d=path, fill="none", stroke=color, stroke_width=1.8))
        if len(points) <= 30:
            parts += [element("circle", cx=x(a), cy=y(b), r=2.4, fill=color) for a, b in points]
    return _chart(parts, list(kept))


def scatter_chart(points: Points, x_label: str, diagonal: bool = True) -> str:
    """Points, and the diagonal on which both numbers are equal."""
    kept = _kept(points, False)
    if not kept:
        return ""
    numbers = [n for point in kept for n in point] if diagonal else []
    reach = [(min(numbers), min(numbers)), (max(numbers), max(numbers))] if diagonal else []
    x, y = _axes([*kept, *reach], False)
    parts = [_frame(x, y, x_label)]
    if diagonal:
        (a, _), (b, _) = reach
        parts.append(element("path", d=f"M{x(a):.1f} {y(a):.1f}L{x(b):.1f} {y(b):.1f}", class_="g"))
    parts += [
        element("circle", cx=x(a), cy=y(b), r=2.2, fill="var(--c0)", fill_opacity=0.55)
        for a, b in kept
    ]
    return _chart(parts, [])


def bar_chart(edges: Sequence[float], counts: Sequence[float], x_label: str) -> str:
    """Bars between edges that follow each other, as of a histogram."""
    x = _Axis(edges, _LEFT, _WIDTH - _RIGHT, False)
    y = _Axis([0.0, *counts], _HEIGHT - _BOTTOM, _TOP, False)
    parts = [_frame(x, y, x_label)]
    for i, count in enumerate(counts):
        left, right, top = x(edges[i]), x(edges[i + 1]), y(count)
        size = {"width": max(right - left - 1, 0.5), "height": y(0.0) - top}
        parts.append(element("rect", x=left, y=top, fill="var(--c0)", **size))
    return _chart(parts, [])


def _kept(points: Points, log: bool) -> list[tuple[float, float]]:
    pairs = [(float(a), float(b)) for a, b in zip(*points, strict=True)]
    kept = [(a, b) for a, b in pairs if math.isfinite(a + b) and (b > 0 or not log)]
    stride = -(-len(kept) // _MOST) or 1
    return kept[::stride] + (kept[-1:] if (len(kept) - 1) % stride else [])


def _axes(points: Sequence[tuple[float, float]], log: bool) -> tuple[_Axis, _Axis]:
    # Between epochs, or steps, there is nothing.
    whole = all(a.is_integer() for a, _ in points)
    x = _Axis([a for a, _ in points], _LEFT, _WIDTH - _RIGHT, False, whole)
    return x, _Axis([b for _, b in points], _HEIGHT - _BOTTOM, _TOP, log)


def _frame(x: _Axis, y: _Axis, x_label: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value, text in y.ticks:
        parts.append(element("path", d=f"M{_LEFT} {y(value):.1f}H{right}", class_="g"))
        parts.append(label(text, _LEFT - 7, y(value) + 3.5, text_anchor="end"))
    for value, text in x.ticks:
        parts.append(element("path", d=f"M{x(value):.1f} {bottom}v4", class_="g"))
        inside = min(x(value), _WIDTH - width_of(text, 11) / 2)
        parts.append(label(text, inside, bottom + 16, text_anchor="middle"))
    parts.append(label(x_label, (_LEFT + right) / 2, _HEIGHT - 6, text_anchor="middle"))
    return "".join(parts)


def _chart(parts: Sequence[str], names: Sequence[str]) -> str:
    legend, x, y = [], _LEFT, _HEIGHT + 12
    for i, name in enumerate(names):
        text = shortened(name, 32)
        needed = width_of(text, 11) + 30
        if x + needed > _WIDTH:
            x, y = _LEFT, y + 16
        color = f"var(--c{i % COLORS})"
        legend.append(element("rect", x=x, y=y - 8, width=12, height=4, fill=color))
        legend.append(label(text, x + 17, y - 2))
        x += needed
    height = y + 4 if names else _HEIGHT
    title = element("title", escape(", ".join(names))) if names else ""
    box = {"viewBox": f"0 0 {_WIDTH:.0f} {height:.0f}"}
    return element("svg", title, *parts, *legend, class_="chart", role="img", **box)


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, at least the step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step * (1 - 1e-9))


def _number(value: float, digits: int) -> str:
    if value and (abs(value) >= 1e6 or digits > 5):
        return f"{value:.1e}"
    return f"{value:,.{digits}f}" if value else "0"
