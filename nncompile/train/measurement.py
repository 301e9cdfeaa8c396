"""What is measured of a training at one state, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from nncompile.diagnostics.tables import columns
from nncompile.ir.types import Array

VANISHING = 1e-3  # the gradient of the first layer, in units of that of the last
EXPLODING = 1e3
LARGE = 10.0  # the update of a layer, in units of its weights; 1e-3 is usual
DEAD = 0.5  # of the units of a layer


@dataclass(frozen=True)
class LayerFigures:
    """The Euclidean norms of a layer's parameters, of the gradient of the loss at them, and of what
    the next update adds to them."""

    layer: str
    place: str
    weight: float
    gradient: float
    update: float

    @property
    def ratio(self) -> float:
        """The update in units of the weights; about 1e-3 is usual (infinite where they are 0)."""
        return _ratio(self.update, self.weight)


@dataclass(frozen=True)
class ActivationFigures:
    """The mean and the standard deviation of what an elementwise nonlinearity gives on the batch,
    the share of it that is exactly zero, and which of its `units` are dead: those through which no
    example of the batch passes a gradient."""

    layer: str
    place: str
    formula: str
    mean: float
    deviation: float
    zeros: float
    dead: Array

    @property
    def units(self) -> int:
        """The number of units: of the last axis, after a convolution that of channels."""
        return self.dead.size

    @property
    def dead_share(self) -> float:
        """Of the units, how many are dead."""
        return float(self.dead.mean()) if self.dead.size else 0.0


@dataclass(frozen=True)
class Measurement:
    """What was measured at a state on a batch. `layers` are those that the loss trains, the first
    that the data meet first; for a recipe of several losses, those of each in turn (`losses` has
    the names of the layers of each)."""

    step: int
    layers: Mapping[str, LayerFigures]
    parameters: Mapping[str, LayerFigures]
    activations: Mapping[str, ActivationFigures]
    losses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """The figures as JSON has them; see `restored`."""
        stored = asdict(self)
        for figures in stored["activations"].values():
            figures["units"] = figures["dead"].size
            figures["dead"] = np.flatnonzero(figures["dead"]).tolist()
        return stored

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Measurement:
        """A measurement as it was `stored`."""
        activations = {}
        for name, figures in stored["activations"].items():
            dead = np.isin(np.arange(figures["units"]), figures["dead"])
            rest = {n: x for n, x in figures.items() if n not in ("units", "dead")}
            activations[name] = ActivationFigures(**rest, dead=dead)
        return cls(
            stored["step"],
            {name: LayerFigures(**x) for name, x in stored["layers"].items()},
            {name: LayerFigures(**x) for name, x in stored["parameters"].items()},
            activations,
            {loss: tuple(names) for loss, names in stored["losses"].items()},
        )

    def warnings(
        self, vanishing: float = VANISHING, exploding: float = EXPLODING, dead: float = DEAD
    ) -> dict[str, str]:
        """What is wrong, by kind (`vanishing`, `exploding`, `not finite` and `large step` of a
        loss, `dead` of a layer) with a message that names the layers and what helps.

        A gradient vanishes where its norm in the first layer is less than `vanishing` times that
        in the last, and explodes where it is more than `exploding` times that. Where all layers
        get too much alike, the next step tells: it is large where it adds more than `LARGE` times
        its weights to a layer. A layer is named where more than the share `dead` of its units is
        dead.
        """
        messages: dict[str, str] = {}
        for loss, names in self.losses.items():
            layers = [self.layers[name] for name in names]
            messages |= self._flow(loss, layers, vanishing, exploding)
        for name, a in self.activations.items():
            if a.dead_share > dead:
                messages[f"dead {name}"] = (
                    f"{int(a.dead.sum())} of {a.units} units of {name} ({a.place}), {a.formula}, "
                    "are dead: no example of the batch passes a gradient through them. A lower "
                    "learning rate, He initial weights, or leaky_relu, elu or gelu help"
                )
        return messages

    def _flow(
        self, loss: str, layers: Sequence[LayerFigures], vanishing: float, exploding: float
    ) -> Iterator[tuple[str, str]]:
        if len(layers) < 2:
            return
        first, last = layers[0], layers[-1]
        lost = [x for x in layers if not math.isfinite(x.gradient)]
        if lost:
            yield (
                f"not finite {loss}",
                f"the gradient of {loss} is not finite in {_label(lost[0])}. "
                "trainer.locate(batch) names the node that it comes from",
            )
            return
        ratio = _ratio(first.gradient, last.gradient)
        figures = (
            f"its norm is {first.gradient:.2g} in {_label(first)}, the first layer, and "
            f"{last.gradient:.2g} in {_label(last)}, the last"
        )
        if last.gradient == 0 and first.gradient == 0:
            return
        if ratio < vanishing:
            yield (
                f"vanishing {loss}",
                f"the gradient of {loss} vanishes: {figures}. relu, elu or gelu with He initial "
                "weights in place of sigmoid or tanh, residual connections, batch or layer "
                "normalization, or fewer layers help",
            )
        elif ratio > exploding:
            yield (
                f"exploding {loss}",
                f"the gradient of {loss} explodes: {figures}. Smaller initial weights (He, "
                "Glorot), batch or layer normalization, residual connections, or bounds, "
                "clip_norm=1.0, help",
            )
        widest = max(layers, key=lambda x: x.ratio if x.weight else 0.0)
        if widest.weight and widest.ratio > LARGE:
            yield (
                f"large step {loss}",
                f"the next step changes {_label(widest)} by {widest.ratio:.2g} times its weights, "
                f"the norm of its gradient is {widest.gradient:.2g}. A lower learning rate, "
                "smaller initial weights, or bounds, clip_norm=1.0, help",
            )

    def table(self) -> str:
        """The figures as text, a line for each layer and each nonlinearity."""
        text = columns(layer_rows(self))
        if self.activations:
            rows = [("activation", "mean", "deviation", "zeros", "dead", "line", "formula")]
            rows += [
                (
                    name,
                    f"{a.mean:.3f}",
                    f"{a.deviation:.3f}",
                    f"{a.zeros:.0%}",
                    f"{int(a.dead.sum())}/{a.units}",
                    a.place,
                    a.formula,
                )
                for name, a in self.activations.items()
            ]
            text += "\n\n" + columns(rows)
        return text

    def __str__(self) -> str:
        return self.table()


def layer_rows(measurement: Measurement) -> list[tuple[str, ...]]:
    """The figures of the layers under their titles, as text."""
    return [
        ("layer", "gradient", "weight", "update/weight", "line"),
        *(
            (x.layer, f"{x.gradient:.2e}", f"{x.weight:.2e}", f"{x.ratio:.2e}", x.place)
            for x in measurement.layers.values()
        ),
    ]


def _label(x: LayerFigures) -> str:
    return f"{x.layer} ({x.place})" if x.place else x.layer


def _ratio(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 else math.inf
    return a / b
