"""Transformer layers against torch's with its weights, feedforward layers, and a small GPT that
learns."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    Embedding,
    FeedForward,
    LearnedPositions,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
    adamw,
    boolean,
    cross_entropy,
    f32,
    f64,
    gelu,
    i64,
    model,
    normal,
    relu,
    sigmoid,
    silu,
    training,
)
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.program.model import Model
from nncompile.train import Trainer
from tests.attention_checks import (
    Differentiated,
    Feeds,
    assert_is_torchs,
    built,
    heads_of,
    in_numpy,
)

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional

SINGLE = {"rtol": 5e-5, "atol": 1e-5}  # of several layers


# torch's names of layers in ours.
NAMES = {
    "self_attn": "attention",
    "multihead_attn": "cross",
    "linear1": "feed.hidden",
    "linear2": "feed.output",
    "norm1": "attention_norm",
}


def weights_of(theirs: Any, path: str, gradient: bool = False) -> Feeds:
    """torch's weights (or their gradients) by our names; its matrices are transposed."""
    is_decoder = hasattr(theirs, "multihead_attn")
    norms = {"norm2": "cross_norm", "norm3": "feed_norm"} if is_decoder else {"norm2": "feed_norm"}
    found: Feeds = {}
    for name, part in theirs.named_children():
        ours = f"{path}.{(NAMES | norms).get(name)}"
        if isinstance(part, torch.nn.MultiheadAttention):
            found |= heads_of(part, ours, gradient)
        else:
            found |= {
                f"{ours}.{n}": (p.grad if gradient else p).detach().numpy().T.copy()
                for n, p in part.named_parameters()
            }
    return found


def randomized(module: Any) -> Any:
    torch.manual_seed(0)
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return module


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_encoder_layer_is_torchs(norm_first: bool, activation: str) -> None:
    theirs = randomized(
        torch.nn.TransformerEncoderLayer(
            4, 2, 6, 0.0, activation, batch_first=True, norm_first=norm_first, dtype=torch.float64
        )
    )
    layer = TransformerEncoderLayer(
        2, 6, {"relu": relu, "gelu": gelu}[activation], norm_first=norm_first, name="l"
    )

    def function(x: Any, key_mask: Any) -> Any:
        theirs.zero_grad()
        return theirs(x, src_key_padding_mask=~key_mask)

    rng = np.random.default_rng(0)
    shapes = [
        {"x": rng.normal(size=(b, t, 4)), "key_mask": np.arange(t) < rng.integers(1, t + 1, (b, 1))}
        for b, t in ((2, 5), (3, 2))
    ]
    ours = Differentiated(layer, {"x": ("b", "t", 4)}, {"key_mask": boolean["b", "t"]})
    assert_is_torchs(ours, function, partial(weights_of, theirs, "l"), shapes, SINGLE)


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_decoder_layer_is_torchs(norm_first: bool) -> None:
    theirs = randomized(
        torch.nn.TransformerDecoderLayer(
            4, 2, 6, 0.0, "gelu", batch_first=True, norm_first=norm_first, dtype=torch.float64
        )
    )
    layer = TransformerDecoderLayer(2, 6, norm_first=norm_first, name="l")

    def function(x: Any, memory: Any, there: Any) -> Any:
        theirs.zero_grad()
        hidden = ~torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        return theirs(x, memory, tgt_mask=hidden, memory_key_padding_mask=~there)

    rng = np.random.default_rng(0)
    shapes = [
        {
            "x": rng.normal(size=(b, t, 4)),
            "memory": rng.normal(size=(b, s, 4)),
            "there": np.arange(s) < rng.integers(1, s + 1, (b, 1)),
        }
        for b, t, s in ((2, 5, 3), (1, 2, 6))
    ]
    ours = Differentiated(
        lambda x, memory, there: layer(x, memory, memory_key_mask=there),
        {"x": ("b", "t", 4), "memory": ("b", "s", 4)},
        {"there": boolean["b", "s"]},
    )
    assert_is_torchs(ours, function, partial(weights_of, theirs, "l"), shapes, SINGLE)


@pytest.mark.parametrize("norm_first", [False, True])
def test_stacks_are_their_layers(norm_first: bool) -> None:
    """Names of a stack, which ends with a normalization where its layers begin with one."""

    def encoded(x: Any) -> Any:
        return TransformerEncoder(2, num_layers=2, norm_first=norm_first, name="e")(x)

    def decoded(x: Any) -> Any:
        return TransformerDecoder(2, num_layers=2, norm_first=norm_first, name="d")(x, x)

    for function, name, each in ((encoded, "e", 16), (decoded, "d", 26)):
        y, parameters = built(function, x=f32["b", "t", 8])
        assert y.type == f32["b", "t", 8]
        groups = [path.split(".")[1] for path in parameters]
        assert all(path.startswith(f"{name}.") for path in parameters)
        counts = {g: groups.count(g) for g in groups}
        assert counts == {"layer0": each, "layer1": each, **({"norm": 2} if norm_first else {})}


