"""Habits of those who know torch and Keras: what they write is told in the words of this place."""

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
from nncompile.diagnostics.hints import FOREIGN_NAMES, SAID, SuggestsNames, suggests_names
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops import array_functions as arrays
from nncompile.ops import image_functions as images
from nncompile.ops.shape.joining import Split
from nncompile.optim import adam, adamw
from nncompile.program.model import Model
from nncompile.program.recipe import minimize
from nncompile.train import Trainer
from tests.small_models import perceptron

FLAT, ROWS = f32["batch", 784], f32["batch", "time", 6]
IMAGES, LAST = f32["batch", 3, 8, 8], f32["batch", 28, 28, 1]

LAYERS: dict[str, tuple[Callable[[Value], Any], Type, str]] = {
    "in, out, kernel": (
        lambda x: x >> dsl.Conv2d(3, 16, 3),
        IMAGES,
        r"follows from x: Conv2d\(16, 3\)",
    ),
    "in, out, kernel, separable": (
        lambda x: x >> dsl.SeparableConv2d(3, 16, 3),
        IMAGES,
        r"follows from x: SeparableConv2d\(16, 3\)",
    ),
    "channels last": (lambda x: x >> dsl.Conv2d(8, 3), LAST, r"channels are axis 1: moveaxis"),
    "Keras's padding": (lambda x: x >> dsl.Conv2d(8, 3, padding="SAME"), IMAGES, "mean 'same'"),
    "padding of a pool": (lambda x: x >> dsl.MaxPool2d(2, padding="Valid"), IMAGES, "mean 'valid'"),
    "of a transposed one": (
        lambda x: x >> dsl.ConvTranspose2d(8, 3, padding="Same"),
        IMAGES,
        "mean 'same'",
    ),
    "filters": (
        lambda x: x >> dsl.Conv2d(filters=8, kernel_size=3),
        IMAGES,
        "called 'out_channels' here",
    ),
    "pool_size": (lambda x: x >> dsl.MaxPool2d(pool_size=2), IMAGES, "called 'kernel_size' here"),
    "in_channels": (
        lambda x: x >> dsl.Conv2d(in_channels=3, out_channels=8, kernel_size=3),
        IMAGES,
        "'in_channels'(.|\n)*follows from x(.|\n)*leave it out",
    ),
    "in, out": (
        lambda x: x >> dsl.Dense(784, 128),
        FLAT,
        r"Dense\(128\) alone is enough: the width of x",
    ),
    "units": (lambda x: x >> dsl.Dense(units=128), FLAT, "called 'out_features' here"),
    "use_bias": (lambda x: x >> dsl.Dense(8, use_bias=False), FLAT, "called 'bias' here: bias="),
    "rate": (lambda x: x >> dsl.Dropout(rate=0.5), FLAT, "called 'p' here"),
    "input and hidden": (
        lambda x: x >> dsl.LSTM(6, 32),
        ROWS,
        r"LSTM\(32\) alone is enough: the width of x",
    ),
    "input, hidden, layers": (lambda x: x >> dsl.GRU(6, 32, 2), ROWS, r"GRU\(32\) alone"),
    "units of a layer of several": (
        lambda x: x >> dsl.LSTM(units=8),
        ROWS,
        "called 'hidden_size' here",
    ),
    "batch_first": (lambda x: x >> dsl.LSTM(8, batch_first=True), ROWS, r"\[batch, time, …\]"),
    "normalized_shape": (
        lambda x: x >> dsl.LayerNorm(64),
        ROWS,
        r"LayerNorm\(\) normalizes the last",
    ),
    "normalized_shape listed": (lambda x: x >> dsl.LayerNorm([6]), ROWS, r"LayerNorm\(\): the s"),
    "a shape of two": (lambda x: x >> dsl.RMSNorm((4, 6)), ROWS, r"RMSNorm\(axes=2\): the sizes"),
    "num_features": (lambda x: x >> dsl.BatchNorm(3), IMAGES, r"BatchNorm\(\): the number of"),
    "groups and channels": (lambda x: x >> dsl.GroupNorm(3, 3), IMAGES, r"GroupNorm\(3\): the num"),
    "of instances": (lambda x: x >> dsl.InstanceNorm(3), IMAGES, r"InstanceNorm\(\): the number"),
    "in, out, kernel, any size": (
        lambda x: x >> dsl.Conv2d(3, 16, 3),
        f32["batch", 3, "h", "w"],
        r"follows from x: Conv2d\(16, 3\)(.|\n)*write stride=3",
    ),
    "in, out, kernel of one": (
        lambda x: x >> dsl.Conv2d(3, 64, 1),
        f32["batch", 3, "h", "w"],
        r"follows from x: Conv2d\(64, 1\)",
    ),
    "in, out, kernel, transposed": (
        lambda x: x >> dsl.ConvTranspose2d(3, 16, 5),
        IMAGES,
        r"follows from x: ConvTranspose2d\(16, 5\)",
    ),
    "the size of two": (
        lambda x: x >> dsl.LayerNorm(2),
        ROWS,
        r"LayerNorm\(axes=2\) normalizes the",
    ),
    "a size of RMSNorm": (
        lambda x: x >> dsl.RMSNorm(6),
        ROWS,
        r"RMSNorm\(\) normalizes the last axis",
    ),
    "one channel": (lambda x: x >> dsl.BatchNorm(1), IMAGES, r"BatchNorm\(\): the number of"),
    "groups and one channel": (lambda x: x >> dsl.GroupNorm(1, 1), IMAGES, r"GroupNorm\(1\): the"),
    "d_model, nhead": (
        lambda x: x >> dsl.TransformerEncoderLayer(6, 2),
        ROWS,
        r"Layer\(6, 2\) has 6 heads but only 2 hidden(.|\n)*TransformerEncoderLayer\(2\)",
    ),
    "d_model, nhead, feedforward": (
        lambda x: x >> dsl.TransformerDecoderLayer(6, 2, 24),
        ROWS,
        "activation of TransformerDecoderLayer must be a function, got 24",
    ),
    "a layer, and how often": (
        lambda x: x >> dsl.TransformerEncoder(dsl.TransformerEncoderLayer(2), 6),
        ROWS,
        r"TransformerEncoder\(num_heads=8, num_layers=6\)",
    ),
    "batchmean": (
        lambda x: dsl.kl_divergence(dsl.log_softmax(x), x, reduction="batchmean"),
        FLAT,
        'the mean over the rows, is "mean" here',
    ),
    "embed_dim, heads": (
        lambda x: x >> dsl.MultiHeadAttention(6, 2),
        ROWS,
        "number of heads comes first",
    ),
    "key_dim": (
        lambda x: x >> dsl.MultiHeadAttention(2, key_dim=3),
        ROWS,
        "called 'head_dim' here",
    ),
    "nhead": (
        lambda x: x >> dsl.TransformerEncoderLayer(nhead=2),
        ROWS,
        "called 'num_heads' here",
    ),
    "d_model": (lambda x: x >> dsl.TransformerEncoder(d_model=6, nhead=2), ROWS, "follows from x"),
    "output_dim": (
        lambda x: x.argmax(-1) >> dsl.Embedding(9, output_dim=2),
        FLAT,
        "called 'embedding_dim' here",
    ),
    "input_dim": (
        lambda x: x.argmax(-1) >> dsl.Embedding(input_dim=9, embedding_dim=2),
        FLAT,
        "called 'num_embeddings' here",
    ),
    "groups": (lambda x: x >> dsl.GroupNorm(groups=3), IMAGES, "called 'num_groups' here"),
    "depth": (lambda x: dsl.one_hot(x.argmax(-1), depth=3), FLAT, "called 'num_classes' here"),
    "dim": (lambda x: x.sum(dim=1), FLAT, r"sum: (.|\n)*called 'axis' here: axis="),
    "keepdim": (lambda x: dsl.mean(x, 1, keepdim=True), FLAT, "called 'keepdims' here"),
    "dim of a softmax": (lambda x: dsl.softmax(x, dim=-1), FLAT, "softmax: (.|\n)*'axis' here"),
    "dim of joining": (lambda x: dsl.concatenate([x, x], dim=1), FLAT, "called 'axis' here"),
}


