"""The averages of weights that a recipe keeps."""

from __future__ import annotations

from collections.abc import Mapping

from nncompile.diagnostics.errors import ModelError, did_you_mean


def average_of(averages: Mapping[str, Mapping[str, str]], name: str | None) -> Mapping[str, str]:
    """The slot of each parameter in the average of that name, or in the only one. Raises
    `ModelError` where there is none."""
    if name is None and len(averages) == 1:
        (name,) = averages
    if name is None and averages:
        raise ModelError(
            f"the recipe keeps {len(averages)} averages of the weights: {', '.join(averages)}",
            hint=f"say which: averaged({next(iter(averages))!r})",
        )
    if name is None or name not in averages:
        raise ModelError(
            "the recipe keeps no average of the weights"
            if name is None
            else f"the recipe keeps no average {name!r} of the weights",
            hint=did_you_mean(name, averages)
            if averages
            else "training(..., average=ema(0.999)) keeps one",
        )
    return averages[name]
