"""Which case of several in one test it is that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case_named(name: str) -> Iterator[None]:
    """An error within the statement has a note that names the case."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in case {name}")
        raise
