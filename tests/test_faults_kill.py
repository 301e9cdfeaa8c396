"""A few of the kills of `python -m tests.faults kill`."""

from __future__ import annotations

import sys

import pytest

from tests.faults import kill

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


def test_a_training_that_is_killed_goes_on_as_if_it_had_not_been() -> None:
    report = kill.kill(6, seed=1)
    assert not report.problems
    assert report.kills >= 6
    assert abs(report.by_call - report.by_time) <= 1
    assert report.resumed == report.runs
