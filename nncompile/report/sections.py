"""The sections of the page: what is shown of a training, as HTML."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from nncompile.diagnostics.tables import html_table
from nncompile.graphics.charts import Points, line_chart
from nncompile.ir.dims import grouped
from nncompile.program.summary import elements
from nncompile.report.page import card
from nncompile.train import History, Profile, Trainer
from nncompile.train.figures import duration, number
from nncompile.train.measurement import Measurement, layer_rows
from nncompile.train.rates import follows_training, learning_rates
from nncompile.train.run_config import versions

_RATES = 200  # steps at which the learning rate is shown
_LAYERS = 6  # lines of a chart


def numbers(trainer: Trainer, history: History, seconds: float | None) -> dict[str, str]:
    """The figures at the top."""
    count = elements(trainer.model.parameters.values())
    figures = {"epochs": f"{trainer.epoch:,}", "steps": f"{trainer.step:,}"}
    figures["parameters"] = grouped(count)
    if seconds:
        figures["training"] = duration(seconds)
    best = history.best
    chosen = [name for name in best if name.startswith("val_")] or list(best)
    for name in chosen[:4]:
        figures[f"best {name}, epoch {best[name].epoch}"] = number(best[name].value)
    return figures


def curves(history: History) -> Iterator[str]:
    """A chart for each metric, of training and validation."""
    panels: dict[str, dict[str, Points]] = {}
    for name in history.names:
        panels.setdefault(name.removeprefix("val_"), {})[name] = history.points(name)
    for title, lines in panels.items():
        smallest = [min(y, default=0.0) for _, y in lines.values()]
        largest = [max(y, default=0.0) for _, y in lines.values()]
        # A loss that falls over more than two powers of ten is a line along the bottom else.
        log = min(smallest) > 0 and max(largest) > 100 * min(smallest)
        yield card(title, line_chart(lines, "epoch", log=log))


def rates(trainer: Trainer, recorded: Mapping[int, Mapping[str, float]]) -> str:
    """The learning rate of each group over the steps; of what follows the training, as it was
    `recorded` at some of them, or else as it is now."""
    recipe = trainer.compiled.source.recipe  # in which rates may be set
    steps = sorted({round(x) for x in np.linspace(0, max(0, trainer.step - 1), _RATES)})
    rates_by_step = {step: learning_rates(recipe, step) for step in steps}
    now: dict[str, float] = {}
    if follows_training(recipe):
        last = max(0, trainer.step - 1)
        now = learning_rates(recipe, last, trainer.state)
        for step, several in {**recorded, last: now}.items():
            rates_by_step[step] = {**rates_by_step.get(step, {}), **several}
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for step, several in sorted(rates_by_step.items()):
        for name, rate in several.items():
            x, y = lines.setdefault(name, ([], []))
            x.append(float(step))
            y.append(rate)
    alone = [f"{n} {rate:.3g} now" for n, rate in now.items() if len(lines[n][0]) == 1]
    # The usual rates: many schedules end near 0, which is no reason for a logarithm.
    usual = [float(np.quantile(y, share)) for _, y in lines.values() for share in (0.1, 1.0)]
    log = bool(usual) and min(usual) > 0 and max(usual) > 100 * min(usual)
    title = ", ".join(alone)
    return card(title, line_chart(lines, "step", log=log)) if lines else ""


def gradients(measured: Sequence[Measurement]) -> Iterator[str]:
    """Norms of gradients and sizes of updates of layers over the steps, and the last as a table."""
    if not measured:
        return
    names = list(measured[-1].layers)
    stride = max(1, math.ceil(len(names) / _LAYERS))
    chosen = list(dict.fromkeys([*names[::stride], names[-1]])) if names else []
    steps = [float(m.step) for m in measured]
    if len(measured) > 1:
        norms = {n: (steps, [m.layers[n].gradient for m in measured]) for n in chosen}
        ratios = {n: (steps, [m.layers[n].ratio for m in measured]) for n in chosen}
        yield card("norm of the gradient", line_chart(norms, "step", log=True))
        yield card("update in units of the weights", line_chart(ratios, "step", log=True))
    table = html_table(layer_rows(measured[-1]), (1, 2, 3))
    yield card(f"at step {measured[-1].step:,}", table)
    for message in measured[-1].warnings().values():
        yield card("warning", paragraph(message))


def timings(profile: Profile | None) -> str:
    """The lines that the time of a step goes to."""
    if profile is None:
        return ""
    table = profile._repr_html_().replace("<table>", "<table class='time'>", 1)
    return card("", table)


def configuration(trainer: Trainer, entries: Mapping[str, Any] | None) -> Iterable[str]:
    """What the training was told, and what it ran on."""
    recipe = trainer.recipe
    rows: list[Sequence[str]] = [
        *(("update", str(update)) for update in recipe.updates),
        ("seed", str(trainer.seed)),
        ("batch size", str(recipe.batch_size)),
        ("provider", str(trainer.providers)),
        *((name, str(x)) for name, x in (entries or {}).items()),
    ]
    for name in ("freeze", "recompute", "accumulate"):
        value = getattr(recipe, name)
        if value not in ((), 1):
            rows.append((name, str(value)))
    installed = {**versions(), "processors": os.cpu_count()}
    environment = [(name, str(x)) for name, x in installed.items() if x is not None]
    return (
        card("training", html_table(rows, header=0)),
        card("environment", html_table(environment, header=0)),
    )


def paragraph(text: str) -> str:
    """A text of its own."""
    return f"<p>{escape(text)}</p>"
