"""Data whose sizes the model does not accept are refused before anything runs, wherever they are
fed: the message names the input, the layer and the line."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, cross_entropy, f32, i64, model
from nncompile.compiler.compile import compile_model
from nncompile.diagnostics.errors import BackendError, FeedError
from nncompile.ops.core.modes import while_training
from nncompile.program.shape_check import SizeCheck
from nncompile.runtime import Session
from nncompile.train import lr_find, overfit_one_batch
from tests import size_checks
from tests.command_line import fails, line, written
from tests.size_checks import images, of_images, of_sequences, sequences, told, trainer
from tests.source_lines import line_of


def test_a_sequence_longer_than_the_table_of_places() -> None:
    assert told(lambda: trainer(sequences()).fit(of_sequences(10))) == (
        "the model does not accept input 'x': LearnedPositions has vectors for 8 positions, the "
        "data have 10\n"
        "  input  x              f32[batch, time, 4]  got f32[4, 10, 4]\n"
        "  size   time           at most 8            got 10\n"
        "  x      f32[4, 10, 4]  input x\n"
        f"  at {line_of(size_checks.__file__, 'LearnedPositions(8')}, in sequences / places\n"
        "  hint: LearnedPositions(10), or cut the data to 8 positions"
    )


def test_an_image_smaller_than_the_kernel() -> None:
    place = line_of(size_checks.__file__, "Conv2d(2, (5, 3)")
    assert told(lambda: trainer(images()).fit(of_images(4, 9))) == (
        "the model does not accept input 'image': Conv2d: a kernel that spans 5 is larger than "
        "the height (axis 2) of 4 elements: the result would be empty\n"
        "  input   image            f32[batch, 1, height, width]  got f32[4, 1, 4, 9]\n"
        "  size    height           at least 5                    got 4\n"
        "  x       f32[4, 1, 4, 9]  input image\n"
        "  weight  f32[2, 1, 5, 3]  parameter stem.weight\n"
        "  bias    f32[2]           parameter stem.bias\n"
        f"  at {place}, in images / stem\n"
        '  hint: a smaller kernel or dilation, or more padding (padding="same")'
    )
    message = told(lambda: trainer(images()).evaluate(of_images(5, 9)))
    assert "MaxPool2d: a window of 2 does not fit the height (axis 2) of size 1" in message
    assert f"  at {place}, in images / pool\n" in message
    assert re.search(r"size +height +at least 6 +got 5\n", message)  # of the data, not of the layer
    message = told(lambda: trainer(images()).predict(of_images(4, 2)["image"]))
    assert re.search(r"height +at least 5 +got 4\n.* width +at least 3 +got 2\n", message)


def test_every_way_of_feeding() -> None:
    net, good, bad = sequences(), of_sequences(5), of_sequences(9)
    known = trainer(net)
    runner = known.compiled.runner(known.compiled.source.initial(0))
    runner.step(good)
    ways: dict[str, Callable[[], object]] = {
        "fit": lambda: known.fit(bad),
        "fit on batches": lambda: known.fit([good, bad]),
        "validation": lambda: known.fit(good, validation_data=bad),
        "evaluate": lambda: known.evaluate(bad),
        "evaluate batches": lambda: known.evaluate([good, bad]),
        "predict": lambda: known.predict(bad["x"]),
        "a runner": lambda: runner.step(bad),
        "lr_find": lambda: lr_find(known, bad, steps=3),
        "overfit_one_batch": lambda: overfit_one_batch(known.compiled, bad, 2),
    }
    for way, act in ways.items():
        assert "LearnedPositions has vectors for 8 positions, the data have 9" in told(act), way


def test_a_bad_batch_leaves_the_state_and_the_next_one_trains() -> None:
    known = trainer(sequences())
    told(lambda: known.fit([of_sequences(5), of_sequences(9)]))
    assert known.step == 1
    with pytest.raises(FeedError, match="2 then  3 now"):
        known.fit([of_sequences(5), of_sequences(8), of_sequences(3)], epochs=1)
    known.begin_epoch()
    known.fit([of_sequences(5), of_sequences(8), of_sequences(3)], epochs=1)
    assert known.step == 4


def test_what_is_refused_is_what_fails_or_has_no_mean() -> None:
    compiled = compile_model(images())
    session = Session(compiled.model)
    state = {"stem.weight": (2, 1, 5, 3), "stem.bias": 2, "dense.weight": (2, 3), "dense.bias": 3}
    held = {name: np.ones(shape, np.float32) for name, shape in state.items()}
    for height, width in itertools.product(range(1, 9), range(1, 7)):
        image = of_images(height, width, 2)["image"]
        try:
            found = session.run({"image": image, **held})
            runs = bool(np.isfinite(found["logits"]).all())  # pooled to nothing, the mean is NaN
        except BackendError:
            runs = False
        try:
            compiled.sizes({"image": image.shape})
            accepted = True
        except FeedError:
            accepted = False
        assert accepted == runs == (height >= 6 and width >= 4), (height, width)


def test_a_combination_of_sizes_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    whole = SizeCheck._checked

    def counted(self: SizeCheck, shapes: Any) -> Any:
        seen.append(dict(shapes))
        return whole(self, shapes)

    monkeypatch.setattr(SizeCheck, "_checked", counted)
    known = trainer(sequences())
    known.fit(of_sequences(5), epochs=3)  # batches of 4 and of 2
    assert [s["x"] for s in seen] == [(4, 5, 4), (2, 5, 4)]  # type: ignore[index]
    batches = [of_sequences(t, 4) for t in (5, 6, 5, 6, 7)]
    known.fit(batches, epochs=2)
    assert [s["x"][1] for s in seen[2:]] == [6, 7]  # type: ignore[index]
    for _ in range(3):
        known.predict(of_sequences(5, 4)["x"])
    assert len(seen) == 5


def test_the_last_smaller_batch_is_checked_before_training() -> None:
    @model
    def net(x=f32["batch", 2]):
        y = (x[2] >> Dense(1)).sum()
        return {"loss": y * y}

    known = trainer(net)
    known.fit({"x": np.ones((7, 2), np.float32)})
    message = told(lambda: known.fit({"x": np.ones((6, 2), np.float32)}))
    assert re.search(r"size +batch +at least 3 +got 2\n", message)
    assert known.step == 2


def test_only_what_is_computed_is_checked() -> None:
    @model(predict="logits")
    def net(x=f32["batch", "time", 4], label=i64["batch"]):
        h = while_training(x[:, 4], x[:, 1])
        logits = h >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, label), "unused": x[:, 98]}

    known = trainer(net)
    known.fit(of_sequences(5))
    known.evaluate(of_sequences(2))
    known.predict(of_sequences(2)["x"])
    assert "1 elements from 4" in told(lambda: known.fit(of_sequences(4)))
    assert "1 elements from 1" in told(lambda: known.evaluate(of_sequences(1)))
    assert "1 elements from 1" in told(lambda: known.predict(of_sequences(1)["x"]))


def test_predictions_of_no_examples() -> None:
    known = trainer(sequences())
    found = known.predict(of_sequences(5, 0)["x"])
    assert found["probabilities"].shape == (0, 3)
    assert found["probabilities"].dtype == np.float32
    assert "vectors for 8 positions" in told(lambda: known.predict(of_sequences(9, 0)["x"]))
    assert told(lambda: known.evaluate(of_sequences(5, 0))).startswith(
        "the data have no examples\n  x      f32[0, 5, 4]\n  label  i64[0]\n"
    )

    @model(predict=("y", "mean"))
    def net(x=f32["batch", 2]):
        y = x >> Dense(1)
        return {"y": y, "mean": y.mean(0), "loss": (y * y).mean()}

    message = told(lambda: trainer(net).predict(np.zeros((0, 2), np.float32)))
    assert "the data have no examples, and output 'mean' has no row for each" in message


def test_other_element_types_say_what_to_type() -> None:
    runner = trainer(sequences()).compiled.runner()  # which does not convert them, as fit does
    feeds = of_sequences(5)
    message = told(lambda: runner.step({**feeds, "x": feeds["x"].astype(np.float64)}))
    assert "expected  f32[batch, time, 4]\n  got       f64[6, 5, 4]" in message
    assert "hint: convert it with x.astype(np.float32)" in message
    message = told(lambda: runner.step({**feeds, "label": feeds["label"].astype(np.int32)}))
    assert "hint: convert it with label.astype(np.int64)" in message


FILE = """\
import numpy as np
from dsl import Conv2d, Dense, cross_entropy, f32, i64, model, training

@model
def net(image=f32["batch", 1, "height", "width"], label=i64["batch"]):
    logits = (image >> Conv2d(2, 5, name="stem")).mean((2, 3)) >> Dense(3)
    return {"logits": logits, "loss": cross_entropy(logits, label)}

recipe = training(net, batch_size=4, epochs=1)
data = {"image": np.ones((8, 1, 3, 9), np.float32), "label": np.zeros(8, np.int64)}
"""


@pytest.mark.parametrize("command", ["train", "check"])
def test_the_command_line(tmp_path: Path, command: str) -> None:
    path = written(tmp_path, FILE)
    more = ["--output", tmp_path / "out"] if command == "train" else []
    message = fails(command, path, *more)
    assert message.startswith(
        "FeedError: the model does not accept input 'image': Conv2d: a kernel that"
    )
    assert re.search(r"size +height +at least 5 +got 3\n", message)
    assert f"at {line('Conv2d(2', FILE)}, in net / stem\n" in message
