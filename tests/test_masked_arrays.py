"""Arrays that have no plain numbers: masked ones, objects, complex numbers. What is behind a mask
or missing would silently be taken for data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, f32, model, mse, sgd, training
from dsl.initializers import constant as constant_start
from nncompile import export
from nncompile.diagnostics.errors import CompileError, FeedError
from nncompile.elementwise import maximum, relu
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ops import const
from nncompile.train import Trainer
from nncompile.train.transfer import transfer

X = np.arange(12, dtype=np.float32).reshape(6, 2)
MASKED = np.ma.masked_array(X, mask=X > 9)
COUNTED = "masked array: 2 elements are masked"


@model
def net(x=f32["batch", 2], y=f32["batch", 1]):
    found = x >> Dense(1, name="dense")
    return {"found": found, "loss": mse(found, y)}


RECIPE = training(net, optimizer=sgd(0.1), batch_size=4)
Y = np.zeros((6, 1), np.float32)
x_of_net = Input("x", f32["batch", 2])()

PLACES: dict[str, Callable[[Any], Any]] = {
    "fit": lambda x: Trainer(RECIPE).fit({"x": x, "y": Y}),
    "fit in batches": lambda x: Trainer(RECIPE).fit([{"x": x, "y": Y}]),
    "evaluate": lambda x: Trainer(RECIPE).evaluate({"x": x, "y": Y}),
    "predict": lambda x: Trainer(RECIPE).predict(x),
    "numpy": lambda x: evaluate(x_of_net * 2, {"x": x}),
    "a constant": const,
    "an operand": lambda x: Input("a", f32[6, 2])() + x,
    "a function of values": lambda x: maximum(Input("a", f32[6, 2])(), x),
    "a formula of arrays": relu,
    "an initial value": lambda x: constant_start(x),
    "transfer": lambda x: transfer({"w": x}, {"w": X}),
}


@pytest.mark.parametrize("where", PLACES)
def test_masked_elements_are_refused(where: str) -> None:
    with pytest.raises(CompileError, match=COUNTED) as caught:
        PLACES[where](MASKED)
    assert "[5, 0]" in str(caught.value)


@pytest.mark.parametrize("where", ["fit", "fit in batches", "evaluate", "numpy", "a constant"])
def test_masked_elements_of_a_list_are_refused(where: str) -> None:
    rows = [np.ma.masked_array(row, mask=row > 9) for row in X]
    with pytest.raises(CompileError, match=COUNTED) as caught:
        PLACES[where](rows)
    assert "[5, 0]" in str(caught.value)


def test_masked_weights_are_refused(tmp_path: Path) -> None:
    ours = Trainer(RECIPE)
    weight = np.ma.masked_array(ours.params["dense.weight"], mask=[[True], [False]])
    for use in (ours.set_params, ours.load_params):
        with pytest.raises(CompileError, match="masked array: 1 element is masked"):
            use({"dense.weight": weight})
    with pytest.raises(CompileError, match="masked array: 1 element is masked"):
        export(net, tmp_path / "net.onnx", params={**ours.params, "dense.weight": weight})


def test_a_mask_that_hides_nothing_is_none() -> None:
    plain, ours = Trainer(RECIPE), Trainer(RECIPE)
    plain.fit({"x": X, "y": Y}, epochs=1)
    ours.fit({"x": np.ma.masked_array(X), "y": Y}, epochs=1)
    for path, x in plain.state.items():
        np.testing.assert_array_equal(x, ours.state[path])
    assert const(np.ma.masked_array(X)) is const(X)


OBJECTS = X.astype(object)
MISSING = OBJECTS.copy()
MISSING[2, 1] = MISSING[3, 0] = None
# Columns of tables are of these, and files in the other order of bytes.
ACCEPTED = {"objects that are numbers": OBJECTS, "the other order of bytes": X.astype(">f4")}
OTHERS: dict[str, tuple[Any, list[str]]] = {
    "complex numbers": (X.astype(np.complex64), ["complex64[6, 2]", "x.real and x.imag"]),
    "text": (X.astype(str), ["<U"]),
    "records": (np.zeros(6, [("a", "f4"), ("b", "f4")]), ["'a'"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_array_of_plain_numbers_is_refused(kind: str) -> None:
    x, words = OTHERS[kind]
    with pytest.raises(FeedError, match="input 'x' has the wrong element type") as caught:
        Trainer(RECIPE).fit({"x": x, "y": Y})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", ACCEPTED)
@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_what_has_the_same_numbers_is_trained_on(kind: str) -> None:
    plain, ours = Trainer(RECIPE), Trainer(RECIPE)
    plain.fit({"x": X, "y": Y})
    ours.fit({"x": ACCEPTED[kind], "y": Y})
    for path, x in plain.state.items():
        np.testing.assert_array_equal(x, ours.state[path])


@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_missing_objects_are_nan() -> None:
    with pytest.raises(FeedError, match=r"hold NaN: 2 of 12(.|\n)*x\[2, 1\]"):
        Trainer(RECIPE).fit({"x": MISSING, "y": Y})


def test_targets_that_are_no_numbers_are_refused() -> None:
    target = Y.copy()
    target[3] = np.nan
    with pytest.raises(FeedError, match="hold NaN: 1 of 6") as caught:
        Trainer(RECIPE).fit({"x": X, "y": target})
    assert "y[3, 0]" in str(caught.value)
