"""Trainings that are interrupted, saved and gone on with, as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nncompile.diagnostics.errors import FeedError
from nncompile.train import Trainer
from tests.small_models import assert_same, data, trainer

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


@pytest.mark.parametrize("case", OTHER_DATA)
@pytest.mark.parametrize("saved", [False, True], ids=["in memory", "saved"])
def test_an_epoch_is_finished_on_the_data_it_was_begun_on(
    tmp_path: Path, case: str, saved: bool
) -> None:
    options, make, words = OTHER_DATA[case]
    ours = trainer()
    ours.fit(data(), steps=6)
    if saved:
        ours = moved(ours, tmp_path / "then.safetensors")
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
    with pytest.raises(FeedError, match="seed  0 then  7 now"):
        ours.fit(data())


def test_a_whole_epoch_is_not_bound_to_its_data() -> None:
    ours = trainer()
    ours.fit(data(), epochs=1)
    ours.fit(data(60), epochs=1, batch_size=8, shuffle=False)
    assert (ours.step, ours.epoch) == (4 + 8, 2)