@pytest.mark.parametrize("foreign_name", LAYERS)
def test_layers_answer_habits(foreign_name: str) -> None:
    written, type_, words = LAYERS[foreign_name]

    def net(x):
        return written(x)

    net.__defaults__ = (type_,)
    with pytest.raises(CompileError, match=words):
        model(net)


@pytest.mark.parametrize(
    "layer",
    [
        dsl.Conv2d(3, 4, 2),
        dsl.Conv2d(3, 7, 2),
        dsl.Conv2d(3, 16, stride=3),
        dsl.Conv2d(3, (16, 16), 3),
        dsl.Conv2d(4, 16, 3),
        dsl.Conv2d(3, 4, 4),
    ],
    ids=lambda layer: f"{layer.out_channels}, {layer.kernel_size}, {layer.stride}",
)
def test_other_convolutions_are_as_they_are_written(layer: Any) -> None:
    @model
    def net(x=f32["batch", 3, "h", "w"]):
        return x >> layer

    assert net.outputs["output"].shape[1] == layer.out_channels


def test_options_given_by_place_are_kerass() -> None:
    layer = dsl.DepthwiseConv2d(3, 2, "same")
    assert (layer.stride, layer.padding, layer.depth_multiplier) == (2, "same", 1)
    layer = dsl.SeparableConv2d(8, 3, 2, "same")
    assert (layer.stride, layer.padding, layer.depth_multiplier) == (2, "same", 1)


