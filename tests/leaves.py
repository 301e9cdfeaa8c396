"""Leaves of graphs to test with."""

from __future__ import annotations

from nncompile.graph import Input, Value
from nncompile.types import Type


def leaf(name: str, type_: Type, kind: str = "input") -> Value:
    return Input(name, type_, kind)()
