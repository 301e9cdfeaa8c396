"""Data of sizes at which there is no model, and numbers out of range: told before anything runs, by
input, layer and line, wherever data are fed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import (
    GRU,
    LSTM,
    RNN,
    Conv2d,
    Dense,
    LearnedPositions,
    MaxPool2d,
    cross_entropy,
    ctc_loss,
    f32,
    i64,
    model,
    padding_mask,
    relu,
    scaled_dot_product_attention,
    sgd,
    softmax,
    training,
)
from nncompile.compiler.compile import compile_model
from nncompile.diagnostics.errors import BackendError, DTypeError, FeedError, ModelError, ShapeError
from nncompile.ir.dims import symbol
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.ops import concatenate, const, scan, take, zeros_like
from nncompile.ops.core.assertions import in_range, limited
from nncompile.ops.core.modes import while_training
from nncompile.program.model import Model
from nncompile.program.shape_check import SizeCheck
from nncompile.runtime import Session
from nncompile.train import Trainer, lr_find, overfit_one_batch
from tests.command_line import fails, line, written

Feeds = dict[str, Array]
HERE = Path(__file__).name


def sequences() -> Model:
    @model
    def sequences(x=f32["batch", "time", 4], label=i64["batch"]):
        logits = x >> LearnedPositions(8, name="places") >> (lambda h: h.mean(1)) >> Dense(3)
        return {"probabilities": softmax(logits), "loss": cross_entropy(logits, label)}

    return sequences


def images() -> Model:
    @model
    def images(image=f32["batch", 1, "height", "width"], label=i64["batch"]):
        h = image >> Conv2d(2, (5, 3), activation=relu, name="stem") >> MaxPool2d(2, name="pool")
        logits = h.mean((2, 3)) >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return images


def of_sequences(time: int, batch: int = 6) -> Feeds:
    return {"x": np.ones((batch, time, 4), np.float32), "label": np.zeros(batch, np.int64)}


def of_images(height: int, width: int, batch: int = 6) -> Feeds:
    image = np.ones((batch, 1, height, width), np.float32)
    return {"image": image, "label": np.zeros(batch, np.int64)}


def trainer(net: Model) -> Trainer:
    return Trainer(training(net, optimizer=sgd(0.1), batch_size=4, epochs=1))


def line_of(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(i for i, x in enumerate(lines, start=1) if text in x)


def told(act: Callable[[], object]) -> str:
    with pytest.raises(FeedError) as error:
        act()
    return str(error.value)


def data_without(feeds: Feeds, *names: str) -> Feeds:
    return {name: x for name, x in feeds.items() if name not in names}


def test_a_sequence_longer_than_the_table_of_places() -> None:
    assert told(lambda: trainer(sequences()).fit(of_sequences(10))) == (
        "the model does not accept input 'x': LearnedPositions has vectors for 8 positions, the "
        "data have "
        "10\n"
        "  input  x              f32[batch, time, 4]  got f32[4, 10, 4]\n"
        "  size   time           at most 8            got 10\n"
        "  x      f32[4, 10, 4]  input x\n"
        f"  at {HERE}:{line_of('LearnedPositions(8')}, in sequences / places\n"
        "  hint: LearnedPositions(10), or cut the data to 8 positions"
    )


@pytest.mark.slow
def test_an_image_smaller_than_the_kernel() -> None:
    place = f"{HERE}:{line_of('Conv2d(2, (5, 3)')}"
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
    known.fit([of_sequences(5), of_sequences(8), of_sequences(3)], epochs=1)
    assert known.step == 3  # the epoch that was interrupted is finished


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


def check_of(function: Callable[..., Value], **types: Any) -> SizeCheck:
    inputs = {name: Input(name, t)() for name, t in types.items()}
    return SizeCheck(Graph("net", {"y": function(**inputs)}), inputs)


def test_sizes_of_places_and_symbolic_slices() -> None:
    fifth = check_of(lambda x: x[:, 4], x=f32["n", "time"])
    assert {str(s): n for s, n in fifth({"x": (2, 5)}).items()} == {"n": 2, "time": 5}
    message = told(lambda: fifth({"x": (2, 3)}))
    assert "indexing (slice): 1 elements from 4 by 1 are not on axis 1 of f32[2, 3]" in message
    assert "hint: feed data with time at least 5" in message
    time = symbol("time")
    rest = check_of(lambda x: x[:, : time - 3], x=f32["n", "time"])
    rest({"x": (0, 3)})  # no rows, and nothing in each
    assert re.search(r" time +at least 3 +got 1\n", told(lambda: rest({"x": (2, 1)})))
    named = check_of(lambda x: x[:, 0], x=f32["n", "4*h"])  # the size is told by its name
    assert re.search(r" h +at least 1 +got 0\n", told(lambda: named({"x": (2, 0)})))


def test_slices_by_numbers_take_what_there_is() -> None:
    for key in (np.s_[:, :5], np.s_[:, 3:], np.s_[:, -5:], np.s_[:, 1:-1], np.s_[:, 4:1:-2]):
        known = check_of(lambda x, key=key: x[key], x=f32["n", "time"])  # type: ignore[misc]
        for time in range(7):
            known({"x": (2, time)})


def test_a_slice_stands_beside_what_has_the_size_that_it_asks_for() -> None:
    """Whether there is as much, the data tell."""
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    first = check_of(lambda x: (x[:, :3] + table).reshape((x.shape[0], 12)), x=f32["n", "time", 4])
    for time in (3, 5):
        first({"x": (2, time, 4)})
    for time in (1, 2):  # one row does not repeat: its gradient would be that of three
        message = told(lambda time=time: first({"x": (2, time, 4)}))  # type: ignore[misc]
        assert f"f32[2, {time}, 4] has {8 * time} elements, f32[2, 3, 4] has 24" in message
        assert "hint: feed data with time at least 3" in message
    changes = check_of(
        lambda x: concatenate([zeros_like(x[:, 0:1]), x[:, 1:] - x[:, :-1]], 1) + x,
        x=f32["n", "time"],
    )
    for time in range(4):
        changes({"x": (2, time)})


def test_sizes_within_a_loop() -> None:
    def halves(x: Value) -> Value:
        return scan(lambda row: row[3] * 2, None, x)  # type: ignore[no-any-return]

    check = check_of(
        lambda x: scan(lambda c, row: (c, row[3] * 2), const(0.0), x)[1], x=f32["n", "time"]
    )
    check({"x": (3, 4)})
    message = told(lambda: check({"x": (3, 2)}))
    assert "1 elements from 3 by 1 are not on axis 0 of f32[2]" in message
    assert f"at {HERE}:{line_of('row[3] * 2), const')}" in message


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


def test_data_that_contradict_each_other_or_have_another_rank() -> None:
    check = check_of(lambda a, b: a + b, a=f32["n", 2], b=f32["n", 2])
    assert "the data do not fit: expected size 3 for n, got 4" in told(
        lambda: check({"a": (3, 2), "b": (4, 2)})
    )
    assert "input 'a' has rank 1" in told(lambda: check({"a": (3,), "b": (3, 2)}))


RECURRENT = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}


def of_lengths(lengths: list[int], time: int) -> Feeds:
    count = len(lengths)
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(count, time, 4)).astype(np.float32),
        "lengths": np.array(lengths),
        "label": np.zeros(count, np.int64),
    }


def recurrent(kind: str) -> Model:
    @model
    def net(x=f32["batch", "time", 4], lengths=i64["batch"], label=i64["batch"]):
        start = const(np.full((1, 3), 0.5, np.float32)) + 0 * x[:, 0, :3]
        initial = (start, start) if kind == "LSTM" else start
        last = RECURRENT[kind](3, name="cell")(x, initial, lengths=lengths)
        return {"last": last, "loss": cross_entropy(last >> Dense(3), label)}

    return net


@pytest.mark.parametrize("kind", RECURRENT)
def test_lengths_of_recurrent_layers(kind: str) -> None:
    known = trainer(recurrent(kind))
    assert told(lambda: known.fit(of_lengths([3, 4, 7, 9], 5))) == (
        f"input 'lengths' holds 7, the lengths of {kind} must be from 0 to 5\n"
        "  first at  lengths[2]\n"
        "  in all    2 of 4\n"
        "  size      time = 5\n"
        f"  at {HERE}:{line_of('RECURRENT[kind](3')}, in net / cell\n"
        "  hint: a length counts the valid elements of a row: np.clip(lengths, 0, 5)"
    )
    assert "holds -1," in told(lambda: known.fit([of_lengths([3, -1], 5)]))
    assert "holds 5, " in told(lambda: known.fit([of_lengths([5, 5], 5), of_lengths([5, 5], 4)]))
    assert "holds 6, " in told(lambda: known.evaluate(of_lengths([6], 5)))
    assert "holds 6, " in told(lambda: known.predict(data_without(of_lengths([1, 6], 5), "label")))
    # A row of nothing keeps its first state.
    last = known.predict(data_without(of_lengths([5, 0], 5), "label"))["last"]
    np.testing.assert_array_equal(last[1], np.full(3, 0.5, np.float32))
    assert not np.allclose(last[0], 0.5)


def test_lengths_of_masks() -> None:
    @model
    def net(x=f32["batch", "time", 4], lengths=i64["batch"], label=i64["batch"]):
        mask = dsl.expand_dims(padding_mask(lengths, x.shape[1]), 1)
        seen = scaled_dot_product_attention(x, x, x, mask)
        return {"seen": seen, "loss": cross_entropy(seen.mean(1) >> Dense(3), label)}

    known = trainer(net)
    message = told(lambda: known.fit(of_lengths([2, 6], 5)))
    assert "input 'lengths' holds 6, the lengths of padding_mask must be from 0 to 5" in message
    seen = known.predict(data_without(of_lengths([5, 0], 5), "label"))["seen"]
    np.testing.assert_array_equal(seen[1], 0)  # nothing to look at
    with pytest.raises(
        ModelError, match=r"padding_mask must be from 0 to 4, got 5(.|\n)*clip\(len"
    ):
        padding_mask([4, 5], 4)
    with pytest.raises(DTypeError, match="lengths must be integers, got f32"):
        padding_mask(const([1.0]), 4)


def of_letters(length: list[int], letters: list[int]) -> Feeds:
    count = len(length)
    return {
        "x": np.random.default_rng(0).normal(size=(count, 6, 4)).astype(np.float32),
        "said": np.ones((count, 2), np.int64),
        "length": np.array(length),
        "letters": np.array(letters),
    }


@pytest.mark.slow
def test_lengths_of_ctc() -> None:
    @model
    def net(
        x=f32["batch", "time", 4],
        said=i64["batch", "letters"],
        length=i64["batch"],
        letters=i64["batch"],
    ):
        losses = ctc_loss(x >> Dense(3), said, length, letters, reduction="none")
        return {"losses": losses, "loss": losses.mean()}

    known = trainer(net)
    message = told(lambda: known.evaluate(of_letters([6, 7], [1, 1])))
    assert "input 'length' holds 7, each length of ctc_loss must be from 0 to 6" in message
    message = told(lambda: known.evaluate(of_letters([6, 6], [1, 3])))
    assert "input 'letters' holds 3, each label_length of ctc_loss must be from 0 to 2" in message
    assert np.isfinite(known.evaluate(of_letters([6, 0], [0, 0]))["loss"])  # both mean something
    with pytest.raises(
        ModelError, match="each label_length of ctc_loss must be from 0 to 2, got -1"
    ):
        ctc_loss(const(np.zeros((1, 4, 3))), const([[1, 1]]), label_length=const([-1]))


def test_places_on_an_axis_of_unknown_size() -> None:
    @model
    def net(x=f32["n", 2], chosen=i64["edges"]):
        y = (take(x, chosen, 0) >> Dense(1)).sum()
        return {"loss": y * y}

    known = trainer(net)
    feeds = {"x": np.ones((4, 2), np.float32), "chosen": np.array([0, 3])}
    known.evaluate([feeds])
    message = told(lambda: known.evaluate([{**feeds, "chosen": np.array([0, 4])}]))
    assert "input 'chosen' holds 4: index 4 is out of range for an axis of size 4" in message


def test_claims_of_one_s_own() -> None:
    def claimed(x: Value) -> Value:
        return limited(x, x.shape[0], 3, "the ring has {limit} seats for {size}", "seat {limit}")

    message = told(lambda: check_of(claimed, x=f32["n"])({"x": (4,)}))
    assert "the model does not accept input 'x': the ring has 3 seats for 4" in message
    assert "hint: seat 3" in message
    with pytest.raises(ShapeError, match="the ring has 3 seats for 4"):
        claimed(const(np.zeros(4)))
    with pytest.raises(DTypeError, match="the seats must be integers, got f32"):
        in_range(const([1.0]), 0, 1, "the seats must be")


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
    known = trainer(sequences())
    feeds = of_sequences(5)
    message = told(lambda: known.fit({**feeds, "x": feeds["x"].astype(np.float64)}))
    assert "expected  f32[batch, time, 4]\n  got       f64[6, 5, 4]" in message
    assert "hint: convert it with x.astype(np.float32)" in message
    message = told(lambda: known.fit({**feeds, "label": feeds["label"].astype(np.int32)}))
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
