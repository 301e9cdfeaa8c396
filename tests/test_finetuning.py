"""New heads of models of files, losses of their outputs, and plans of fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from dsl import Dense, f32, model, relu, sigmoid
from nncompile import Trainer, evaluate, grad, load_onnx
from nncompile.diagnostics.errors import FeedError, FileError, ModelError
from nncompile.finetuning.objectives import LOSSES, with_loss
from nncompile.finetuning.plan import Plan, tuned
from nncompile.program.heads import output_of, with_new_head
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from nncompile.train.sources.notes import DataNote
from nncompile.verify.finite_differences import GRADIENT_TOLERANCE, worst_gradient
from tests.onnx_files import FLOAT, convolutional, tied_language_model, weight, written

node = helper.make_node


def output(model_: Model, name: str, **feeds: Any) -> Any:
    """An output of the first weights."""
    return evaluate(model_.inference([name]), {**initial_values(model_, 0), **feeds})[name]


def images(count: int = 24, classes: int = 5) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, count)
    x = rng.normal(size=(count, 3, 8, 8)) + y[:, None, None, None]
    return {"image": x.astype(np.float32), "y": y}


def test_a_new_head_is_of_the_same_features(tmp_path: Path) -> None:
    base = load_onnx(convolutional(tmp_path / "m.onnx"))
    changed, head = with_new_head(base, 7)
    assert {p: str(t) for p, t in head.cut.items()} == {
        "fc.weight": "f32[5, 4]", "fc.bias": "f32[5]",
    }  # fmt: skip
    assert changed.parameters["fc.weight"].type == f32[7, 4]
    assert changed.outputs["logits"].shape[1] == 7
    kept = set(base.parameters) - set(head.cut)
    assert all(changed.parameters[path] is base.parameters[path] for path in kept)
    assert changed.states.keys() == base.states.keys() == changed.updates.keys()
    x = images()["image"]
    starts = initial_values(changed, 0)
    limit = 4**-0.5
    assert 0.5 * limit < np.abs(starts["fc.weight"]).max() <= limit
    assert not starts["fc.bias"].any()
    found = output(changed, "logits", image=x)
    np.testing.assert_allclose(
        found @ np.linalg.pinv(starts["fc.weight"].T), pooled(base, x), 1e-3, 1e-4
    )
    assert str(head) == (
        "the last layer of logits is new: fc.weight f32[7, 4], fc.bias f32[7] on f32[batch, 4], "
        "in the place of gemm fc.weight f32[5, 4], fc.bias f32[5] (fc/Gemm)"
    )


def pooled(base: Model, x: Any) -> Any:
    """The features of `convolutional`."""
    p = initial_values(base, 0)
    logits = output(base, "logits", image=x)
    return (logits - p["fc.bias"]) @ np.linalg.pinv(p["fc.weight"].T)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_what_follows_a_head_stays(tmp_path: Path, count: int) -> None:
    """A bias that is added, a softmax, a reshape to the number of classes; one that is as many as
    before is new, too."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="/fc/MatMul"),
        node("Add", ["a", "b"], ["c"]),
        node("Reshape", ["c", "to"], ["d"]),
        node("Softmax", ["d"], ["p"], axis=-1),
    ]
    weights = {"w": weight(6, 5), "b": weight(5, seed=1), "to": np.array([-1, 5])}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 6])}, ["p"], weights)
    changed, head = with_new_head(load_onnx(file), count)
    assert set(head.parameters) == {"w", "b"}
    assert changed.parameters["b"].type == f32[count]
    x = weight(4, 6, seed=2)
    w = initial_values(changed, 0)["w"]
    powers = np.exp(x @ w)
    expected = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(output(changed, "p", x=x), expected, 1e-5)


def test_a_tied_embedding_stays_and_gets_a_head_beside_it(tmp_path: Path) -> None:
    base = load_onnx(tied_language_model(tmp_path / "m.onnx"))
    changed, head = with_new_head(base, 3)
    assert set(head.cut) == {"tok.weight"} and set(head.parameters) == {"head.weight"}
    assert changed.parameters["tok.weight"] is base.parameters["tok.weight"]
    assert str(changed.outputs["logits"].type) == "f32[batch, seq, 3]"
    ids = np.array([[1, 2, 3]])
    assert output(changed, "logits", ids=ids).shape == (1, 3, 3)


