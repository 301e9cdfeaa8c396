"""Which case of several in one test it is that fails."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def case_named(name: str) -> Iterator[None]:
    """An error within the statement has a note that names the case."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in case {name}")
        raise


def for_each(name: str, values: Iterable[Any]) -> Callable[[Callable[..., None]], Any]:
    """As `pytest.mark.parametrize`, but within one test: for cases that take less time than pytest
    does for a test."""
    cases = list(values)

    def joined(test: Callable[..., None]) -> Any:
        @functools.wraps(test)
        def all_of_them(**others: Any) -> None:
            for value in cases:
                with case_named(f"{name} = {value}"):
                    test(**{name: value}, **others)

        signature = inspect.signature(test)
        rest = [p for p in signature.parameters.values() if p.name != name]
        all_of_them.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
        del all_of_them.__wrapped__  # type: ignore[attr-defined]
        return all_of_them

    return joined
