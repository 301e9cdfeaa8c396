"""Pieces of SVG as text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

Point = tuple[float, float]
_CHARACTER = 6.7  # pixels of a letter of the usual size, on the average


def element(name: str, *inner: str, **attributes: object) -> str:
    """An element with its attributes, in which `_` stands for `-`, and what is in it, which is SVG
    already. Attributes that are None are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(inner)}</{name}>" if inner else f"<{name}{written}/>"


def label(text: str, x: float, y: float, **attributes: object) -> str:
    """A line of text, escaped."""
    return element("text", escape(text), x=x, y=y, **attributes)


def curve(points: Sequence[Point]) -> str:
    """The path through points, upright where it begins and ends and at each of them."""
    (x, y), *others = points
    path = f"M{_text(x)} {_text(y)}"
    for next_x, next_y in others:
        if next_x == x:
            path += f"V{_text(next_y)}"
        else:
            middle = _text((y + next_y) / 2)
            path += f"C{_text(x)} {middle} {_text(next_x)} {middle} {_text(next_x)} {_text(next_y)}"
        x, y = next_x, next_y
    return path


def width_of(text: str, size: float = 12.0) -> float:
    """About how wide a text is, in pixels."""
    return len(text) * _CHARACTER * size / 12.0


def shortened(text: str, most: int) -> str:
    """The text, or its beginning where it has more characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(value: object) -> str:
    """A number to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