def test_kernels_of_segmentation_are_a_head(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "a.weight"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["r"]),
        node("Conv", ["r", "o.weight", "o.bias"], ["y"], kernel_shape=[1, 1]),
    ]
    weights = {"a.weight": weight(4, 2, 3, 3), "o.weight": weight(2, 4, 1, 1), "o.bias": weight(2)}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 2, 6, 6])}, ["y"], weights)
    changed, head = with_new_head(load_onnx(file), 5)
    assert {p: t.shape for p, t in head.parameters.items()} == {
        "o.weight": (5, 4, 1, 1), "o.bias": (5,),
    }  # fmt: skip
    y = np.random.default_rng(0).integers(0, 5, (8, 6, 6))
    objective = with_loss(changed, "cross_entropy", "y", "label", y)
    assert str(objective.model.inputs["label"].type) == "i64[n, 6, 6]"


@pytest.mark.parametrize("kind", ["groups", "transposed"])
def test_kernels_of_groups_and_transposed_ones_are_a_head(tmp_path: Path, kind: str) -> None:
    if kind == "groups":
        last = node("Conv", ["x", "w", "b"], ["a"], kernel_shape=[3, 3], group=2)
        tensors = {"w": weight(6, 2, 3, 3), "b": weight(6)}
    else:
        last = node("ConvTranspose", ["x", "w", "b"], ["a"], kernel_shape=[2, 2], strides=[2, 2])
        tensors = {"w": weight(4, 6, 2, 2), "b": weight(6)}
    nodes = [last, node("GlobalAveragePool", ["a"], ["p"]), node("Flatten", ["p"], ["y"])]
    inputs = {"x": (FLOAT, ["n", 4, 5, 5])}
    base = load_onnx(written(tmp_path / "m.onnx", nodes, inputs, ["y"], tensors))
    changed, head = with_new_head(base, 4)
    assert head.parameters["b"].shape == (4,)
    assert str(changed.outputs["y"].type) == "f32[n, 4]"
    assert output(changed, "y", x=weight(3, 4, 5, 5)).shape == (3, 4)
    if kind == "groups":
        with pytest.raises(ModelError, match=r"cannot have 5 results(.|\n)*channels in groups"):
            with_new_head(base, 5)


def test_there_is_no_head_without_a_last_layer(tmp_path: Path) -> None:
    """Two ways to the output; results that others count on; no output, or several."""
    x = {"x": (FLOAT, ["n", 4])}
    two_ways = "a = MatMul(x, w)  y = Add(a, x)"
    file = written(tmp_path / "a.onnx", two_ways, x, ["y"], {"w": weight(4, 4)})
    with pytest.raises(ModelError, match="no product with a weight is between y and all that"):
        with_new_head(load_onnx(file), 3)
    fixed = [node("MatMul", ["x", "w"], ["a"]), node("Mul", ["a", "scale"], ["y"])]
    constants = {"w": weight(4, 6), "scale": np.arange(6, dtype=np.int64)}
    fixed.insert(0, node("Cast", ["scale"], ["s"], to=FLOAT))
    fixed[2] = node("Mul", ["a", "s"], ["y"])
    file = written(tmp_path / "b.onnx", fixed, x, ["y"], constants)
    with pytest.raises(ModelError, match="last layer of y needs its size to be 6"):
        with_new_head(load_onnx(file), 3)
    several = "a = MatMul(x, w)  b = Relu(a)"
    base = load_onnx(written(tmp_path / "c.onnx", several, x, ["a", "b"], {"w": weight(4, 6)}))
    with pytest.raises(ModelError, match="has 2 outputs of real numbers: say which one"):
        with_new_head(base, 3)
    changed, _ = with_new_head(base, 3, "b")
    assert changed.outputs["a"].shape[1] == changed.outputs["b"].shape[1] == 3
    with pytest.raises(ModelError, match="no output of real numbers 'c'"):
        output_of(base, "c")
    with pytest.raises(ModelError, match="the size of a new head must be at least 1"):
        with_new_head(base, 0, "b")


