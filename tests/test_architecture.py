"""The page of the architecture is that of the code, and its journeys go where it says."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from dsl import Dense, adam, cross_entropy, f32, formula, i64, model, training
from nncompile import Trainer, export, grad
from nncompile.elementwise import exp, sigmoid
from tests.architecture_page import JOURNEYS, PAGE, PICTURE, picture, text
from tests.leaves import leaf


def _export(folder: Path) -> None:
    @formula
    def bent(x: Any) -> Any:  # one of its own: what is known already is traced no more
        return x * sigmoid(1.25 * x)

    @model
    def net(x: Any = f32["batch", 4]) -> Any:
        return {"y": x >> Dense(3) >> bent}

    export(net, folder / "net.onnx", seed=0)


_numbers = itertools.count(2)


def _differentiate(_: Path) -> None:
    x = leaf("x", f32["n"])
    number = next(_numbers)

    @formula
    def bent(x: Any) -> Any:  # that is not differentiated already
        return exp(number * x) * x

    grad(bent(x).sum(), x)


def _compose(_: Path) -> None:
    Trainer(_recipe())


def _fit(_: Path) -> None:
    trainer = Trainer(_recipe())
    trainer.fit({"x": np.zeros((16, 4), np.float32), "t": np.zeros(16, np.int64)}, epochs=1)


def _recipe() -> Any:
    @model(predict="logits")
    def tiny(x: Any = f32["batch", 4], t: Any = i64["batch"]) -> Any:
        logits = x >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, t)}

    return training(tiny, minimize="loss", optimizer=adam(1e-3), batch_size=8)


TAKEN: tuple[Callable[[Path], None], ...] = (_export, _differentiate, _compose, _fit)


def calls(function: Callable[[], None], names: set[str]) -> list[str]:
    """The calls of functions of these names, `module:name`, in their order."""
    made: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            name = f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_qualname}"
            if name in names:
                made.append(name)

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return made


@pytest.mark.parametrize("number", range(len(JOURNEYS)))
def test_a_journey_is_as_told(number: int, tmp_path: Path) -> None:
    steps = [step for step, _ in JOURNEYS[number].steps]
    rest = iter(calls(lambda: TAKEN[number](tmp_path), set(steps)))
    assert [step for step in steps if step not in rest] == []


def test_the_page_is_that_of_the_code() -> None:
    if os.environ.get("UPDATE_SNAPSHOTS"):
        PAGE.write_text(text(), encoding="utf-8")
        PICTURE.write_text(picture(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text(), "UPDATE_SNAPSHOTS=1 writes it anew"
    assert PICTURE.read_text(encoding="utf-8") == picture(), "UPDATE_SNAPSHOTS=1 writes it anew"
