"""The files of the examples that other runtimes run, and what onnxruntime computes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from nncompile.compiler.export import export
from nncompile.runtime import METADATA_KEY, load_state
from tests.cuda.examples import recipe_and_data

STEPS = 3


def write(name: str, directory: Path, opset: int) -> None:
    """Writes the inference model and the step of an example with initial weights, each with its
    arrays and a description."""
    recipe, arrays = recipe_and_data(name)
    data = {n: np.asarray(x) for n, x in arrays.items()}
    size = int(recipe.batch_size)
    starts = [i * size % max(1, min(map(len, data.values())) - size + 1) for i in range(STEPS)]
    batches = [{n: x[start : start + size] for n, x in data.items()} for start in starts]
    model, step = directory / f"{name}.model.onnx", directory / f"{name}.step.onnx"
    export(recipe, model, seed=0, opset=opset)
    state_file, _ = export(recipe, step, "step", seed=0, opset=opset, kernels=False)
    _describe(model, batches[:1], {})
    _describe(step, batches, load_state(state_file)[0])


def _describe(file: Path, batches: list[dict[str, np.ndarray]], state: dict[str, Any]) -> None:
    session = onnxruntime.InferenceSession(str(file))
    inputs = [x.name for x in session.get_inputs()]
    outputs = [x.name for x in session.get_outputs()]
    next_ = json.loads(session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "{}"))
    fixed = {n: x for n, x in state.items() if n in inputs and n not in next_}
    case = {
        "inputs": inputs,
        "outputs": outputs,
        "state": next_,
        "batch": [n for n in inputs if n not in next_],
        "compared": [n for n in outputs if n not in next_.values()],
        "runs": len(batches),
    }
    arrays = {f"state:{n}": state[n] for n in next_}
    for i, batch in enumerate(batches):
        feeds = {n: {**batch, **fixed, **state}[n] for n in inputs}
        results = dict(zip(outputs, session.run(None, feeds), strict=True))
        arrays |= {f"{i}:{n}": feeds[n] for n in case["batch"]}
        arrays |= {f"{i}:={n}": results[n] for n in case["compared"]}
        state = {**state, **{n: results[following] for n, following in next_.items()}}
    np.savez(file.with_suffix(".npz"), **arrays)
    file.with_suffix(".json").write_text(json.dumps(case), encoding="utf-8")
