"""What `make quick` takes: something of each test, and of each op."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.conftest import EVERY, pytest_collection_modifyitems
from tests.op_types import Case, registered_ops
from tests.test_ops import CASES, each


class Item(SimpleNamespace):
    """Of an item, what the hook asks for."""

    def __init__(self, nodeid: str, *marks: str) -> None:
        super().__init__(nodeid=nodeid, marks=list(marks))
        if "[" in nodeid:
            self.callspec = None

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.marks else None

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.marks.append(mark.name)


def quick(items: list[Item]) -> list[str]:
    pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    return [item.nodeid for item in items if "slow" not in item.marks]


def test_of_many_cases_every_eighth_is_quick() -> None:
    cases = [Item(f"a.py::test[{i}]") for i in range(EVERY + 2)]
    others = [Item("a.py::test_other[x]"), Item("a.py::test_one"), Item("a.py::test_two", "slow")]
    last = ["a.py::test_other[x]", "a.py::test_one"]
    assert quick(cases + others) == ["a.py::test[0]", f"a.py::test[{EVERY}]", *last]


def test_cases_that_say_it_themselves_are_left_alone() -> None:
    items = [Item("a.py::test[0]", "choosing", "slow"), Item("a.py::test[1]", "choosing")]
    assert quick(items) == ["a.py::test[1]"]


def test_every_op_has_a_case() -> None:
    @each(CASES)
    def checked(case: Case) -> None: ...

    (mark,) = (m for m in checked.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]
    chosen = [p.values[0] for p in mark.args[1] if not p.marks]
    assert {type(case.sample.op) for case in chosen} == set(registered_ops())
    assert len(chosen) < len(CASES) / 2
