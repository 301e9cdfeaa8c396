"""The example of vanishing gradients, as a user runs it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "vanishing_gradients.py"


def test_vanishing_gradients_shows_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLE))["main"](tmp_path / "gradients.png")
    table, sigmoids, relus, learned, *_ = capsys.readouterr().out.split("\n\n")
    rows = [line.split() for line in table.splitlines()[1:]]
    assert [row[0] for row in rows] == [*(f"layer{i}" for i in range(1, 21)), "out"]
    first, last = ([float(x) for x in row[1:]] for row in (rows[0], rows[-1]))
    assert 0 < first[0] < 1e-12 * last[0]
    assert 0.01 < first[1] / last[1] < 100
    assert "the gradient of loss vanishes" in sigmoids and "in layer1 (" in sigmoids
    assert relus == "ReLU + He: the gradient neither vanishes nor explodes"
    accuracy = [float(word.rstrip(",\n")) for word in learned.split() if word[0].isdigit()]
    assert accuracy[0] < 0.6 and accuracy[1] >= 0.98
    pytest.importorskip("matplotlib")
    assert (tmp_path / "gradients.png").read_bytes().startswith(b"\x89PNG")
