"""The place of a line in a test, as messages name it."""

from __future__ import annotations

from pathlib import Path


def line_of(file: str, text: str) -> str:
    """`test_monitoring.py:30` of the one line of the file that has the text."""
    path = Path(file)
    lines = [x.strip() for x in path.read_text(encoding="utf-8").splitlines()]
    found = [
        i for i, x in enumerate(lines, 1) if text in x and not x.startswith(("assert", "place ="))
    ]
    assert len(found) == 1, found
    return f"{path.name}:{found[0]}"
