"""Names and options as users of torch and Keras write them: the message says what to write here."""

from __future__ import annotations

import copy
import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
import nncompile.train
from dsl import f32, i64, model, training
from dsl.foreign_names import FOREIGN_NAMES as NAMES
from nncompile.diagnostics.errors import (
    CompileError,
    FeedError,
    ForeignNameError,
    FormulaError,
    ModelError,
    ShapeError,
    UnknownNameError,
)
from nncompile.diagnostics.hints import EXPLANATIONS, FOREIGN_NAMES, SuggestsNames, suggests_names
from nncompile.elementwise.formula import Formula
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ops.shape.joining import Split
from nncompile.optim import adam
from nncompile.program.model import Model
from nncompile.program.recipe import minimize
from nncompile.train import Trainer
from tests.case_names import for_each
from tests.small_models import perceptron

RECIPES: dict[str, tuple[Callable[[Model], Any], str]] = {
    "learning_rate": (
        lambda m: adam(learning_rate=1e-3),
        r"adam: (.|\n)*'learning_rate'(.|\n)*called 'lr' here",
    ),
    "steps by place": (lambda m: dsl.cosine(0.1, 100), r"by name: cosine\(0\.1, steps=100\)"),
    "steps of warmup": (lambda m: dsl.warmup(0.1, 10), r"by name: warmup\(0\.1, steps=10\)"),
    "one cycle": (
        lambda m: dsl.one_cycle(0.1, 100),
        r"by name: one_cycle\(0\.1, total_steps=100\)",
    ),
    "a model": (lambda m: Trainer(m), r"needs a recipe, got model(.|\n)*training\(model"),
    "misspelt": (lambda m: training(m, optimiser=adam()), "did you mean 'optimizer'"),
    "too many": (lambda m: minimize("loss", "*", adam(), *range(9)), r"too many(.|\n)*options are"),
}


@pytest.mark.parametrize("foreign_name", RECIPES)
def test_recipes_answer_habits(foreign_name: str) -> None:
    written, words = RECIPES[foreign_name]
    with pytest.raises(ModelError, match=words):
        written(perceptron())


def test_options_of_formulas_are_told() -> None:
    x = Input("x", f32["batch"])()
    with pytest.raises(FormulaError, match="called 'negative_slope' here"):
        dsl.leaky_relu(x, alpha=0.1)
    with pytest.raises(FormulaError, match="did you mean 'alpha'"):
        dsl.elu(x, alfa=0.1)


def _is_called(thing: Any) -> bool:
    """Whether users call it; formulas look at what they are applied to first."""
    if isinstance(thing, type):
        return issubclass(thing, dsl.Layer | dsl.Optimizer)
    return hasattr(thing, "__wrapped__") and not isinstance(thing, Formula)


THINGS = [thing for name in dsl.__all__ if _is_called(thing := getattr(dsl, name))]
OPTIONS = {thing: inspect.signature(thing).parameters for thing in THINGS}


@pytest.mark.parametrize("foreign", sorted(FOREIGN_NAMES.keys() - {"alpha"}))  # of formulas alone
def test_options_of_others_are_told(foreign: str) -> None:
    """By each function, layer and optimizer that has the option by our name."""
    told = set()
    for thing, names in OPTIONS.items():
        here = next((name for name in FOREIGN_NAMES[foreign] if name in names), None)
        if here is not None and foreign not in names:
            told.add(here)
            with pytest.raises(
                ModelError, match=rf"{foreign!r}(.|\n)*called {here!r} here: {here}="
            ):
                thing(**{foreign: 1})
    assert told == {*FOREIGN_NAMES[foreign]}


@pytest.mark.parametrize("foreign", EXPLANATIONS)
def test_options_that_nothing_has_are_explained(foreign: str) -> None:
    for thing in (dsl.Dense, dsl.training, dsl.searchsorted):
        with pytest.raises(ModelError) as raised:
            thing(**{foreign: 1})
        assert raised.value.hint == EXPLANATIONS[foreign]


