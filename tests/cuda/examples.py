"""The training step of every example on the device and on the CPU, from one state on equal
batches."""

from __future__ import annotations

import re
import runpy
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.compiler.compile import compile_step
from nncompile.program.model_file import load as load_file
from nncompile.program.recipe import Recipe
from tests.cuda.device import Placement, placed, providers
from tests.trained_examples import EXAMPLES

STEPS = 5


@dataclass(frozen=True)
class Trained:
    """An example's first steps on both."""

    name: str
    loss: float = np.nan  # of the last of these steps, on the CPU
    difference: float = np.nan  # of the loss, relative, the largest of these steps
    state_difference: float = np.nan  # of the state, relative to the largest element of a tensor
    worst: str = ""  # the tensors of the state that differ most
    repeated: bool = True  # whether the same step gives the same bits again
    nodes: int = 0
    on_cpu: tuple[tuple[str, int], ...] = ()
    sizes_on_cpu: int = 0
    copies: int = 0
    seconds: float = 0.0
    problem: str = ""


def names() -> list[str]:
    """The examples that declare a recipe with data."""
    texts = {path.stem: path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.py"))}
    return [
        name
        for name, text in texts.items()
        if "training(" in text and re.search(r"^(data =|def data\()", text, re.MULTILINE)
    ]


# Of examples that are programs, and no model files: their recipe, and the data that it trains on.
PROGRAMS: dict[str, Callable[[dict[str, Any]], tuple[Recipe, Any]]] = {
    "finetune_cnn": lambda found: (found["recipe"](1e-3), found["data"]()[0]),
    "keras_continued": lambda found: (found["recipe"], found["data"]()[0]),
    "lora_bert": lambda found: (found["recipes"]["all weights"], found["data"]()[0]),
}


def recipe_and_data(name: str) -> tuple[Recipe, Any]:
    """What an example trains, and on which data."""
    file = EXAMPLES / f"{name}.py"
    if name not in PROGRAMS:
        declared = load_file(file)
        assert declared.data is not None
        return next(iter(declared.recipes.values())), declared.data.train
    sys.path.insert(0, str(EXAMPLES))  # they import each other
    try:
        return PROGRAMS[name](runpy.run_path(str(file), run_name=name))
    finally:
        sys.path.remove(str(EXAMPLES))


def check(name: str, provider: str) -> Trained:
    """Trains the example for a few steps on both."""
    start = time.perf_counter()
    try:
        return _check(name, provider, start)
    except Exception as error:
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Trained(name, problem=problem, seconds=time.perf_counter() - start)


def _check(name: str, provider: str, start: float) -> Trained:
    recipe, data = recipe_and_data(name)
    compiled = compile_step(recipe, kernels=False)
    sides = [compiled.runner(None, given, 1) for given in ("cpu", _exact(provider))]
    worst: dict[str, tuple[float, float, int]] = {}
    losses: list[list[float]] = [[], []]
    repeated = True
    for i, batch in enumerate(_batches(data, int(recipe.batch_size))):
        before = sides[0].state()
        results = []
        for side, kept in zip(sides, losses, strict=True):
            side.load(before)
            side.step(batch)
            results.append(side.state())
            kept.append(float(next(iter(side.metrics().values()))))
        sides[1].load(before)
        sides[1].step(batch)
        again = sides[1].state()
        repeated &= all(np.array_equal(again[n], x, True) for n, x in results[1].items())
        for n, x in results[0].items():
            found = (_difference(results[1][n], x), float(np.abs(x).max(initial=0)), i + 1)
            worst[n] = max(worst.get(n, (-1.0, 0.0, 0)), found)
    placement = placed(compiled.step_model) if provider == "cuda" else Placement(0, (), 0, (), 0)
    found_worst = sorted(worst.items(), key=lambda pair: pair[1], reverse=True)
    cpu, device = (np.array(x) for x in losses)
    return Trained(
        name,
        cpu[-1],
        float(np.max(np.abs(device - cpu) / np.maximum(np.abs(cpu), 1e-12))),
        found_worst[0][1][0],
        ", ".join(f"{n} {d:.1e} of {m:.1e} at step {i}" for n, (d, m, i) in found_worst[:4]),
        repeated,
        placement.nodes,
        tuple(Counter(placement.kinds).most_common()),
        placement.sizes_on_cpu,
        placement.copies,
        time.perf_counter() - start,
    )


def _batches(data: Any, size: int) -> Iterator[dict[str, np.ndarray]]:
    if not isinstance(data, dict):
        raise TypeError(f"the data are no dict of arrays, but {type(data).__name__}")
    count = min(len(x) for x in data.values())
    for i in range(STEPS):
        first = i * size % max(1, count - size + 1)
        yield {n: np.asarray(x)[first : first + size] for n, x in data.items()}


def _exact(provider: str) -> Any:
    return provider if provider == "cpu" else (provider, providers(provider)[0][1])


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    if expected.dtype.kind not in "f":
        return float(np.any(actual != expected))
    if not expected.size:
        return 0.0
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(actual.astype(float) - expected.astype(float)).max()) / scale


def line(row: Trained) -> str:
    """The row of the report."""
    if row.problem:
        return f"  {row.name:24s} {row.problem}"
    hosted = ", ".join(f"{n}× {node}" for node, n in row.on_cpu) or "none"
    return (
        f"  {row.name:24s} loss {row.loss:9.4g} differs {row.difference:.1e}, state "
        f"{row.state_difference:.1e}; {row.nodes} nodes, {row.sizes_on_cpu} of sizes on the CPU, "
        f"{row.copies} copies, {row.seconds:.1f} s; data on the CPU: {hosted}"
        f"\n{'':26s} bits {'equal' if row.repeated else 'DIFFER'} when repeated; {row.worst}"
    )