def test_outputs_that_cannot_follow_are_left_out(tmp_path: Path) -> None:
    nodes = "y = MatMul(x, w)  paired = Reshape(y, pairs)"
    weights = {"w": weight(4, 6), "pairs": np.array([-1, 3, 2])}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y", "paired"], weights)
    changed, head = with_new_head(load_onnx(file), 5, "y")
    assert list(changed.outputs) == ["y"] == list(changed.predict)
    assert head.dropped == ("paired",) and str(head).endswith("without the output paired")


@model
def regression(x=f32["batch", 4]):
    return {"y": x >> Dense(3, relu, name="a") >> Dense(1, name="b")}


def test_labels_say_what_they_are() -> None:
    numbers = np.zeros(6)
    objective = with_loss(regression, "mse", "y", "price", numbers)
    assert str(objective.model.inputs["price"].type) == "f32[batch]"  # beside f32[batch, 1]
    assert objective.metrics == () and objective.loss == "loss"
    binary = with_loss(regression, "binary_cross_entropy_with_logits", "y", "t", numbers[:, None])
    assert str(binary.model.inputs["t"].type) == "f32[batch, 1]" and binary.metrics == ("accuracy",)
    assert binary.model.predict == ("y",)
    with pytest.raises(FeedError, match="do not fit the output 'y': it wants numbers of its shape"):
        with_loss(regression, "mse", "y", "t", np.zeros((6, 2)))
    with pytest.raises(FeedError, match=r"classes(.|\n)*words are encoded as numbers"):
        with_loss(regression, "cross_entropy", "y", "t", np.array(["a", "b"]))
    with pytest.raises(FeedError, match=r"labels\.astype\(int\)"):
        with_loss(regression, "cross_entropy", "y", "t", np.ones(6))
    with pytest.raises(ModelError, match="called as something else in model regression"):
        with_loss(regression, "mse", "y", "x", numbers)
    with pytest.raises(ModelError, match="did you mean 'huber'"):
        with_loss(regression, "hubert", "y", "t", numbers)


LIKELIHOOD = "negative_log_likelihood"


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_has_the_gradient_of_its_numbers(loss: str) -> None:
    @model
    def scores(x=f32["batch", 4]):
        z = x >> Dense(3, name="a")
        return {"y": sigmoid(z) if loss == "binary_cross_entropy" else z}

    rng = np.random.default_rng(0)
    of_classes = loss in ("cross_entropy", "focal_loss", "multiclass_hinge", LIKELIHOOD)
    y = rng.integers(0, 3, 7) if of_classes else rng.integers(0, 2, (7, 3)).astype(np.float32)
    objective = with_loss(scores, loss, "y", "t", y)
    net = objective.model
    value = net.outputs[objective.loss]
    leaves = net.parameters
    gradients = dict(zip(leaves, grad(value, list(leaves.values())), strict=True))
    point = {**initial_values(net, 0), "x": rng.normal(size=(7, 4)), "t": y}
    worst, where = worst_gradient(value, gradients, point, rng)
    assert worst < GRADIENT_TOLERANCE, where


