"""The runner of training steps, on models that are made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import adam, training
from nncompile import Trainer, compile_step, compose
from nncompile.diagnostics.errors import BackendError, FeedError, ModelError
from nncompile.runtime import StepRunner
from nncompile.runtime import runner as runner_module
from nncompile.runtime import session as session_module
from nncompile.runtime.buffers import array_of, buffer_of
from tests.hand_made import affine, build, halving_step
from tests.small_models import data, perceptron


@pytest.fixture
def start() -> dict[str, np.ndarray]:
    w = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    return {"w": w, "step": np.array(0), "rate": np.array(0.5, np.float32)}


def batch_of(n: int, kept: int = 1, seed: int = 1) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, 300)).astype(np.float32)
    return {"x": x, "mask": np.arange(n) < kept}


def test_steps_ping_pong_between_two_sets_of_state(start: dict[str, np.ndarray]) -> None:
    before = {name: x.copy() for name, x in start.items()}
    runner = StepRunner(halving_step(), start)
    assert runner.metrics() == {}
    for i, (n, kept) in enumerate([(4, 1), (4, 3), (2, 2), (1, 0), (7, 7), (7, 6)]):
        batch = batch_of(n, kept, seed=i)
        runner.step(batch)
        metrics = runner.metrics()
        expected = batch["x"] @ (before["w"] * 0.5**i)
        assert list(metrics) == ["loss", "y", "kept"]
        np.testing.assert_allclose(metrics["y"], expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(metrics["loss"], expected.mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(metrics["kept"], batch["x"][:kept])
        state = runner.state()
        np.testing.assert_array_equal(state["w"], before["w"] * np.float32(0.5 ** (i + 1)))
        assert state["step"] == i + 1
        assert state["step"].shape == metrics["loss"].shape == ()
    for name, x in before.items():
        np.testing.assert_array_equal(start[name], x)


def test_what_the_runner_gives_is_a_copy(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    runner.step(batch_of(2))
    state, metrics = runner.state(), runner.metrics()
    kept = {name: x.copy() for name, x in (state | metrics).items()}
    runner.step(batch_of(2, seed=5))
    runner.step(batch_of(2, seed=6))
    for name, x in (state | metrics).items():
        np.testing.assert_array_equal(x, kept[name])


def test_the_runner_goes_on_from_a_loaded_state(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    for seed in range(3):
        runner.step(batch_of(2, seed=seed))
    runner.load(start | {"step": np.array(10), "rate": np.array(0.25, np.float32)})
    runner.step(batch_of(2))
    assert runner.state()["step"] == 11
    runner.step(batch_of(2))
    np.testing.assert_array_equal(runner.state()["w"], start["w"] / 16)
    with pytest.raises(FeedError, match="'w' has size 2 on axis 0"):
        runner.load(start | {"w": np.zeros((2, 200), np.float32)})


def test_a_step_is_undone_once(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    assert not runner.undo()
    states = [runner.state()]
    for seed in range(3):
        runner.step(batch_of(2, seed=seed))
        states.append(runner.state())
    last = runner.metrics()
    assert runner.undo() and not runner.undo()
    assert runner.steps == 2
    for name, x in states[2].items():
        np.testing.assert_array_equal(runner.state()[name], x)
        np.testing.assert_array_equal(runner.before()[name], x)
    for name, x in last.items():
        np.testing.assert_array_equal(runner.metrics()[name], x)
    runner.step(batch_of(2, seed=2))
    for name, x in states[3].items():
        np.testing.assert_array_equal(runner.state()[name], x)
    runner.load(start)
    assert not runner.undo()
    np.testing.assert_array_equal(runner.state()["w"], start["w"])


def test_a_batch_may_be_lists_or_strided_arrays(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    x = batch_of(3)["x"]
    runner.step({"x": np.asfortranarray(x), "mask": [True, False, True]})
    metrics = runner.metrics()
    np.testing.assert_allclose(metrics["y"], x @ start["w"], rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(metrics["kept"], x[[0, 2]])
    later = batch_of(3, seed=8)["x"]  # into the buffers that are there by now
    runner.step({"x": np.asfortranarray(later), "mask": np.array([True, False, False])})
    np.testing.assert_array_equal(runner.metrics()["kept"], later[[0]])


def test_an_empty_batch_teaches_nothing(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    with pytest.raises(
        FeedError, match="input 'x' is empty: a training step needs at least one example"
    ):
        runner.step(batch_of(0))
    np.testing.assert_array_equal(runner.state()["w"], start["w"])


def test_tensors_with_memory_of_their_own_make_no_difference(start: dict[str, np.ndarray]) -> None:
    runners = [StepRunner(halving_step(), start, reuse=reuse) for reuse in (True, False)]
    for n in (3, 3, 5):
        for runner in runners:
            runner.step(batch_of(n))
        one, other = (runner.metrics() | runner.state() for runner in runners)
        for name, x in one.items():
            np.testing.assert_array_equal(x, other[name])


def test_bad_batches_and_states_leave_the_state_as_it_was(start: dict[str, np.ndarray]) -> None:
    runner = StepRunner(halving_step(), start)
    runner.step(batch_of(2))
    before = runner.state()
    good = batch_of(2)
    for bad, message in (
        ({"x": good["x"]}, "no data for input 'mask'"),
        (good | {"y": good["x"]}, "no input 'y'"),
        (good | {"x": good["x"].astype(np.float64)}, "wrong element type"),
        (good | {"x": good["x"][:, 1:]}, "has size 299 on axis 1"),
        (good | {"mask": np.zeros(3, np.bool_)}, "batch"),
    ):
        with pytest.raises(FeedError, match=message):
            runner.step(bad)
    for name, x in runner.state().items():
        np.testing.assert_array_equal(x, before[name])
    runner.step(good)
    assert runner.state()["step"] == 2
    with pytest.raises(FeedError, match="no data for input 'step'"):
        StepRunner(halving_step(), {"w": start["w"], "rate": start["rate"]})
    with pytest.raises(FeedError, match="no input 'v'"):
        StepRunner(halving_step(), start | {"v": start["w"]})


def test_a_step_that_fails_leaves_the_state_as_it_was() -> None:
    text = """
        test (float[4] w, int64 index) => (float[4] "w.next", float loss) {
            loss = Gather (w, index)
            "w.next" = Neg (w)
        }"""
    model = build(text, metadata={"nncompile.state": '{"w": "w.next"}'})
    runner = StepRunner(model, {"w": np.arange(4, dtype=np.float32)})
    with pytest.raises(BackendError, match=r"failed on these data: .*idx=4"):
        runner.step({"index": np.array(4)})
    np.testing.assert_array_equal(runner.state()["w"], [0, 1, 2, 3])
    runner.step({"index": np.array(3)})
    assert runner.metrics()["loss"] == 3
    np.testing.assert_array_equal(runner.state()["w"], [0, -1, -2, -3])
    with pytest.raises(BackendError):  # it writes over what the step before read
        runner.step({"index": np.array(4)})
    assert not runner.undo()
    np.testing.assert_array_equal(runner.state()["w"], [0, -1, -2, -3])


@pytest.mark.parametrize(
    "text", ["[1", "[]", '{"v": "w.next"}', '{"w": "v"}', '{"w": "step.next"}', '{"w": 1}']
)
def test_a_state_map_that_names_nothing_is_an_error(
    text: str, start: dict[str, np.ndarray]
) -> None:
    with pytest.raises(BackendError, match=r"nncompile\.state"):
        StepRunner(halving_step(**{"nncompile.state": text}), start)


def test_a_model_without_state_is_no_step() -> None:
    with pytest.raises(BackendError, match="is not a training step"):
        StepRunner(affine(), {})


def test_the_public_way_gives_the_same_steps(
    start: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime's private call is a short cut, and another version may not have it."""
    fast = StepRunner(halving_step(), start)

    class Public:
        """The session's public face: nothing that begins with an underscore."""

        def __init__(self, inner: Any) -> None:
            self.inner, self.calls = inner, 0

        def run_with_iobinding(self, binding: Any, *options: Any) -> None:
            self.calls += 1
            self.inner.run_with_iobinding(binding, *options)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            return getattr(self.inner, name)

    made = session_module.ort.InferenceSession
    monkeypatch.setattr(
        session_module.ort, "InferenceSession", lambda *a, **k: Public(made(*a, **k))
    )
    slow = StepRunner(halving_step(), start)
    for seed in range(3):
        fast.step(batch_of(3, seed=seed))
        slow.step(batch_of(3, seed=seed))
    public: Any = slow.session.onnxruntime
    assert public.calls == 3
    for name, x in (fast.state() | fast.metrics()).items():
        np.testing.assert_array_equal(x, (slow.state() | slow.metrics())[name])


