"""Each rule leaves alone what its guards are for, and each guard is exercised."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import sys
import textwrap
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import nncompile.passes
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.passes.rewriter import Change, Rule, on, rewrite


def _rules() -> dict[str, Rule | Change]:
    """All rules of modules of passes, by name."""
    rules: dict[str, Rule | Change] = {}
    for module in pkgutil.iter_modules(nncompile.passes.__path__, "nncompile.passes."):
        for thing in vars(importlib.import_module(module.name)).values():
            if isinstance(thing, Rule | Change):
                assert rules.setdefault(thing.name, thing) is thing, thing.name
    return rules


RULES = _rules()


def guards(rule: Rule | Change) -> set[int]:
    """The lines of a rule's function on which it refuses: where it returns None or a reason, or
    looks on. Not where the class of the op is asked for, which is one of the rule's own."""
    lines, first = inspect.getsourcelines(rule.function)
    (function,) = ast.parse(textwrap.dedent("".join(lines))).body
    by_class = {
        id(step)
        for node in ast.walk(function)
        if isinstance(node, ast.If) and _asks_for_class(node.test)
        for step in node.body
    }
    return {
        node.lineno + first - 1
        for node in ast.walk(function)
        if id(node) not in by_class and _refuses(node)
    }


def _asks_for_class(test: ast.expr) -> bool:
    return ast.unparse(test).startswith("not isinstance(value.op, ") and not isinstance(
        test, ast.BoolOp
    )


def _refuses(node: ast.AST) -> bool:
    if not isinstance(node, ast.Return):
        return isinstance(node, ast.Continue)
    value = node.value
    if isinstance(value, ast.IfExp):
        return any(isinstance(x, ast.Constant) for x in (value.body, value.orelse))
    return value is None or isinstance(value, ast.Constant | ast.JoinedStr)


def refused_at(rule: Rule | Change, outputs: tuple[Value, ...]) -> tuple[Value | None, set[int]]:
    """What the rule makes of the first output in the graph of all, and the lines of its function on
    which it refuses on the way."""
    met: set[int] = set()
    made: list[Value | None] = []

    def note(frame: FrameType, event: str, result: Any) -> Any:
        if frame.f_code is not rule.function.__code__:
            return None
        if event == "line" or (event == "return" and not isinstance(result, Value)):
            met.add(frame.f_lineno)
        elif event == "return":
            met.discard(frame.f_lineno)
        return note

    @on(*rule.roots)
    def probe(value: Value) -> None:
        if value is outputs[0] and not made:
            before = sys.gettrace()
            sys.settrace(note)
            try:
                made.append(rule(value))
            finally:
                sys.settrace(before)

    rewrite(Graph("refused", {str(i): v for i, v in enumerate(outputs)}), [probe])
    return (made[0] if made else None), met if made else set()


def unmet(rule: Rule | Change) -> set[int]:
    """The guards that no declared value meets."""
    left = guards(rule)
    for outputs in rule.refusals():
        left -= refused_at(rule, outputs)[1]
    return left


def listed() -> set[str]:
    """The names in the lists of modules of passes, among them what each pass hands to `rewrite`."""
    sources = Path(nncompile.passes.__file__).parent.glob("*.py")
    nodes = itertools.chain(*(ast.walk(ast.parse(p.read_text(encoding="utf-8"))) for p in sources))
    lists = [node.elts for node in nodes if isinstance(node, ast.List)]
    return {x.id for elements in lists for x in elements if isinstance(x, ast.Name)}


def test_each_rule_is_in_the_list_of_a_pass() -> None:
    assert not RULES.keys() - listed(), "no pass applies these: none has them in its list of rules"


@pytest.mark.parametrize("name", RULES)
def test_a_rule_leaves_what_it_must_not_change(name: str) -> None:
    rule = RULES[name]
    with recording_locations(LocationTable()):
        for i, outputs in enumerate(rule.refusals()):
            made, _ = refused_at(rule, outputs)
            assert made is None or made is outputs[0], (
                f"refusal {i} of {name}, {outputs[0]}, becomes {made}"
            )


@pytest.mark.parametrize("name", RULES)
def test_each_guard_of_a_rule_is_met(name: str) -> None:
    file = inspect.getsourcefile(RULES[name].function)
    with recording_locations(LocationTable()):
        left = [f"{file}:{line}" for line in sorted(unmet(RULES[name]))]
    assert not left, "no @refuses of the rule meets these guards: " + " ".join(left)
