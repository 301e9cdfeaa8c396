"""Names: one that is free, and those that patterns match."""

from __future__ import annotations

from collections.abc import Container, Iterable
from fnmatch import fnmatchcase


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
