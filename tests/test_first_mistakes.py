"""What a newcomer's losses, images and 16-bit floats are answered with: line, thing, way out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, bf16, f16, f32, i8, i64, model, sgd, training, u8, u64
from dsl.losses.declaration import loss
from nncompile.diagnostics.errors import CompileError
from nncompile.program.model import Model
from nncompile.train import Monitor, Trainer
from tests.leaves import leaf

LABEL = leaf("label", i64["batch"])
LOGITS = leaf("logits", f32["batch", 8])
LOSSES: dict[str, tuple[Callable[[], Any], str]] = {
    "swapped": (
        lambda: dsl.cross_entropy(LABEL, LOGITS),
        r"the logits must be floating-point, got i64\[batch\](.|\n)*cross_entropy\(logits, label\)",
    ),
    "one number a row": (
        lambda: dsl.cross_entropy(LOGITS[:, 0], LABEL),
        r"need a class axis(.|\n)*binary_cross_entropy_with_logits",
    ),
    "no rows": (lambda: dsl.cross_entropy(LOGITS.mean(), LABEL), r"f32\[\] has no class axis -1"),
    "an axis too many": (
        lambda: dsl.cross_entropy(LOGITS, leaf("label", i64["batch", 1])),
        r"label is i64\[batch, 1\](.|\n)*squeeze\(label, 1\)",
    ),
    "integers as logits": (
        lambda: dsl.cross_entropy(leaf("image", u8["batch", 8]), LABEL),
        r"the logits must be floating-point, got u8\[batch, 8\](.|\n)*input "
        r"image(.|\n)*astype\(f32\)",
    ),
    "integers as logarithms": (
        lambda: dsl.negative_log_likelihood(leaf("image", u8["batch", 8]), LABEL),
        r"negative_log_likelihood: the logits must be floating-point, got u8",
    ),
    "real class indices": (
        lambda: dsl.cross_entropy(LOGITS, leaf("label", f32["batch"])),
        r"class indices must be integers(.|\n)*label\.astype\(i64\)",
    ),
    "integers as predictions": (
        lambda: dsl.mse(LABEL, LABEL),
        r"the prediction must be floating-point, got i64\[batch\](.|\n)*input "
        r"label(.|\n)*astype\(f32\)",
    ),
    "an image that is not converted": (
        lambda: model(lambda image=u8["batch", 8]: image >> Dense(2)),
        r"Dense needs floating numbers, x is u8\[batch, 8\](.|\n)*x\.astype\(f32\)",
    ),
    "a layer outside of a model": (
        lambda: LOGITS >> Dense(2),
        "^Dense is called outside of a model",
    ),
    "a number too large": (lambda: leaf("x", u8["n"]) + 300, "u8 cannot hold 300"),
    "integers that no type holds": (
        lambda: leaf("x", u64["n"]) + leaf("y", i64["n"]),
        r"no integer type holds both(.|\n)*x\.astype\(i64\) or y\.astype\(u64\)",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_mistake_of_types_is_answered(name: str) -> None:
    mistake, words = LOSSES[name]
    with pytest.raises(CompileError) as caught:
        mistake()
    message = str(caught.value)
    assert re.search(words, message), message
    assert "at test_first_mistakes.py:" in message
    assert "\n  hint: " in message


def test_integers_of_a_shape_of_the_logits_are_probabilities() -> None:
    """One-hot labels may be integers where there is an axis of classes."""
    assert dsl.cross_entropy(LOGITS, leaf("label", i64["batch", 8])).type == f32[()]
    assert dsl.cross_entropy(LOGITS[0], dsl.softmax(LOGITS[0])).type == f32[()]


def of_images(type_: Any) -> Trainer:
    @model
    def net(x=type_, label=i64["batch"]):  # type: ignore[no-untyped-def]
        logits = dsl.cast(x, f32) >> Dense(3)
        return {"logits": logits, "loss": dsl.cross_entropy(logits, label)}

    assert isinstance(net, Model)
    return Trainer(training(net, optimizer=sgd(0.1)))


IMAGES = np.arange(32, dtype=np.uint8).reshape(8, 4)
FED: dict[str, tuple[Any, Any, str]] = {
    "bytes": (
        f32["batch", 4],
        IMAGES,
        r"convert it with x\.astype\(np\.float32\); or declare the input u8\[batch, 4\]",
    ),
    "fractions": (
        u8["batch", 4],
        IMAGES / np.float32(255),
        r"truncate fractions: declare .* f32\[",
    ),
    "not a number": (u8["batch", 4], np.full((8, 4), np.nan), r"x\[0, 0\] is NaN: remove or fill"),
    "large integers": (
        u8["batch", 4],
        IMAGES.astype(int) + 300,
        "x holds 331, but u8 ranges from 0 to 255",
    ),
    "signs": (u8["batch", 4], -IMAGES.astype(np.int64), "x holds -31, but u8"),
    "bytes with signs": (
        i8["batch", 4],
        IMAGES + np.uint8(100),
        "x holds 131, but i8 ranges",
    ),
    "large numbers": (
        f16["batch", 4],
        np.full((8, 4), 7e4, np.float32),
        "x holds 70000.0",
    ),
    "what fits": (f16["batch", 4], np.ones((8, 4), np.float32), r"x\.astype\(np\.float16\)$"),
    "whole numbers": (u8["batch", 4], IMAGES.astype(np.float64), r"x\.astype\(np\.uint8\)$"),
    "nothing": (u8["batch", 4], np.ones((0, 4)), r"x\.astype\(np\.uint8\)$"),
    "brain floats": (bf16["batch", 4], np.ones((8, 4), np.float32), "convert it with x.astype"),
}


@pytest.mark.parametrize("name", FED)
def test_data_of_another_type_are_told_what_they_would_lose(name: str) -> None:
    """Where types are not converted: in a runner, as in a session."""
    type_, x, words = FED[name]
    runner = of_images(type_).compiled.runner()
    with pytest.raises(CompileError, match="input 'x' has the wrong element type") as caught:
        runner.step({"x": x, "label": np.zeros(len(x), np.int64)})
    assert caught.value.hint is not None
    assert re.search(words, caught.value.hint), caught.value.hint


def test_f16_that_overflows_is_told_where_it_ends() -> None:
    @model
    def net(x=f16["batch", 4], label=i64["batch"]):  # type: ignore[no-untyped-def]
        logits = x * 300 >> Dense(3)
        return {"logits": logits, "loss": dsl.cross_entropy(logits, label)}

    x, label = np.full((4, 4), 300, np.float16), np.zeros(4, np.int64)
    assert isinstance(net, Model)
    with pytest.raises(CompileError, match=r"f16 ends at 65504: x\.astype\(f32\)"):
        Trainer(training(net, optimizer=sgd(0.1))).fit({"x": x, "label": label})


def test_a_loss_that_is_counted_says_what_a_loss_is() -> None:
    @model
    def net(x=i64["batch"]):  # type: ignore[no-untyped-def]
        return {"loss": x.sum()}

    with pytest.raises(CompileError, match=r"x\.sum\(\)(.|\n)*counts have no gradient"):
        training(net)


def test_layers_come_after_the_value() -> None:
    x = leaf("x", f32["batch", 4])
    for wrong in (lambda: Dense(3) >> x, lambda: Dense(3) >> dsl.relu):
        with pytest.raises(CompileError, match=r"Dense is applied(.|\n)*x >> layer; Sequential"):
            wrong()


def test_a_model_without_a_loss_is_told_to_return_one() -> None:
    @model
    def net(x: Any = f32["batch", 4]) -> dict[str, Any]:
        return {"logits": x >> Dense(3)}

    with pytest.raises(CompileError, match=r"no output 'loss'(.|\n)*return one from the model"):
        training(net)


def test_a_loss_without_the_shared_options_is_refused() -> None:
    with pytest.raises(CompileError, match=r"def gap\(prediction, target, \*\*reducing\)"):

        @loss
        def gap(prediction: Any, target: Any) -> Any:
            return abs(prediction - target)


def test_a_callback_that_is_a_class_is_told_to_be_made() -> None:
    @model
    def net(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> dict[str, Any]:
        return {"loss": dsl.cross_entropy(x >> Dense(3), label)}

    trainer = Trainer(training(net))
    with pytest.raises(CompileError, match=r"Monitor is a class(.|\n)*Monitor\(...\)"):
        trainer.fit(
            {"x": np.zeros((2, 4), np.float32), "label": np.zeros(2, np.int64)},
            epochs=1,
            callbacks=[Monitor],
        )
