"""What a model gives with its first weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model


def outputs(of: Model, seed: int = 0, **inputs: Any) -> dict[str, Array]:
    """What the model gives with its first weights."""
    feeds = {"seed": np.int64(seed), "step": np.int64(0), **initial_values(of, seed), **inputs}
    known = of.graph.leaves
    return evaluate(of.graph, {n: x for n, x in feeds.items() if n in known})  # type: ignore[return-value]
