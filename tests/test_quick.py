"""What `make quick` and `make test` take: something of each test that is short, and of each op."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest, durations
from tests.durations import EVERY, SELECTIONS, Stopwatch
from tests.op_types import Case, registered_ops
from tests.test_ops import CASES, each

ROOT = Path(__file__).parent.parent
QUICK, TEST = SELECTIONS


class Item(SimpleNamespace):
    """Of an item, what the hook asks for."""

    def __init__(self, nodeid: str, *marks: str) -> None:
        super().__init__(nodeid=nodeid, marks=list(marks))

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None

    def add_marker(self, mark: str | pytest.MarkDecorator) -> None:
        self.marks.append(mark if isinstance(mark, str) else mark.name)


def taken(items: list[Item], left_out: str = QUICK.left_out) -> list[str]:
    conftest.pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    return [item.nodeid for item in items if left_out not in item.marks]


def cases(test: str, count: int = EVERY + 2) -> list[Item]:
    return [Item(f"{test}[{i}]") for i in range(count)]


def test_of_many_cases_every_eighth_is_quick() -> None:
    others = [Item("a.py::test_other[x]"), Item("a.py::test_one"), Item("a.py::test_two", "slow")]
    last = ["a.py::test_other[x]", "a.py::test_one"]
    assert taken([*cases("a.py::t"), *others]) == ["a.py::t[0]", f"a.py::t[{EVERY}]", *last]
    assert len(taken([*cases("a.py::t"), *others], TEST.left_out)) == EVERY + 5


def test_what_takes_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    long, longer = {"a.py::t": 0.3, "b.py::t": 0.04}, {"a.py::t": 0.6, "a.py::one": 0.3}
    monkeypatch.setattr(conftest, "durations", lambda: long)
    assert taken([*cases("a.py::t", 2), *cases("b.py::t", 2)]) == ["b.py::t[0]"]
    some = ["a.py::t[0]", f"a.py::t[{EVERY}]", "b.py::t[0]", "b.py::t[1]"]
    assert taken([*cases("a.py::t"), *cases("b.py::t", 2)], TEST.left_out) == some
    monkeypatch.setattr(conftest, "durations", lambda: longer)
    assert taken([*cases("a.py::t"), Item("a.py::one")], TEST.left_out) == ["a.py::one"]


def test_what_is_marked_as_thorough_is_slow_as_well() -> None:
    assert taken([Item("a.py::t", "thorough"), Item("a.py::u")]) == ["a.py::u"]


def test_cases_that_say_it_themselves_are_left_alone() -> None:
    items = [Item("a.py::test[0]", "choosing", "slow"), Item("a.py::test[1]", "choosing")]
    assert taken(items) == ["a.py::test[1]"]


def test_every_op_has_a_case() -> None:
    @each(CASES)
    def checked(case: Case) -> None: ...

    (mark,) = (m for m in checked.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]
    chosen = [p.values[0] for p in mark.args[1] if not p.marks]
    assert {type(case.sample.op) for case in chosen} == set(registered_ops())
    assert len(chosen) < len(CASES) / 2


def report(nodeid: str, duration: float) -> pytest.TestReport:
    return SimpleNamespace(nodeid=nodeid, duration=duration)  # type: ignore[return-value]


def test_a_line_is_the_mean_of_the_cases() -> None:
    watch = Stopwatch()
    for test, duration in (("t[0]", 0.25), ("t[1]", 0.5), ("t[1]", 0.25), ("u", 0.01)):
        watch.pytest_runtest_logreport(report(f"a.py::{test}", duration))
    before = {"a.py::t": 3.0, "a.py::u": 0.4, "a.py::v": 0.2}
    assert watch.lines(before) == "0.50 a.py::t\n0.20 a.py::v\n"


def test_the_file_names_tests_that_exist() -> None:
    gone = []
    for test in durations.durations():
        file, _, name = test.partition("::")
        source, name = ROOT / file, name.rpartition(".")[2]
        text = source.read_text("utf-8") if source.exists() else ""
        if not re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE):
            gone.append(test)
    assert not gone, "take these lines out of tests/durations.txt"
