"""What surrounds a training: who sees how it ends, who is told last, and moments kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nncompile.diagnostics.errors import FeedError
from nncompile.runtime import load_state
from nncompile.train import Event
from nncompile.train.events import Fitting
from tests.small_models import assert_same, data, trainer


class Surrounding:
    """Notes in `notes` what it is told."""

    def __init__(self, notes: list[str], label: str, told_last: bool = False) -> None:
        self.notes, self.label, self.told_last = notes, label, told_last

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        self.notes.append(f"{self.label} begins, to {fitting.ends[0]}")
        try:
            yield
        except BaseException as error:
            self.notes.append(f"{self.label} sees {type(error).__name__}")
            raise
        self.notes.append(f"{self.label} ends")

    def on_validation(self, event: Event) -> None:
        self.notes.append(f"{self.label} validation {event.step} {sorted(event.metrics)}")

    def on_epoch(self, event: Event) -> None:
        self.notes.append(f"{self.label} epoch {event.step}")


def test_who_is_told_last_surrounds_the_others() -> None:
    notes: list[str] = []
    callbacks = [Surrounding(notes, "last", told_last=True), Surrounding(notes, "first")]
    trainer().fit(data(), epochs=1, validation_data=data(), callbacks=callbacks)
    assert notes == [
        "last begins, to 1",
        "first begins, to 1",
        "first validation 4 ['bias', 'loss']",
        "last validation 4 ['bias', 'loss']",
        "first epoch 4",
        "last epoch 4",
        "first ends",
        "last ends",
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_ends_a_training_is_seen(error: type[BaseException]) -> None:
    notes: list[str] = []

    def ended(event: Event) -> Any:
        raise error

    with pytest.raises(error):
        trainer().fit(data(), epochs=1, callbacks=[Surrounding(notes, "it"), ended])
    assert notes == ["it begins, to 1", f"it sees {error.__name__}"]


def test_a_moment_in_memory_is_the_file_of_that_moment(tmp_path: Path) -> None:
    ours = trainer(0.5)
    ours.fit(data(), steps=6)
    moment, file = ours.snapshot(), ours.save(tmp_path / "then.safetensors")
    ours.fit(data(), epochs=1)
    (then, said), (later, says) = load_state(file), load_state(moment.write(tmp_path / "later"))
    assert_same(then, later)
    assert said == says


def test_the_error_of_who_is_told_last_does_not_hide_the_first() -> None:
    class Failing:
        told_last = False

        def on_epoch(self, event: Event) -> None:
            raise FeedError("the first")

    class Last:
        told_last = True

        def on_epoch(self, event: Event) -> None:
            raise FeedError("because of it")

    with pytest.raises(FeedError, match="the first") as caught:
        trainer().fit(data(), callbacks=[Last(), Failing()])
    (note,) = caught.value.__notes__
    assert note.endswith("Last failed, too: because of it")