def test_a_softmax_has_a_loss_of_its_logits(tmp_path: Path) -> None:
    """One of the file, and probabilities that are made in another way, as scikit-learn's are."""
    x = weight(6, 4, seed=3)
    y = np.array([0, 1, 1, 0, 1, 0])
    nodes = [
        node("MatMul", ["x", "w"], ["z"]),
        node("Softmax", ["z"], ["p"], axis=-1),
    ]
    file = written(tmp_path / "a.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["p"], {"w": weight(4, 2)})
    np.savez(tmp_path / "a.npz", x=x, y=y)
    made = tuned(Plan(str(file), str(tmp_path / "a.npz"), "y", "cross_entropy"))
    assert "p is a softmax: the loss is of its logits" in made.notes
    logits = x @ weight(4, 2)
    expected = -np.mean(logits[range(6), y] - np.log(np.exp(logits).sum(1)))
    feeds = {"x": x, "y": y}
    net = made.recipe.model
    np.testing.assert_allclose(output(net, "loss", **feeds), expected, 1e-5)
    nodes = [
        node("MatMul", ["x", "w"], ["z"]),
        node("Sigmoid", ["z"], ["one"]),
        node("Sub", ["unit", "one"], ["zero"]),
        node("Concat", ["zero", "one"], ["p"], axis=1),
    ]
    weights = {"w": weight(4, 1), "unit": np.float32(1)}
    file = written(tmp_path / "b.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["p"], weights)
    made = tuned(Plan(str(file), str(tmp_path / "a.npz"), "y", "cross_entropy"))
    assert "p holds probabilities: the loss is of their logarithms" in made.notes
    one = 1 / (1 + np.exp(-x @ weight(4, 1)[:, 0]))
    expected = -np.mean(np.log(np.where(y, one, 1 - one)))
    np.testing.assert_allclose(output(made.recipe.model, "loss", **feeds), expected, 1e-5)


def plan_of(tmp_path: Path, **options: Any) -> Plan:
    file = convolutional(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", **images(), other=np.zeros(3))
    return Plan(str(file), str(tmp_path / "d.npz"), "y", "cross_entropy", **options)


def learned(made: Any) -> set[str]:
    trainer = Trainer(made.recipe, threads=1)
    before = trainer.state
    trainer.fit(made.data[0], steps=2, verbose=0)
    changed = {p for p, x in trainer.state.items() if not np.array_equal(x, before[p])}
    return {p for p in changed if p in {*trainer.model.parameters, *trainer.model.states}}


STATISTICS = {"bn.mean", "bn.var"}
ALL = {"stem.weight", "bn.weight", "bn.bias", "fc.weight", "fc.bias", *STATISTICS}
HEAD = {"fc.weight", "fc.bias"}
FACTORS = {f"{layer}.lora_{x}" for layer in ("stem", "fc") for x in "ab"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ALL),
        ({"head": 5}, HEAD),
        ({"lora": 2}, FACTORS),
        ({"head": 5, "lora": 2, "lora_params": ("stem.*",)}, HEAD | {"stem.lora_a", "stem.lora_b"}),
        ({"freeze": ("bn.*",)}, ALL - STATISTICS - {"bn.weight", "bn.bias"}),
        ({"train": ("fc.*", "bn.bias")}, {*HEAD, "bn.bias"}),
        ({"head": 5, "train": ("*",), "freeze": ("stem.*",)}, ALL - {"stem.weight"}),
    ],
)
def test_what_a_plan_trains(tmp_path: Path, options: dict[str, Any], expected: set[str]) -> None:
    made = tuned(plan_of(tmp_path, **options, lr=1e-2))
    assert learned(made) == expected
    wanted = {p for p in expected if p not in STATISTICS}
    total = len(made.recipe.model.parameters)
    of_all = "" if len(wanted) == total else f"{len(wanted)} of "
    assert f"trains {of_all}{total} tensors" in made.notes[-1]


@pytest.mark.parametrize(
    ("options", "drops"),
    [({}, True), ({"head": 2}, False), ({"lora": 2}, True), ({"train": ("blocks.0.*",)}, True),
     ({"train": ("fc.*",)}, False), ({"freeze": ("blocks.*",)}, False)],
)  # fmt: skip
def test_dropout_of_what_is_frozen_is_off(
    tmp_path: Path, options: dict[str, Any], drops: bool
) -> None:
    nodes = [
        node("MatMul", ["x", "blocks.0.w"], ["a"], name="/blocks.0/MatMul"),
        node("Dropout", ["a", "rate", "yes"], ["d"], name="/blocks.0/drop/Dropout"),
        node("MatMul", ["d", "fc.w"], ["y"], name="/fc/MatMul"),
    ]
    tensors = {
        "blocks.0.w": weight(4, 4),
        "fc.w": weight(4, 2),
        "rate": np.float32(0.5),
        "yes": np.array(True),
    }
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], tensors)
    np.savez(tmp_path / "d.npz", x=weight(6, 4), y_=np.arange(6) % 2)
    made = tuned(Plan(str(file), str(tmp_path / "d.npz"), "y_", "cross_entropy", **options))
    kinds = {type(v.op).__name__ for v in made.recipe.trained_model.graph.nodes}
    assert ("Dropout" in kinds) is drops


