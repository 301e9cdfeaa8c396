"""Steps that are compiled as another process would, and whether the compile cache had them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsl import Dense, Dropout, adam, f32, mean, model, tanh, training
from nncompile.compiler.cache_place import active_cache
from nncompile.compiler.compile import CompiledStep, compile_step
from nncompile.ir.op import Value
from nncompile.program.recipe import Recipe


def recipe(width: int = 4, activation: Any = tanh, optimizer: Any = None, **options: Any) -> Recipe:
    @model
    def net(x: Value = f32["batch", 3]) -> dict[str, Value]:
        y = x >> Dense(width, activation, name="first") >> Dropout(0.5) >> Dense(1, name="second")
        return {"y": y, "loss": mean(y * y)}

    return training(net, optimizer=optimizer or adam(1e-3), **options)


def fresh(recipe: Recipe, **options: Any) -> CompiledStep:
    """The step, as another process compiles it: with nothing in memory."""
    cache = active_cache()
    if cache is not None:
        cache._memory.clear()
    return compile_step(recipe, **options)


def is_hit(recipe: Recipe, **options: Any) -> bool:
    compiled = fresh(recipe, **options)
    assert compiled.content("step")
    return compiled.report.is_cached


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []
