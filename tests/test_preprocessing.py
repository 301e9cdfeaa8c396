"""Layers that are adapted to data: what they compute, beside scikit-learn, and what is kept."""

from __future__ import annotations

import inspect
import math
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import (
    Dense,
    Discretize,
    Impute,
    MinMaxScale,
    OneHot,
    Sequential,
    Standardize,
    Vocabulary,
    adam,
    cast,
    f32,
    i64,
    log1p,
    model,
    mse,
    training,
)
from nncompile import Session, Trainer, export
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError, DTypeError, FeedError, ModelWarning
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate

LAYERS: dict[str, Callable[[], Any]] = {
    "Standardize": Standardize,
    "MinMaxScale": MinMaxScale,
    "Impute, mean": Impute,
    "Impute, median": lambda: Impute("median"),
    "Impute, most frequent": lambda: Impute("most_frequent"),
    "Discretize, quantile": lambda: Discretize(4),
    "Discretize, uniform": lambda: Discretize(4, "uniform"),
}


def table(rows: int = 400, seed: int = 0) -> Any:
    """Features of very different sizes, one that does not vary, and one of few numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5)) * [1, 1e-3, 1e4, 0, 1] + [0, 5, -1e5, 3, 0]
    x[:, 4] = rng.integers(0, 6, rows)
    return x.astype(np.float32)


def with_missing(x: Any) -> Any:
    x = x.copy()
    x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan
    return x


def scikit_learn(name: str) -> Any:
    """The transformer that does the same."""
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    impute = pytest.importorskip("sklearn.impute")
    bins: dict[str, Any] = {"n_bins": 4, "encode": "ordinal", "subsample": None}
    if "quantile_method" in inspect.signature(preprocessing.KBinsDiscretizer).parameters:
        bins["quantile_method"] = "linear"
    made: dict[str, Callable[[], Any]] = {
        "Standardize": preprocessing.StandardScaler,
        "MinMaxScale": preprocessing.MinMaxScaler,
        "Impute, mean": impute.SimpleImputer,
        "Impute, median": lambda: impute.SimpleImputer(strategy="median"),
        "Impute, most frequent": lambda: impute.SimpleImputer(strategy="most_frequent"),
        "Discretize, quantile": lambda: preprocessing.KBinsDiscretizer(strategy="quantile", **bins),
        "Discretize, uniform": lambda: preprocessing.KBinsDiscretizer(strategy="uniform", **bins),
    }
    return made[name]()


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:Feature 3 is constant", "ignore:Bins whose width are too small")
def test_it_computes_what_scikit_learn_does(name: str) -> None:
    train, test = table(), table(seed=2)
    if not name.startswith("Discretize"):
        train, test = with_missing(train), with_missing(test)
    expected = scikit_learn(name).fit(train.astype(np.float64)).transform(test.astype(np.float64))
    layer = LAYERS[name]().adapt(train)
    found = layer.transform(test.astype(np.float64))
    if name.startswith("Discretize"):
        assert np.array_equal(found, expected)
        assert np.array_equal(layer.transform(test), expected)  # in float32, too
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_chunks_are_as_good_as_the_whole(name: str) -> None:
    x = with_missing(table())

    def chunks() -> Iterator[Any]:
        yield from np.array_split(x, [1, 7, 200])

    whole, parts = LAYERS[name]().adapt(x).statistics, LAYERS[name]().adapt(chunks()).statistics
    for key, array in whole.items():
        np.testing.assert_allclose(parts[key], array, rtol=1e-12, err_msg=key)


def test_the_mean_of_large_numbers_loses_no_digits() -> None:
    x = np.random.default_rng(0).normal(1e9, 1, (10_000, 1))
    statistics = Standardize().adapt(iter(np.array_split(x, 7))).statistics
    assert statistics["std"] == pytest.approx(x.std(0), rel=1e-9)
    assert statistics["mean"] == pytest.approx(x.mean(0), rel=1e-15)


def test_one_hot_codes_are_scikit_learns() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    train = rng.choice([-3, 0, 7, 2**53 + 1], (60, 3))
    test = np.concatenate([train[:20], [[7, 1, 2**53]]])
    encoder = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    layer = OneHot().adapt(train)
    assert np.array_equal(layer.transform(test), encoder.fit(train).transform(test))
    assert np.array_equal(
        OneHot([0, 7]).transform(test), encoder.fit([[0] * 3, [7] * 3]).transform(test)
    )
    assert OneHot(axis=None).adapt(train).transform(test).shape == (21, 3, 4)
    assert OneHot(3).transform(np.array([2, 0, 5])).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]


def test_axes_have_statistics_of_their_own() -> None:
    images = np.random.default_rng(0).normal(size=(6, 3, 4, 5)) * [[[1]], [[2]], [[3]]]
    for axis, others in ((1, (0, 2, 3)), (-1, (0, 1, 2)), ((1, 3), (0, 2)), (None, (0, 1, 2, 3))):
        layer = Standardize(axis=axis).adapt(images)
        assert layer.statistics["std"] == pytest.approx(images.std(others), rel=1e-12)
        scaled = layer.transform(images)
        assert scaled.mean(others) == pytest.approx(0, abs=1e-12)
        assert scaled.std(others) == pytest.approx(1)
    vector = Standardize().adapt(images[:, 0, 0, 0])
    assert vector.statistics["mean"].shape == ()
    assert vector.transform(images[:, 0, 0, 0]).std() == pytest.approx(1)


def test_missing_numbers_are_marked_and_filled() -> None:
    x = np.array([[np.nan, 1.0], [2.0, 3.0]], np.float32)
    marked = Impute("constant", fill_value=-7.5, indicator=True).transform(x)
    assert marked.tolist() == [[-7.5, 1, 1, 0], [2, 3, 0, 0]]
    codes = np.array([[3, -1], [3, 4], [5, -1]])
    filled = Impute("most_frequent", missing=-1).adapt(codes).transform(codes)
    assert filled.tolist() == [[3, 4], [3, 4], [5, 4]]
    assert filled.dtype == np.int64


def test_columns_of_frames_are_numbers() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, None, 3], "b": pandas.array([5, None, 7], dtype="Int64")})
    assert Impute().adapt(frame).statistics["fill"].tolist() == [2, 6]
    assert Standardize().adapt(frame["b"]).statistics["mean"] == 6
    assert Standardize().adapt([1, None, 3]).statistics["mean"] == 2


def test_layers_in_a_row_are_adapted_in_their_order() -> None:
    x = with_missing(table())[:, :3]
    chain = Sequential(Impute("median"), abs, log1p, Standardize()).adapt(x)
    filled = np.where(np.isnan(x), np.nanmedian(x, 0), x)
    expected = np.log1p(np.abs(filled))
    assert chain.layers[-1].statistics["mean"] == pytest.approx(expected.mean(0), rel=1e-5)


def test_text_becomes_codes_in_a_row() -> None:
    chain = Sequential(Vocabulary(min_count=2), OneHot()).adapt(["b", "a", "b", "c"])
    assert chain.layers[1].statistics["categories"].tolist() == [0, 1]
    assert repr(chain.layers[1]) == "OneHot(axis=-1, categories=None, dtype=f32)"


def test_gradients_pass_where_numbers_are() -> None:
    x = np.array([[np.nan, 4.0], [1.0, 2.0]])
    leaf = Input("x", dsl.f64[2, 2])()
    with dsl.building.building() as builder:
        layer = Sequential(Impute(), Standardize()).adapt(x)
        slope = grad((layer(leaf) * dsl.const([[1.0, 2], [3, 4]])).sum(), [leaf])[0]
    states = evaluate(builder.initial, {"seed": np.int64(0)})
    found = evaluate(slope, {"x": x, **states})
    assert found.tolist() == [[0, 2], [3, 4]]  # feature 0 is constant: std 1; of feature 1 it is 1


def predictor(x: Any) -> Any:
    prepare = Sequential(Impute(), Standardize(), name="prepare").adapt(x)

    @model
    def net(x=f32["batch", 5].may_be_nan(), y=f32["batch", 1]):
        output = x >> prepare >> Dense(8, dsl.tanh) >> Dense(1)
        return {"output": output, "loss": mse(output, y)}

    return net


def test_statistics_are_states_that_stay(tmp_path: Path) -> None:
    """They are not trained, are in checkpoints, and go into the exported file."""
    x = with_missing(table())
    data = {"x": x, "y": np.nan_to_num(x[:, :1])}
    net = predictor(x)
    names = ["prepare.impute.fill", "prepare.standardize.mean", "prepare.standardize.std"]
    assert list(net.states) == names
    trainer = Trainer(training(net, optimizer=adam(1e-2), batch_size=100))
    before = trainer.state
    trainer.fit(data, epochs=2)
    assert all(np.array_equal(trainer.state[name], before[name]) for name in names)
    assert trainer.state["dense.weight"].tolist() != before["dense.weight"].tolist()
    trainer.save(tmp_path / "c.safetensors")
    other = Trainer(training(predictor(x * 2 + 1), optimizer=adam(1e-2), batch_size=100))
    assert not np.array_equal(other.state[names[1]], before[names[1]])
    other.load(tmp_path / "c.safetensors")
    expected = trainer.predict(x)["output"]
    assert np.array_equal(other.predict(x)["output"], expected)
    export(net, tmp_path / "net.onnx", params=trainer.state)
    found = Session(tmp_path / "net.onnx").run({"x": x})["output"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    export(trainer.recipe, tmp_path / "step.onnx", to="step", params=trainer.state)
    assert names[0] in {port.name for port in Session(tmp_path / "step.onnx").inputs}


def test_statistics_are_copied_and_pickled() -> None:
    layer = Standardize().adapt(table())
    statistics = layer.statistics
    for other in (pickle.loads(pickle.dumps(layer)), Standardize().restore(statistics)):
        assert np.array_equal(other.transform(table()), layer.transform(table()))
    statistics["mean"] += 1
    assert not np.array_equal(layer.statistics["mean"], statistics["mean"])


def test_a_model_made_before_keeps_what_it_has() -> None:
    layer = Standardize().adapt([1.0, 2.0])

    @model
    def net(x=f32["batch"]):
        return x >> layer

    layer.adapt([1.0, 2.0])  # the same statistics
    with pytest.warns(ModelWarning, match=r"Standardize is adapted again: models that use it keep"):
        layer.adapt([5.0, 7.0])
    unused = Standardize().adapt([1.0])
    unused.transform([1.0])
    unused.adapt([2.0])  # is in no model


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "not adapted": (lambda: traced(Standardize()), r"Standardize has no statistics(.|\n)*adapt"),
    "no examples": (lambda: Standardize().adapt(np.zeros((0, 3))), "the data have no examples"),
    "one number": (lambda: Standardize().adapt(np.float64(3)), "examples along the first axis"),
    "text": (lambda: Standardize().adapt(["a", "b"]), r"is adapted to numbers(.|\n)*Vocabulary"),
    "objects": (lambda: Impute().adapt(np.array([1, "a"], object)), r"numbers, got 'a'"),
    "a dict": (lambda: Standardize().adapt({"age": [1]}), r"not to a dict(.|\n)*data\['age'\]"),
    "no array": (lambda: Standardize().adapt(3), "got int"),
    "pairs": (lambda: Standardize().adapt(iter([([1.0], [[2, 3]])])), r"x for x, y in batches"),
    "masked": (lambda: Standardize().adapt(np.ma.masked_less([1.0, 2.0], 2)), "1 element is mask"),
    "infinite": (lambda: Standardize().adapt([[1, 2], [3, math.inf]]), r"infinities.*feature 1"),
    "all missing": (lambda: Impute().adapt([[1, math.nan]]), r"feature 1 has no number"),
    "chunks": (
        lambda: Standardize().adapt(iter([np.ones((2, 3)), np.ones((2, 4))])),
        "chunks of 3 features and of 4 features",
    ),
    "other features": (lambda: traced(Standardize().adapt(np.ones((2, 3)))), "of 3 features, x is"),
    "examples": (lambda: Standardize(axis=0).adapt([1.0]), "axis 0 is that of the examples"),
    "no axis": (lambda: Standardize(axis=2).adapt([[1.0]]), "have no axis 2"),
    "other statistics": (lambda: Standardize().restore({"fill": 1}), "are mean, std, got 'fill'"),
    "strategy": (lambda: Impute("mode"), "must be one of mean, median, most_frequent, constant"),
    "fill_value": (lambda: Impute("constant"), "needs a fill_value"),
    "no fill_value": (lambda: Impute(fill_value=1.0), "takes no fill_value"),
    "integers": (lambda: traced(Impute().adapt([[1.0] * 4]), i64), "missing=-1"),
    "mean of integers": (lambda: traced(Impute(missing=-1), i64), "the mean is no integer"),
    "bounds": (lambda: MinMaxScale(1, 0), "low must be below high, got 1 and 0"),
    "floats": (lambda: traced(OneHot(3)), r"OneHot needs integer codes, x is f32"),
    "codes of floats": (lambda: OneHot().adapt([1.5]), "adapted to integer codes"),
    "no categories": (lambda: OneHot(0), "at least one category"),
    "categories twice": (lambda: OneHot(3).adapt([1]), "has its categories already"),
    "one bin": (lambda: Discretize(1), "at least two bins"),
    "edges": (lambda: Discretize(edges=[2, 1]), "edges of Discretize must rise"),
    "bins and edges": (lambda: Discretize(3, edges=[1]), "not both"),
    "weights": (lambda: Sequential(Dense(2), Standardize()).adapt([[1.0]]), "is not trained yet"),
    "nothing to adapt": (lambda: Sequential(Dense(2)).adapt([[1.0]]), "none of the layers"),
    "read twice": (lambda: Sequential(Impute(), Standardize()).adapt(iter([[1.0]])), "read once"),
}


def traced(layer: Any, dtype: Any = f32) -> Any:
    @model
    def net(x=dtype["batch", 4]):
        return x >> layer

    return net


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told(mistake: str) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises(CompileError) as caught:
        make()
    assert re.search(message, str(caught.value)), str(caught.value)


def test_what_is_not_declared_missing_is_refused() -> None:
    """NaN is data only where the model says so."""
    layer = Impute().adapt([[1.0]])

    @model
    def strict(x=f32["batch", 1], y=f32["batch", 1]):
        return {"loss": mse(x >> layer >> Dense(1), y)}

    data = {"x": np.full((4, 1), np.nan, np.float32), "y": np.zeros((4, 1), np.float32)}
    with pytest.raises(FeedError, match="NaN"):
        Trainer(training(strict)).fit(data, epochs=1)


def test_numbers_of_other_types_are_refused() -> None:
    with pytest.raises(DTypeError, match=r"Standardize needs floating numbers"):
        traced(Standardize().adapt(np.ones((1, 4))), i64)
    half = Standardize().adapt(np.ones((1, 4)))

    @model
    def net(x=dsl.f16["batch", 4]):
        return cast(x >> half, f32)

    assert net.states["standardize.mean"].type == dsl.f16[4]
