"""All rows of the coverage table."""

from __future__ import annotations

from tests.coverage import (
    algebra,
    arrays,
    generative,
    losses,
    monitoring,
    networks,
    noise,
    optimizers,
    recipes,
    types,
)
from tests.coverage.checks import System

SYSTEMS: tuple[System, ...] = (
    *networks.ROWS,
    *types.ROWS,
    *arrays.ROWS,
    *algebra.ROWS,
    *losses.ROWS,
    *recipes.GRADIENT_ROWS,
    *recipes.INITIAL_ROWS,
    *optimizers.ROWS,
    *recipes.RECIPE_ROWS,
    *recipes.REGULAR_ROWS,
    *noise.ROWS,
    *monitoring.ROWS,
    *generative.ROWS,
)
