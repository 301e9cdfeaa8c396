"""What the names and the types in a model are checked for."""

from __future__ import annotations

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.printable import hidden
from nncompile.ir.dims import same
from nncompile.ir.types import Type


def check_name(what: str, name: object) -> None:
    """Raises `ModelError` for a name that a terminal or a file would not show as it is."""
    if not isinstance(name, str) or not name:
        raise ModelError(f"{what} cannot be called {name!r}", hint="a name is a text")
    wrong = hidden(name)
    if wrong:
        raise ModelError(
            f"{what} cannot be called {name!r}: it has the control character {wrong[0]!r}",
            hint="names stand in files, tables and generated source: leave it out",
        )


def check_same_type(role: str, expected: Type, got: Type) -> None:
    """Raises `ModelError` naming `role` where the types differ."""
    fits = expected.rank == got.rank and all(
        same(a, b) for a, b in zip(expected.shape, got.shape, strict=True)
    )
    if not fits or expected.dtype is not got.dtype:
        raise ModelError(
            f"the {role} has the wrong type",
            rows=[("expected", str(expected)), ("got", str(got))],
            hint=f"cast it: x.astype({expected.dtype})" if fits else None,
        )
