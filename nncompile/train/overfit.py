"""The first question to a model that does not learn: can it learn one batch by heart?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nncompile.compiler.compile import CompiledStep, compiled_step
from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.program.recipe import Recipe
from nncompile.runtime.providers import Provider
from nncompile.train.data import Feeder


@dataclass(frozen=True, repr=False)
class Overfit:
    """Each loss of the recipe over the steps on one batch."""

    losses: Mapping[str, list[float]]

    @property
    def learns(self) -> bool:
        """Whether the last value of a loss is below its first. Of several losses some may rise: a
        generator's does while its discriminator learns."""
        return any(x[-1] < x[0] for x in self.losses.values())

    def __repr__(self) -> str:
        return f"<Overfit: {self}>"

    def __str__(self) -> str:
        steps = max(map(len, self.losses.values()))
        figures = ", ".join(f"{n} {x[0]:.4g} → {x[-1]:.4g}" for n, x in self.losses.items())
        return f"{figures} in {steps} steps"


@suggests_names
def overfit_one_batch(
    recipe: Recipe | CompiledStep,
    batch: Mapping[str, Any],
    steps: int = 200,
    seed: int | None = None,
    providers: Provider | Sequence[Provider] = "cpu",
    threads: int | None = None,
) -> Overfit:
    """Trains a new model of the recipe for `steps` on the one batch. A network that cannot bring
    this loss to almost nothing has a mistake, or too few parameters; dropout and penalties keep
    it up too.

    Raises `ModelError` where no update follows a gradient, `FeedError` for a batch that does not
    fit.
    """
    whole_number("steps", steps, 1)
    compiled = compiled_step(recipe)
    source = compiled.source
    names = source.recipe.losses
    if not names:
        raise ModelError("no update of the recipe follows a gradient")
    runner = compiled.runner(source.initial(seed), providers, threads)
    model = source.recipe.model
    ports = [port for port in runner.ports if port.name in model.inputs]
    feeder = Feeder([batch], model, ports, 1, compiled.sizes)
    (batch,) = feeder.epoch()
    feeder.check_numbers(batch)
    losses: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(steps):
        runner.step(batch)
        metrics = runner.metrics()
        for name in losses:
            losses[name].append(float(metrics[name]))
    return Overfit(losses)
