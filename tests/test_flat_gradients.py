"""Halves of a step whose gradients lie in a few vectors compute what the others do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from dsl import Dense, f32, i64
from nncompile import compile_step, export
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.interpreter import evaluate
from nncompile.optim import adam
from nncompile.program.composition import compose
from nncompile.program.flat_gradients import flattened
from nncompile.program.recipe import minimize
from tests.parallel_checks import classifier, data, recipe
from tests.reduced_steps import step_of_several


def run(file: Path, feeds: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outputs, and what the file says of its tensors."""
    session = onnxruntime.InferenceSession(file)
    names = [x.name for x in session.get_outputs()]
    results = session.run(names, {x.name: feeds[x.name] for x in session.get_inputs()})
    about = json.loads(session.get_modelmeta().custom_metadata_map["nncompile.reduce"])
    return dict(zip(names, results, strict=True)), about


def test_flat_halves_are_the_halves(tmp_path: Path) -> None:
    """To the bit; and the metadata say which tensor lies where."""
    step = compile_step(recipe(optimizer=adam(1e-2), clip_norm=0.1))
    state = step.source.initial()
    feeds = {**state, **data(), "first_row": np.array(0)}
    results = []
    for flat in (False, True):
        for to in ("gradient", "update"):
            export(step, tmp_path / f"{to}.onnx", to, flat=flat, seed=0)
        gradients, about = run(tmp_path / "gradient.onnx", feeds)
        found, other = run(tmp_path / "update.onnx", {**state, **gradients})
        if flat:
            assert about["gradients"] == ["gradients.0"]
            assert about["tensors"]["gradients.0"] == {
                "reduce": "mean",
                "weight": "loss.batch_weight",
            }
            assert about["flat"] == other["flat"]
            (vector,) = (gradients.pop(name) for name in about["gradients"])
            for name, first, shape in (x.values() for x in about["flat"]["gradients.0"]):
                length = int(np.prod(shape))
                gradients[name] = vector[first : first + length].reshape(shape)
            assert sum(x.size for n, x in gradients.items() if n.endswith(".grad")) == len(vector)
        results.append((gradients, found))
    for plain, flat_ in zip(*results, strict=True):
        assert plain.keys() == flat_.keys()
        for name, x in plain.items():
            np.testing.assert_array_equal(flat_[name], x, err_msg=name)


def test_vectors_have_bounds_and_one_rule_each() -> None:
    def two(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
        found = classifier(image, label)
        other = image >> Dense(4, name="other") >> Dense(2, name="last")
        return {"loss": found["loss"], "sum": (other * other).sum()}

    ways = [
        minimize("loss", optimizer=adam(1e-2), params=["hidden.*", "out.*"]),
        minimize("sum", optimizer=adam(1e-2), params=["other.*", "last.*"]),
    ]
    step = compose(recipe(two, updates=ways, optimizer=None))
    flat = flattened(step, 4 * 60)
    places = {n: [x.name for x in found] for n, found in flat.reductions.flat.items()}
    assert places == {
        "gradients.0": ["out.bias.grad", "out.weight.grad"],
        "gradients.1": ["hidden.bias.grad"],
        "gradients.2": ["hidden.weight.grad"],
        "gradients.3": [
            "last.bias.grad",
            "last.weight.grad",
            "other.bias.grad",
            "other.weight.grad",
        ],
    }
    batch, state = data(), step.initial()
    expected = step_of_several(step, state, batch, (20, 23))
    found = step_of_several(flat, state, batch, (20, 23))
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)
    assert evaluate(flat.gradient, {**state, **batch, "first_row": 0})["gradients.2"].shape == (96,)


def test_what_hands_no_gradients_over_is_not_flat(tmp_path: Path) -> None:
    for to in ("step", "onnx"):
        with pytest.raises(ModelError, match=f"{to} hands no gradients over"):
            export(recipe(), tmp_path / "step.onnx", to, flat=True)
