"""Attention of several heads against torch with its weights: masks, groups, rotation, mistakes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from dsl import MultiHeadAttention, boolean, f32, f64, i64
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.op import Value
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


def their_heads(width: int, heads: int, **options: Any) -> Any:
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(
        width, heads, batch_first=True, dtype=torch.float64, **options
    )
    for p in theirs.parameters():  # its biases start at zero
        torch.nn.init.normal_(p, std=0.4)
    return theirs


WIDTHS = {"self": 4, "cross": 6}
OPTIONS = ("plain", "causal", "mask", "key_mask", "masks")


def our_heads(kind: str, option: str) -> Differentiated:
    """Our layer, of x to itself or to a memory of other features."""
    inputs, s = {"x": ("b", "t", 4)}, "t"
    if kind == "cross":
        inputs["memory"], s = ("b", "s", 6), "s"
    masks = {}
    if option in ("mask", "masks"):
        masks["mask"] = boolean["t", s]
    if option in ("key_mask", "masks"):
        masks["key_mask"] = boolean["b", s]
    layer = MultiHeadAttention(2, is_causal=option == "causal", name="attention")
    return Differentiated(lambda x, memory=None, **m: layer(x, memory, **m), inputs, masks)


def heads_data(kind: str, option: str, b: int, t: int, s: int) -> Feeds:
    rng = np.random.default_rng(t)
    feeds = {"x": rng.normal(size=(b, t, 4))}
    if kind == "cross":
        feeds["memory"] = rng.normal(size=(b, s, 6))
    keys = s if kind == "cross" else t
    if option in ("mask", "masks"):
        feeds["mask"] = (rng.random((t, keys)) < 0.5) | (np.arange(keys) == 0)
    if option in ("key_mask", "masks"):
        feeds["key_mask"] = np.arange(keys) < rng.integers(1, keys + 1, (b, 1))
    return feeds


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", WIDTHS)
def test_heads_are_torchs_with_its_weights(kind: str, option: str) -> None:
    """Forward and all gradients, torch's masks being ours negated; one file at two sizes."""
    theirs = their_heads(4, 2, kdim=WIDTHS[kind], vdim=WIDTHS[kind])

    def function(x: Any, memory: Any = None, mask: Any = None, key_mask: Any = None) -> Any:
        theirs.zero_grad()
        memory = x if memory is None else memory
        hidden = None if mask is None else ~mask
        if option == "causal":
            hidden = ~torch.ones(x.shape[1], memory.shape[1], dtype=torch.bool).tril()
        padding = None if key_mask is None else ~key_mask
        return theirs(x, memory, memory, padding, attn_mask=hidden, need_weights=False)[0]

    shapes = [heads_data(kind, option, *sizes) for sizes in ((2, 5, 3), (1, 2, 7))]
    weights = partial(heads_of, theirs, "attention")
    assert_is_torchs(our_heads(kind, option), function, weights, shapes)


