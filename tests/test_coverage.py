"""Every system that the coverage page promises, run; the page says what came of it."""

from __future__ import annotations

import dataclasses
import json
import os
from types import SimpleNamespace

import pytest

from nncompile.ops.average_pooling import AveragePool
from tests.coverage.checks import System, rounding_error
from tests.coverage.systems import SYSTEMS
from tests.coverage.table import BOUNDS, CROSS, PAGE, ROOT, TICK, bounds, measured, page, row


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_a_system_works(system: System, torchscript: SimpleNamespace) -> None:
    line = row(system, torchscript)
    assert CROSS not in line
    if system.build is not None:
        assert rounding_error(system) <= bounds()[system.name]
    if not os.environ.get("UPDATE_SNAPSHOTS"):
        assert line in PAGE.read_text(encoding="utf-8").splitlines()
    for file in (system.example, system.test):
        assert not file or (ROOT / file).exists()
    assert system.build or system.test or system.example, "nothing shows that it works"


def test_the_page_has_no_other_rows(torchscript: SimpleNamespace) -> None:
    if os.environ.get("UPDATE_SNAPSHOTS"):
        text = json.dumps(measured(SYSTEMS), indent=1, ensure_ascii=False)
        BOUNDS.write_text(text + "\n", encoding="utf-8")
        PAGE.write_text(page(SYSTEMS, torchscript), encoding="utf-8")
    names = [s.name for s in SYSTEMS]
    assert len(set(names)) == len(names)
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    assert [name for name in rows if name != "system"] == names


@pytest.mark.parametrize(("method", "column"), [("onnx", 4), ("torch", 6), ("pullback", 2)])
def test_a_lowering_that_is_missing_turns_its_tick_red(
    method: str, column: int, torchscript: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(AveragePool, method)
    (system,) = (s for s in SYSTEMS if s.name == "AveragePool2d")
    fresh = dataclasses.replace(system)  # nothing computed before
    cells = [cell.strip() for cell in row(fresh, torchscript).strip("|").split("|")]
    assert cells[1] == TICK
    assert cells[column].startswith(CROSS)
