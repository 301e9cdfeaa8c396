"""Exported training steps: they train as the trainer does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from nncompile.compiler.export import export
from nncompile.diagnostics.errors import ModelError
from nncompile.optim import adam, adamw, cosine, sgd
from nncompile.program.composition import compose
from nncompile.runtime.tensor_files import state_path
from nncompile.train import Trainer
from tests.export_checks import recipe, run, session
from tests.small_models import data
from tests.tolerances import assert_close


def test_the_exported_step_trains_as_the_trainer_does(tmp_path: Path) -> None:
    """With onnxruntime and numpy alone, bit for bit."""
    declared = recipe(optimizer=adamw(cosine(1e-2, warmup=2, steps=20)), clip_norm=1.0)
    ours = Trainer(declared, native=False)
    state_file, path = export(ours.recipe, tmp_path / "step.onnx", to="step")
    assert state_file == state_path(path) == tmp_path / "step.state.safetensors"
    history = ours.fit(data(), epochs=3)

    loaded, state, whole = session(path), load_file(state_file), data()
    following = json.loads(loaded.get_modelmeta().custom_metadata_map["nncompile.state"])
    losses = []
    for epoch in range(3):
        order = np.random.default_rng([int(state["seed"]), epoch]).permutation(50)
        total = 0.0
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            batch = {name: x[rows] for name, x in whole.items()}
            loss, *new = loaded.run(["loss", *following.values()], {**state, **batch})
            state |= {n: np.asarray(x) for n, x in zip(following, new, strict=True)}
            total += float(loss) * len(rows)
        losses.append(total / 50)
    assert losses == history["loss"]
    for name, x in ours.state.items():
        np.testing.assert_array_equal(state[name], x, err_msg=name)


@pytest.mark.parametrize("optimizer", [sgd(0.1), sgd(0.1, momentum=0.9), adam(1e-2)])
def test_gradient_then_update_is_the_step(tmp_path: Path, optimizer: Any) -> None:
    """To rounding: passes put the update of the whole step into its matrix products."""
    declared = recipe(optimizer=optimizer)
    paths = {to: export(declared, tmp_path / f"{to}.onnx", to)[-1] for to in TARGETS}
    state = load_file(state_path(paths["step"]))
    whole = run(paths["step"], {**state, **data(16)})
    first = run(paths["gradient"], {**state, **data(16), "first_row": np.array(0)})
    second = run(paths["update"], {**state, **first})
    assert {**first, **second}.keys() - whole.keys() == {
        "loss.batch_weight",
        *(f"{path}.grad" for path in compose(declared).parameters),
    }
    for name, x in whole.items():
        assert_close({**first, **second}[name], x, str(np.asarray(x).dtype), name)


TARGETS = ("step", "gradient", "update")


def test_the_step_starts_at_the_parameters_that_are_given(tmp_path: Path) -> None:
    ours = Trainer(recipe())
    ours.fit(data(), epochs=1)
    state_file, _ = export(ours.recipe, tmp_path / "a.onnx", "step", params=ours.state)
    for name, x in load_file(state_file).items():
        np.testing.assert_array_equal(x, ours.state[name])
    state_file, _ = export(ours.recipe, tmp_path / "b.onnx", "step", params=ours.params)
    state = load_file(state_file)
    np.testing.assert_array_equal(state["out.weight"], ours.params["out.weight"])
    assert state["step"] == 0
    other = Trainer(ours.recipe)
    other.load(state_file)
    np.testing.assert_array_equal(other.params["out.weight"], ours.params["out.weight"])


def test_a_wrong_state_of_a_step_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"params does not fit this model: 3 missing, 1 unknown"):
        export(recipe(), tmp_path / "step.onnx", "step", params={"out": 1})
    with pytest.raises(ModelError, match="leave external_data out"):
        export(recipe(), tmp_path / "step.onnx", "step", external_data=True)
    assert not list(tmp_path.iterdir())
