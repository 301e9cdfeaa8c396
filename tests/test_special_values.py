"""Every op and formula on special values, against numpy: what differs, and what may."""

from __future__ import annotations

from typing import Any

import pytest

from nncompile.elementwise.map import Map
from tests.op_types import registered_ops
from tests.special_comparison import backends
from tests.special_differences import ALLOWED
from tests.special_formulas import formulas
from tests.special_values import everything

pytestmark = pytest.mark.thorough  # one sweep of everything


def test_everything_is_numpys_but_for_what_is_allowed(record_property: Any) -> None:
    found = everything()
    record_property("programs", found.programs)
    record_property("values", found.values)
    record_property("allowed", len(found.differences))
    others = [d for d in found.differences if not any(a.covers(d) for a in ALLOWED)]
    assert not others, "\n".join(map(str, others))


def test_nothing_is_allowed_that_does_not_differ() -> None:
    found = everything().differences
    # A line of both backends may be for one of them: it is judged where both are installed.
    judged = {*backends(), *(["*"] if len(backends()) > 1 else [])}
    idle = [
        a
        for a in ALLOWED
        if a.everywhere and a.backend in judged and not any(a.covers(d) for d in found)
    ]
    assert not idle, "\n".join(map(str, idle))


def test_every_op_and_formula_is_swept() -> None:
    found = everything()
    names = found.names
    swept = {name.rpartition("-")[0] for name in names}
    missing = [c.__name__ for c in registered_ops() if c is not Map and c.__name__ not in swept]
    assert not missing
    swept_formulas = {name.split(" ")[0] for name in names}
    unswept = sorted(set(formulas()) - swept_formulas)
    assert not unswept
    assert found.values > 1_000_000