FITS: dict[str, tuple[Callable[[Trainer, Any], Any], type[CompileError], str]] = {
    "two arrays": (lambda t, x: t.fit(x, x), FeedError, "input 'target' has size 4"),
    "verbose": (lambda t, x: t.evaluate({}, verbose=0), ModelError, "fit.data, verbose="),
    "train": (lambda t, x: t.train(x), UnknownNameError, r"no 'train'(.|\n)*trainer\.fit"),
    "summary": (lambda t, x: t.summary(), UnknownNameError, "trainer.model.summary()"),
    "state_dict": (lambda t, x: t.state_dict(), UnknownNameError, r"trainer\.params"),
    "misspelt": (lambda t, x: t.evalute(x), UnknownNameError, "did you mean 'evaluate'"),
    "fit of a model": (lambda t, x: t.model.fit(x), UnknownNameError, r"Trainer\(training\(model"),
    "its modules": (lambda t, x: t.model.modules(), UnknownNameError, "model.summary()"),
    "its weights": (lambda t, x: t.model.weights, UnknownNameError, r"trainer\.params"),
}


@pytest.mark.parametrize("foreign_name", FITS)
def test_trainers_and_models_answer_habits(foreign_name: str) -> None:
    written, error, words = FITS[foreign_name]
    with pytest.raises(error, match=words):
        written(Trainer(training(perceptron())), np.zeros((4, 4), np.float32))


def test_a_property_that_fails_says_why() -> None:
    class Thing(SuggestsNames):
        @property
        def broken(self) -> Any:
            return self.nothing

        @property
        def wrong(self) -> Any:
            return None.missing  # type: ignore[attr-defined]

    with pytest.raises(UnknownNameError, match="a thing has no 'nothing'"):
        _ = Thing().broken
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'missing'"):
        _ = Thing().wrong
    assert not hasattr(Thing(), "__wrapped__") and not hasattr(Thing(), "other")
    assert copy.copy(Trainer(training(perceptron()))).step == 0


CALLS: dict[str, tuple[Callable[[Value], Any], str]] = {
    "size of an axis": (lambda x: x * x.size(0), r"x\.size is (.|\n)*write x\.shape\[0\]"),
    "shape": (lambda x: x.reshape(x.shape()), r"x\.shape is (.|\n)*write x\.shape\n?$"),
    "an axis of a shape": (lambda x: x.sum(1).shape(0), r"write x\.sum\(1\)\.shape\[0\]"),
    "transposed": (lambda x: x.T(), r"x\.T is a value(.|\n)*write x\.T"),
}


@pytest.mark.parametrize("call", CALLS)
def test_attributes_that_are_methods_elsewhere_are_told(call: str) -> None:
    written, words = CALLS[call]
    with pytest.raises(FormulaError, match=words) as raised:

        @model
        def net(x: Any = f32["batch", 4]) -> Any:
            return written(x)

    assert raised.value.location is not None
    assert "lambda x" in raised.value.location.text


def test_other_calls_of_what_is_no_function_stay() -> None:
    with pytest.raises(TypeError, match="'int' object is not callable") as raised:

        @model
        def net(x: Any = f32["batch", 4]) -> Any:
            return x.shape[1](x)  # a number

    assert not isinstance(raised.value, CompileError)


def test_several_values_are_told_from_one() -> None:
    several = Split(1, (1, 3))(Input("x", f32["batch", 4])())
    with pytest.raises(
        UnknownNameError, match=r"a tuple of values has no 'dtype'(.|\n)*items\(x\)"
    ):
        _ = several.dtype
    with pytest.raises(UnknownNameError, match="has no 'rank'"):
        _ = several.rank


def test_a_mistake_within_a_function_is_its_own() -> None:
    @suggests_names
    def add(x: Any, axis: int = 0) -> Any:
        return x + axis

    assert add(1, axis=2) == 3
    with pytest.raises(TypeError, match="concatenate str") as raised:
        add("a")
    assert not isinstance(raised.value, CompileError)
    with pytest.raises(ModelError, match="add: missing a required argument: 'x'"):
        add()  # type: ignore[call-arg]


@for_each("name", NAMES)
def test_names_of_others_are_told(name: str) -> None:
    with pytest.raises(ForeignNameError, match=rf"no {name!r}\n(.|\n)*hint: here it is "):
        getattr(dsl, name)
    assert name not in dsl.__all__
    said = re.findall(r"(?:>> |^)(\w+)|(\w+)\(", NAMES[name].replace("a function: ", ""))
    here = [word for pair in said for word in pair if word and word not in ("an", "x")]
    assert here and all(word in (*dsl.__all__, *dsl.BUILTINS) for word in here), here


