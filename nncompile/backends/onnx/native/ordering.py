"""Groups of elementwise ops in an order that equal ones have in common."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import sympy as sp

from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.op import Value
from nncompile.passes.horizontal_fusion import in_first_order

MOST_ARGUMENTS = 6  # of a formula, whose orders are tried to find the first one

Formula = tuple[sp.Expr, tuple[Value, ...]]
"""The expression of an op, and its arguments in the order of that."""


class Cluster(NamedTuple):
    """Elementwise ops of one shape, arguments first: what they take from others, and what others
    take from them."""

    members: tuple[Value, ...]
    arguments: tuple[Value, ...]
    results: tuple[Value, ...]


def in_one_order(cluster: Cluster) -> tuple[object, Cluster]:
    """The cluster with arguments and results in an order that equal ones share, and what is equal
    then: formulas, how they follow each other, and numbers that they share."""
    if any(len(v.args) > MOST_ARGUMENTS for v in cluster.members):
        return cluster, cluster
    formulas: dict[Value, Formula] = {}
    for v in cluster.members:
        formulas[v] = _formula(v)
    signs = _signs(formulas)
    results = sorted(cluster.results, key=signs.__getitem__)
    places, written = _written(results, formulas)
    arguments = tuple(v for v in places if v not in formulas)
    key = (*written, *(places[v] for v in results))
    return key, Cluster(cluster.members, arguments, tuple(results))


def _formula(v: Value) -> Formula:
    if isinstance(v.op, Map):
        body, numbers, vectors = in_first_order(v)
        return body, (*numbers, *vectors)
    return sp.Function(f"{v.op.label}_{v.dtype.name}")(placeholder(0)), v.args


@lru_cache(maxsize=4096)
def _text_of(body: sp.Expr) -> str:
    return str(sp.srepr(body))


def _signs(formulas: dict[Value, Formula]) -> dict[Value, bytes]:
    """What each op computes, whatever tensors it is given; the same in every process."""
    signs: dict[Value, bytes] = {}
    for v, (body, args) in formulas.items():
        parts = (signs[a] if a in formulas else b"" if a.rank else a.digest for a in args)
        text = repr((_text_of(body), v.dtype.name, *parts))
        signs[v] = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return signs


def _written(
    results: list[Value], formulas: dict[Value, Formula]
) -> tuple[dict[Value, int], list[object]]:
    """Numbers of all values, arguments first, and what each is."""
    places: dict[Value, int] = {}
    written: list[object] = []
    stack = results[::-1]
    while stack:
        v = stack.pop()
        missing = [a for a in formulas[v][1] if a not in places]
        first = next((a for a in missing if a in formulas), None)
        if first is not None:
            stack += [v, first]
        elif v not in places:
            for a in missing:
                places[a] = len(places)
                written.append(a.dtype if a.rank else a)
            places[v] = len(places)
            written.append((formulas[v][0], *(places[a] for a in formulas[v][1])))
    return places, written