def test_a_causal_layer_does_not_see_what_comes() -> None:
    layer = TransformerEncoderLayer(2, is_causal=True, rotary_base=50.0, gated=True, name="l")
    y, parameters = built(layer, x=f64["b", "t", 8])
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(size=p.shape) for n, p in parameters.items()}
    x = rng.normal(size=(2, 6, 8))
    changed = x.copy()
    changed[:, 4:] += 1
    before, after = (in_numpy({"y": y}, {**feeds, "x": z})["y"] for z in (x, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (np.abs(before[:, 4:] - after[:, 4:]) > 0.01).any()


@pytest.mark.parametrize("activation", [sigmoid, silu, gelu], ids=["GLU", "SwiGLU", "GEGLU"])
def test_gated_feedforward_layers(activation: Any) -> None:
    layer = Differentiated(FeedForward(5, activation, gated=True, name="f"), {"x": ("b", 3)})
    assert [v.shape for v in layer.parameters.values()] == [(3, 5), (5,)] * 2 + [(5, 3), (3,)]
    theirs = {sigmoid: torch.sigmoid, silu: functional.silu, gelu: functional.gelu}[activation]

    def function(x: Any, **p: Any) -> Any:
        def dense(z: Any, name: str) -> Any:
            return z @ p[f"f.{name}.weight"] + p[f"f.{name}.bias"]

        return dense(theirs(dense(x, "hidden")) * dense(x, "gate"), "output")

    layer.assert_is(function, x=np.random.default_rng(1).normal(size=(4, 3)))


def test_what_does_not_fit_says_which_layer() -> None:
    with pytest.raises(DTypeError, match=r"FeedForward needs floating numbers.*\[b, t\]"):
        built(FeedForward(), x=i64["b", "t"])
    with pytest.raises(
        ShapeError, match="TransformerEncoderLayer needs a known number of features"
    ):
        built(TransformerEncoderLayer(2), x=f32["b", "t", "n"])
    with pytest.raises(ModelError, match="num_heads=3 does not divide a width of 8"):
        built(TransformerEncoder(3, num_layers=2), x=f32["b", "t", 8])
    with pytest.raises(ModelError, match="heads of TransformerEncoderLayer must be at least 1"):
        TransformerEncoderLayer(0)
    with pytest.raises(ModelError, match="num_layers of TransformerDecoder must be at least 1"):
        TransformerDecoder(2, num_layers=0)


def gpt(dropout: float = 0.0) -> Model:
    @model
    def net(tokens=i64["batch", "time"], following=i64["batch", "time"]):
        x = tokens >> Embedding(8, 16, init=normal(0.1)) >> LearnedPositions(12)
        x = x >> TransformerEncoder(
            2, num_layers=2, is_causal=True, norm_first=True, dropout=dropout
        )
        logits = x >> Dense(8)
        return {"logits": logits, "loss": cross_entropy(logits, following)}

    return net


def counting(count: int, seed: int = 0) -> Feeds:
    """Sequences that count modulo 8, by a step that their first two numbers show."""
    rng = np.random.default_rng(seed)
    start, step = rng.integers(0, 8, (count, 1)), rng.choice([1, 3, 5], (count, 1))
    whole = (start + step * np.arange(9)) % 8
    return {"tokens": whole[:, :-1], "following": whole[:, 1:]}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_small_gpt_learns(dropout: float) -> None:
    """The first next number cannot be known: log 3 of 8 numbers, 0.14 a number, is the least."""
    trainer = Trainer(
        training(gpt(dropout), optimizer=adamw(1e-2), batch_size=32, seed=1), threads=1
    )
    before = trainer.evaluate(counting(64, 1))["loss"]
    assert before > np.log(8)
    trainer.fit(counting(256), epochs=14)
    assert trainer.evaluate(counting(64, 1))["loss"] < 0.3
    shorter = counting(64, 2)  # one model for all lengths
    logits = trainer.predict({"tokens": shorter["tokens"][:, :5]})["logits"]
    right = logits[:, 1:].argmax(-1) == shorter["following"][:, 1:5]
    assert right.mean() > 0.9
