"""What a page on a training says, and when it is written."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.files import write_atomically
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.diagnostics.tables import html_table
from nncompile.graphics.charts import Points, bar_chart, line_chart, scatter_chart
from nncompile.ir.types import Array
from nncompile.program.summary import elements, grouped
from nncompile.report.page import card, facts, heat_table, page, section, shown
from nncompile.report.predictions import Compared, compared, examples_of
from nncompile.train import Data, History, Monitor, Trainer
from nncompile.train.events import Event, Fitting
from nncompile.train.figures import duration, number
from nncompile.train.rates import learning_rate
from nncompile.train.run_config import versions

_SAMPLES = 12  # predictions that are shown
_CLASSES = 30  # of a confusion matrix that is shown
_RATES = 200  # steps at which the learning rate is shown
_LAYERS = 6  # lines of a chart


@suggests_names
def report(
    trainer: Trainer,
    history: History,
    path: str | os.PathLike[str] = "report.html",
    validation_data: Data | None = None,
    *,
    monitor: Monitor | None = None,
    configuration: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> Path:
    """Writes a page on a training to an .html file: curves, learning rate, what `monitor` measured
    of the gradients, predictions beside their targets on `validation_data` (a confusion matrix or
    residuals, and the examples that are most wrong), the layers and their picture, configuration
    and versions. One file, which opens without a network, in light and dark.

    `configuration` are entries to show with that of the recipe, `seconds` how long it took. Raises
    `FeedError` for data that do not fit, `FileError` where the file cannot be written.
    """
    examples: dict[str, Array] = {}
    if validation_data is not None:
        examples = examples_of(trainer.batches(validation_data), trainer.model)
    return write_page(path, trainer, history, examples, monitor, configuration, seconds)


@suggests_options
class Report:
    """A callback that writes a page on the training at its end, see `report`, with predictions for
    held-out data where `fit` has them, and else for those of the training."""

    def __init__(
        self, path: str | os.PathLike[str] = "report.html", monitor: Monitor | None = None
    ) -> None:
        self.path, self.monitor = Path(path), monitor
        self.history = History()
        self.seconds = 0.0
        self._fitting: Fitting | None = None

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Keeps the data that it shows."""
        self._fitting = fitting
        yield

    def on_epoch(self, event: Event) -> None:
        self.history.epochs.append(event.metrics)
        self.seconds = event.seconds

    def on_end(self, event: Event) -> None:
        self.write(event.trainer)

    def write(
        self,
        trainer: Any,
        history: History | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes the page as things stand. Raises `FileError`."""
        examples: dict[str, Array] = {}
        if self._fitting is not None:
            source = self._fitting.held_out or self._fitting.feeder
            examples = examples_of(source.epoch(), trainer.model)
        history = self.history if history is None else history
        return write_page(
            self.path, trainer, history, examples, self.monitor, configuration, self.seconds
        )


def history_of(path: str | os.PathLike[str]) -> History:
    """The history in a CSV log, such as that of a run. Raises `FileError` where there is none."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from None
    left_out = ("epoch", "step", "seconds")
    return History([{n: float(x) for n, x in r.items() if n not in left_out} for r in rows])


def write_page(
    path: str | os.PathLike[str],
    trainer: Trainer,
    history: History,
    examples: Mapping[str, Array],
    monitor: Monitor | None,
    configuration: Mapping[str, Any] | None,
    seconds: float | None,
) -> Path:
    """Writes a page; see `report`. `examples` are the data to predict of."""
    model = trainer.model
    sections = [
        facts(_numbers(trainer, history, seconds)),
        section("Metrics", *_curves(history)),
        section("Learning rate", _rates(trainer)),
        section("Gradients", *_gradients(monitor)),
        *_predictions(compared(trainer, examples)),
        section("Model", card("", model.summary()._repr_html_())),
        section("Graph", f"<div class='card'>{model.picture('graph')}</div>", note=_OPENS),
        section("Configuration", *_configuration(trainer, configuration)),
    ]
    subtitle = f"{trainer!r}".strip("<>")
    return write_atomically(path, page(model.name, subtitle, sections).encode())


_OPENS = "A box with a + opens where it is clicked; resting on a box shows its line and its cost."


def _numbers(trainer: Trainer, history: History, seconds: float | None) -> dict[str, str]:
    """The figures at the top."""
    count = elements(trainer.model.parameters.values())
    found = {"epochs": f"{trainer.epoch:,}", "steps": f"{trainer.step:,}"}
    found["parameters"] = grouped(count)
    if seconds:
        found["training"] = duration(seconds)
    best = history.best
    chosen = [name for name in best if name.startswith("val_")] or list(best)
    for name in chosen[:4]:
        found[f"best {name}, epoch {best[name].epoch}"] = number(best[name].value)
    return found


def _curves(history: History) -> Iterator[str]:
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


def _rates(trainer: Trainer) -> str:
    steps = sorted({round(x) for x in np.linspace(0, max(0, trainer.step - 1), _RATES)})
    rates = [learning_rate(trainer.recipe, step) for step in steps]
    known = [(step, rate) for step, rate in zip(steps, rates, strict=True) if rate is not None]
    if not known:
        return ""
    points = [float(step) for step, _ in known], [rate for _, rate in known]
    return card("", line_chart({"learning rate": points}, "step"))


def _gradients(monitor: Monitor | None) -> Iterator[str]:
    """Norms of gradients and sizes of updates of layers over the steps, and the last as a table."""
    measured = monitor.measurements if monitor is not None else []
    if not measured:
        return
    names = list(measured[-1].layers)
    stride = max(1, math.ceil(len(names) / _LAYERS))
    chosen = list(dict.fromkeys([*names[::stride], names[-1]])) if names else []
    steps = [float(m.step) for m in measured]
    gradients = {n: (steps, [m.layers[n].gradient for m in measured]) for n in chosen}
    ratios = {n: (steps, [m.layers[n].ratio for m in measured]) for n in chosen}
    yield card("norm of the gradient", line_chart(gradients, "step", log=True))
    yield card("update in units of the weights", line_chart(ratios, "step", log=True))
    rows = [("layer", "gradient", "weight", "update/weight", "line")]
    rows += [
        (x.layer, f"{x.gradient:.2e}", f"{x.weight:.2e}", f"{x.ratio:.2e}", x.place)
        for x in measured[-1].layers.values()
    ]
    yield card(f"at step {measured[-1].step:,}", html_table(rows, (1, 2, 3)))
    for message in measured[-1].warnings().values():
        yield card("warning", f"<p>{escape(message)}</p>")


def _predictions(found: Compared | None) -> Iterator[str]:
    """How predictions compare with targets, and the most wrong of them."""
    if found is None:
        return
    note = f"{found.output} beside {found.target}, of {len(found.true):,} examples"
    if found.count is not None:
        right = float((found.predicted == found.true).mean())
        matrix = heat_table(found.confusion) if found.count <= _CLASSES else ""
        yield section(
            "Confusion matrix",
            card("", matrix),
            card("by class", html_table(_by_class(found.confusion), range(4))),
            note=f"{note}, {right:.1%} right",
        )
    else:
        predicted, true = found.predicted.reshape(-1), found.true.reshape(-1)
        residuals = predicted - true
        residuals = residuals[np.isfinite(residuals)]
        counts, edges = np.histogram(residuals, 30) if residuals.size else ((), ())
        spread = float(np.sqrt(np.mean(residuals**2))) if residuals.size else math.nan
        pairs = true.tolist(), predicted.tolist()
        yield section(
            "Residuals",
            card(
                f"{found.output} over {found.target}",
                scatter_chart(pairs, "target"),
            ),
            card("prediction − target", bar_chart(list(edges), list(counts), "residual")),
            note=f"{note}; root mean square {number(spread)}",
        )
    yield section("Most wrong", card("", _most_wrong(found)))


def _by_class(table: Array) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("class", "examples", "precision", "recall")]
    for i, right in enumerate(table.diagonal()):
        predicted, true = table[:, i].sum(), table[i].sum()
        shares = [f"{right / n:.3f}" if n else "–" for n in (predicted, true)]
        rows.append((str(i), f"{true:,}", *shares))
    return rows


