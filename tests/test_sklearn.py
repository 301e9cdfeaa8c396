"""The estimators, as scikit-learn uses them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

sklearn = pytest.importorskip("sklearn")

import joblib  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from dsl import BatchNorm, Conv1d, Dense, Sequential, cosine, flatten, relu, sgd  # noqa: E402
from nncompile.diagnostics.errors import CompileError  # noqa: E402
from nncompile.sklearn import NeuralClassifier, NeuralRegressor, to_onnx  # noqa: E402

FAST: dict[str, Any] = {"learning_rate": 0.03, "random_state": 0, "max_iter": 40}
FAST["n_iter_no_change"] = 1000  # to the end, and no warning
IRIS = load_iris(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def convolutional(x: Any) -> Any:
    """An architecture of one's own, over the features as a series."""
    return flatten(x[:, None, :] >> Conv1d(4, 3, padding=1) >> relu)


@parametrize_with_checks([NeuralClassifier(max_iter=100), NeuralRegressor(max_iter=100)])
@pytest.mark.filterwarnings("ignore")
def test_it_is_an_estimator(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_it_learns() -> None:
    train_X, X, train_y, y = train_test_split(*IRIS, random_state=0, stratify=IRIS[1])
    flowers = NeuralClassifier((16,), standardize=True, **FAST).fit(train_X, train_y)
    assert flowers.score(X, y) > 0.9
    assert flowers.n_iter_ == 40 and flowers.t_ == 40
    assert len(flowers.loss_curve_) == 40 and flowers.loss_ == flowers.loss_curve_[-1]
    X, y = DIABETES
    regressor = NeuralRegressor((16,), standardize=True, **{**FAST, "learning_rate": 0.1})
    assert regressor.fit(X, y / 100).score(X, y / 100) > 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_states_give_equal_bits(dtype: Any) -> None:
    X, y = IRIS[0].astype(dtype), IRIS[1]
    one, two, other = (
        NeuralClassifier(**{**FAST, "random_state": seed, "dropout": 0.2}).fit(X, y)
        for seed in (3, 3, 4)
    )
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X))
    assert not np.array_equal(one.predict_proba(X), other.predict_proba(X))
    assert one.predict_proba(X).dtype == dtype
    assert one.loss_curve_ == two.loss_curve_
    drawn = NeuralClassifier(**{**FAST, "random_state": np.random.RandomState(3)}).fit(X, y)
    assert drawn.trainer_.seed == one.trainer_.seed


def test_text_is_a_class_and_frames_have_names() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = IRIS
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    names = np.array(["setosa", "versicolor", "virginica"])
    flowers = NeuralClassifier(**FAST, standardize=True).fit(frame, names[y])
    assert flowers.classes_.tolist() == names.tolist()
    assert flowers.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert set(flowers.predict(frame)) == set(names)
    with pytest.raises(ValueError, match="feature names"):
        flowers.predict(frame[["b", "a", "c", "d"]])
    with pytest.raises(NotFittedError):
        clone(flowers).predict(frame)


def test_several_outputs_and_labels() -> None:
    X, y = DIABETES
    targets = np.column_stack([y / 100, -y / 50])
    regressor = NeuralRegressor(**FAST, standardize=True).fit(X, targets)
    assert regressor.predict(X).shape == targets.shape and regressor.score(X, targets) > 0.3
    X, y = load_wine(return_X_y=True)
    labels = np.column_stack([y == 0, y != 1, X[:, 0] > 13]).astype(int)
    classifier = NeuralClassifier(**FAST, standardize=True).fit(X, labels)
    assert classifier.predict_proba(X).shape == labels.shape
    assert classifier.score(X, labels) > 0.9
    label, probabilities = run(classifier.to_onnx(), x=X).values()
    assert np.array_equal(label, classifier.predict(X))
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), rtol=1e-6)


