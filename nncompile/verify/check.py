"""Whether a model does what it says: its gradients, its ONNX form, and whether it learns at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe, minimize
from nncompile.train.overfit import overfit_one_batch
from nncompile.verify.backends import onnx_runtimes
from nncompile.verify.inputs import Inputs
from nncompile.verify.report import (
    COLUMNS,
    DIFFERENCES,
    FLOAT32,
    Gradients,
    Report,
    counted,
    figure,
)
from nncompile.verify.verification import verify

LOST = (
    "After a matrix product or a running sum, the values that where() drops still contribute to "
    "the gradient: apply where() to the argument, sqrt(where(x > 0, x, 1))"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: what, whether it holds (None: it does not apply), the figures,
    and lines of what is wrong."""

    what: str
    holds: bool | None
    figures: str
    details: tuple[str, ...] = ()


def check(
    model: Model, recipe: Recipe | None, data: Mapping[str, Array] | None, seed: int = 0
) -> Iterator[Finding]:
    """What a quick `verify` says of a model in onnxruntime and of how it is trained, and whether it
    learns one batch, of rows of the `data` or, where there are none, of random numbers drawn from
    `seed`. Raises `FeedError` for data that do not fit the model."""
    backends, _ = onnx_runtimes(quick=True)
    report = verify(recipe or model, data, seed, quick=True, backends=backends)
    for loss, gradients in report.gradients.items():
        yield of_gradient(loss, gradients)
    yield from of_columns(report)
    if recipe is not None:
        yield of_learning(model, recipe, data, seed)


def of_gradient(loss: str, gradients: Gradients) -> Finding:
    """Whether the gradient of a loss is finite where the loss is, and its derivative there."""
    title, fault = f"gradient of {loss}", gradients.fault(loss)
    if gradients.lost:
        return Finding(title, False, f"{gradients.lost}. {LOST}")
    figures = f"not compared, {gradients.skipped}"
    if gradients.unchecked:
        figures = f"not compared, for it goes through {counted(gradients.unchecked)}"
    elif gradients.error is not None:
        figures = f"largest relative error {gradients.error:.1e} over {gradients.count} parameters"
        figures += f", at {gradients.where}" if gradients.where else ""
    if fault is not None:
        return Finding(title, False, figures, tuple(fault.lines()))
    return Finding(title, None if gradients.error is None else True, figures)


def of_columns(report: Report) -> Iterator[Finding]:
    """Whether onnxruntime computes the outputs, gradients and training steps that numpy does."""
    for column in COLUMNS:
        cells = {
            row: by_column[column]
            for row, by_column in report.rows.items()
            if column in by_column and row not in (FLOAT32, DIFFERENCES)
        }
        if not cells:
            continue
        faults = [f for f in report.faults if f.column == column and f.backends != [DIFFERENCES]]
        worst = max(cells, key=lambda row: cells[row].units)
        yield Finding(
            f"ONNX {column}",
            not faults,
            f"largest error {figure(cells[worst].units)} ε against numpy in float64, of {worst}",
            tuple(line for fault in faults for line in fault.lines()),
        )


def of_learning(
    model: Model, recipe: Recipe, data: Mapping[str, Array] | None, seed: int
) -> Finding:
    """Whether steps on one and the same batch bring its loss down."""
    title = "learns one batch"
    if not any(isinstance(update, minimize) for update in recipe.updates):
        return Finding(title, None, "no update follows a gradient")
    inputs = Inputs(model, data, seed)
    case = next(inputs.cases(inputs.base({}), rounds=1, edges=False))
    batch = {name: case.feeds[name] for name in model.inputs}
    losses = overfit_one_batch(recipe, batch, seed=seed)
    return Finding(title, losses.learns, str(losses))
