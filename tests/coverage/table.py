"""The coverage table as text: a row a system, a column a check."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.coverage.checks import (
    ABSENT,
    System,
    check_gradient,
    check_onnx,
    check_second_order,
    check_torch,
    rounding_error,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "coverage.md"
COLUMNS = (
    "system",
    "DSL",
    "gradient checked",
    "order 2",
    "ONNX",
    "within",
    "TorchScript",
    "example",
    "agrees with",
)
TICK, CROSS = "✓", "✗"
BOUNDS = Path(__file__).with_name("bounds.json")
HEADROOM = 4  # of a bound over what was measured: processors sum in different orders

INTRODUCTION = """# Coverage

What can be written, trained, exported and run. The test suite makes this page: it builds a small
model of every row, compares its gradients of both orders with central differences in double
precision, and runs its outputs (and slopes, in ONNX) in onnxruntime and TorchScript against numpy
in double precision. A tick is such a run that succeeded; `–` stands where a column does not apply.
*within* bounds how far ONNX's single precision is from double, outputs and slopes, in units of
rounding, ε = 2⁻²³ of the largest number: four times what was measured, and asserted in every run.
"""


def row(system: System, torchscript: Any) -> str:
    """The system's line of the table, by running it."""
    cells = [system.name, *_ticks(system, torchscript), _shown(system), _agreement(system)]
    return f"| {' | '.join(cells)} |"


def bounds() -> dict[str, int]:
    """The bound of each system's error in ONNX, in units of rounding."""
    return json.loads(BOUNDS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def measured(systems: Iterable[System]) -> dict[str, int]:
    """Bounds anew: what is measured times the headroom, as a power of two."""
    built = [s for s in systems if s.build is not None]
    return {
        s.name: 1 << math.ceil(math.log2(HEADROOM * max(rounding_error(s), 0.25))) for s in built
    }


def page(systems: Iterable[System], torchscript: Any) -> str:
    """The whole page, in the order of the systems."""
    lines = [INTRODUCTION]
    section = ""
    for system in systems:
        if system.section != section:
            section = system.section
            lines += [
                "",
                f"## {section}",
                "",
                f"| {' | '.join(COLUMNS)} |",
                "|---" * len(COLUMNS) + "|",
            ]
        lines.append(row(system, torchscript))
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _ticks(system: System, torchscript: Any) -> list[str]:
    if system.build is None:
        return [TICK, *[ABSENT] * 5]
    checks = {
        "DSL": (lambda: system.graph, True),
        "gradient": (lambda: check_gradient(system), system.order >= 1),
        "order 2": (lambda: check_second_order(system), system.order >= 2),
        "ONNX": (lambda: check_onnx(system), True),
        "TorchScript": (lambda: check_torch(system, torchscript), True),
    }
    ticks = [_tick(check) if applies else ABSENT for check, applies in checks.values()]
    ticks.insert(4, f"{bounds().get(system.name, CROSS)} ε")
    return ticks


def _tick(check: Any) -> str:
    """Whatever goes wrong in a check is what its cell says."""
    try:
        check()
    except Exception as error:  # the page reports it, and the test of the page fails
        return f"{CROSS} {' '.join(str(error).split())[:80]}".replace("|", "/")
    return TICK


def _shown(system: System) -> str:
    return f"`{system.example}`" if system.example else ABSENT


def _agreement(system: System) -> str:
    return f"{system.agrees} (`{Path(system.test).name}`)" if system.agrees else ABSENT
