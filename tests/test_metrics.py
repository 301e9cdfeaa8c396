"""Metrics against scikit-learn's, of one batch and over batches of 32, 32 and 1."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, f32, i64, model, sgd, training
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type, boolean
from nncompile.program.metric_aggregation import accumulation
from nncompile.train import Trainer
from tests.backends import session, valid_model

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the reference here")

COUNT, CLASSES = 65, 5
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(scale=2, size=(COUNT, CLASSES)).astype(np.float32)
LABELS = np.where(RANDOM.random(COUNT) < 0.5, LOGITS.argmax(1), RANDOM.integers(0, 4, COUNT))
SCORES = np.round(RANDOM.random(COUNT), 1).astype(np.float32)  # with ties
TRUE = (RANDOM.random(COUNT) < 0.3 + 0.4 * SCORES).astype(np.float32)
SEVERAL = (RANDOM.random((COUNT, CLASSES)) < 0.4).astype(np.float32)
REAL = (RANDOM.normal(size=(COUNT, 2)) + 100).astype(np.float32)
GUESS = (REAL + RANDOM.normal(scale=0.7, size=(COUNT, 2))).astype(np.float32)
MASK = RANDOM.random(COUNT) < 0.5
MASK[32:63] = False  # the second batch has one that counts

DATA = {
    "logits": LOGITS, "label": LABELS, "score": SCORES, "true": TRUE, "several": SEVERAL,
    "real": REAL, "guess": GUESS, "mask": MASK,
}  # fmt: skip
TYPES: dict[str, Type] = {
    "logits": f32["n", CLASSES], "label": i64["n"], "score": f32["n"], "true": f32["n"],
    "several": f32["n", CLASSES], "real": f32["n", 2], "guess": f32["n", 2], "mask": boolean["n"],
}  # fmt: skip
PREDICTED, ABOVE = LOGITS.argmax(1), SCORES > 0.5
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
LEAVES = {name: Input(name, type_)() for name, type_ in TYPES.items()}
Z, C, S, T, M = (LEAVES[name] for name in ("logits", "label", "score", "true", "mask"))
ALL = list(range(CLASSES))


def own(name: str, averaging: str) -> Value:
    return getattr(dsl, name)(Z, C, averaging)


def their(name: str, averaging: str | None) -> Any:
    score = getattr(sklearn, {"iou": "jaccard_score"}.get(name, f"{name}_score").replace(
        "f1_score_score", "f1_score"))  # fmt: skip
    return score(LABELS, PREDICTED, average=averaging, labels=ALL, zero_division=0)


def binary(name: str) -> Any:
    score = {"precision": sklearn.precision_score, "recall": sklearn.recall_score,
             "f1_score": sklearn.f1_score, "iou": sklearn.jaccard_score}[name]  # fmt: skip
    return score(TRUE, ABOVE)


SCORED = ("precision", "recall", "f1_score", "iou")
METRICS: dict[str, tuple[Value, Any]] = {
    "accuracy": (dsl.accuracy(Z, C), sklearn.accuracy_score(LABELS, PREDICTED)),
    "accuracy masked": (
        dsl.accuracy(Z, C, mask=M), sklearn.accuracy_score(LABELS[MASK], PREDICTED[MASK]),
    ),
    "accuracy weighted": (
        dsl.accuracy(Z, C, weight=S),
        sklearn.accuracy_score(LABELS, PREDICTED, sample_weight=SCORES),
    ),
    "binary accuracy": (dsl.binary_accuracy(S, T), sklearn.accuracy_score(TRUE, ABOVE)),
    **{
        f"top {k}": (
            dsl.top_k_accuracy(Z, C, k),
            sklearn.top_k_accuracy_score(LABELS, LOGITS, k=k, labels=ALL),
        )
        for k in (1, 2, 4)
    },
    **{
        f"{name} {averaging}": (own(name, averaging), their(name, averaging))
        for name in SCORED
        for averaging in ("macro", "micro", "weighted")
    },
    **{f"{name} binary": (getattr(dsl, name)(S, T), binary(name)) for name in SCORED},
    "f1 of several labels": (
        dsl.f1_score(LEAVES["logits"], LEAVES["several"], "macro", threshold=0),
        sklearn.f1_score(SEVERAL, LOGITS > 0, average="macro"),
    ),
    "precision masked": (
        dsl.precision(Z, C, "macro", mask=M),
        sklearn.precision_score(
            LABELS[MASK], PREDICTED[MASK], average="macro", labels=ALL, zero_division=0
        ),
    ),
    "auc": (dsl.roc_auc(S, T), sklearn.roc_auc_score(TRUE, SCORES)),
    "auc masked": (dsl.roc_auc(S, T, mask=M), sklearn.roc_auc_score(TRUE[MASK], SCORES[MASK])),
    "r2": (
        dsl.r2_score(LEAVES["guess"], LEAVES["real"]),
        sklearn.r2_score(REAL.ravel().astype(float), GUESS.ravel()),
    ),
    "mse": (dsl.mse(LEAVES["guess"], LEAVES["real"]), sklearn.mean_squared_error(REAL, GUESS)),
    "mae": (dsl.mae(LEAVES["guess"], LEAVES["real"]), sklearn.mean_absolute_error(REAL, GUESS)),
    "rmse": (
        dsl.root_mean_squared_error(LEAVES["guess"], LEAVES["real"]),
        sklearn.mean_squared_error(REAL, GUESS) ** 0.5,
    ),
    "perplexity": (
        dsl.perplexity(Z, C),
        np.exp(sklearn.log_loss(LABELS, PROBABILITIES, labels=ALL)),
    ),
    "cross entropy masked": (
        dsl.cross_entropy(Z, C, mask=M),
        sklearn.log_loss(LABELS[MASK], PROBABILITIES[MASK], labels=ALL),
    ),
}  # fmt: skip
# Counts are divided in single precision; an error of squares is rounded for each element.
NEAR = 1e-6


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_scikit_learns(name: str) -> None:
    value, expected = METRICS[name]
    assert float(evaluate(value, DATA)) == pytest.approx(float(expected), rel=NEAR)


def test_onnxruntime_computes_them_at_several_sizes() -> None:
    graph = Graph("metrics", {n: v for n, (v, _) in METRICS.items()}, tuple(LEAVES.values()))
    run = session(valid_model(graph))
    for count in (COUNT, 7, 1):
        feeds = {name: x[:count] for name, x in DATA.items()}
        expected = evaluate(graph, feeds)
        found = run(feeds, dict.fromkeys(METRICS, ()))
        for name, x in expected.items():
            np.testing.assert_allclose(found[name], x, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """Of a model that computes all metrics, from data alone."""
    weight = Input("weight", f32[()], "parameter")()
    outputs = {
        **{name: value for name, (value, _) in METRICS.items()},
        "confusion": dsl.confusion_matrix(Z, C),
        "loss": weight * weight + dsl.cross_entropy(Z * weight, C, mask=M),
    }
    graph = Graph("metrics", outputs, (*LEAVES.values(), weight))
    whole = dsl.Model("metrics", graph, {"weight": dsl.const(np.float32(1))})
    return Trainer(training(whole, optimizer=sgd(0.0), batch_size=32))


def test_evaluation_in_batches_is_that_of_all(trainer: Trainer) -> None:
    for batch in (32, 7, COUNT):
        found = trainer.evaluate(DATA, batch_size=batch)
        for name, (_, expected) in METRICS.items():
            assert found[name] == pytest.approx(float(expected), rel=NEAR), (name, batch)
        confusion = sklearn.confusion_matrix(LABELS, PREDICTED, labels=ALL)
        np.testing.assert_array_equal(found["confusion"], confusion)
        assert found["confusion"].dtype == np.int64
        masked = float(METRICS["cross entropy masked"][1])
        assert found["loss"] == pytest.approx(1 + masked, rel=NEAR)


def test_an_epoch_of_training_and_its_validation_too(trainer: Trainer) -> None:
    history = trainer.fit(DATA, epochs=1, validation_data=DATA)
    for name, (_, expected) in METRICS.items():
        assert history.last[f"val_{name}"] == pytest.approx(float(expected), rel=NEAR), name
        assert history.last[name] == pytest.approx(float(expected), rel=NEAR), name
    assert "confusion" not in history.last


def test_what_a_batch_gives_is_named() -> None:
    mean, masked = dsl.mse(S, T), dsl.mse(S, T, mask=M)
    other = LEAVES["guess"].max()
    plan = accumulation(
        {"mean": mean, "loss": masked, "same": masked * 2, "root": dsl.sqrt(mean), "max": other,
         "sum": 2 * mean + other, "product": masked * other},
        dsl.f32["n"].shape[0],
    )  # fmt: skip
    assert {name: part.kind for name, part in plan.parts.items()} == {
        "mean": "mean",
        "loss.total": "total",
        "loss.weight": "total",
        "max": "mean",
        "sum": "mean",
    }
    assert set(plan.extra) == {"loss.total", "loss.weight"}


def test_plain_means_need_nothing_more() -> None:
    """A step whose metrics are means over examples has the outputs that it always had."""

    @model
    def plain(x: Value = f32["n", 3], c: Value = i64["n"]) -> Any:
        logits = x >> Dense(4)
        loss = dsl.cross_entropy(logits, c)
        return {"loss": loss + dsl.l2(amount=0.1), "accuracy": dsl.accuracy(logits, c)}

    step = Trainer(training(plain)).compiled.source
    assert step.accumulation.extra == step.evaluation.extra == {}


def test_tokens_weigh_alike_whatever_the_lengths() -> None:
    @model
    def tokens(x: Value = f32["batch", "time"]) -> Any:
        return {"loss": dsl.mse(dsl.prelu(x, dsl.parameter("slope", (), init=0.5)), 0.0)}

    batches = [
        {"x": RANDOM.uniform(1, 2, size=size).astype(np.float32)} for size in ((2, 3), (1, 50))
    ]
    found = Trainer(training(tokens, optimizer=sgd(0.0))).evaluate(batches)
    squares = np.concatenate([batch["x"].ravel() ** 2 for batch in batches])
    assert found["loss"] == pytest.approx(squares.mean(), rel=NEAR)


def test_sums_of_an_epoch_survive_a_checkpoint(tmp_path: Path) -> None:
    @model
    def masked(x: Value = f32["n", 3], c: Value = i64["n"], keep: Value = boolean["n"]) -> Any:
        logits = x >> Dense(4)
        return {
            "loss": dsl.cross_entropy(logits, c, mask=keep),
            "f1": dsl.f1_score(logits, c, "macro", mask=keep),
            "auc": dsl.roc_auc(logits[:, 0], c > 1, mask=keep),
        }

    data = {"x": LOGITS[:, :3], "c": LABELS % 4, "keep": MASK}
    whole, part, rest = (Trainer(training(masked, batch_size=8)) for _ in range(3))
    expected = whole.fit(data, epochs=1)
    part.fit(data, steps=5)
    path = part.save(tmp_path / "part.safetensors")
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    totals = json.loads(header["nncompile.position"])["epoch"]["totals"]
    assert set(totals) == {"loss.total", "loss.weight", "f1.total", "f1.total.2"}
    rest.load(path)
    assert rest.fit(data, epochs=1).epochs == expected.epochs


def test_a_name_that_the_parts_take_is_told() -> None:
    loss = dsl.mse(S, T, mask=M)
    weight = Input("weight", f32[()], "parameter")()
    outputs = {"loss": loss * weight, "loss.total": S}
    graph = Graph("taken", outputs, (S, T, M, weight))
    whole = dsl.Model("taken", graph, {"weight": dsl.const(np.float32(1))})
    with pytest.raises(ModelError, match=r"'loss\.total'.*already has that name"):
        Trainer(training(whole))


@pytest.mark.parametrize(
    ("target", "guess", "expected"),
    [([3, 3], [3, 3], 1.0), ([3, 3], [2, 3], 0.0), ([0.1], [0.1], 1.0), ([1, 2], [3, 3], -9.0)],
)
def test_r2_of_few_or_equal_targets(target: Any, guess: Any, expected: float) -> None:
    t, p = (np.asarray(x, np.float32) for x in (target, guess))
    found = float(evaluate(dsl.r2_score(S, T), {"score": p, "true": t}))
    assert found == pytest.approx(expected)


def test_nothing_to_count_is_zero() -> None:
    feeds: Mapping[str, Array] = {**DATA, "mask": np.zeros(COUNT, bool)}
    values: dict[str, Callable[..., Value]] = {
        "accuracy": lambda: dsl.accuracy(Z, C, mask=M),
        "auc": lambda: dsl.roc_auc(S, T, mask=M),
        "recall": lambda: dsl.recall(Z, C, "macro", mask=M),
        "loss": lambda: dsl.cross_entropy(Z, C, mask=M),
    }
    for name, make in values.items():
        assert float(evaluate(make(), feeds)) == 0, name
    alike = {"score": SCORES, "true": np.ones(COUNT, np.float32)}
    assert float(evaluate(dsl.roc_auc(S, T), alike)) == 0


def test_images_have_their_classes_on_any_axis() -> None:
    scores = RANDOM.normal(size=(3, CLASSES, 4, 6)).astype(np.float32)
    truth = RANDOM.integers(0, CLASSES, size=(3, 4, 6))
    z, c = Input("z", f32["n", CLASSES, "h", "w"])(), Input("c", i64["n", "h", "w"])()
    found = evaluate(
        [dsl.iou(z, c, "none", axis=1), dsl.confusion_matrix(z, c, axis=1)],
        {"z": scores, "c": truth},
    )
    flat = truth.ravel(), scores.argmax(1).ravel()
    np.testing.assert_allclose(found[0], sklearn.jaccard_score(*flat, average=None), rtol=NEAR)
    np.testing.assert_array_equal(found[1], sklearn.confusion_matrix(*flat))


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda: dsl.f1_score(Z, C, "mean"), ModelError, "f1_score: average must be .*'mean'"),
        (lambda: dsl.precision(Z, C), ShapeError, "precision: .* different shapes"),
        (lambda: dsl.iou(Z, S, "macro"), DTypeError, "iou: class indices must be integers"),
        (lambda: dsl.recall(Z, C, "macro", axis=2), ShapeError, "recall: .* no class axis 2"),
        (lambda: dsl.accuracy(Z, C, mask=LEAVES["real"] > 0), ShapeError, "the mask does not fit"),
        (lambda: dsl.accuracy(Z, C, mask=S), DTypeError, "a mask must be boolean"),
        (lambda: dsl.roc_auc(S, Z), ShapeError, "roc_auc: .* different shapes"),
        (lambda: dsl.pooled(1.0), ShapeError, "no example axis"),
    ],
)
def test_what_metrics_refuse(use: Any, error: type[CompileError], message: str) -> None:
    with pytest.raises(error, match=message):
        use()


def test_the_gradient_of_the_root_of_no_error_is_zero() -> None:
    guess, real = LEAVES["guess"], LEAVES["real"]
    gradient = grad(dsl.root_mean_squared_error(guess, real), guess)
    assert not evaluate(gradient, {"guess": REAL, "real": REAL}).any()


def test_scores_of_no_rows_are_zero() -> None:
    """Where the mask leaves out all rows there is nothing to weigh by."""
    nothing = {**DATA, "mask": np.zeros(COUNT, bool)}
    for averaging in ("macro", "micro", "weighted"):
        score = dsl.precision(Z, C, averaging, mask=M)
        (value,) = evaluate([score], nothing)
        assert value == 0, averaging
