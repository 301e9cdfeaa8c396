"""What is exported of a file that was imported, run: the model, a training step, TorchScript, and
factors of low rank."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from nncompile.compiler.adapters import load_lora, merge
from nncompile.compiler.export import export
from nncompile.compiler.originals import inference_target
from nncompile.finetuning.plan import Plan, tuned
from nncompile.frontends.onnx.loading import ImportedModel, load_onnx
from nncompile.runtime import Session
from nncompile.train import Trainer
from nncompile.verify.onnx_files import difference_of
from tests.onnx_models.examples import Case
from tests.sessions import plain_session

STEPS = 3
LOSSES = 1e-5  # how far losses may be apart, relative to the larger of them and 1
MEANS = 1e-4  # of gradients in single, of weights that are off by rounding


def as_numbers(model: ImportedModel, cases: Iterable[Case], directory: Path) -> tuple[float, str]:
    """The largest difference of the exported model from its file, relative to the largest element,
    as onnxruntime runs it by default and without its optimizations; and what is wrong."""
    (path,) = export(model, directory / "again.onnx")
    largest, problem = 0.0, ""
    for optimization in ("all", "none"):
        session = Session(path, threads=1, optimization=optimization)
        for case in cases:
            found = session.run(case.feeds)
            names = f"{case.name}, optimizations {optimization}"
            largest, problem = _worse(largest, problem, found.values(), case.expected, names)
    return largest, problem


def as_torchscript(
    model: ImportedModel, cases: Iterable[Case], directory: Path
) -> tuple[float, str]:
    """The same of the TorchScript file, as torch runs it."""
    torch = importlib.import_module("torch")
    (path,) = export(model, directory / "net.pt")
    module = torch.jit.load(str(path))
    names = list(model.inference().of_kind("input"))
    largest, problem = 0.0, ""
    for case in cases:
        found = module(*(torch.from_numpy(np.array(case.feeds[n])) for n in names))
        arrays = [found[n].detach().numpy() for n in model.predict]
        largest, problem = _worse(largest, problem, arrays, case.expected, case.name)
    return largest, problem


def _worse(
    largest: float, problem: str, found: Iterable[Any], expected: Iterable[Any], case: str
) -> tuple[float, str]:
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        difference, fault = difference_of(y, x)
        largest = max(largest, difference)
        if fault is not None:
            problem = problem or f"output {i} {fault} with {case}"
    return largest, problem


def as_step(plan: Plan, directory: Path) -> tuple[float, str]:
    """The exported training step, run by onnxruntime and numpy alone: how far the means of Adam's
    gradients after some steps are from those of a trainer, relative to their length, 0 where the
    whole state is the same bits; and what is wrong. (A trainer runs another form of the step on
    small batches, whose sums are rounded in another way. Weights would not tell: where a gradient
    is 0 but for rounding, Adam divides it by its own size.)"""
    made = tuned(plan)
    data = made.data[0]
    state_file, path = export(made.recipe, directory / "step.onnx", "step")
    session = plain_session(path)
    following = json.loads(session.get_modelmeta().custom_metadata_map["nncompile.state"])
    state = load_file(state_file)
    trainer = Trainer(made.recipe, threads=1)
    for k in range(STEPS):
        loss, *new = session.run(["loss", *following.values()], {**state, **data})
        state |= {n: np.asarray(x) for n, x in zip(following, new, strict=True)}
        expected = trainer.fit(data, steps=1, shuffle=False, verbose=0)["loss"][-1]
        if not _is_close(float(loss), expected):
            return np.inf, f"the loss of step {k + 1} is {float(loss):.7g}, not {expected:.7g}"
    end = trainer.state
    if all(np.array_equal(x, end[n]) for n, x in state.items()):
        return 0.0, ""
    means = {n: x for n, x in end.items() if n.endswith(".m")}
    off = _length({n: state[n] - x for n, x in means.items()}) / _length(means)
    return off, "" if off <= MEANS else f"its mean gradients are {off:.1e} off"


def _length(arrays: Mapping[str, Any]) -> float:
    return math.sqrt(sum(float(np.sum(np.square(x, dtype=np.float64))) for x in arrays.values()))


def _is_close(loss: float, expected: float) -> bool:
    return abs(loss - expected) <= LOSSES * max(1.0, abs(expected))


def torchscript_step_problem(plan: Plan, directory: Path) -> str:
    """How the losses of the TorchScript step differ from those of the trainer."""
    torch = importlib.import_module("torch")
    made = tuned(plan)
    data = made.data[0]
    (path,) = export(made.recipe, directory / "step.pt", "torchscript-step")
    step = torch.jit.load(str(path))
    trainer = Trainer(made.recipe, threads=1)
    arrays = [torch.from_numpy(np.array(data[name])) for name in made.recipe.model.inputs]
    for k in range(STEPS):
        found = float(step.train_step(*arrays)["loss"])
        expected = trainer.fit(data, steps=1, shuffle=False, verbose=0)["loss"][-1]
        if not _is_close(found, expected):
            return f"the loss of step {k + 1} is {found:.7g}, not {expected:.7g}"
    return ""


def adapter_problem(trainer: Trainer, plan: Plan, directory: Path) -> str:
    """What is wrong with the file of the factors, loaded onto the file again, merged, and run by
    onnxruntime; empty where its numbers are those that the trainer predicts."""
    (path,) = export(trainer, directory / "adapter.safetensors")
    merged = merge(load_lora(load_onnx(plan.file), path))
    target, _ = inference_target(merged)
    (file,) = export(merged, directory / "adapted.onnx", target)
    data = dict(np.load(plan.data))
    session = Session(file, threads=1, optimization="none")
    found = session.run({port.name: data[port.name] for port in session.inputs})
    (name,) = (n for n in trainer.model.predict if n == plan.predict)
    expected = trainer.predict({n: data[n] for n in merged.inputs})[name]
    given = dict(zip(merged.predict, found.values(), strict=True))[name]
    _, fault = difference_of(expected, given)
    start = Session(plan.file, threads=1, optimization="none").run(
        {port.name: data[port.name] for port in session.inputs}
    )
    if np.array_equal([*start.values()][[*merged.predict].index(name)], given):
        return "the factors change nothing"
    return "" if fault is None else f"the adapted output {fault} as {target}"