def _most_wrong(found: Compared) -> str:
    order = np.argsort(-np.nan_to_num(found.doubt, nan=np.inf), kind="stable")[:_SAMPLES]
    names = [n for n, x in found.inputs.items() if len(x) == len(found.true)]
    head = "".join(
        f"<th>{escape(text)}</th>" for text in ("example", *names, "target", "predicted")
    )
    rows = []
    for i in order:
        cells = [str(i), *(shown(np.asarray(found.inputs[n][i])) for n in names)]
        cells += [shown(np.asarray(x[i])) for x in (found.true, found.predicted)]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _configuration(trainer: Trainer, configuration: Mapping[str, Any] | None) -> Iterable[str]:
    recipe = trainer.recipe
    rows: list[Sequence[str]] = [
        *(("update", str(update)) for update in recipe.updates),
        ("seed", str(trainer.seed)),
        ("batch size", str(recipe.batch_size)),
        ("provider", str(trainer.providers)),
        *((name, str(x)) for name, x in (configuration or {}).items()),
    ]
    for name in ("freeze", "recompute", "accumulate"):
        value = getattr(recipe, name)
        if value not in ((), 1):
            rows.append((name, str(value)))
    found = {**versions(), "processors": os.cpu_count()}
    environment = [(name, str(x)) for name, x in found.items() if x is not None]
    return (
        card("training", html_table(rows, header=0)),
        card("environment", html_table(environment, header=0)),
    )