def test_early_stopping_keeps_the_best() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    stopped = NeuralClassifier(
        (64,), standardize=True, early_stopping=True, learning_rate=0.1, random_state=0,
        n_iter_no_change=5, validation_fraction=0.3, tol=0,
    ).fit(X, y)  # fmt: skip
    scores = stopped.validation_scores_
    assert len(scores) == stopped.n_iter_ < 200
    assert stopped.best_validation_score_ == max(scores)
    assert scores.index(max(scores)) == len(scores) - 1 - 5
    _, held_out = stopped._split(X, y, np.ones(len(y)))
    assert stopped._score_of(*held_out) == max(scores) != scores[-1]


def test_it_stops_where_the_loss_stays() -> None:
    X, y = IRIS
    options = {**FAST, "max_iter": 300, "tol": 1e-2, "n_iter_no_change": 3}
    flowers = NeuralClassifier(standardize=True, **options).fit(X, y)
    assert flowers.n_iter_ < 300
    with pytest.warns(ConvergenceWarning, match="still improving after max_iter=4"):
        NeuralClassifier(**{**options, "max_iter": 4}).fit(X, y)


def test_training_goes_on() -> None:
    X, y = IRIS
    parts = NeuralClassifier(standardize=True, **FAST)
    for rows in (slice(0, 100), slice(50, 150), slice(100, 150)):
        parts.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    assert parts.classes_.tolist() == [0, 1, 2] and parts.n_iter_ == 3
    assert len(parts.loss_curve_) == 3
    warm = NeuralClassifier(standardize=True, warm_start=True, **{**FAST, "max_iter": 5})
    first = warm.fit(X, y).loss_
    trainer = warm.trainer_
    assert warm.fit(X, y).loss_ < first
    assert warm.trainer_ is trainer and warm.n_iter_ == len(warm.loss_curve_) == 10
    cold = clone(warm).set_params(warm_start=False)
    assert cold.fit(X, y).fit(X, y).n_iter_ == 5
    regressor = NeuralRegressor(**FAST).partial_fit(*DIABETES).partial_fit(*DIABETES)
    assert regressor.n_iter_ == 2


def test_weights_are_those_of_examples_and_of_classes() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    rows = np.random.default_rng(0).random(len(y)) < 0.5
    options = {**FAST, "batch_size": 1000, "standardize": True, "max_iter": 10}
    left_out = NeuralClassifier(**options).fit(X[rows], y[rows])
    zero = NeuralClassifier(**options).fit(X, y, sample_weight=rows.astype(float))
    assert np.array_equal(zero.predict_proba(X), left_out.predict_proba(X))
    shares = [
        NeuralClassifier(**options, class_weight=weight).fit(X, y).predict(X).mean()
        for weight in ({0: 30.0, 1: 1.0}, None, {0: 1.0, 1: 30.0})
    ]
    assert shares == sorted(set(shares))
    balanced = NeuralClassifier(**options, class_weight="balanced").fit(X, y)
    given = NeuralClassifier(**options).fit(X, y, len(y) / (2 * np.bincount(y))[y])
    np.testing.assert_allclose(balanced.predict_proba(X), given.predict_proba(X), rtol=1e-6)


