"""Labels and tokens that were sliced, joined or computed on are still checked before they index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, Embedding, f32, i64, model, sgd, training
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.elementwise import where
from nncompile.ir.basic import cast
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value
from nncompile.ir.types import Array, boolean
from nncompile.ops import broadcast_to, concatenate, const, one_hot, put_along_axis, split, take
from nncompile.program.model import Model
from nncompile.train import Trainer
from nncompile.train.indices import RangeCheck
from tests.op_types import Case, cases_of, registered_ops

Change = Callable[[Array], Array]


def trainer(net: Model) -> Trainer:
    return Trainer(training(net, optimizer=sgd(0.1), batch_size=4))


@model
def language(x=f32["batch"], tokens=i64["batch", "time"]):
    z = Embedding(5, 8)(tokens[:, :-1]) >> Dense(6)
    return {"loss": dsl.cross_entropy(z, tokens[:, 1:]) + 0 * x.mean()}


def told(net: Model, **data: Any) -> str:
    """The error about the data, as arrays and in batches: the same at another number of rows."""
    known = trainer(net)
    with pytest.raises(FeedError) as whole:
        known.evaluate(data)
    with pytest.raises(FeedError) as single:
        known.evaluate([{name: x[:4] for name, x in data.items()}])
    first = str(whole.value).splitlines()[0]
    assert first == str(single.value).splitlines()[0]
    return str(whole.value)


def with_one(value: int, place: tuple[int, ...], shape: tuple[int, ...] = (9, 4)) -> Array:
    array = np.ones(shape, np.int64)
    array[place] = value
    return array


@pytest.mark.parametrize(
    "case",
    [
        case
        for op_type in registered_ops()
        for case in cases_of(op_type)
        if "axis" in case.sample.op.attributes
        and len(case.leaves) > 1
        and case.leaves[1].dtype.is_integer
    ],
    ids=lambda case: case.name,
)
def test_an_op_that_indexes_says_so(case: Case) -> None:
    """And no other does: numpy refuses the index behind the last one, or takes it for a number."""
    sizes = case.bindings[0]
    op, feeds = case.sample.op.at(sizes), case.feeds(sizes)
    x, places, *others = (feeds[leaf.op.name] for leaf in case.leaves)
    behind = np.full_like(places, x.shape[op.axis])
    if op.indexes:
        with pytest.raises(IndexError):
            op.numpy(x, behind, *others)
    else:
        op.numpy(x, behind, *others)


def test_indices_of_what_is_scattered() -> None:
    """Whatever is made of it and what stands there."""
    for reduction in ("add", "max", "min", "mul"):

        @model
        def net(x=f32["batch"], place=i64["batch", 1]):
            zeros = broadcast_to(cast(const(0), f32), (place.shape[0], 3))
            y = put_along_axis(zeros, place, x[:, None], 1, reduction)  # noqa: B023
            return {"loss": (y * Dense(3)(x[:, None])).mean()}

        message = told(net, x=np.zeros(9, np.float32), place=np.full((9, 1), 3))
        assert "index 3 is out of range for an axis of size 3" in message


def test_tokens_of_a_language_model() -> None:
    """The last token is a label only, the first only a token: each has its own range."""
    x = np.zeros(9, np.float32)
    trainer(language).evaluate({"x": x, "tokens": with_one(5, (2, 3))})
    message = told(language, x=x, tokens=with_one(5, (2, 1)))
    assert "input 'tokens' holds 5: index 5 is out of range for an axis of size 5" in message
    assert "tokens[2, 1]" in message
    assert "1 of 27" in message
    message = told(language, x=x, tokens=with_one(-1, (3, 3)))
    assert "input 'tokens' holds -1: index -1 is out of range for an axis of size 6" in message
    assert "tokens[3, 3]" in message
    assert "test_ranges.py" in message


def classifier(label_of: Callable[[Value], Value], **options: Any) -> Model:
    @model
    def net(x=f32["batch", 2], label=i64["batch"]):
        return {"loss": dsl.cross_entropy(x >> Dense(4), label_of(label), **options)}

    return net


X = np.zeros((6, 2), np.float32)
COMPUTED: dict[str, tuple[Callable[[Value], Value], list[int], int, str]] = {
    # the label, the numbers that are right, one that is not, and what it becomes
    "less one": (lambda y: y - 1, [1, 2, 3, 4], 0, "holds -1"),
    "scaled": (lambda y: 2 * y, [0, 1], 2, "holds 4"),
    "counted in pairs": (lambda y: y // 2, [0, 7], 8, "holds 4"),
    "joined": (
        lambda y: concatenate([y.reshape((-1, 1)), y.reshape((-1, 1))], 1)[:, 1], [0, 3], 4,
        "'label' holds 4",
    ),
    "a part": (lambda y: split(y.reshape((-1, 1)), (0,), 1)[1][:, 0], [0, 3], -2, "holds -2"),
    "renamed": (lambda y: take(const([3, 1, 0]), y), [0, 1, 2], 3, "axis of size 3"),
    "counted": (lambda y: one_hot(y, 3, i64).sum(1) * 4 - 1, [1, 2], 9, "holds -1"),
    "chosen": (lambda y: where(y > 2, y, 0), [-7, 0, 3], 4, "holds 4"),
    "reals": (lambda y: cast(cast(y, f32), i64), [0, 3], 4, "holds 4"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPUTED)
def test_labels_that_are_computed(name: str) -> None:
    label_of, right, wrong, words = COMPUTED[name]
    net = classifier(label_of)
    for number in right:
        trainer(net).evaluate({"x": X, "label": np.full(6, number)})
    labels = np.full(6, right[0])
    labels[3] = wrong
    message = told(net, x=X, label=labels)
    assert words in message
    assert "1 of 6" in message


def test_the_others_of_an_ignored_label() -> None:
    net = classifier(lambda y: y, ignore_index=-100)
    trainer(net).evaluate({"x": X, "label": np.array([-100, 0, 1, 2, 3, -100])})
    for wrong in (-1, 4):
        labels = np.array([-100, 0, 1, wrong, 3, -100])
        assert f"holds {wrong}" in told(net, x=X, label=labels)


def test_what_depends_on_the_batch_is_checked_in_batches() -> None:
    """A running sum over the rows of a batch of 4 is not that over all 9."""
    net = classifier(lambda y: dsl.cumsum(y, 0))
    known = trainer(net)
    data = {"x": np.zeros((9, 2), np.float32), "label": np.array([0, 1, 1, 1] * 2 + [3])}
    assert np.isfinite(known.evaluate(data)["loss"])
    with pytest.raises(FeedError, match=": index 4 is out of range for an axis of size 4"):
        known.evaluate([{"x": X[:4], "label": np.array([1, 1, 1, 1])}])


def test_what_parameters_decide_is_not_computed() -> None:
    tokens = Input("tokens", i64["n"])()
    table = Input("table", f32[4, 3], "parameter")()
    chosen = take(table, tokens, 0).argmax(1)
    graph = Graph("net", {"y": take(table, chosen, 0)}, (tokens, table))
    check = RangeCheck(graph, tokens.shape[0])
    check({"tokens": np.array([0, 3])}, {})
    with pytest.raises(FeedError, match="'tokens' holds 4"):
        check({"tokens": np.array([0, 4])}, {})


def test_constant_labels_are_checked_where_they_are_declared() -> None:
    logits = Input("z", f32[3, 4])()
    for loss in (dsl.cross_entropy, dsl.focal_loss, dsl.multiclass_hinge, dsl.accuracy):
        loss(logits, const([0, 1, 3]))
        for wrong in (9, 4, -1):
            with pytest.raises(
                ModelError, match=f"the label {wrong} is out of range for 4 classes"
            ):
                loss(logits, const([0, wrong, 3]))
    dsl.cross_entropy(logits, const([0, -1, 3]), ignore_index=-1)
    with pytest.raises(ModelError, match="the label -2 is out of range for 4 classes"):
        dsl.cross_entropy(logits, const([0, -1, -2]), ignore_index=-1)


def targets(loss: Callable[[Value, Value], Value], *sizes: Any) -> Model:
    @model
    def net(x=f32["batch", 2], target=f32["batch", *sizes]):
        z = x >> Dense(3)
        return {"loss": loss(z if sizes else z[:, 0], target)}

    return net


FALLING: dict[str, tuple[Callable[..., Value], tuple[int, ...], list[float], float]] = {
    # the loss, the sizes of a target, numbers that are right, one at which it falls without end
    "binary_cross_entropy": (
        lambda z, t, **o: dsl.binary_cross_entropy(dsl.sigmoid(z), t, **o), (), [0, 0.5, 1], 1.25
    ),
    "binary_cross_entropy_with_logits": (
        dsl.binary_cross_entropy_with_logits, (), [0, 0.5, 1], -1.0
    ),
    "binary_focal_loss": (dsl.binary_focal_loss, (), [0, 0.5, 1], 5.0),
    "cross_entropy": (dsl.cross_entropy, (3,), [0, 1, 7], -0.5),
    "negative_log_likelihood": (
        lambda z, t, **o: dsl.negative_log_likelihood(dsl.log_softmax(z), t, **o),
        (3,), [0, 1, 7], -0.5,
    ),
    "kl_divergence": (
        lambda z, t, **o: dsl.kl_divergence(dsl.log_softmax(z), t, **o), (3,), [0, 1], -1.0
    ),
    "multilabel_soft_margin_loss": (dsl.multilabel_soft_margin_loss, (3,), [0, 0.5, 1], 3.0),
    "poisson_loss": (dsl.poisson_loss, (), [0, 3, 1000], -1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", FALLING)
def test_targets_at_which_a_loss_falls_without_end_are_refused(name: str) -> None:
    loss, sizes, right, wrong = FALLING[name]
    net = targets(loss, *sizes)
    known = trainer(net)
    for number in right:
        known.evaluate({"x": X, "target": np.full((6, *sizes), number, np.float32)})
    target = np.full((6, *sizes), right[0], np.float32)
    target[4] = wrong
    count = np.prod(sizes, dtype=int)
    for data in ({"x": X, "target": target}, [{"x": X, "target": target}]):
        with pytest.raises(FeedError) as caught:
            known.fit(data, epochs=1)
        message = str(caught.value)
        assert f"input 'target' holds {wrong}, the targets of {name} must be" in message
        assert f"target[4{', 0' * len(sizes)}]" in message
        assert f"{count} of {6 * count}" in message
        assert "test_ranges.py" in message
    assert known.step == 0


@pytest.mark.parametrize("name", FALLING)
def test_targets_that_do_not_count_may_be_anything(name: str) -> None:
    loss, sizes, right, wrong = FALLING[name]
    target = np.full((6, *sizes), right[0], np.float32)
    target[2] = wrong
    counted = np.arange(6) != 2

    @model
    def net(
        x=f32["batch", 2], target=f32["batch", *sizes], mask=boolean["batch"], weight=f32["batch"]
    ):
        z = x >> Dense(3)
        z = z if sizes else z[:, 0]
        return {
            "loss": loss(z, target, mask=mask),
            "weighted": loss(z, target, weight=weight),
            "chosen": where(mask, loss(z, target, reduction="none"), 0).sum() / 5,
        }

    data = {"x": X, "target": target, "mask": counted, "weight": counted.astype(np.float32)}
    found = trainer(net).evaluate(data, batch_size=6)
    assert found["loss"] == pytest.approx(found["weighted"], rel=1e-6)
    assert found["loss"] == pytest.approx(found["chosen"], rel=1e-6)


def test_labels_of_integers_are_targets_of_two_classes() -> None:
    @model
    def net(x=f32["batch", 2], label=i64["batch"]):
        return {"loss": dsl.binary_cross_entropy_with_logits((x >> Dense(1))[:, 0], label)}

    trainer(net).evaluate({"x": X, "label": np.array([0, 1] * 3)})
    assert "holds 2, the targets of binary_cross" in told(net, x=X, label=np.array([0, 2] * 3))
    with pytest.raises(ModelError, match=r"must be from 0 to 1, got 1\.5"):
        dsl.binary_cross_entropy_with_logits(const(np.zeros(2, np.float32)), 1.5)