def test_a_plan_lowers_the_loss_and_splits_its_data(tmp_path: Path) -> None:
    made = tuned(plan_of(tmp_path, head=5, train=("*",), lr=3e-2, validation_split=0.25))
    train, held_out = made.data
    assert held_out is not None
    assert (len(train["y"]), len(held_out["y"])) == (18, 6)
    assert set(train) == {"image", "y"}
    trainer = Trainer(made.recipe, threads=1)
    before = trainer.evaluate(train)["loss"]
    trainer.fit(train, steps=50, verbose=0)
    assert trainer.evaluate(train)["loss"] < 0.7 * before
    described = Plan.of(made.plan.described())
    assert described == made.plan


def test_a_plan_says_what_does_not_fit(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    directory = str(tmp_path)

    def fails(error: type[Exception], match: str, **options: Any) -> None:
        fields = {**plan.described(), **options}
        with pytest.raises(error, match=match):
            tuned(Plan.of(fields))

    fails(FeedError, r"d\.npz has no 'label'", label="label")
    fails(FeedError, "from 0 to 4, the output 'logits' has 3 classes(.|\n)*--head 5", head=3)
    fails(ModelError, r"--train 'nix\.\*' matches no parameter", train=("nix.*",))
    fails(ModelError, r"freeze='nix\.\*' matches no parameter", freeze=("nix.*",))
    fails(ModelError, "did you mean 'adamw'", optimizer="adamww")
    fails(ModelError, "give one", validation=plan.data, validation_split=0.5)
    fails(FileError, "suffix is none of", data=f"{directory}/d.txt")
    fails(FileError, r"hint: np\.savez", data=f"{directory}/d.npy")
    np.savez(tmp_path / "e.npz", img=images()["image"], y=images()["y"])
    missing = r"no array for the input 'image', f32\[batch, 3, height, 8\](.|\n)*mean 'img'"
    fails(FeedError, missing, data=f"{directory}/e.npz")
    np.savez(tmp_path / "f.npz", **images(), words=np.array(["a"] * 24))
    fails(FeedError, "words are encoded", data=f"{directory}/f.npz", label="words")


def test_a_table_has_the_label_in_a_column(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    nodes = "y = Gemm(x, w, b)"
    weights = {"w": weight(2, 3), "b": weight(3)}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 2])}, ["y"], weights)
    rows = "\n".join(f"{i / 9},{1 - i / 9},{i % 3}" for i in range(9))
    (tmp_path / "d.csv").write_text(f"first,second,kind\n{rows}\n")
    with pytest.warns(DataNote, match="'x' takes the columns first, second"):
        made = tuned(Plan(str(file), str(tmp_path / "d.csv"), "kind", "cross_entropy"))
    assert made.data[0]["x"].shape == (9, 2)
    np.testing.assert_array_equal(made.data[0]["kind"], np.arange(9) % 3)
    assert learned(made) == {"w", "b"}


def test_a_language_model_learns_the_next_token(tmp_path: Path) -> None:
    file = tied_language_model(tmp_path / "m.onnx")
    ids = np.random.default_rng(0).integers(0, 20, (16, 5))
    np.savez(tmp_path / "d.npz", ids=ids, following=np.roll(ids, -1, 1))
    plan = Plan(str(file), str(tmp_path / "d.npz"), "following", "cross_entropy", lora=2, lr=3e-2)
    made = tuned(plan)
    assert str(made.recipe.model.inputs["following"].type) == "i64[batch, seq]"
    trainer = Trainer(made.recipe, threads=1)
    before = trainer.evaluate(made.data[0])["loss"]
    trainer.fit(made.data[0], steps=50, verbose=0)
    assert trainer.evaluate(made.data[0])["loss"] < 0.9 * before
