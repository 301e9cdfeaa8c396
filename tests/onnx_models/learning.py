"""Fifty steps of training of a file, as `nncompile finetune` makes them: the loss, ties, states and
constants; and a few steps of factors beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nncompile.compiler.export import export
from nncompile.compiler.originals import inference_target
from nncompile.finetuning.objectives import with_loss
from nncompile.finetuning.plan import Plan, tuned
from nncompile.frontends.onnx.loading import ImportedModel, load_onnx
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.recipe import training
from nncompile.train import Trainer
from tests.onnx_models.examples import Examples

STEPS, FEW = 50, 3
ROWS, RANK = 16, 4
LABEL = "wanted"
_RATE = 1e-3
_LEAST_TIED = 16


@dataclass
class Learned:
    """A trainer that made the steps, the loss before and after them, and the file of the weights
    that it came to, as what they could be written."""

    trainer: Trainer
    before: float
    after: float
    target: str
    path: Path


def plan_of(model: Model, file: Path, examples: Examples, directory: Path) -> Plan:
    """A fine-tuning on random labels: classes where the output has some, else numbers near what it
    gives."""
    feeds = examples.batch(ROWS)
    outputs = [*examples.session.run(feeds).values()]
    name, expected = next(
        (n, x) for n, x in zip(model.predict, outputs, strict=True) if x.dtype.kind == "f"
    )
    random = np.random.default_rng(0)
    axis = 1 if expected.ndim > 3 else expected.ndim - 1
    if expected.ndim > 1 and expected.shape[axis] > 1:
        loss = "cross_entropy"
        shape = (*expected.shape[:axis], *expected.shape[axis + 1 :])
        wanted = random.integers(0, expected.shape[axis], shape)
    else:
        loss = "mse"
        wanted = (expected + random.standard_normal(expected.shape)).astype(np.float32)
    data = directory / "data.npz"
    np.savez(data, **feeds, **{LABEL: wanted})
    rows = next(iter(feeds.values())).shape[0]
    return Plan(str(file), str(data), LABEL, loss, predict=name, lr=_RATE, batch_size=rows)


def learned(plan: Plan, directory: Path) -> Learned:
    """What fifty steps of all weights come to."""
    made = tuned(plan)
    trainer = Trainer(made.recipe, threads=1)
    (data, _) = made.data
    before = trainer.evaluate(data)["loss"]
    trainer.fit(data, steps=STEPS, verbose=0)
    after = trainer.evaluate(data)["loss"]
    target, _ = inference_target(trainer.model)
    (path,) = export(trainer, directory / "tuned.onnx", target)
    return Learned(trainer, before, after, target, path)


def ties_of(file: Path) -> list[tuple[str, str]]:
    """Tensors of floats that a file stores twice, one maybe the transpose of the other; not those
    of one number again and again."""
    arrays = {n: x for n, x in stored(file).items() if x.dtype.kind == "f" and x.size}
    large = {n: x for n, x in arrays.items() if x.size >= _LEAST_TIED and np.ptp(x) > 0}
    names = list(large)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if same(large[a], large[b])]


def same(x: Any, y: Any) -> bool:
    """Whether they are equal, or each other's transposes."""
    turned = x.ndim == 2 and np.array_equal(x.T, y)
    return bool(turned or np.array_equal(x, y))


def stored(file: Path) -> dict[str, Any]:
    """The tensors that a file stores, those in nodes too, by name."""
    graph = onnx.load(file).graph
    found = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def broken_ties(model: ImportedModel, file: Path, result: Learned) -> Iterator[str]:
    """What is tied in a file and is not one parameter, or not tied in the file that was trained."""
    assert model.original is not None
    paths = {kept.name: kept.path for kept in model.original.tensors}
    after = stored(result.path) if result.target == "original" else {}
    for a, b in ties_of(file):
        if a not in paths and b not in paths:
            continue  # constants
        if paths.get(a) != paths.get(b):
            yield f"{a} and {b} are tied and not one parameter"
        elif after and not same(after[a], after[b]):
            yield f"{a} and {b} are no longer tied"


def changed_constants(model: ImportedModel, file: Path, result: Learned) -> Iterator[str]:
    """What was trained and is no weight: buffers, constants and statistics."""
    assert model.original is not None
    for path in {*model.states} & {*result.trainer.params}:
        yield f"the state {path} is trained"
    if result.target != "original":
        return
    own = {kept.name for kept in model.original.tensors}
    before, after = stored(file), stored(result.path)
    for name, x in before.items():
        if name not in own and x.tobytes() != after[name].tobytes():
            yield f"{name} is no parameter, and changed"


def adapted(plan: Plan) -> tuple[Trainer, list[str]]:
    """A trainer of a few steps of factors beside the weights, and what else they moved."""
    made = tuned(dataclasses.replace(plan, lora=RANK))
    trainer = Trainer(made.recipe, threads=1)
    start = trainer.state
    trainer.fit(made.data[0], steps=FEW, verbose=0)
    end = trainer.state
    model = made.recipe.model
    factors = {name for change in model.adapters.values() for name in (change.a, change.b)}
    held = {*model.parameters, *model.states} - factors - {*RANDOM_STATE}
    moved = {path for path in start if not np.array_equal(start[path], end[path])}
    problems = [f"{path} moved beside factors" for path in sorted(held & moved)]
    if not factors & moved:
        problems.append("no factor moved")
    return trainer, problems


def moved_statistics(file: Path, plan: Plan) -> list[str]:
    """Statistics that move where batch normalization is by them in training, too."""
    model = load_onnx(file, training=False)
    if not model.states:
        return []
    assert plan.predict is not None
    data = dict(np.load(plan.data))
    net = with_loss(model, plan.loss, plan.predict, LABEL, data[LABEL]).model
    trainer = Trainer(training(net, minimize="loss", batch_size=plan.batch_size), threads=1)
    start = trainer.state
    trainer.fit(data, steps=FEW, verbose=0)
    end = trainer.state
    return [
        f"{path} moved without training=True"
        for path in set(model.states) - {*RANDOM_STATE}
        if not np.array_equal(start[path], end[path])
    ]
