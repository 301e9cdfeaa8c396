"""Small recipes of several kinds, and their steps as TorchScript."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np

from dsl import (
    LSTM,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Embedding,
    TransformerEncoder,
    accuracy,
    adam,
    adamw,
    cross_entropy,
    ema,
    f32,
    flatten,
    i64,
    lbfgs,
    model,
    plateau,
    relu,
    sgd,
    training,
)
from nncompile.compiler.compile import compile_step
from nncompile.ir.types import f64
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from tests.small_models import perceptron

Arrays = dict[str, Any]


def images(dtype: Any = f32) -> Model:
    """Convolution, batch normalization, dropout. (A bias before the normalization has the gradient
    0, of which Adam would make steps of rounding.)"""

    @model
    def net(image=dtype["batch", 2, 6, 6], label=i64["batch"]):  # type: ignore[no-untyped-def]
        x = (
            image
            >> Conv2d(4, 3, bias=False, name="conv")
            >> BatchNorm(name="norm")
            >> relu
            >> flatten
        )
        logits = x >> Dropout(0.3) >> Dense(3, name="head")
        return {
            "logits": logits,
            "loss": cross_entropy(logits, label),
            "accuracy": accuracy(logits, label),
        }

    return net


def tokens(layer: Any) -> Model:
    @model
    def net(text=i64["batch", "time"], label=i64["batch"]):  # type: ignore[no-untyped-def]
        logits = layer(text >> Embedding(7, 8)) >> Dense(3, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return net


def last(x: Any) -> Any:
    return TransformerEncoder(num_heads=2, num_layers=1, is_causal=True, dropout=0.1, bias=False)(
        x
    )[:, -1]


RECIPES = {
    "images": lambda: training(images(), optimizer=adamw(1e-2)),
    "lstm": lambda: training(tokens(LSTM(5, bidirectional=True)), optimizer=adam(1e-2)),
    "transformer": lambda: training(tokens(last), optimizer=adam(1e-2), clip_norm=1.0),
    "accumulated": lambda: training(
        perceptron(drop=0.5), optimizer=sgd(0.1, 0.9), accumulate=2, average=ema(0.9)
    ),
    "plateau": lambda: training(
        perceptron(), optimizer=sgd(plateau(0.1, monitor="loss", patience=1))
    ),
    "lbfgs": lambda: training(perceptron(f64), optimizer=lbfgs(0.3, history_size=3)),
    "double": lambda: training(images(f64), optimizer=adam(1e-2)),
}


def batch_of(net: Model, seed: int, size: int) -> Arrays:
    random = np.random.default_rng(seed)
    found: Arrays = {}
    for name, value in net.inputs.items():
        shape = [n if isinstance(n, int) else size + ("time" in str(n)) for n in value.shape]
        whole = value.dtype.is_integer
        drawn = random.integers(0, 3, shape) if whole else random.normal(size=shape)
        found[name] = drawn.astype(value.dtype.numpy)
    return found


def stepped(torchscript: SimpleNamespace, recipe: Recipe, **options: Any) -> Any:
    """The step as a module that was written to a file and read again."""
    compiled = compile_step(recipe, **options)
    first = compiled.source.initial()
    content = torchscript.backend.step_to_bytes(compiled.source, first, compiled.optimized)
    return torchscript.torch.jit.load(io.BytesIO(content)), compiled, first


def tensors(torchscript: SimpleNamespace, arrays: Arrays) -> list[Any]:
    return [torchscript.torch.from_numpy(x) for x in arrays.values()]
