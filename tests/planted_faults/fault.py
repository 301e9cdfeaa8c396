"""A fault to plant."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One line that becomes wrong."""

    file: str
    old: str
    new: str
    tests: str