@pytest.mark.parametrize("place", [None, ("elsewhere", 0)], ids=["unknown", "elsewhere"])
def test_an_input_that_is_read_on_another_device_is_bound_for_each_step(
    place: Any, start: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime copies it to that device when it is bound: here, too."""
    plain = StepRunner(halving_step(), start)
    real = session_module.Session.device_of_input
    there = ("w", "x")
    monkeypatch.setattr(runner_module.StepRunner, "_device_of", lambda *_: ("cpu", 0))
    monkeypatch.setattr(
        session_module.Session,
        "device_of_input",
        lambda self, name: place if name in there else real(self, name),
    )
    bind = runner_module.ort.IOBinding.bind_ortvalue_input

    def copied(self: Any, name: str, value: Any) -> None:
        bind(self, name, buffer_of(array_of(value)) if name in there else value)

    monkeypatch.setattr(runner_module.ort.IOBinding, "bind_ortvalue_input", copied)
    moved = StepRunner(halving_step(), start)
    for seed in range(4):
        for runner in (plain, moved):
            runner.step(batch_of(3, seed=seed))
    for name, x in (plain.state() | plain.metrics()).items():
        np.testing.assert_array_equal(x, (moved.state() | moved.metrics())[name])


def test_whatever_a_step_is() -> None:
    """A recipe, what was made of it, and its graph with a state are one step."""
    recipe = training(perceptron(), optimizer=adam(1e-2))
    compiled = compile_step(recipe)
    first = compiled.source.initial()
    batch = {name: array[:8] for name, array in data().items()}
    runners = [
        StepRunner(recipe),
        StepRunner(compose(recipe)),
        StepRunner(compiled),
        StepRunner(compiled.step, first),
        StepRunner(compiled.step_model, first),
        compiled.runner(),
    ]
    states = []
    for runner in runners:
        for _ in range(2):
            runner.step(batch)
        states.append(runner.state())
        assert runner.metrics().keys() >= {"loss"} and states[-1]["step"] == 2
    for state in states[1:]:
        for path, x in state.items():
            np.testing.assert_allclose(x, states[0][path], rtol=1e-5, atol=1e-7, err_msg=path)


def test_an_exported_step_begins_with_its_state(tmp_path: Path) -> None:
    trainer = Trainer(training(perceptron()))
    trainer.fit(data(), epochs=1, verbose=0)
    trainer.export(tmp_path / "net.onnx", to="step")
    runner = StepRunner(tmp_path / "net.onnx")
    for path, x in trainer.state.items():
        np.testing.assert_array_equal(runner.state()[path], x)
    (tmp_path / "net.state.safetensors").unlink()
    with pytest.raises(ModelError, match="needs the first state"):
        StepRunner(tmp_path / "net.onnx")


def test_what_is_no_step() -> None:
    net = perceptron()
    compiled = compile_step(training(net))
    for wrong, words in (
        ((net,), "StepRunner: a runner makes steps of a training, got model"),
        ((compiled.step,), "needs the first state of the step"),
        ((compiled.evaluate, {}), "is not a training step: no output is the next value"),
        ((3,), "got 3"),
        ((compiled, 3), "state must be a dict of arrays by path, or a file, got 3"),
    ):
        with pytest.raises(ModelError, match=words):
            StepRunner(*wrong)  # type: ignore[arg-type]  # the mistake
