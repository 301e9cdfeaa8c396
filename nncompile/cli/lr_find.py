"""Suggests a learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.outcome import Outcome
from nncompile.cli.report import LINES
from nncompile.cli.settings import Set, load_file
from nncompile.cli.shared import Chosen, File, data_of, out, print_files
from nncompile.diagnostics.tables import columns
from nncompile.train import lr_find as sweep
from nncompile.train.figures import number


def lr_find(
    file: File,
    lowest: Annotated[float, typer.Option(help="The rate of the first step.")] = 1e-7,
    highest: Annotated[float, typer.Option(help="The rate of the last step.")] = 10.0,
    steps: Annotated[int, typer.Option(min=3, help="Steps of the sweep.")] = 100,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the sweep: a .png, .svg or .pdf file.")
    ] = None,
    model: Chosen = None,
    settings: Set = None,
) -> Outcome:
    """Suggest a learning rate for the recipe of FILE.

    Trains for a few steps at rates that grow from one to the next, and names the one at which the
    loss falls fastest (L. N. Smith 2017). The trained weights are discarded.

    \b
    Examples:
      nncompile lr-find digits.py
      nncompile lr-find digits.py --lowest 1e-5 --highest 1 --plot rates.png
    """
    declared = load_file(file, model, settings)
    batches = data_of(declared).train
    search = sweep(declared.recipe, batches, lowest, highest, steps, batch_size, seed=seed)
    shown = range(0, len(search.rates), max(1, len(search.rates) // LINES))
    rows = [("rate", search.loss, "trend")]
    rows += [
        (f"{search.rates[i]:.2e}", number(search.losses[i]), number(search.trend[i])) for i in shown
    ]
    out.print(columns(rows, (0, 1, 2)))
    if search.suggestion is None:
        out.print(f"{search.loss} does not fall at any rate up to {search.rates[-1]:.2g}")
    else:
        out.print(f"{search.loss} falls fastest at a rate of {search.suggestion:.2g}")
    if plot is not None:
        print_files(search.plot(plot))
    return Outcome(
        {
            "metric": search.loss,
            "suggestion": search.suggestion,
            "rates": search.rates,
            "losses": search.losses,
        }
    )
