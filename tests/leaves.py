"""Leaves of graphs to test with."""

from __future__ import annotations

from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Type, f32


def leaf(name: str, type_: Type, kind: str = "input") -> Value:
    return Input(name, type_, kind)()


def vector(name: str = "x") -> Value:
    """An input of n real numbers."""
    return leaf(name, f32["n"])