def test_the_names_told_are_told_by_an_import_too() -> None:
    program = "from dsl import Dense, Linear"
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert made.returncode == 1
    assert "here it is Dense(out_features)" in made.stderr


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Dens': did you mean 'Dense'"):
        _ = dsl.Dens
    assert not hasattr(dsl, "__wrapped__")


def test_options_that_are_told_are_some() -> None:
    """Each name here is an option of a layer, an optimizer, a recipe, an operation or `fit`."""
    known = set(inspect.signature(Trainer.fit).parameters)
    for name in dsl.__all__:
        thing = getattr(dsl, name)
        if isinstance(thing, type) and issubclass(thing, dsl.Layer):
            known |= thing.__dataclass_fields__.keys()
        elif hasattr(thing, "__wrapped__"):
            known |= inspect.signature(thing).parameters.keys()
    told = {here for several in FOREIGN_NAMES.values() for here in several}
    assert told <= known, told - known


# What options of torch's layers are not here at all: the others have torch's name, or a hint.
ABSENT = {
    *("args", "kwargs", "device", "dtype", "inplace", "_weight", "_freeze"),
    *("max_norm", "norm_type", "scale_grad_by_freq", "sparse"),  # of embeddings
    *("encoder_layer", "decoder_layer", "norm", "enable_nested_tensor", "mask_check"),
    *("end_dim", "padding_mode", "recompute_scale_factor", "return_indices"),
}
SPATIAL = ("Conv", "ConvTranspose", "MaxPool", "MaxUnpool", "LPPool", "AdaptiveMaxPool")
TORCH_LAYERS = (
    *("AlphaDropout", "Bilinear", "Dropout", "Embedding", "EmbeddingBag", "Flatten", "GroupNorm"),
    *(f"{kind}{n}d" for kind in SPATIAL for n in (1, 2, 3)),
    *("Fold", "Unfold", "LayerNorm", "LocalResponseNorm", "PixelShuffle", "PixelUnshuffle"),
    *("PReLU", "RMSNorm", "RNNCell", "LSTMCell", "GRUCell", "Upsample", "TransformerEncoder"),
    *("TransformerEncoderLayer", "TransformerDecoder", "TransformerDecoderLayer"),
)


OTHER_LAYERS = {"GRU", "LSTM", "RNN", "Sequential"}  # torch's take any options


def test_every_layer_that_torch_has_is_compared() -> None:
    nn = pytest.importorskip("torch").nn
    found = {
        name
        for name in dsl.__all__
        if inspect.isclass(ours := getattr(dsl, name))
        and issubclass(ours, dsl.Layer)
        and hasattr(nn, name)
    }
    assert found == {*TORCH_LAYERS} | OTHER_LAYERS


def test_options_that_were_renamed_are_told() -> None:
    with pytest.raises(ModelError, match="did you mean 'restore_best_weights'"):
        nncompile.train.EarlyStopping(restore_best=True)  # type: ignore[call-arg]
    with pytest.raises(ModelError, match="'axis'"):
        dsl.accuracy(1, 2, dim=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_layers_have_torchs_options(name: str) -> None:
    nn = pytest.importorskip("torch").nn
    ours = inspect.signature(getattr(dsl, name)).parameters
    theirs = inspect.signature(getattr(nn, name)).parameters.keys() - ABSENT
    told = EXPLANATIONS.keys() | {
        x for x, here in FOREIGN_NAMES.items() if any(y in ours for y in here)
    }
    assert theirs <= ours.keys() | told, theirs - ours.keys() - told


def ctc(**options: Any) -> Model:
    @model
    def net(
        x: Any = f32["batch", "time", 5], label: Any = i64["batch", "letters"]
    ) -> dict[str, Any]:
        return {"loss": dsl.ctc_loss(x >> dsl.Dense(5), label, **options)}

    return net


def test_more_labels_than_steps_are_told() -> None:
    data = {"x": np.zeros((2, 3, 5), np.float32), "label": np.array([[1, 2, 3, 1], [1, 2, 1, 2]])}
    words = r"4 labels do not fit in 3 steps(.|\n)*zero_infinity=True"
    with pytest.raises(FeedError, match=words):
        Trainer(training(ctc())).fit(data, epochs=1)
    trainer = Trainer(training(ctc(zero_infinity=True)))
    assert trainer.fit(data, epochs=1).epochs[0]["loss"] == 0
    with pytest.raises(ShapeError, match=words):
        dsl.ctc_loss(np.zeros((2, 3, 5), np.float32), data["label"])
