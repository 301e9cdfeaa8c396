"""Steps that write over their own state."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import onnx
import pytest

from dsl import adagrad, adam, adamw, lion, rmsprop, sgd, training
from nncompile import StepRunner, Trainer, TrainingError
from nncompile.ir.native import DOMAIN
from nncompile.runtime.in_place import overwritten
from tests.hand_made import build
from tests.native_checks import needs_library
from tests.small_models import data, perceptron


def _model(lines: str) -> onnx.ModelProto:
    """A step of a state `w` that reads `x`, and gives `next` and `y`."""
    return build(
        f"""step (float[4, 4] w, float[4, 4] x) => (float[4, 4] next, float[4, 4] y) {{
            {lines}
        }}""",
        {
            "shape": np.array([16]),
            "square": np.array([4, 4]),
            "gate": np.full((4, 1), 0.5, np.float32),
        },
        {"nncompile.state": '{"w": "next"}'},
    )


def test_what_is_read_before_is_overwritten() -> None:
    """By data alone: the product that is taken of w is part of what it becomes."""
    steps = {
        "elementwise": "next = Sub (w, x)  y = Neg (x)",
        "in one with a factor": "next = com.microsoft.GatedAdd (x, w, gate)  y = Neg (x)",
        "after a product": """
            p = MatMul (x, w)
            next = Add (w, p)
            y = Neg (x)""",
        "of the product alone": """
            p = MatMul (x, w)
            next = MatMul (p, x)
            y = Neg (x)""",
        "of a view that is done": """
            flat = Reshape (w, shape)
            e = Exp (flat)
            next = Reshape (e, square)
            y = Neg (x)""",
    }
    for name, lines in steps.items():
        assert overwritten(_model(lines), {"w": "next"}) == {"w"}, name


def _either(of: str) -> str:
    """Two branches that read the value."""
    branch = f"branch () => (float[4, 4] inner) {{ inner = Neg ({of}) }}"
    return f"<then_branch = {branch}, else_branch = {branch}>"


def test_what_may_be_read_later_is_not_overwritten() -> None:
    steps = {
        "a result beside it": "next = Sub (w, x)  y = MatMul (x, w)",
        "the maker itself": "next = MatMul (x, w)  y = Neg (x)",
        "a mixture": "next = Transpose (w)  y = Neg (x)",
        "three of which it is the last": "next = Max (x, x, w)  y = Neg (x)",
        "through a view": """
            flat = Reshape (w, shape)
            e = Exp (flat)
            next = Sub (w, x)
            y = Reshape (e, square)""",
        "a view in the maker": """
            flat = Flatten (w)
            next = Sub (flat, x)
            y = Neg (x)""",
        "within a branch": f"""
            next = Sub (w, x)
            y = If {_either("w")} (condition)""",
        "a view within a branch": f"""
            flat = Flatten (w)
            e = Exp (flat)
            next = Add (e, x)
            y = If {_either("flat")} (condition)""",
    }
    for name, lines in steps.items():
        assert not overwritten(_model(lines), {"w": "next"}), name
    other = build("step (float[1] w, float[4] x) => (float[4] next) { next = Sub (w, x) }")
    assert not overwritten(other, {"w": "next"})


OPTIMIZERS = {
    "adam": (adam(1e-2), {}),
    "adamw, clipped": (adamw(1e-2), {"clip_norm": 1.0}),
    "momentum": (sgd(1e-2, momentum=0.9, nesterov=True), {}),
    "lion": (lion(1e-2), {}),
    "rmsprop": (rmsprop(1e-2), {}),
    "adagrad": (adagrad(1e-2), {}),
    "accumulated": (adam(1e-2), {"accumulate": 2}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_in_place_are_the_same(name: str) -> None:
    """To the bit, whatever the optimizer, for two sizes of batches."""
    optimizer, options = OPTIMIZERS[name]
    recipe = training(perceptron(drop=0.2), optimizer=optimizer, batch_size=8, **options)
    plain = Trainer(recipe, threads=1, native=False)
    there = Trainer(plain.compiled, threads=1, native=False, in_place=True)
    batches = data(36)
    for trainer in (plain, there):
        trainer.fit(batches, epochs=3, verbose=0)
    shared = there._loop.runner._shared
    slots = {path for path in plain.state if path not in ("seed", "step")} - {*plain.params}
    # That of Lion is read again for the weights, those of accumulated steps within a branch.
    assert (shared >= slots) == (name not in ("lion", "accumulated"))
    assert (shared >= {*plain.params}) == ("clip_norm" in options)
    for path, x in plain.state.items():
        np.testing.assert_array_equal(there.state[path], x, err_msg=path)


@needs_library
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_native_steps_in_place_are_the_same(name: str) -> None:
    """A kernel that updates all parameters at once has read all gradients, so that weights are
    written over as well."""
    optimizer, options = OPTIMIZERS[name]
    recipe = training(perceptron(drop=0.2), optimizer=optimizer, batch_size=8, **options)
    plain = Trainer(recipe, threads=1)
    there = Trainer(plain.compiled, threads=1, in_place=True)
    assert there.library is not None
    for trainer in (plain, there):
        trainer.fit(data(36), epochs=3, verbose=0)
    shared = there._loop.runner._shared
    expected = plain.state.keys() - {"step", "seed"}
    assert (shared >= expected) == (name != "lion")
    for path, x in plain.state.items():
        np.testing.assert_array_equal(there.state[path], x, err_msg=path)


def _kernel(result: int = 4) -> onnx.ModelProto:
    """A call for two groups of one parameter and its gradient each, with a rate for both."""
    return build(f"""
        step (float[4, 4] r, float[4, 4] a, float[4, 4] b, float[4, 4] x)
            => (float[4, 4] y, float[4, 4] z) {{
            y, z = {DOMAIN}.Elementwise_2 <program = "mul.f 0 2;sub.f 1 3", results = [{result}],
                types = "fff", shared = 1, own = 2, groups = 2> (r, a, x, b, x)
        }}""")


def test_a_kernel_writes_over_what_is_of_its_group() -> None:
    pairs = {"a": "y", "b": "z"}
    assert overwritten(_kernel(), pairs) == {"a", "b"}
    assert not overwritten(_kernel(), {"a": "z"})
    assert not overwritten(_kernel(), {"b": "y"})
    assert not overwritten(_kernel(), {"r": "y"})  # both groups read it
    assert not overwritten(_kernel(), {"x": "y"})  # and this
    assert not overwritten(_kernel(result=1), pairs)  # an input as it is
    other = _kernel()
    other.graph.node[0].op_type = "BatchNormGradient"
    assert not overwritten(other, pairs)


def test_another_model_of_the_step_may_read_later() -> None:
    """Its results are copied then: here a product of w that is a result."""
    first = _model("next = Sub (w, x)  y = Neg (x)")
    second = _model("next = Sub (w, x)  y = MatMul (x, w)")
    for model in (first, second):
        for info in (*model.graph.input, *model.graph.output):
            if info.name in ("x", "y"):
                info.type.tensor_type.shape.dim[0].dim_param = "n"
    draw = np.random.default_rng(0)
    w = draw.standard_normal((4, 4), np.float32)
    runner = StepRunner(
        first, {"w": w}, in_place=True,
        instead=lambda shapes: second if shapes["x"] == (4, 4) else None,
    )  # fmt: skip
    for count in (1, 4, 4, 1, 4):
        x = draw.standard_normal((count, 4), np.float32)
        runner.step({"x": x})
        expected = -x if count == 1 else x @ w
        np.testing.assert_allclose(runner.metrics()["y"], expected, rtol=1e-5, atol=1e-6)
        w = w - x
        np.testing.assert_array_equal(runner.state()["w"], w)


def test_a_step_in_place_is_not_undone() -> None:
    """Neither by a loss that is not finite nor by a callback; a training goes on after it."""
    recipe = training(perceptron(), optimizer=adam(1e-2), batch_size=8)
    trainer = Trainer(recipe, threads=1, in_place=True)

    def stop(event: Any) -> None:
        if event.kind == "step" and event.step == 3:
            raise TrainingError("that is enough")

    with pytest.raises(TrainingError, match="enough"):
        trainer.fit(data(40), verbose=0, callbacks=[stop])
    assert trainer.step == 3
    assert not trainer._loop.runner.undo()
    trainer.fit(data(40), verbose=0)
    assert (trainer.step, trainer.epoch) == (5, 1)
    bad = data(40)
    bad["x"][13] = np.inf
    with pytest.raises(TrainingError):
        trainer.fit(bad, verbose=0, shuffle=False)
    assert trainer.step == 7
    assert not np.isfinite(trainer.params["out.weight"]).all()
    assert trainer.snapshot().state["step"] == 7
    epoch = trainer._loop.epoch
    assert epoch.sums.added.batches == trainer.step - epoch.start == 2


def test_what_is_in_place_stays_so() -> None:
    trainer = Trainer(training(perceptron(), optimizer=adam(1e-2)), threads=1, in_place=True)
    trainer.fit(data(64), verbose=0)
    again = pickle.loads(pickle.dumps(trainer))
    again.learning_rate = 1e-3
    assert again.in_place
    assert again._loop.runner._shared
    assert again.step == trainer.step
