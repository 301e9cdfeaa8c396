"""Mistakes that people bring from other libraries: each message says what to write here."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
import nncompile
from dsl import Dense, Dropout, adam, f32, formula, i64, model, normal, sgd, training
from nncompile.compiler.compile import compile_model
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import CompileError, UnknownNameError
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.broadcasting import ones_like, zeros_like
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import dtype_of
from nncompile.program.model import Model
from nncompile.program.recipe import minimize
from nncompile.train import Trainer


def leaf() -> Value:
    return Input("x", f32["batch", 4])()


@pytest.fixture(scope="module")
def net() -> Model:
    @model
    def net(x=f32["batch", 4], label=i64["batch"]):
        logits = x >> Dense(3)
        return {"logits": logits, "loss": dsl.cross_entropy(logits, label)}

    return net


ON_VALUES: dict[str, tuple[Callable[[Value], Any], str]] = {
    "a tensor's maximum in a formula": (
        lambda x: formula(lambda a: dsl.max(a, 0))(x),
        r"element in a formula(.|\n)*maximum\(a, b\)",
    ),
    "softmax in a formula": (lambda x: formula(dsl.softmax)(x), "element in a formula"),
    "sum in a formula": (lambda x: formula(lambda a: dsl.sum(a))(x), "element in a formula"),
    "the sum of a list": (lambda x: dsl.sum([x, x]), r"a list is not a value(.|\n)*stack\("),
    "all of a generator": (
        lambda x: dsl.all(x > i for i in range(3)),
        r"a generator is not a value(.|\n)*stack\(",
    ),
    "a ragged list": (
        lambda x: dsl.concatenate([x, [[1], [2, 3]]]),
        "cannot be converted to an array",
    ),
    "a layer that is not called": (lambda x: as_value(Dense(3)), "call it first"),
    "a class of layers": (lambda x: x >> Dropout, r"is a class(.|\n)*Dropout\(\.\.\.\)"),
    "nothing": (lambda x: as_value(None), "None is not a value"),
    "a large number": (lambda x: as_value(2**40, like=dsl.cast(x, "int32")), "does not fit in i32"),
    "a float of it": (lambda x: float(x.mean()), "no numbers while the graph is built"),
    "an int of it": (lambda x: range(x.argmax()), "no numbers while the graph is built"),
    "math's functions": (lambda x: math.sin(x), "no numbers while the graph is built"),
    "an array of it": (lambda x: np.asarray(x), "no numbers while the graph is built"),
    "numpy's mean": (
        lambda x: np.mean(x),
        r"numpy's mean does not work on values: f32\[batch, 4\]",
    ),
    "numpy's concatenate": (lambda x: np.concatenate([x, x]), "numpy's concatenate"),
    "numpy's reductions": (lambda x: np.add.reduce(x), "numpy's add does not work on values"),
    "torch's dtypes": (lambda x: x.astype(object()), "is not supported"),
    "no dtype": (lambda x: cast(x, None), "element type None is not supported"),
    "an unknown dtype": (lambda x: const(1, "floaty"), "element type floaty is not supported"),
    "torch's view": (lambda x: x.view(-1), r"no 'view'(.|\n)*x\.reshape"),
    "torch's unsqueeze": (lambda x: x.unsqueeze(0), r"expand_dims\(x, axis\)"),
    "an op as a method": (lambda x: x.exp(), r"exp\(x\) is a function"),
    "an element set": (lambda x: x.__setitem__(x > 0, 0), r"is immutable(.|\n)*where\(mask"),
    "torch's scatter": (
        lambda x: dsl.scatter(x, 1, (x > 0).astype(i64), x),
        r"put_along_axis\(x, indices, values, axis\)",
    ),
    "a function as a method": (lambda x: x.cholesky(), r"cholesky\(x\) is a function"),
    "torch's inverse": (lambda x: x.inverse(), r"inv\(x\)"),
    "torch's clamp": (lambda x: x.clamp(0, 1), r"x\.clip\(low, high\)"),
    "the gradient of a number": (
        lambda x: nncompile.grad(3.0, x),
        "with respect to values, got 3.0",
    ),
    "the gradient for a name": (
        lambda x: nncompile.grad(x.sum(), ["x"]),
        "with respect to values, got 'x'",
    ),
    "a tangent of a number": (
        lambda x: nncompile.jvp(3, [x], [x]),
        "with respect to values, got 3",
    ),
    "a formula of text": (lambda x: formula("x"), "made from a function of scalars, got 'x'"),
    "one argument too many": (
        lambda x: formula(lambda a: a)(x, x),
        r"too many positional(.|\n)*declared as <lambda>\(a\)",
    ),
    "a misspelt method": (lambda x: x.reshap(-1), "did you mean 'reshape'"),
}


@pytest.mark.parametrize("case", ON_VALUES)
def test_a_mistake_on_values_is_answered(case: str) -> None:
    mistake, words = ON_VALUES[case]
    with pytest.raises(CompileError, match=words):
        mistake(leaf())


def test_names_that_values_lack_are_attribute_errors_too() -> None:
    x = leaf()
    assert not hasattr(x, "view")
    assert not hasattr(x, "__wrapped__")
    assert issubclass(UnknownNameError, AttributeError)


def test_numpys_elementwise_functions_work_on_values() -> None:
    x = leaf()
    assert np.sin(x) is dsl.sin(x)
    assert np.maximum(x, np.float32(0)) is dsl.maximum(x, 0)
    assert np.true_divide(x, 2) is x / 2
    array = np.arange(4, dtype=np.float32)
    for made, expected in ((array - x, array - 1), (x - array, 1 - array), (array < x, array < 1)):
        assert isinstance(made, Value)
        ones = np.ones((1, 4), np.float32)
        np.testing.assert_array_equal(evaluate(made, {"x": ones}), [expected])
    with pytest.raises(CompileError, match="numpy's add"):
        array += x


def test_like_takes_arrays_too() -> None:
    array = np.arange(3)
    assert zeros_like(array).type == ones_like(array).type == i64[3]


IN_MODELS: dict[str, tuple[Callable[[Value], Any], str]] = {
    "an activation by name": (
        lambda x: x >> Dense(8, "relu"),
        r"got 'relu'(.|\n)*Dense\(8, relu\)",
    ),
    "torch's widths": (lambda x: x >> Dense(4, 8), "the width of x is inferred"),
    "a rate of text": (lambda x: x >> Dropout("0.5"), "p of Dropout must be a number"),
    "an initializer by name": (lambda x: x >> Dense(8, init="he"), "init=he_uniform"),
    "an initializer's maker": (lambda x: x >> Dense(8, init=normal), r"got normal(.|\n)*init="),
    "a parameter without a name": (lambda x: dsl.parameter(3), "must be a string, got 3"),
}


@pytest.mark.parametrize("case", IN_MODELS)
def test_a_mistake_in_a_model_is_answered(case: str) -> None:
    mistake, words = IN_MODELS[case]

    def wrong(x=f32["batch", 4]):
        return mistake(x)

    with pytest.raises(CompileError, match=words):
        model(wrong)


def test_a_parameter_takes_the_name_of_its_dtype() -> None:
    @model
    def net(x=f32["batch", 4]):
        return x * dsl.parameter("w", 4, dtype="float32")

    assert net.parameters["w"].type == f32[4]


DECLARED: dict[str, tuple[Callable[[Model], Any], str]] = {
    "a name for @model": (lambda m: model("net"), r"decorates a function, got 'net'"),
    "a model twice": (lambda m: model(m), "decorates a function"),
    "predict of a number": (lambda m: model(predict=3)(lambda: None), "predict must name outputs"),
    "an optimizer uncalled": (
        lambda m: training(m, optimizer=adam),
        r"adam is no(.|\n)*adam\(1e-3\)",
    ),
    "an optimizer by name": (lambda m: training(m, optimizer="Adam"), r"creates one: adam\(1e-3\)"),
    "an unknown optimizer": (lambda m: training(m, optimizer="adagrad"), r"sgd\(1e-3\), rmsprop"),
    "a rate for an optimizer": (lambda m: training(m, optimizer=0.1), r"sgd\(0\.1\) is"),
    "optimizers by name": (lambda m: training(m, optimizer={"*": "adam"}), "'adam' is no"),
    "a function trained": (lambda m: training(lambda x: x), "a recipe needs a model"),
    "a loss that is a value": (lambda m: training(m, m.outputs["loss"]), "name of an output"),
    "updates by name": (lambda m: training(m, updates=["loss"]), "'loss' is not an update"),
    "a batch of text": (
        lambda m: training(m, batch_size="64"),
        "batch_size must be a whole number",
    ),
    "half an epoch": (lambda m: training(m, epochs=1.5), "epochs must be a whole number"),
    "a bound of text": (lambda m: training(m, clip_norm="1"), "clip_norm must be a number"),
    "params by number": (
        lambda m: training(m, params=5),
        "params must be one or more patterns of paths",
    ),
    "a model for a trainer": (lambda m: Trainer(m), r"got model net(.|\n)*training\(model"),
    "a seed of text": (lambda m: Trainer(training(m), seed="a"), "seed must be a whole number"),
    "threads of text": (lambda m: Trainer(training(m), threads="2"), "threads must be a whole"),
    "a recipe compiled": (lambda m: compile_model(training(m)), r"recipe\.model is the model"),
    "a pass by name": (lambda m: compile_model(m, without="gemm"), r"without=\['gemm'\]"),
    "params in a list": (
        lambda m: m(leaf(), params=[1]),
        "params must be a dict of values by path",
    ),
}


@pytest.mark.parametrize("case", DECLARED)
def test_a_mistake_in_a_declaration_is_answered(net: Model, case: str) -> None:
    mistake, words = DECLARED[case]
    with pytest.raises(CompileError, match=words):
        mistake(net)


def test_one_update_needs_no_list(net: Model) -> None:
    assert training(net, updates=minimize("loss", optimizer=sgd(0.1))).updates[0].loss == "loss"


def test_a_recipe_says_what_trains_it(net: Model) -> None:
    recipe = training(net)
    with pytest.raises(
        UnknownNameError, match=r"a recipe has no 'fit'(.|\n)*Trainer\(recipe\)\.fit"
    ):
        recipe.fit(DATA)
    assert not hasattr(recipe, "__array__") and not hasattr(recipe, "on_step")


DATA = {"x": np.zeros((8, 4), np.float32), "label": np.zeros(8, np.int64)}


class OfKeras:
    """A callback as Keras has it."""

    def on_epoch_end(self, epoch: int, logs: Any) -> None: ...


FITTED: dict[str, tuple[Callable[[Trainer], Any], str]] = {
    "a callback of Keras": (
        lambda t: t.fit(DATA, callbacks=OfKeras()),
        r"the class OfKeras is not a callback(.|\n)*on_epoch_end is on_epoch\(self, event\)",
    ),
    "a label that is missing": (
        lambda t: t.fit({**DATA, "label": np.array([0, 1, np.nan] + [0] * 5)}),
        r"(.|\n)*label\[2\] is NaN: remove or fill what is missing",
    ),
    "text": (lambda t: t.fit("digits"), "digits is not a table"),
    "a size of batches": (
        lambda t: t.fit([DATA], batch_size=8),
        r"batch_size stands beside batches \(list\), which have their own sizes",
    ),
    "an array for a number": (
        lambda t: t.predict(DATA["x"], np.arange(1000)),
        r"batch_size must be a whole number, got array\(.{5,30}\)",
    ),
    "nothing": (lambda t: t.fit(None), "got NoneType"),
    "epochs of text": (lambda t: t.fit(DATA, epochs="3"), "epochs must be a whole number"),
    "a batch of halves": (
        lambda t: t.fit(DATA, batch_size=2.5),
        "batch_size must be a whole number",
    ),
    "a label too large": (
        lambda t: t.fit({**DATA, "label": np.arange(8)}),
        r"'label' holds 3: index 3 is out of range for (.|\n)*label\[3\](.|\n)*5 of 8",
    ),
    "a negative label": (
        lambda t: t.fit([{**DATA, "label": np.full(8, -1)}]),
        r"'label' holds -1: index -1(.|\n)*ignore_index=-1",
    ),
    "evaluating an array": (lambda t: t.evaluate(DATA["x"]), "no data for input 'label'"),
}


@pytest.mark.parametrize("case", FITTED)
def test_a_mistake_in_training_is_answered(net: Model, case: str) -> None:
    mistake, words = FITTED[case]
    trainer = Trainer(training(net))
    with pytest.raises(CompileError, match=words):
        mistake(trainer)
    assert trainer.step == 0


@pytest.mark.parametrize("number", [8, np.int32(8), np.array(8)])
def test_whole_numbers_may_be_those_of_numpy(net: Model, number: Any) -> None:
    trainer = Trainer(training(net, batch_size=number))
    trainer.fit(DATA, steps=number)
    assert trainer.step == 8


def test_a_mistake_in_an_export_is_answered(net: Model, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for source, options, words in (
        (path, {}, "takes a model, a recipe or a trainer"),
        (Trainer, {}, "takes a model, a recipe or a trainer"),
        (net, {"params": [1]}, "arrays by path, or a file, got list"),
        (net, {"params": Trainer(training(net))}, r"trainer\.state holds"),
    ):
        with pytest.raises(CompileError, match=words):
            export(source, path, **options)
    assert not path.exists()


def test_none_is_no_element_type() -> None:
    """Although numpy takes it for float64."""
    with pytest.raises(CompileError, match="not supported"):
        dtype_of(None)


def test_a_call_is_written_with_what_is_short(net: Model) -> None:
    trainer = Trainer(training(net))
    with pytest.raises(CompileError, match=r"pass it by name: fit\(data, y, epochs=5\)"):
        trainer.fit(DATA["x"], DATA["label"], 5)  # type: ignore[misc]  # as in Keras
    with pytest.raises(
        CompileError, match=r"no data for input 'label'(.|\n)*hint: \{'x': ..., 'label'"
    ):
        trainer.fit(DATA["x"])