@pytest.mark.parametrize("shape", ["t, s", "b, t, s", "b, heads, t, s"])
def test_a_mask_of_each_rank(shape: str) -> None:
    """Without heads, and with them; the same as the mask spelled out."""
    whole = np.random.default_rng(0).random((2, 4, 3, 3)) < 0.6
    given = {"t, s": whole[0, 0], "b, t, s": whole[:, 0], "b, heads, t, s": whole}[shape]
    spelled = np.broadcast_to(given if given.ndim != 3 else given[:, None], whole.shape)

    def function(x: Value, mask: Value) -> Value:
        return MultiHeadAttention(4, num_key_value_heads=2)(x, mask=mask)

    results = []
    for mask in (given, spelled):
        y, parameters = built(function, x=f64[2, 3, 8], mask=boolean[mask.shape])
        rng = np.random.default_rng(1)
        weights = {n: rng.normal(size=p.shape) for n, p in parameters.items()}
        feeds = {"x": rng.normal(size=(2, 3, 8)), "mask": mask, **weights}
        results.append(in_numpy({"y": y}, feeds)["y"])
    np.testing.assert_allclose(*results, 1e-12)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_grouped_heads_are_torchs(is_causal: bool, masked: bool) -> None:
    """Four heads, each two of which share keys and values."""
    masks, feeds = {}, {"x": np.random.default_rng(1).normal(size=(2, 5, 8))}
    if masked:
        masks["key_mask"] = boolean["b", "t"]
        feeds["key_mask"] = np.arange(5) >= np.array([[0], [2]])  # padding comes first
    layer = MultiHeadAttention(4, num_key_value_heads=2, is_causal=is_causal, name="a")
    ours = Differentiated(lambda x, **m: layer(x, **m), {"x": ("b", "t", 8)}, masks)
    assert ours.parameters["a.key.weight"].shape == (8, 4)

    def theirs(x: Any, **p: Any) -> Any:
        def headed(name: str, heads: int) -> Any:
            z = x @ p[f"a.{name}.weight"] + p[f"a.{name}.bias"]
            return z.reshape(2, 5, heads, 2).transpose(1, 2)

        mask = torch.ones(5, 5, dtype=torch.bool)
        mask = mask.tril() if is_causal else mask
        if masked:
            mask = mask & torch.tensor(feeds["key_mask"])[:, None, None, :]
        z = functional.scaled_dot_product_attention(
            headed("query", 4), headed("key", 2), headed("value", 2), mask, enable_gqa=True
        )
        z = z.transpose(1, 2).reshape(2, 5, 8)
        return z @ p["a.output.weight"] + p["a.output.bias"]

    ours.assert_is(theirs, **feeds)


@pytest.mark.parametrize("base", [None, 100.0])
def test_heads_know_places_by_rotation(base: float | None) -> None:
    """Backwards, the same comes out backwards, unless queries and keys are turned."""

    def function(x: Value) -> Value:
        return MultiHeadAttention(2, rotary_base=base, name="a")(x)

    y, parameters = built(function, x=f64["b", "t", 8])
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(size=p.shape) for n, p in parameters.items()}
    x = rng.normal(size=(1, 6, 8))
    plain = in_numpy({"y": y}, {**feeds, "x": x})["y"]
    backwards = in_numpy({"y": y}, {**feeds, "x": x[:, ::-1]})["y"]
    difference = np.abs(plain - backwards[:, ::-1]).max()
    assert difference < 1e-12 if base is None else difference > 1e-2


# What does not fit


def refused(function: Callable[..., Value], error: type[CompileError], **types: Any) -> str:
    with pytest.raises(error) as caught:
        built(function, **types)
    return str(caught.value)


def test_what_does_not_fit_says_which_layer() -> None:
    heads = MultiHeadAttention(3)
    text = refused(lambda x: heads(x), ModelError, x=f32["b", "t", 8])
    assert "MultiHeadAttention: num_heads=3 does not divide a width of 8" in text
    text = refused(lambda x: heads(x), ShapeError, x=f32[8])
    assert "MultiHeadAttention needs axes for positions and for features" in text
    assert "f32[8]" in text
    four = MultiHeadAttention(4)
    text = refused(lambda x, y: four(x, y), ShapeError, x=f32["b", "t", 8], y=f32["c", "s", 8])
    assert "different leading axes" in text
    assert "f32[c, s, 8]" in text
    text = refused(
        lambda x, m: four(x, key_mask=m), ShapeError, x=f32["b", "t", 8], m=boolean["b", "s"]
    )
    assert "key_mask needs one truth value for each key" in text
    assert "bool[b, s]" in text
    text = refused(
        lambda x, m: four(x, mask=m), ShapeError, x=f32["b", "t", 8], m=boolean["t", "s"]
    )
    assert "the mask does not fit the scores" in text
    text = refused(lambda x, m: four(x, mask=m), DTypeError, x=f32[2, 3, 8], m=i64[3, 3])
    assert "a mask must be boolean or real" in text
    text = refused(lambda x: four(x), DTypeError, x=i64["b", "t", 8])
    assert "needs floating" in text
    with pytest.raises(ModelError, match="num_key_value_heads=3 does not divide num_heads=4"):
        MultiHeadAttention(4, num_key_value_heads=3)
    with pytest.raises(ModelError, match=r"dropout of MultiHeadAttention must be in \[0, 1\)"):
        MultiHeadAttention(4, dropout=1.5)
    with pytest.raises(ModelError, match="heads of MultiHeadAttention must be at least 1"):
        MultiHeadAttention(0)
