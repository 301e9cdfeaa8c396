"""Trainings that are gone on with: what may fail, and which data are not those of before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nncompile.diagnostics.errors import FeedError, FileError, ModelError
from nncompile.train import (
    CSVLog,
    DataNote,
    EarlyStopping,
    Event,
    ModelCheckpoint,
    Trainer,
    TrainingWarning,
)
from tests.small_models import assert_same, data, trainer
from tests.test_resume import Noisy

# What may fail, and what is told before the first step


class Full:
    """A log on a full disk."""

    may_fail = True

    def __init__(self, error: Exception) -> None:
        self.error, self.count = error, 0

    def on_epoch(self, _: Event) -> None:
        self.count += 1
        raise self.error


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), FileError("no space"), BrokenPipeError()]
)
def test_a_log_that_fails_is_told_once_and_training_goes_on(error: Exception) -> None:
    ours, log = trainer(), Full(error)
    with pytest.warns(TrainingWarning, match="Full failed, and the training goes on") as warnings:
        ours.fit(data(), epochs=3, callbacks=log)
    assert (log.count, ours.step, len(warnings)) == (3, 12, 1)
    for other in (Full(ValueError("a mistake")), Full(error)):
        other.may_fail = isinstance(other.error, ValueError)
        with pytest.raises(type(other.error)):
            ours.fit(data(), epochs=3, callbacks=other)


def test_the_lines_of_a_full_disk_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, opened = tmp_path / "log.csv", Path.open

    def full(path: Path, *args: Any, **options: Any) -> Any:
        if path == log and free[0] <= 0:
            raise OSError(28, "No space left on device")
        return opened(path, *args, **options)

    free = [1]
    monkeypatch.setattr(Path, "open", full)

    def counting(event: Event) -> None:
        if event.kind == "epoch":
            free[0] = {2: 0, 3: 0, 4: 1}.get(event.epoch, free[0])

    with pytest.warns(TrainingWarning, match=r"CSVLog failed.*log\.csv: No space left"):
        trainer().fit(data(), epochs=5, callbacks=[counting, CSVLog(log)])
    lines = log.read_text("utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "watching",
    [
        lambda name, path: EarlyStopping(name),
        lambda name, path: ModelCheckpoint(path / "x.safetensors", monitor=name),
    ],
    ids=["early stopping", "checkpoint"],
)
def test_a_metric_that_there_will_not_be_is_told_before_the_first_step(
    tmp_path: Path, watching: Callable[[str, Path], Any]
) -> None:
    ours = trainer()
    for name, validation, words in (
        ("val_loss", None, r"'val_loss' to watch(.|\n)*metric  bias(.|\n)*validation_data="),
        ("los", None, r"'los'(.|\n)*did you mean 'loss'"),
        ("val_los", data(), r"'val_los'(.|\n)*metric  val_bias(.|\n)*'val_loss'"),
    ):
        with pytest.raises(ModelError, match=words):
            callbacks = [CSVLog(tmp_path / "log.csv"), watching(name, tmp_path)]
            ours.fit(data(), validation_data=validation, callbacks=callbacks)
        assert ours.step == 0
    assert not (tmp_path / "log.csv").exists()
    # A callback of one's own may add it.
    ours.fit(data(), callbacks=[Noisy(), watching("noise", tmp_path)])
    assert ours.step == 4


# A position within an epoch belongs to the data it was begun on


def moved(ours: Trainer, path: Path) -> Trainer:
    """Another trainer that goes on from there."""
    other = trainer()
    other.load(ours.save(path))
    return other


OTHER_DATA: dict[str, tuple[dict[str, Any], Callable[[], Any], str]] = {
    "batch size": ({"batch_size": 8}, data, "batch_size  16 then  8 now"),
    "length": ({}, lambda: data(60), "examples  50 then  60 now"),
    "order": ({"shuffle": False}, data, "shuffle  True then  False now"),
    "batches": ({}, lambda: [data(16), data(16)], "batches     unknown then  2 now"),
}


def _interrupt_at_step_6(event: Event) -> None:
    if event.step == 6:
        raise KeyboardInterrupt


@pytest.mark.parametrize("case", OTHER_DATA)
def test_an_epoch_in_which_fit_was_to_end_begins_anew_on_other_data(case: str) -> None:
    options, make, _ = OTHER_DATA[case]
    ours = trainer()
    ours.fit(data(), steps=6)
    with pytest.warns(DataNote, match="epoch 2 begins anew: 2 batches of it were of other data"):
        history = ours.fit(make(), epochs=1, **options)
    other = trainer()
    other.fit(data(), steps=6)
    other.begin_epoch()
    assert other.fit(make(), epochs=1, **options).last == history.last
    assert (ours.epoch, ours.step) == (other.epoch, other.step)
    assert_same(ours.state, other.state)


@pytest.mark.parametrize("case", OTHER_DATA)
@pytest.mark.parametrize("saved", [False, True], ids=["interrupted", "saved"])
def test_an_epoch_is_finished_on_the_data_it_was_begun_on(
    tmp_path: Path, case: str, saved: bool
) -> None:
    options, make, words = OTHER_DATA[case]
    ours = trainer()
    if saved:
        ours.fit(data(), steps=6)
        ours = moved(ours, tmp_path / "then.safetensors")
    else:
        with pytest.raises(KeyboardInterrupt):
            ours.fit(data(), epochs=9, callbacks=_interrupt_at_step_6)
    before = ours.state
    with pytest.raises(FeedError) as caught:
        ours.fit(make(), epochs=1, **options)
    message = str(caught.value)
    assert "epoch 2 was interrupted after 2 batches of other data" in message
    assert words in message
    assert "trainer.begin_epoch()" in message
    assert_same(ours.state, before)
    ours.begin_epoch()
    ours.fit(make(), epochs=1, **options)
    assert ours.epoch == 2


def test_another_seed_is_another_order(tmp_path: Path) -> None:
    ours = trainer()
    ours.fit(data(), steps=2)
    ours.seed = 7
    with pytest.warns(DataNote, match="or in another order"):
        ours.fit(data(), steps=1)
    ours = moved(ours, tmp_path / "then.safetensors")
    ours.seed = 0
    with pytest.raises(FeedError, match="seed  7 then  0 now"):
        ours.fit(data())


def test_a_whole_epoch_is_not_bound_to_its_data() -> None:
    ours = trainer()
    ours.fit(data(), epochs=1)
    ours.fit(data(60), epochs=1, batch_size=8, shuffle=False)
    assert (ours.step, ours.epoch) == (4 + 8, 2)
