"""Names: which may be given, one that is free, and those that patterns match."""

from __future__ import annotations

from collections.abc import Container, Iterable
from fnmatch import fnmatchcase

from nncompile.diagnostics.printable import hidden


def check_printable(name: str) -> None:
    """Raises `ValueError` for a name with control characters, such as the end of a line: it would
    change what a terminal shows, or the source that it gets into."""
    wrong = hidden(name)
    if wrong:
        raise ValueError(f"the name {name!r} has the character {wrong[0]!r}")


def unused_name(name: str, used: Container[str], separator: str = ".", first: int = 2) -> str:
    """The name, with the first number from `first` on that makes it free where it is used."""
    number, unused = first, name
    while unused in used:
        unused, number = f"{name}{separator}{number}", number + 1
    return unused


def matches(path: str, patterns: str | Iterable[str]) -> bool:
    """Whether one of the patterns, as of file names, is of that path."""
    patterns = (patterns,) if isinstance(patterns, str) else patterns
    return any(fnmatchcase(path, pattern) for pattern in patterns)
