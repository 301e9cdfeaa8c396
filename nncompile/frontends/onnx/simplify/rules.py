"""The table of rules, and the rounds in which they are tried."""

from __future__ import annotations

from collections.abc import Callable

from nncompile.frontends.onnx.simplify.work import Item, Work

Rule = Callable[[Work, Item], bool]
"""Tries to simplify a node, and says whether it did."""

RULES: dict[str, list[Rule]] = {}
ROUNDING: set[Rule] = set()
"""The rules after which a sum or product is rounded in another way."""


def rule(*ops: str, rounds: bool = False) -> Callable[[Rule], Rule]:
    """Declares a rule for the nodes of these operators."""

    def declare(function: Rule) -> Rule:
        for op in ops:
            RULES.setdefault(op, []).append(function)
        if rounds:
            ROUNDING.add(function)
        return function

    return declare


def apply_rules(work: Work, is_exact: bool) -> None:
    """Tries the rules on each node once. With `is_exact`, none after which numbers are rounded in
    another way."""
    for item in work.live():
        for tried in RULES.get(item.op, ()):
            if is_exact and tried in ROUNDING:
                continue
            if item.is_alive and item.is_sound and tried(work, item):
                work.changes += 1
                break  # it may be of another operator now; the next round goes on