FLAGS = {
    "affine": lambda: dsl.BatchNorm(1e-5, 0.1, 3),  # type: ignore[arg-type]
    "bias": lambda: dsl.Dense(8, None, 4),  # type: ignore[arg-type]
    "norm_first": lambda: dsl.TransformerEncoderLayer(2, norm_first="yes"),  # type: ignore[arg-type]
    "causal": lambda: dsl.MultiHeadAttention(2, causal=1),  # type: ignore[arg-type]
    "return_sequences": lambda: dsl.LSTM(2, 8),  # type: ignore[arg-type]
    "keepdims": lambda: dsl.GlobalAveragePool(2),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_are_true_or_false(flag: str) -> None:
    with pytest.raises(ModelError, match=f"{flag} of .* must be True or False, got"):
        FLAGS[flag]()


def test_flags_of_own_layers_too() -> None:
    class Scaled(dsl.Layer):
        twice: bool = False

        def __call__(self, x: Any) -> Any:
            return x

    assert Scaled(np.bool_(True)).twice
    assert repr(Scaled(True)) == "Scaled(twice=True)"
    with pytest.raises(ModelError, match="twice of Scaled must be True or False, got 2"):
        Scaled(2)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", [dsl.f1_score, dsl.precision, dsl.recall, dsl.iou])
def test_scores_of_several_classes_say_how_they_are_averaged(metric: Any) -> None:
    logits, label = Input("z", f32["batch", 3])(), Input("c", i64["batch"])()
    words = rf'{metric.__name__}\(logits, label, average="macro"\)'
    with pytest.raises(ShapeError, match=words):
        metric(logits, label)
    assert metric(logits, label, average="macro").rank == 0


RECIPES: dict[str, tuple[Callable[[Model], Any], str]] = {
    "learning_rate": (
        lambda m: adam(learning_rate=1e-3),
        r"adam: (.|\n)*'learning_rate'(.|\n)*called 'lr' here",
    ),
    "learning_rate of one cycle": (
        lambda m: dsl.one_cycle(learning_rate=0.1, total_steps=9),
        "called 'max_lr' here",
    ),
    "beta_1": (lambda m: adamw(1e-3, beta_1=0.9), r"betas=\(0\.9, 0\.999\)"),
    "epsilon": (lambda m: adam(1e-3, epsilon=1e-6), "called 'eps' here"),
    "rho": (lambda m: dsl.rmsprop(rho=0.9), "called 'alpha' here"),
    "maximize": (lambda m: dsl.sgd(0.1, maximize=True), r"maximize\(\"reward\", optimizer="),
    "max_iter": (lambda m: dsl.lbfgs(max_iter=20), r"one step is one iteration"),
    "lr of a training": (lambda m: training(m, lr=0.1), r"optimizer=adam\(1e-3\)"),
    "loss": (lambda m: training(m, loss="loss"), "called 'minimize' here"),
    "metrics": (lambda m: training(m, metrics=["acc"]), "metrics are outputs of the model"),
    "num_epochs": (lambda m: training(m, num_epochs=3), "called 'epochs' here"),
    "max_grad_norm": (lambda m: minimize("loss", max_grad_norm=1.0), "called 'clip_norm' here"),
    "T_max": (lambda m: dsl.cosine(0.1, T_max=100), "called 'steps' here"),
    "steps by place": (lambda m: dsl.cosine(0.1, 100), r"by name: cosine\(0\.1, steps=100\)"),
    "steps of warmup": (lambda m: dsl.warmup(0.1, 10), r"by name: warmup\(0\.1, steps=10\)"),
    "one cycle": (
        lambda m: dsl.one_cycle(0.1, 100),
        r"by name: one_cycle\(0\.1, total_steps=100\)",
    ),
    "decay_steps": (lambda m: dsl.exponential(0.1, 0.9, decay_steps=10), "called 'step_size' here"),
    "decay_rate": (lambda m: dsl.exponential(0.1, decay_rate=0.9), "called 'gamma' here"),
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


# What the compiler itself is written with is called too often to look at each call.
INNER = {
    *("broadcast_to", "cast", "const", "dot", "einsum", "expand_dims", "full", "iota", "matmul"),
    *("moveaxis", "ones_like", "outer", "ravel", "reshape", "squeeze", "stack", "swapaxes"),
    *("tensordot", "tile", "transpose", "zeros_like"),
}
FUNCTIONS = [
    *sorted(set(arrays.__all__) - INNER),
    *images.__all__,
    *dsl.losses.__all__,
    "average_pool",
    "conv",
    "resize",
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_tell_their_options(name: str) -> None:
    with pytest.raises(ModelError, match=r"argument 'other'(.|\n)*hint: "):
        getattr(dsl, name)(other=1)


OTHERS: dict[str, tuple[Callable[[Value], Any], str]] = {
    "interpolation": (lambda x: dsl.quantile(x, 0.5, interpolation="lower"), "'method' here"),
    "right": (lambda x: dsl.searchsorted(x, 0.5, right=True), "side='right'"),
    "upper": (lambda x: dsl.solve_triangular(x, x, upper=False), "lower=True"),
    "unitriangular": (
        lambda x: dsl.solve_triangular(x, x, unitriangular=True),
        "called 'unit_diagonal' here",
    ),
    "nonlinearity": (lambda x: dsl.RNNCell(3, nonlinearity="relu"), "called 'activation' here"),
    "in1_features": (lambda x: dsl.Bilinear(in1_features=3), "follows from x"),
}


@pytest.mark.parametrize("option", OTHERS)
def test_options_of_functions_are_told(option: str) -> None:
    written, words = OTHERS[option]
    with pytest.raises(ModelError, match=words):
        written(Input("x", f32["n"])())


FITS: dict[str, tuple[Callable[[Trainer, Any], Any], type[CompileError], str]] = {
    "two arrays": (lambda t, x: t.fit(x, x), FeedError, r"dict of arrays(.|\n)*'x': \.\.\."),
    "validation_split": (
        lambda t, x: t.fit({}, validation_split=0.1),
        ModelError,
        "validation_data= takes",
    ),
    "verbose": (lambda t, x: t.fit({}, verbose=0), ModelError, "callbacks="),
    "train": (lambda t, x: t.train(x), UnknownNameError, r"no 'train'(.|\n)*trainer\.fit"),
    "summary": (lambda t, x: t.summary(), UnknownNameError, "nncompile show"),
    "state_dict": (lambda t, x: t.state_dict(), UnknownNameError, r"trainer\.params"),
    "misspelt": (lambda t, x: t.evalute(x), UnknownNameError, "did you mean 'evaluate'"),
    "fit of a model": (lambda t, x: t.model.fit(x), UnknownNameError, r"Trainer\(training\(model"),
    "its summary": (lambda t, x: t.model.summary(), UnknownNameError, "nncompile show"),
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
        UnknownNameError, match=r"several values(.|\n)*without 'dtype'(.|\n)*items\(x\)"
    ):
        _ = several.dtype
    with pytest.raises(UnknownNameError, match="without 'rank'"):
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


@pytest.mark.parametrize("name", NAMES)
def test_names_of_others_are_told(name: str) -> None:
    with pytest.raises(ForeignNameError, match=rf"no {name!r}\n(.|\n)*hint: here it is "):
        getattr(dsl, name)
    assert name not in dsl.__all__
    said = re.findall(r"(?:>> |^)(\w+)|(\w+)\(", NAMES[name].replace("a function: ", ""))
    here = [word for pair in said for word in pair if word and word not in ("an", "x")]
    assert here and all(word in (*dsl.__all__, *dsl.BUILTINS) for word in here), here


@pytest.mark.slow
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


# What options of torch's layers are not here at all: the rest has torch's name, or is told.
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


@pytest.mark.parametrize("name", TORCH_LAYERS)
def test_layers_have_torchs_options(name: str) -> None:
    nn = pytest.importorskip("torch").nn
    ours = inspect.signature(getattr(dsl, name)).parameters
    theirs = inspect.signature(getattr(nn, name)).parameters.keys() - ABSENT
    told = SAID.keys() | {x for x, here in FOREIGN_NAMES.items() if any(y in ours for y in here)}
    assert theirs <= ours.keys() | told, theirs - ours.keys() - told


def ctc(**options: Any) -> Model:
    @model
    def net(
        x: Any = f32["batch", "time", 5], label: Any = i64["batch", "letters"]
    ) -> dict[str, Any]:
        return {"loss": dsl.ctc_loss(x >> dsl.Dense(5), label, **options)}

    return net


@pytest.mark.slow
def test_more_labels_than_steps_are_told() -> None:
    data = {"x": np.zeros((2, 3, 5), np.float32), "label": np.array([[1, 2, 3, 1], [1, 2, 1, 2]])}
    words = r"4 labels do not fit in 3 steps(.|\n)*zero_infinity=True"
    with pytest.raises(FeedError, match=words):
        Trainer(training(ctc())).fit(data, epochs=1)
    trainer = Trainer(training(ctc(zero_infinity=True)))
    assert trainer.fit(data, epochs=1).epochs[0]["loss"] == 0
    with pytest.raises(ShapeError, match=words):
        dsl.ctc_loss(np.zeros((2, 3, 5), np.float32), data["label"])