ARCHITECTURES: dict[str, Any] = {
    "a function": convolutional,
    "a layer": Sequential(Dense(8), BatchNorm(), relu, Dense(4)),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_any_architecture(name: str) -> None:
    X, y = IRIS
    own = NeuralClassifier(architecture=ARCHITECTURES[name], **FAST)
    assert own.fit(X, y).score(X, y) > 0.9
    again = clone(own).fit(X, y)
    assert np.array_equal(again.predict_proba(X), own.predict_proba(X))


def test_an_optimizer_and_a_rate_of_ones_own() -> None:
    X, y = IRIS
    for options in (
        {"optimizer": sgd(0.1, momentum=0.9)},
        {"optimizer": "sgd", "learning_rate": cosine(0.2, steps=40), "weight_decay": 0},
    ):
        own = clone(NeuralClassifier(standardize=True, **{**FAST, **options})).fit(X, y)
        assert own.score(X, y) > 0.85


def test_it_is_kept_in_a_file(tmp_path: Path) -> None:
    X, y = IRIS
    flowers = NeuralClassifier(architecture=convolutional, **FAST).fit(X, y)
    joblib.dump(flowers, tmp_path / "flowers.joblib")
    again = joblib.load(tmp_path / "flowers.joblib")
    assert np.array_equal(again.predict_proba(X), flowers.predict_proba(X))
    for one in (again, flowers):
        one.partial_fit(X, y)
    assert np.array_equal(again.predict_proba(X), flowers.predict_proba(X))


def test_it_is_a_step_of_a_pipeline() -> None:
    X, y = IRIS
    pipeline = make_pipeline(StandardScaler(), NeuralClassifier((16,), **FAST))
    scores = cross_val_score(pipeline, X, y, cv=3)
    assert scores.min() > 0.9
    grid = {"neuralclassifier__hidden_layer_sizes": [(2,), (8, 8)]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.8


def test_a_search_in_two_processes_finds_the_same() -> None:
    X, y = IRIS
    grid = {"hidden_layer_sizes": [(2,), (8,)]}
    estimator = NeuralClassifier(standardize=True, **{**FAST, "max_iter": 10})
    one, two = (GridSearchCV(estimator, grid, cv=2, n_jobs=n).fit(X, y) for n in (1, 2))
    assert np.array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X))


def run(proto: onnx.ModelProto, **feeds: Any) -> dict[str, Any]:
    """The outputs by name, of onnxruntime itself: they may be text."""
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("labels", ["text", "integers", "truth"])
def test_the_file_says_the_class(tmp_path: Path, labels: str) -> None:
    X, codes = load_breast_cancer(return_X_y=True)
    classes = {"text": ["benign ☺", "malignant"], "integers": [7, -2], "truth": [False, True]}
    y = np.array(classes[labels])[codes]
    classifier = NeuralClassifier(standardize=True, **FAST).fit(X.astype(np.float32), y)
    proto = classifier.to_onnx(tmp_path / "net.onnx")
    assert onnx.load(tmp_path / "net.onnx") == proto
    label, probabilities = run(proto, x=X.astype(np.float32)).values()
    assert np.array_equal(label, classifier.predict(X.astype(np.float32)))
    np.testing.assert_allclose(
        probabilities, classifier.predict_proba(X.astype(np.float32)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pipeline_is_one_file(tmp_path: Path, dtype: Any) -> None:
    pytest.importorskip("skl2onnx")
    X, y = DIABETES
    X = X.astype(dtype)
    pipeline = make_pipeline(StandardScaler(), "passthrough", NeuralRegressor(**FAST))
    search = GridSearchCV(pipeline, {"neuralregressor__activation": ["tanh"]}, cv=2).fit(X, y)
    proto = to_onnx(search, X, tmp_path / "pipeline.onnx")
    (found,) = run(proto, **{proto.graph.input[0].name: X}).values()
    np.testing.assert_allclose(found[:, 0], search.predict(X), rtol=1e-3, atol=1e-3)
    assert onnx.load(tmp_path / "pipeline.onnx") == proto
    domains = [opset.domain for opset in proto.opset_import]
    assert len(domains) == len({*domains})


def test_a_frame_with_text_is_one_file() -> None:
    """Missing numbers and words, by column: what stands before the network is skl2onnx's."""
    pytest.importorskip("skl2onnx")
    pandas = pytest.importorskip("pandas")
    compose = pytest.importorskip("sklearn.compose")
    impute = pytest.importorskip("sklearn.impute")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": rng.normal(40, 9, 90).astype(np.float32),
            "size": rng.normal(2, 1, 90).astype(np.float32),
            "city": rng.choice(["Oslo", "Rome"], 90),
        }
    )
    y = np.where(frame["age"] + 9 * (frame["city"] == "Rome") > 44, "yes", "no")
    frame.loc[::7, "size"] = np.nan
    numbers = make_pipeline(impute.SimpleImputer(), StandardScaler())
    words = preprocessing.OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    columns = compose.make_column_transformer((numbers, ["age", "size"]), (words, ["city"]))
    pipeline = make_pipeline(columns, NeuralClassifier(**FAST)).fit(frame, y)
    proto = to_onnx(pipeline, frame)
    feeds = {name: frame[[name]].to_numpy() for name in frame}
    label, probabilities = run(proto, **feeds).values()
    assert np.array_equal(label, pipeline.predict(frame))
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(frame), atol=1e-5)


