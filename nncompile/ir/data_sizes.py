"""Sizes that depend on data: their names, and the nodes that make them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import sympy as sp

from nncompile.diagnostics.locations import current_makers
from nncompile.ir.dims import Dim, symbol, symbols
from nncompile.ir.op import Value


def made_size(label: str, *args: Value) -> sp.Symbol:
    """The name of a size that depends on data: another one for other arguments of an op."""
    text = b"".join(a.digest for a in args)
    return symbol(f"{label}_{hashlib.blake2b(text, digest_size=6).hexdigest()}")


def makers_of(sizes: Iterable[Dim]) -> list[Value]:
    """The nodes that make the sizes which depend on data."""
    makers = current_makers()
    if not makers:
        return []
    return [makers[s] for s in sorted(symbols(sizes), key=str) if s in makers]
