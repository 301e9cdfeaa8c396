"""One-line faults for `python -m tests.planted`, a file of them for each part of the tree.

A line names the file, and the tests that should catch the faults below it (arguments of pytest). Of
each fault the lines with `-` are what stands in the file, and those with `+` what takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FAULT = re.compile(r"((?:^-.*\n)+)((?:^\+.*\n)+)", re.MULTILINE)


class Fault(NamedTuple):
    """One line that becomes wrong."""

    file: str
    old: str
    new: str
    tests: str


def faults_in(text: str) -> Iterator[Fault]:
    """The faults that a text tells; parts without any are comments."""
    for part in f"{text}\n".split("\n\n"):
        head, _, lines = f"{part}\n".partition("\n")
        file, _, tests = head.partition(": ")
        for match in _FAULT.finditer(lines):
            old, new = ("\n".join(line[2:] for line in x.splitlines()) for x in match.groups())
            yield Fault(file, old, new, tests)


FAULTS = tuple(
    fault
    for file in sorted(Path(__file__).parent.glob("*.txt"))
    for fault in faults_in(file.read_text(encoding="utf-8"))
)
