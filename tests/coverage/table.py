"""The coverage table as text: a row a system, a column a check."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.coverage.checks import (
    System,
    check_flat,
    check_gradient,
    check_onnx,
    check_second_order,
    check_torch,
    rounding_error,
)
from tests.coverage.stepping import (
    check_same,
    in_numpy,
    in_onnxruntime,
    in_torchscript,
    peer_errors,
    steps_error,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "coverage.md"
COLUMNS = (
    "system",
    "runs",
    "gradient",
    "order 2",
    "ONNX",
    "within",
    "ten steps",
    "TorchScript",
    "example",
    "agrees with",
)
TICK, CROSS, ABSENT = "✓", "✗", "–"
NO_SLOPE, PROGRAM, UNTRAINED = "no gradient", "program", "no training"
BOUNDS = Path(__file__).with_name("bounds.json")
HEADROOM = 4  # of a bound over what was measured: processors sum in different orders
Bounds = dict[str, dict[str, int]]

INTRODUCTION = """# Coverage

What can be written, trained, exported and run. The test suite makes this page: each tick is a run
that succeeded, of a small system that the row names, and a row of which something fails is a test
that fails. Where there is no tick a word says why.

- *runs*: the system was built; a *program*, as a callback is, did what it is for.
- *gradient*, *order 2*: gradients, and gradients of gradients, against central differences in
double precision; *no gradient* where results are whole numbers or steps, and the gradients were
found to be 0. Of optimizers and recipes these are gradients of the whole training step, from state
and batch to state.
- *ONNX*: onnxruntime against numpy in double precision: results, gradients, and ten training steps.
- *within*: how far results and gradients in ONNX's single precision are from double, at most.
- *ten steps*: the same of all metrics and the whole state after ten steps of the training step as
  it is exported, with batches of two sizes; *no training* where the row is a layer or function.
- *TorchScript*: the exported module, and ten steps of the exported training step, against numpy.
- *agrees with*: another library, or a definition. Where it says how far, that is computed with the
  row: results, gradients and ten steps in onnxruntime against the other library in double
  precision. Otherwise it names the file of the test.

Bounds are in units of rounding, ε = 2⁻²³ of the largest number of each tensor (of the largest
of all tensors, where one is exactly zero in theory, as the gradient at the bias of an attention's
keys): four times what was measured, rounded up to a power of two, and asserted in every run. The
last place of `f16` is 8192 of these units, that of `bf16` 65536.
"""


def row(system: System, torchscript: Any) -> str:
    """The system's line of the table, by running it."""
    cells = [system.name, *_ticks(system, torchscript), _shown(system)]
    return f"| {' | '.join([*cells, _agreement(system, torchscript)])} |"


def bounds() -> Bounds:
    """The bounds of each system's errors in ONNX, in units of rounding."""
    return json.loads(BOUNDS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def errors(system: System, torch: Any) -> dict[str, float]:
    """How far the system's results, steps and so on are from double, by what they are."""
    found: dict[str, float] = {}
    if system.build is not None:
        found["results"] = rounding_error(system)
    if system.recipe is not None:
        found["ten steps"] = steps_error(system)
    if system.peer is not None:
        found |= {f"peer {what}": e for what, e in peer_errors(system, torch).items()}
    return found


def measured(systems: Iterable[System], torch: Any) -> Bounds:
    """Bounds anew: what is measured times the headroom, as a power of two."""
    return {
        s.name: {what: _above(HEADROOM * max(e, 0.25)) for what, e in errors(s, torch).items()}
        for s in systems
    }


def _above(x: float) -> int:
    return 1 << math.ceil(math.log2(x))


def rows_of_page() -> dict[str, str]:
    """The rows as the page has them, by the name of the system."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## ")[2]
    rows = [line for line in text.splitlines() if "| " in line]
    named = {line.split(" | ")[0].removeprefix("| "): line for line in rows}
    return {name: line for name, line in named.items() if name != "system"}


def write(systems: Sequence[System], torchscript: Any, names: Collection[str]) -> list[str]:
    """Measures the systems of these names, writes their bounds and their rows, and removes what is
    of no system. Returns the rows."""
    old = bounds()
    new = measured([s for s in systems if s.name in names], torchscript.torch)
    kept = {s.name: (old | new)[s.name] for s in systems if s.name in old or s.name in new}
    BOUNDS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows = {name: line for name, line in rows_of_page().items() if name not in names}
    PAGE.write_text(page(systems, torchscript, rows), encoding="utf-8")
    return [line for name, line in rows_of_page().items() if name in names]


def page(systems: Iterable[System], torchscript: Any, rows: Mapping[str, str]) -> str:
    """The whole page, in the order of the systems; those that are not among the `rows` are run."""
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
        lines.append(rows.get(system.name) or row(system, torchscript))
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def _ticks(system: System, torchscript: Any) -> list[str]:
    """The cells from `runs` to `TorchScript`."""

    def builds() -> None:
        for part, made in ((system.build, "graph"), (system.recipe, "compiled")):
            if part is not None:
                getattr(system, made)
        if system.run is not None:
            system.run()

    def onnx() -> None:
        if system.build is not None:
            check_onnx(system)
        if system.recipe is not None:
            check_same(in_onnxruntime(system), in_numpy(system), system)

    def torch() -> None:
        if system.build is not None and not system.is_step:
            check_torch(system)
        if system.recipe is not None:
            check_same(in_torchscript(system, torchscript), in_numpy(system), system)

    runs = _tick(builds)
    if system.run is not None:
        return [runs, *[PROGRAM] * 6]
    known = bounds().get(system.name, {})
    within = {what: f"{known[what]} ε" if what in known else CROSS for what in _ASKED}
    return [
        runs,
        *_gradients(system),
        _tick(onnx),
        within["results"],
        within["ten steps"] if system.recipe is not None else UNTRAINED,
        _tick(torch),
    ]


def _gradients(system: System) -> list[str]:
    """The cells of both orders."""
    if system.order == 0:
        flat = _tick(lambda: check_flat(system))
        return [NO_SLOPE if flat == TICK else flat] * 2
    return [_tick(lambda: check_gradient(system)), _tick(lambda: check_second_order(system))]


_ASKED = ("results", "ten steps")


def _tick(check: Any) -> str:
    """Whatever goes wrong in a check is what its cell says."""
    try:
        check()
    except Exception as error:  # the page reports it, and the test of the page fails
        return f"{CROSS} {' '.join(str(error).split())[:80]}".replace("|", "/")
    return TICK


def _shown(system: System) -> str:
    return f"`{system.example}`" if system.example else ABSENT


def _agreement(system: System, torchscript: Any) -> str:
    if system.peer is None:
        return f"{system.agrees} (`{Path(system.test).name}`)" if system.agrees else ABSENT
    known = bounds().get(system.name, {})
    parts = [(key.removeprefix("peer "), known[key]) for key in known if key.startswith("peer ")]
    failed = _tick(lambda: _check_peer(system, torchscript.torch))
    if failed != TICK or not parts:
        return failed if failed != TICK else CROSS
    return f"{system.agrees}: {', '.join(f'{what} {bound} ε' for what, bound in parts)}"


def _check_peer(system: System, torch: Any) -> None:
    known = bounds().get(system.name, {})
    for what, error in peer_errors(system, torch).items():
        bound = known.get(f"peer {what}", 0)
        assert error <= bound, f"{what} is {error:.1f} ε from {system.agrees}, not {bound}"
