"""Texts kept in files and reviewed as diffs.

`UPDATE_SNAPSHOTS=1 make test` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "snapshots"


def assert_snapshot(name: str, text: str) -> None:
    """That the text is the one in `snapshots/NAME.txt`, or writes it there where the environment
    asks for that."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing; UPDATE_SNAPSHOTS=1 writes it"
    kept = path.read_text(encoding="utf-8")
    assert text == kept, f"{path.name} differs; UPDATE_SNAPSHOTS=1 writes it anew"
