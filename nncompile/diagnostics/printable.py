"""Text from files and users as a terminal or a comment can show it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# Controls, formats such as the marks of direction, halves of characters, ends of lines.
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def element(name: str, index: Iterable[object]) -> str:
    """An element of an array by its index, `x[7, 1]`; the name alone where the index is empty."""
    places = ", ".join(map(str, index))
    return f"{name}[{places}]" if places else name


def hidden(text: str) -> str:
    """The characters in the text that nobody sees: those that move the cursor, end a line, or
    change the direction of what follows."""
    if text.isprintable():
        return ""
    return "".join(c for c in text if unicodedata.category(c) in _HIDDEN)


def printable(text: str, kept: str = "") -> str:
    """The text with hidden characters as escapes, but those that are `kept`.

    >>> print(printable("a\\r\\x1b[2Jb"))
    a\\r\\x1b[2Jb
    """
    wrong = set(hidden(text)).difference(kept)
    if not wrong:
        return text
    return "".join(repr(c)[1:-1] if c in wrong else c for c in text)