def test_verbose_training_prints_a_line_for_each_epoch(capsys: Any) -> None:
    NeuralClassifier(**{**FAST, "max_iter": 2}).fit(*IRIS)
    assert capsys.readouterr().out == ""
    options = {**FAST, "max_iter": 2, "verbose": True, "early_stopping": True}
    NeuralClassifier(**options).fit(*IRIS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"Iteration 1, loss = \d\.\d{8}, validation score = 0\.\d{6}", lines[0])


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "activation": (lambda: NeuralClassifier(activation="rellu").fit(*IRIS), r"'rellu'(.|\n)*relu"),
    "optimizer": (lambda: NeuralClassifier(optimizer="adamm").fit(*IRIS), r"'adamm'(.|\n)*'adam"),
    "loss": (lambda: NeuralRegressor(loss="mse").fit(*DIABETES), "loss must be one of squared"),
    "architecture": (
        lambda: NeuralClassifier(architecture=lambda x: x.mean(1)).fit(*IRIS),
        r"must give features of each example, f64\[batch, n\], got f64\[batch\]",
    ),
    "sizes": (lambda: NeuralClassifier((0,)).fit(*IRIS), r"hidden_layer_sizes must .* got \(0,\)"),
    "epochs": (lambda: NeuralClassifier(max_iter=0).fit(*IRIS), "max_iter must be .* got 0"),
    "batches": (lambda: NeuralClassifier(batch_size=0).fit(*IRIS), "batch_size must be"),
    "no tolerance": (lambda: NeuralClassifier(tol="a").fit(*IRIS), "tol must be .* got 'a'"),
    "share": (
        lambda: NeuralClassifier(validation_fraction=2.0).fit(*IRIS),
        "validation_fraction must be between 0 and 1, got 2.0",
    ),
    "no optimizer": (lambda: NeuralClassifier(optimizer=None).fit(*IRIS), "a name or an optimizer"),
    "no function": (lambda: NeuralRegressor(architecture=3).fit(*IRIS), "a layer or a function"),
    "another network": (
        lambda: (
            NeuralClassifier(warm_start=True, max_iter=1)
            .fit(*IRIS)
            .set_params(hidden_layer_sizes=(3,))
            .fit(*IRIS)
        ),
        r"warm start continues .* hidden_layer_sizes was \(100,\), and is \(3,\) now",
    ),
    "one class": (lambda: NeuralClassifier().fit(IRIS[0], np.ones(150)), "y has one class"),
    "new class": (
        lambda: NeuralClassifier().partial_fit(*IRIS, classes=[0, 1]),
        r"not in classes_: \[2\]",
    ),
    "class_weight": (
        lambda: NeuralClassifier(class_weight={"a": 1}).fit(*IRIS),
        "class_weight has 'a', which is none of the classes",
    ),
    "weights": (lambda: NeuralClassifier().fit(*IRIS, np.zeros(150)), "weight"),
    "labels": (
        lambda: NeuralClassifier().fit(IRIS[0], np.column_stack([IRIS[1]] * 2)),
        "several columns of classes",
    ),
    "no network": (lambda: to_onnx(StandardScaler()), "ends with a network, got StandardScaler"),
    "no example": (
        lambda: to_onnx(
            make_pipeline(StandardScaler(), NeuralClassifier(**{**FAST, "max_iter": 1})).fit(*IRIS)
        ),
        r"needs an example(.|\n)*X_train\[:1\]",
    ),
    "not fitted": (lambda: NeuralClassifier().to_onnx(), "not fitted"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_mistake_is_told(mistake: str) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises((ValueError, CompileError, NotFittedError)) as caught:
        make()
    assert re.search(message, str(caught.value)), str(caught.value)
