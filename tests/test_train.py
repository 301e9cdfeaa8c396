"""The trainer: what it computes, and that it is reproducible and resumable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompile.compiler.compile import compile_step
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.ir.interpreter import evaluate
from nncompile.optim import adam, adamw, cosine, sgd
from nncompile.program.recipe import assign, training
from nncompile.train import Event, Trainer
from tests.small_models import assert_same, averaging, data, perceptron, trainer
from tests.tolerances import assert_close

EVERYTHING = {"optimizer": adamw(cosine(1e-2, warmup=3, steps=30)), "clip_norm": 1.0}


def test_training_brings_the_loss_down() -> None:
    ours = trainer()
    before = ours.evaluate(data())
    history = ours.fit(data(), epochs=30)
    assert len(history) == 30
    assert history["loss"][-1] < 0.3 * before["loss"]
    assert ours.evaluate(data())["loss"] < 0.3 * before["loss"]
    assert set(history.last) == {"loss", "bias"}


def test_steps_are_those_of_numpy() -> None:
    """Shuffled, the last smaller batch included, with means weighted by examples."""
    recipe = training(perceptron(), optimizer=adam(1e-2), batch_size=16, seed=3)
    ours = Trainer(recipe)
    history = ours.fit(data(50), epochs=2)
    step, whole = ours.compiled.source, data(50)
    state, losses = step.initial(3), []
    for epoch in range(2):
        order = np.random.default_rng((3, epoch)).permutation(50)
        total = 0.0
        for start in range(0, 50, 16):
            rows = order[start : start + 16]
            result = evaluate(step.step, {**state, **{n: x[rows] for n, x in whole.items()}})
            state |= {path: result[following] for path, following in step.state_map.items()}
            total += float(result["loss"]) * len(rows)
        losses.append(total / 50)
    assert ours.step == int(ours.state["step"]) == 8
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    for path, x in ours.params.items():
        assert_close(x, state[path], "float32", path)


def test_training_is_reproducible_bit_for_bit() -> None:
    first, second, other = (
        Trainer(training(perceptron(drop=0.5), optimizer=adam(1e-2), batch_size=16, seed=seed))
        for seed in (0, 0, 1)
    )
    histories = [t.fit(data(), epochs=3).epochs for t in (first, second, other)]
    assert_same(first.state, second.state)
    assert histories[0] == histories[1] != histories[2]


def test_what_is_compiled_may_be_shared() -> None:
    """By trainers of several seeds, whose rates are set each by itself."""
    recipe = training(perceptron(drop=0.5), optimizer=adam(1e-2), batch_size=16)
    compiled = compile_step(recipe)
    shared = [Trainer(compiled, seed=seed) for seed in (3, 4)]
    own = [Trainer(recipe, seed=seed) for seed in (3, 4)]
    for one in (*shared, *own):
        one.fit(data(), epochs=1)
    shared[0].learning_rate = own[0].learning_rate = 0.05
    for one in (*shared, *own):
        one.fit(data(), epochs=1)
    for one, other in zip(shared, own, strict=True):
        assert one.declared is compiled and other.declared is not compiled
        assert one.recipe.model is recipe.model
        assert_same(one.state, other.state)
    with pytest.raises(ModelError, match=r"compiled already, with all passes(.|\n)*\['pack'\]"):
        Trainer(compiled, without=["pack"])
    plain = compile_step(recipe, without=["pack"])
    assert Trainer(plain, without=["pack"]).compiled is Trainer(plain).compiled is plain


def test_a_step_that_is_compiled_is_exported_as_its_recipe_is(tmp_path: Path) -> None:
    recipe = training(perceptron(drop=0.5), optimizer=adam(1e-2), batch_size=16, seed=3)
    compiled = compile_step(recipe)
    for to, options in (("step", {}), ("step", {"opset": 22}), ("onnx", {"seed": 1})):
        for name, source in (("one", recipe), ("two", compiled)):
            export(source, tmp_path / f"{name}.onnx", to, **options)
        one, two = ((tmp_path / f"{name}.onnx").read_bytes() for name in ("one", "two"))
        assert one == two
    assert compiled.opset != 22


@pytest.mark.parametrize("stop", [1, 4, 6, 8])
def test_resumed_training_gives_the_same_bits(tmp_path: Path, stop: int) -> None:
    """From a checkpoint within an epoch and at its end; four steps are an epoch."""
    whole, part, rest = (trainer(0.5, **EVERYTHING) for _ in range(3))
    expected = whole.fit(data(), epochs=3)
    part.fit(data(), steps=stop)
    rest.load(part.save(tmp_path / "part.safetensors"))
    assert (rest.step, rest.epoch) == (stop, stop // 4)
    history = rest.fit(data(), epochs=3 - rest.epoch)
    assert_same(rest.state, whole.state)
    assert history.epochs == expected.epochs[stop // 4 :]


def test_batches_resume_where_they_were(tmp_path: Path) -> None:
    batches = [data(8, seed) for seed in range(5)]
    whole, part, rest = trainer(), trainer(), trainer()
    whole.fit(batches, epochs=2)
    part.fit(lambda: iter(batches), steps=7)
    rest.load(part.save(tmp_path / "part.safetensors"))
    rest.fit(batches, epochs=1)
    assert_same(rest.state, whole.state)


def test_the_lengths_of_training() -> None:
    ours = trainer()
    ours.fit(data(), epochs=2)
    assert (ours.epoch, ours.step) == (2, 8)
    ours.fit(data(), epochs=5, steps=6)
    assert (ours.epoch, ours.step) == (3, 14)
    ours.fit(data(), epochs=1)  # the epoch that was under way
    assert (ours.epoch, ours.step) == (4, 16)
    ours.fit(data())
    assert (ours.epoch, ours.step) == (5, 20)
    ours.fit(data(), steps=0)
    assert ours.step == 20
    declared = trainer(epochs=2, steps=7)
    declared.fit(data())
    assert declared.step == 7
    assert len(declared.fit(data())) == 0


def test_without_shuffling_examples_come_in_their_order() -> None:
    whole = data(50)
    batches = [{n: x[i : i + 16] for n, x in whole.items()} for i in range(0, 50, 16)]
    ours, other, shuffled = trainer(), trainer(), trainer()
    ours.fit(whole, epochs=1, shuffle=False)
    other.fit(batches, epochs=1)
    shuffled.fit(whole, epochs=1)
    assert_same(ours.state, other.state)
    assert not np.array_equal(shuffled.params["out.weight"], ours.params["out.weight"])


def test_evaluation_is_the_mean_over_examples_without_dropout() -> None:
    ours = trainer(drop=0.5)
    assert_close(
        np.float32(ours.evaluate(data(50), batch_size=16)["loss"]),
        np.float32(ours.evaluate(data(50), batch_size=50)["loss"]),
        "float32",
    )
    y = ours.predict({"x": data(50)["x"]})["y"]
    expected = np.mean((y - data(50)["target"]) ** 2)
    np.testing.assert_allclose(ours.evaluate(data(50))["loss"], expected, rtol=1e-5)


def test_predictions_do_not_depend_on_the_batch() -> None:
    ours = trainer()
    x = data(50)["x"]
    y = ours.predict(x)["y"]
    assert y.shape == (50, 2)
    np.testing.assert_allclose(ours.predict({"x": x}, batch_size=7)["y"], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours.predict(data(50))["y"], y)  # labels are not needed
    ours.fit(data(), epochs=1)
    assert not np.allclose(ours.predict(x)["y"], y)


def test_running_statistics_are_trained_and_used() -> None:
    ours = Trainer(training(averaging(), optimizer=sgd(0.0), batch_size=4))
    ours.fit({"x": np.full(8, 2, np.float32)}, epochs=1)
    assert ours.state["mean"] == pytest.approx(0.9 * 0.2 + 0.2)
    assert ours.params == {"w": 0.5}


def test_a_learning_rule_trains_without_a_gradient() -> None:
    rule = assign("w", lambda v: v["w"] + 0.1 * ((1 - v["y"]) * v["x"]).mean())
    ours = Trainer(training(averaging(), updates=[rule], batch_size=8))
    history = ours.fit({"x": np.linspace(0.5, 1, 32, dtype=np.float32)}, epochs=60)
    assert history["loss"][-1] < 0.2 * history["loss"][0]


def test_validation_and_callbacks() -> None:
    class Watch:
        def __init__(self) -> None:
            self.steps: list[int] = []
            self.epochs: list[dict[str, float]] = []

        def on_step(self, event: Event) -> None:
            self.steps.append(event.step)
            assert set(event.metrics) == {"loss", "bias"}

        def on_epoch(self, event: Event) -> None:
            self.epochs.append(event.metrics)

    watch, events = Watch(), list[Event]()
    ours = trainer()
    history = ours.fit(
        data(), epochs=2, validation_data=data(20, seed=1), callbacks=[watch, events.append]
    )
    assert watch.steps == list(range(1, 9))
    assert watch.epochs == history.epochs
    assert [e.kind for e in events] == ["step"] * 4 + ["epoch"] + ["step"] * 4 + ["epoch"]
    assert [e.epoch for e in events] == [1] * 5 + [2] * 5
    assert history["val_loss"][-1] == ours.evaluate(data(20, seed=1))["loss"]


def test_a_callback_can_stop_the_training() -> None:
    def stop(event: Event) -> None:
        if event.step == 6:
            event.trainer.stop()

    ours = trainer()
    history = ours.fit(data(), epochs=5, callbacks=stop)
    assert (ours.step, ours.epoch, len(history)) == (6, 1, 2)
    with pytest.raises(ModelError, match="not a callback"):
        ours.fit(data(), callbacks=[3])


def test_an_interrupt_leaves_a_usable_state(tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if event.step == 6:
            raise KeyboardInterrupt

    whole, ours = trainer(), trainer()
    whole.fit(data(), epochs=3)
    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), epochs=3, callbacks=interrupt)
    assert ours.step == int(ours.state["step"]) == 6
    ours.save(tmp_path / "saved.safetensors")
    ours.fit(data(), epochs=2)
    assert_same(ours.state, whole.state)


def test_setting_parameters() -> None:
    ours, other = trainer(), trainer(seed=1)
    other.set_params(ours.params)
    assert_same(ours.params, other.params)
    assert other.state["seed"] == 1
    ours.fit(data(), steps=6)
    other.set_params(ours.state)
    assert (other.step, other.epoch) == (6, 0)
    other.fit(data(), epochs=1)
    assert (other.step, int(other.state["step"])) == (10, 10)
    with pytest.raises(ModelError, match="no parameter 'w'"):
        ours.set_params({"w": np.zeros(2, np.float32)})
    with pytest.raises(FeedError, match=r"out\.weight"):
        ours.set_params({"out.weight": np.zeros(2, np.float32)})
