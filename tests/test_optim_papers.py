"""Optimizers that torch lacks, and Muon, whose iteration there is in bfloat16: against
transcriptions of the papers in numpy's float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile import optim
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f64
from nncompile.optim import lamb, lion, muon
from nncompile.program.composition import compose
from nncompile.program.recipe import training
from nncompile.train import Trainer
from tests.small_models import data, perceptron
from tests.test_optim import CASES

STEPS = 10


# Each makes the next parameter of (w, g, slots, t), t from 1.
def lion_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    m = s.get("m", 0.0)
    update = np.sign(0.9 * m + (1 - 0.9) * g)
    s["m"] = 0.8 * m + (1 - 0.8) * g
    return w - 0.01 * (update + 0.1 * w)


def lamb_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g**2
    m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.999**t)
    update = m / (np.sqrt(v) + 1e-6) + 0.1 * w
    length, size = np.linalg.norm(w), np.linalg.norm(update)
    return w - 0.01 * (length / size if length and size else 1.0) * update


def adamw_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g**2
    m, v = s["m"] / (1 - 0.9**t), s["v"] / (1 - 0.999**t)
    return w - 0.02 * (m / (np.sqrt(v) + 1e-8) + 0.1 * w)


def muon_of_the_paper(w: Any, g: Any, s: dict[str, Any], t: int) -> Any:
    if w.ndim != 2:
        return adamw_of_the_paper(w, g, s, t)
    s["b"] = 0.95 * s.get("b", 0.0) + 0.05 * g
    x = 0.05 * g + 0.95 * s["b"]
    x = x / max(np.linalg.norm(x), 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    size = np.sqrt(max(1, w.shape[1] / w.shape[0]))
    return w * (1 - 0.02 * 0.1) - 0.02 * size * x


PAPERS = {
    "lion": (lion(0.01, betas=(0.9, 0.8), weight_decay=0.1), lion_of_the_paper),
    "lamb": (lamb(0.01, weight_decay=0.1), lamb_of_the_paper),
    "muon": (muon(0.02), muon_of_the_paper),
}


def test_each_optimizer_is_compared_here_or_with_torchs() -> None:
    compared = {type(case.ours) for case in CASES.values()} | {type(o) for o, _ in PAPERS.values()}
    things = [getattr(optim, name) for name in optim.__all__]
    optimizers = {x for x in things if isinstance(x, type) and issubclass(x, optim.Optimizer)}
    assert optimizers - {optim.Optimizer} <= compared


@pytest.mark.parametrize("name", PAPERS)
def test_ten_steps_are_those_of_the_paper(name: str) -> None:
    """In double to 1e-9; in single precision through onnxruntime to the table's bound."""
    optimizer, paper = PAPERS[name]
    step = compose(training(perceptron(f64), optimizer=optimizer))
    trainer = Trainer(training(perceptron(), optimizer=optimizer))
    start = {path: x.astype(np.float64) for path, x in trainer.params.items()}
    state = step.initial(0) | start
    expected, slots = dict(start), {path: dict[str, Any]() for path in start}
    for t in range(1, STEPS + 1):
        batch = data(16, t, "float64")
        at = {**state, **expected, **batch}
        gradients = {path: evaluate(step.gradient, at)[f"{path}.grad"] for path in expected}
        expected = {p: paper(w, gradients[p], slots[p], t) for p, w in expected.items()}
        result = evaluate(step.step, {**state, **batch})
        state |= {path: result[following] for path, following in step.state_map.items()}
    trainer.fit([data(16, t) for t in range(1, STEPS + 1)], epochs=1)
    for path, x in expected.items():
        np.testing.assert_allclose(state[path], x, 1e-9, 1e-9, err_msg=path)
        # The orthogonal factor of a matrix of small singular values is less well conditioned.
        relative = 5e-5 if name == "muon" else 2e-5
        np.testing.assert_allclose(trainer.params[path], x, relative, relative / 10, err_msg=path)
