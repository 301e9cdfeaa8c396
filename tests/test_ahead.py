"""Steps that are made while the device computes the ones before: nothing is read too early, and
nothing is written over what is still to be read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.compiler import compile as compile_module
from nncompile.diagnostics.errors import BackendError, TrainingError
from nncompile.runtime import ahead as ahead_module
from nncompile.runtime.ahead import AheadStepRunner
from nncompile.runtime.runner import Shapes, StepRunner
from nncompile.runtime.session import Session
from nncompile.train import EarlyStopping, Event, JSONLog, Trainer
from tests.cuda.transfers import implicit_copies
from tests.hand_made import halving_step
from tests.late_device import LateDevice, LateStepRunner
from tests.read_together import LOST, diverging
from tests.small_models import assert_same, data, trainer
from tests.test_runner import batch_of


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> type[LateDevice]:
    """Trainers that make steps ahead do so on a device that computes late."""
    monkeypatch.setattr(compile_module, "AheadStepRunner", LateStepRunner)
    for name in ("longest", "in_a_row", "longest_row"):
        monkeypatch.setattr(LateDevice, name, 0)
    return LateDevice


def halving() -> dict[str, np.ndarray]:
    w = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    return {"w": w, "step": np.array(0), "rate": np.array(0.5, np.float32)}


def made_late(ahead: int = 16) -> LateStepRunner:
    """A runner that has another session for two rows."""
    other = halving_step().SerializeToString()

    def instead(shapes: Shapes) -> bytes | None:
        return other if shapes["x"][0] == 2 else None

    return LateStepRunner(halving_step(), halving(), instead=instead, ahead=ahead)


def test_results_are_those_of_each_step(late: type[LateDevice]) -> None:
    """Also those whose sizes depend on the data, and where sizes change."""
    runner = made_late()
    w = halving()["w"]
    made = 0
    for sizes in ([4, 4, 4, 4], [4, 4, 2, 2], [2], [4, 4, 2, 4]):
        runner.begin()
        held = []
        for n in sizes:
            batch = batch_of(n, kept=n - 1, seed=made)
            runner.step(batch)
            held.append((made, batch, runner.held()))
            made += 1
        for i, batch, results in held:
            found = results.read()
            assert list(found) == ["loss", "y", "kept"]
            np.testing.assert_allclose(found["y"], batch["x"] @ (w * 0.5**i), rtol=1e-5, atol=1e-4)
            np.testing.assert_array_equal(found["kept"], batch["x"][: len(batch["x"]) - 1])
        np.testing.assert_array_equal(runner.state()["w"], w * np.float32(0.5**made))
    # The first of some sizes is waited for.
    assert late.longest == (3 if ahead_module.STAY else 1)


def test_all_steps_since_the_beginning_are_undone(late: type[LateDevice]) -> None:
    runner = made_late()
    w = halving()["w"]
    for count, undoes in ((3, False), (4, True), (2, False), (1, True), (0, False)):
        before = runner.steps
        runner.begin()
        for i in range(count):
            runner.step(batch_of(4, seed=i))
        if undoes:
            assert runner.undo() and runner.steps == before + count - 1
        runner.go_back()
        assert runner.steps == before and not runner.can_undo
        np.testing.assert_array_equal(runner.state()["w"], w * np.float32(0.5**before))
        runner.step(batch_of(4))
    runner.begin()
    runner.put({"rate": np.float32(0.25)})
    made = runner.state()["w"]
    for _ in range(3):
        runner.step(batch_of(4))
    np.testing.assert_array_equal(runner.state()["w"], made / 64)
    for _ in range(3):
        runner.step(batch_of(4))
    np.testing.assert_array_equal(runner.before()["w"], made / 64 / 16)
    for count in (3, 2, 3):
        for _ in range(count):
            runner.step(batch_of(4))
        runner.load(halving())
        runner.go_back()
        np.testing.assert_array_equal(runner.state()["w"], w)
        assert runner.state()["step"] == 0
    runner.step(batch_of(4))
    np.testing.assert_array_equal(runner.views()["w"], w / 2)
    np.testing.assert_array_equal(runner.before()["w"], w)
    np.testing.assert_array_equal(runner.look(["w"])["w"], w / 2)
    assert runner.metrics()["y"].shape == (4, 200)


def test_one_run_in_each_window_waits_however_windows_are_cut(late: type[LateDevice]) -> None:
    """onnxruntime keeps memory of runs that do not wait until the end of one that does."""
    runner = made_late(4)
    for i in range(20):
        if i % 3 == 0:
            runner.begin()
            runner.wait()
        runner.step(batch_of(4))
    assert late.longest_row == 3


def test_large_batches_are_few_on_the_device(
    late: type[LateDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "_BATCHES", 3 * 4 * 1204)
    runner = made_late()
    for i in range(6):
        runner.step(batch_of(4, seed=i))
    assert late.longest == 3
    monkeypatch.setattr(ahead_module, "_BATCHES", 0)
    runner = made_late()
    late.longest = 0
    for i in range(6):
        runner.step(batch_of(4, seed=i))
    assert late.longest == 2


def test_a_training_is_the_same(late: type[LateDevice], tmp_path: Path) -> None:
    class Halving:
        @staticmethod
        def wants_step(step: int) -> bool:
            return step in (4, 15)

        def on_step(self, event: Event) -> None:
            if self.wants_step(event.step):
                event.trainer.learning_rate = 0.5 * event.trainer.learning_rate

    found = []
    for n in (1, 3):
        ours = Trainer(trainer(0.5).compiled, metrics_every=n, threads=1)
        log = JSONLog(tmp_path / f"{n}.jsonl", every=1)
        callbacks = [log, Halving(), EarlyStopping(patience=9)]
        about = {"validation_data": data(20), "callbacks": callbacks, "verbose": 0}
        history = ours.fit(data(150), epochs=2, **about)
        found.append((history.epochs, ours.state))
    assert late.longest == 3
    assert found[0][0] == found[1][0]
    assert_same(found[0][1], found[1][1])


@pytest.mark.parametrize("at", [4, 7])
def test_a_loss_that_is_lost_is_that_of_its_step(at: int, late: type[LateDevice]) -> None:
    found = []
    for every in (1, 4):
        ours = Trainer(LOST, metrics_every=every, threads=1)
        with pytest.raises(TrainingError) as caught:
            ours.fit(diverging(at), shuffle=False)
        found.append((str(caught.value), ours.state))
    assert late.longest > 1
    assert found[0][0] == found[1][0]
    assert_same(found[0][1], found[1][1])


def test_a_device_that_fails_later_is_an_error_of_the_model(
    late: type[LateDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = made_late()
    for _ in range(2):
        runner.step(batch_of(4))

    def failing(self: Any) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    monkeypatch.setattr(LateDevice, "finish", failing)
    with pytest.raises(BackendError, match="illegal memory access"):
        runner.held().read()
    with pytest.raises(BackendError, match="illegal memory access"):
        runner.state()


def test_what_lies_elsewhere_is_waited_for(
    late: type[LateDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime makes copies of it, whose memory it takes again for the next step."""
    runner = made_late()
    monkeypatch.setattr(LateStepRunner, "_place_of", lambda *_: ("elsewhere", 0))
    for _ in range(4):
        runner.step(batch_of(4))
    assert late.longest == 1


@pytest.mark.parametrize("steps", [1, 4])
def test_nothing_is_copied_that_nobody_asked_for(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `python -m tests.cuda transfers` looks for on a GPU."""
    kind = partial(AheadStepRunner, ahead=4) if steps > 1 else StepRunner
    runner = kind(halving_step(), halving())
    for _ in range(steps):
        runner.step(batch_of(4))
    assert implicit_copies(runner) == []
    real = Session.device_of_input
    monkeypatch.setattr(
        Session, "device_of_input", lambda s, n: ("there", 0) if n == "x" else real(s, n)
    )
    monkeypatch.setattr(StepRunner, "_device_of", lambda *_: ("cpu", 0))
    runner = kind(halving_step(), halving())
    runner.step(batch_of(4))
    assert implicit_copies(runner) == ["x is read elsewhere"]
    runner._sets = [runner._sets[0]] * len(runner._sets)
    assert "w.next is not where it was bound" in implicit_copies(runner)
    runner.session.device = ("there", 0)
    assert "loss in main memory" in implicit_copies(runner)
