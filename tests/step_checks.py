"""A step of a training, in numpy."""

from __future__ import annotations

from typing import Any

from nncompile.ir.interpreter import evaluate
from nncompile.program.step import Step


def run(step: Step, state: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    """All outputs of one step."""
    result: dict[str, Any] = evaluate(step.step, {**state, **batch})
    return result


def followed(step: Step, state: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """The state, with what the outputs say of it."""
    return state | {path: result[following] for path, following in step.state_map.items()}


def state_after(step: Step, state: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
    """The state after one step."""
    return followed(step, state, run(step, state, batch))
