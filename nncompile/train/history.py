"""What a training leaves behind: the metrics of its epochs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.hints import SuggestsNames
from nncompile.diagnostics.tables import html_table
from nncompile.train.directions import better
from nncompile.train.drawing import new_figure
from nncompile.train.figures import figures, number

_ABREAST = 3  # pictures in a row
_LISTED = 10  # epochs that a notebook shows, the last ones


class Best(NamedTuple):
    """The best value of a metric, and in which epoch of the history it was, counted from 1."""

    epoch: int
    value: float


def _no_metric(name: str, names: Collection[str]) -> ModelError:
    return ModelError(f"the history has no metric {name!r}", hint=did_you_mean(name, names))


class _BestByName(dict[str, Best]):
    def __missing__(self, name: str) -> Best:
        raise _no_metric(name, self)


@dataclass(repr=False)
class History(SuggestsNames):
    """The metrics of each epoch, in order; `history["loss"]` is one of them over time.

    Each is that of all examples of the epoch, each at the weights its own step began with: totals,
    averages and what is pooled (`roc_auc`) whatever the batches, another one the mean of its
    values for each batch.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)

    foreign_names: ClassVar[Mapping[str, str]] = {
        "history": 'history["loss"] is a list, history.to_pandas() a table',
        "epoch": "history.epochs are the metrics of each epoch",
        "params": "trainer.params",
    }

    def __getitem__(self, name: str) -> list[float]:
        """A metric over time. Raises `ModelError` for one that no epoch has."""
        if self.epochs and not any(name in epoch for epoch in self.epochs):
            raise _no_metric(name, self.epochs[-1])
        return [epoch[name] for epoch in self.epochs if name in epoch]

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[dict[str, float]]:
        return iter(self.epochs)

    @property
    def last(self) -> dict[str, float]:
        """The figures of the last epoch; nothing where there was none."""
        return self.epochs[-1] if self.epochs else {}

    @property
    def names(self) -> list[str]:
        """The metrics that are one number, in the order in which they came."""
        return list({n: None for epoch in self for n, x in epoch.items() if np.ndim(x) == 0})

    @property
    def best(self) -> dict[str, Best]:
        """For each metric its best value and the first epoch that had it, `history.best["loss"]`.

        Less is better, but for names with words such as accuracy (see
        `nncompile.train.directions.better`); NaN is never the best.
        """
        found = _BestByName()
        for name in self.names:
            sign = 1 if better(name) == "min" else -1
            values = [
                Best(i, float(epoch[name]))
                for i, epoch in enumerate(self, 1)
                if name in epoch and not math.isnan(epoch[name])
            ]
            if values:
                found[name] = min(values, key=lambda x: sign * x.value)
        return found

    def points(self, name: str) -> tuple[list[int], list[float]]:
        """The epochs that have a metric, counted from 1, and its values. Raises `ModelError` for a
        name that the history does not have."""
        if name not in self.names:
            raise _no_metric(name, self.names)
        having = [(i, epoch[name]) for i, epoch in enumerate(self, 1) if name in epoch]
        return [i for i, _ in having], [x for _, x in having]

    def plot(self, metrics: str | Sequence[str] | None = None, log: bool = False) -> Any:
        """A figure of matplotlib with the metrics over epochs, those of training and validation in
        one picture; all of them unless some are named. `figure.savefig("curves.png")` writes it.

        Raises `ModelError` where matplotlib is not installed or for an unknown metric.
        """
        chosen = [metrics] if isinstance(metrics, str) else list(metrics or self.names)
        lines = {name: self.points(name) for name in chosen}
        panels: dict[str, list[str]] = {}
        for name in lines:
            panels.setdefault(name.removeprefix("val_"), []).append(name)
        columns = min(_ABREAST, len(panels)) or 1
        rows = -(-len(panels) // columns) or 1
        figure = new_figure(max(6.0, 4.0 * columns), 3.5 * rows)
        for i, (title, names) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, i)
            for name in names:
                epochs, values = lines[name]
                axes.plot(epochs, values, label=name, marker="." if len(epochs) <= 30 else None)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            if log:
                axes.set_yscale("log")
            axes.grid(alpha=0.3)
            axes.legend()
        return figure

    def to_pandas(self) -> Any:
        """A data frame of pandas: a row for each epoch, a column for each metric of one number.
        Raises `ModelError` where pandas is not installed."""
        pandas = extra("pandas", "pandas", "to_pandas", "pip install pandas", ModelError)
        index = pandas.RangeIndex(1, len(self) + 1, name="epoch")
        rows = [{name: epoch.get(name, math.nan) for name in self.names} for epoch in self]
        return pandas.DataFrame(rows, index=index, columns=self.names)

    def __repr__(self) -> str:
        last = figures(self.last)
        count = f"{len(self)} epoch{'s' * (len(self) != 1)}"
        return f"<History of {count}{': ' if last else ''}{last}>"

    def _repr_html_(self) -> str:
        names, best = self.names, self.best
        rows = [["epoch", *names]]
        first = max(0, len(self) - _LISTED)
        if first:
            rows.append(["…", *("" for _ in names)])
        for i, epoch in enumerate(self.epochs[first:], first + 1):
            rows.append([str(i), *(number(epoch[n]) if n in epoch else "" for n in names)])
        if len(self) > 1:
            places = (best.get(name) for name in names)
            rows.append(["best", *(f"{number(b.value)} ({b.epoch})" if b else "" for b in places)])
        return html_table(rows, range(len(names) + 1))
