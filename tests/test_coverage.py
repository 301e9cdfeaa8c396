"""Every system that the coverage page promises is run, and the page shows its result."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile import optim, train
from nncompile.compiler.cache_place import VARIABLE
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.pooling.average import AveragePool
from tests.coverage.checks import System, distance
from tests.coverage.systems import SYSTEMS
from tests.coverage.table import (
    BOUNDS,
    COLUMNS,
    CROSS,
    ROOT,
    TICK,
    bounds,
    errors,
    row,
    rows_of_page,
    write,
)

UPDATING = os.environ.get("UPDATE_SNAPSHOTS")


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_a_system_works(system: System, torchscript: SimpleNamespace) -> None:
    way = f"python -m tests.coverage {system.name!r} measures it, and writes its row"
    if not UPDATING and system.name not in bounds():
        pytest.fail(f"it has no bounds yet: {way}")
    line = row(system, torchscript)
    assert CROSS not in line, line
    for what, error in errors(system, torchscript.torch).items():
        assert error <= bounds()[system.name][what], what
    assert line == rows_of_page().get(system.name) or UPDATING, f"the page says otherwise: {way}"
    for file in (system.example, system.test):
        assert not file or (ROOT / file).exists()
    assert system.build or system.recipe or system.run, "nothing of it runs"


def test_the_page_has_no_other_rows(torchscript: SimpleNamespace) -> None:
    names = [s.name for s in SYSTEMS]
    if UPDATING:
        write(SYSTEMS, torchscript, names)
    assert len(set(names)) == len(names)
    way = "python -m tests.coverage NAME writes the row of a new system"
    assert list(rows_of_page()) == names == list(bounds()), way


def parts() -> list[str]:
    """The names of layers, activations, losses and optimizers; of layers for several numbers of
    axes those for two."""
    things = {name: getattr(dsl, name) for name in dsl.__all__}
    layers = [n for n, x in things.items() if isinstance(x, type) and issubclass(x, dsl.Layer)]
    names = (*layers, *dsl.activations.__all__, *dsl.losses.__all__, *optim.__all__)
    others = ("Layer", "Optimizer", "Schedule", "prelu")  # the row of PReLU is its row
    return [name for name in names if name not in others and not name.endswith(("1d", "3d"))]


def test_every_layer_activation_loss_and_optimizer_has_a_row() -> None:
    """One that says its name, or another name of it."""
    text = "".join(p.read_text(encoding="utf-8") for p in BOUNDS.parent.glob("*.py"))
    words = {*re.findall(r'(?:\bdsl\.|")(\w+)', text)} & {*dsl.__all__}
    used = {getattr(dsl, word) for word in words}
    missing = [name for name in parts() if getattr(dsl, name) not in used]
    assert not missing, f"tests/coverage has no row of {', '.join(missing)}"


def cells(name: str, torchscript: SimpleNamespace) -> dict[str, str]:
    """The cells of a row that is computed anew, by column."""
    (system,) = (s for s in SYSTEMS if s.name == name)
    found = [c.strip() for c in row(dataclasses.replace(system), torchscript).strip("|").split("|")]
    return dict(zip(COLUMNS, found, strict=True))


@pytest.mark.parametrize("name", ["AveragePool2d"])
@pytest.mark.parametrize(
    ("method", "column"), [("onnx", "ONNX"), ("torch", "TorchScript"), ("pullback", "gradient")]
)
def test_a_lowering_that_is_missing_turns_its_tick_red(
    name: str,
    method: str,
    column: str,
    torchscript: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    monkeypatch.delattr(AveragePool, method)
    found = cells(name, torchscript)
    assert found["runs"] == TICK
    assert found[column].startswith(CROSS)


@pytest.mark.parametrize("name", ["Adam", "gradient accumulation", "cosine decay", "VAE"])
@pytest.mark.parametrize(("method", "column"), [("onnx", "ONNX"), ("torch", "TorchScript")])
def test_a_lowering_that_is_missing_turns_trainings_red(
    name: str,
    method: str,
    column: str,
    torchscript: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "off")  # or what another test compiled is found
    for op_type in (MatMul, Gemm):
        monkeypatch.delattr(op_type, method)
    assert cells(name, torchscript)[column].startswith(CROSS)


@pytest.mark.parametrize(
    ("name", "module", "part"),
    [
        ("Lion", dsl, "lion"),
        ("inverse square root", dsl, "inverse_sqrt"),
        ("EMA of weights", dsl, "ema"),
        ("orthogonal", dsl, "orthogonal"),
        ("Hessian-vector products", dsl, "hvp"),
        ("VAE", dsl, "random_normal"),
        ("transfer learning", train.Trainer, "load_params"),
        ("early stopping, best weights restored", train, "EarlyStopping"),
        ("learning-rate finder", train, "lr_find"),
    ],
)
def test_what_is_missing_turns_its_row_red(
    name: str,
    module: Any,
    part: str,
    torchscript: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(module, part)
    assert cells(name, torchscript)["runs"].startswith(CROSS)


@pytest.mark.parametrize(
    ("name", "part", "other"),
    [
        ("SGD", "sgd", lambda sgd: lambda rate: sgd(1.001 * rate)),
        (
            "parameter groups",
            "adamw",
            lambda adamw: lambda lr, **o: adamw(1.001 * lr, **o),
        ),
        ("exponential decay", "exponential", lambda curve: lambda rate, _: curve(rate, 0.901)),
        ("plateau", "plateau", lambda plateau: lambda rate, **o: plateau(rate, patience=1)),
    ],
)
def test_what_is_computed_otherwise_than_by_torch_turns_its_row_red(
    name: str,
    part: str,
    other: Callable[[Any], Any],
    torchscript: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dsl, part, other(getattr(dsl, part)))
    found = cells(name, torchscript)
    assert found["runs"] == found["ONNX"] == found["TorchScript"] == TICK
    assert found["agrees with"].startswith(CROSS)


def test_a_gradient_that_is_left_out_turns_its_row_red(torchscript: SimpleNamespace) -> None:
    (system,) = (s for s in SYSTEMS if s.name == "sigmoid")
    line = row(dataclasses.replace(system, order=0), torchscript)
    assert f"{CROSS} gradient 0 is not 0" in line


def test_what_is_zero_is_measured_by_the_largest_number_of_all() -> None:
    epsilon, ones = 2.0**-23, np.ones(3)
    assert distance([(ones + epsilon, ones), (3 * epsilon * ones, 1e-17 * ones)]) == pytest.approx(
        3
    )
    assert distance([(ones, ones), (1e-6 * (1 + 5 * epsilon) * ones, 1e-6 * ones)]) > 4.9
    with pytest.raises(AssertionError, match="not finite"):
        distance([(np.nan * ones, ones)])


def test_a_program_that_does_not_do_what_it_is_for_turns_its_row_red(
    torchscript: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(train.EarlyStopping):
        def on_end(self, event: Any) -> None:
            """Restores nothing."""

    monkeypatch.setattr(train, "EarlyStopping", Careless)
    found = cells("early stopping, best weights restored", torchscript)
    assert found["runs"].startswith(CROSS)
