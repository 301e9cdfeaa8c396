"""The inputs that `verify` runs a model on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, i64
from nncompile.diagnostics.errors import FeedError
from nncompile.ops.core.assertions import limited
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.verify import verify
from nncompile.verify.inputs import Inputs
from tests import verify_checks

classifier = pytest.fixture(verify_checks.classifier)


def inputs_of(model: Model, data: Mapping[str, Any] | None = None) -> Inputs:
    return Inputs(model, data, 0)


def test_labels_cover_what_the_model_takes(classifier: Recipe) -> None:
    inputs = inputs_of(classifier.model)
    base = inputs.base({})
    drawn = {int(x) for case in inputs.cases(base, 3) for x in case.feeds["label"]}
    assert drawn == {0, 1, 2}
    ends = {c.kind: set(c.feeds["label"].tolist()) for c in inputs.cases(base, 1)}
    assert ends["zeros"] == {0}
    assert ends["ones"] == {2}


def test_tokens_of_data_stay_within_them(classifier: Recipe) -> None:
    x = np.full((9, 4), 7, np.float32)
    inputs = inputs_of(classifier.model, {"x": x, "label": np.ones(9, np.int64)})
    case = next(c for c in inputs.cases(inputs.base({}), 1) if c.kind == "random")
    assert set(case.feeds["label"].tolist()) == {1}
    assert set(case.feeds["x"].ravel().tolist()) == {7.0}


def test_numbers_stay_in_the_range_that_the_model_claims() -> None:
    @dsl.model
    def net(x=f32["batch", "time", 2], lengths=i64["batch"], target=f32["batch"]):
        last = dsl.LSTM(3)(x, lengths=lengths).mean(1)
        return {"loss": dsl.binary_cross_entropy(dsl.sigmoid(last), target)}

    inputs = inputs_of(net)
    cases = [case for case in inputs.cases(inputs.base({}), 4) if 0 not in case.sizes.values()]
    assert {case.kind for case in cases} == {"random", "zeros", "ones"}
    for case in cases:
        assert 0 <= case.feeds["lengths"].min() <= case.feeds["lengths"].max()
        assert case.feeds["lengths"].max() <= case.sizes["time"]
        assert 0 <= case.feeds["target"].min() <= case.feeds["target"].max() <= 1


@pytest.mark.parametrize(
    ("x", "label", "message"),
    [
        (np.zeros((9, 4), np.float32), np.full(9, 7), "input 'label' holds 7: index 7"),
        (np.zeros((9, 4)), np.zeros(9, np.int64), "input 'x' has the wrong element type"),
        (np.zeros((9, 5), np.float32), np.zeros(9, np.int64), "the data do not fit"),
    ],
)
def test_data_that_the_model_does_not_take(
    classifier: Recipe, x: np.ndarray, label: np.ndarray, message: str
) -> None:
    with pytest.raises(FeedError, match=message):
        verify(classifier, {"x": x, "label": label}, quick=True, backends=[])


def test_sizes_of_the_data_where_small_ones_are_not_accepted() -> None:
    @dsl.model
    def net(x=f32["batch", "time", 2]):
        wide = limited(x, x.shape[1], 20, "{size} are more than {limit}")
        return {"y": (wide.transpose(0, 2, 1) >> dsl.Conv1d(3, 17)).mean((1, 2))}

    with pytest.raises(FeedError, match=r"accepts no inputs: .* are more than 20"):
        inputs_of(net).base({})
    base = inputs_of(net, {"x": np.zeros((9, 18, 2), np.float32)}).base({})
    assert {str(s): n for s, n in base.items()} == {"batch": 5, "time": 18}


def test_sizes_grow_to_what_the_model_accepts() -> None:
    @dsl.model
    def wide(x=f32["batch", "time", 2]):
        y = x.transpose(0, 2, 1) >> dsl.Conv1d(3, 15)
        return {"y": y.mean((1, 2))}

    inputs = inputs_of(wide)
    base = inputs.base({})
    assert {str(s): n for s, n in base.items()} == {"batch": 5, "time": 28}
    sizes = [c.sizes for c in inputs.cases(base, 1)]
    assert {"batch": 5, "time": 57} in sizes
    assert not any(s["time"] < 15 for s in sizes)


@pytest.mark.parametrize(
    ("sizes", "message"), [({"bach": 3}, "no size 'bach'"), ({"batch": -1}, "accepts no inputs")]
)
def test_sizes_that_do_not_fit(classifier: Recipe, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        verify(classifier, sizes=sizes, backends=[])


def test_the_arithmetic_behind_an_index_is_not_computed_to_find_its_range() -> None:
    @dsl.model
    def net(x=i64["batch", "time"]):
        features = (x >> dsl.Embedding(300, 4, name="tokens")).mean(1)
        hidden = features >> dsl.Dense(8, dsl.gelu, name="a") >> dsl.Dense(8, dsl.relu, name="b")
        return {"y": dsl.softmax(hidden)}

    inputs = inputs_of(net)
    kinds = {type(v.op).__name__ for v in inputs._refusing.nodes}
    assert "Gather" in kinds and kinds.isdisjoint({"MatMul", "Gemm", "Map", "Softmax"})
    (x,) = (c.feeds["x"] for c in inputs.cases(inputs.base({}), 1) if c.kind == "ones")
    assert set(x.ravel().tolist()) == {299}
