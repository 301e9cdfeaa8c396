"""Attention against torch's: values, gradients, masks, one file for all sizes, and what is
refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import MultiHeadAttention, boolean, f32, f64, i64, model, scaled_dot_product_attention
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType
from nncompile.ops.reduction.sums import Sum
from nncompile.passes import inference, optimize
from tests.attention_checks import (
    Feeds,
    assert_all_close,
    built,
    gradients,
    in_numpy,
    in_single,
    session_of,
    torch_gradients,
    torch_probe,
)
from tests.leaves import leaf

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional

DOUBLE = {"rtol": 1e-9, "atol": 1e-11}
SINGLE = {"rtol": 2e-5, "atol": 4e-6}

KINDS = ("none", "causal", "bool", "padding", "bias", "causal and padding", "hidden by bias")


def draw(kind: str, b: int, t: int, s: int, seed: int = 0) -> Feeds:
    """Queries, keys, values and the mask, with a row of it that hides everything."""
    rng = np.random.default_rng(seed)
    feeds = {
        "q": rng.normal(size=(b, 2, t, 4)),
        "k": rng.normal(size=(b, 2, s, 4)),
        "v": rng.normal(size=(b, 2, s, 3)),
    }
    if "bool" in kind:
        feeds["mask"] = rng.random((t, s)) < 0.6
        feeds["mask"][0] = False
    elif "padding" in kind:
        feeds["mask"] = np.arange(s) >= rng.integers(1, s + 1, (b, 1, 1, 1))  # at the start
        feeds["mask"][-1] = False
    elif "bias" in kind:
        feeds["mask"] = rng.normal(size=(b, 2, t, s))
        if "hidden" in kind:
            feeds["mask"][rng.random(feeds["mask"].shape) < 0.3] = -np.inf
            feeds["mask"][:, :, 0] = -np.inf
    return feeds


MASKS: dict[str, Callable[[DType], Any]] = {
    "bool": lambda _: boolean["t", "s"],
    "padding": lambda _: boolean["b", 1, 1, "s"],
    "causal and padding": lambda _: boolean["b", 1, 1, "s"],
    "bias": lambda dtype: dtype["b", 2, "t", "s"],
    "hidden by bias": lambda dtype: dtype["b", 2, "t", "s"],
}


def attended(kind: str, dtype: DType) -> tuple[Value, list[Value]]:
    q, k, v = dtype["b", 2, "t", 4], dtype["b", 2, "s", 4], dtype["b", 2, "s", 3]
    leaves = [leaf(name, type_) for name, type_ in {"q": q, "k": k, "v": v}.items()]
    mask = leaf("mask", MASKS[kind](dtype)) if kind in MASKS else None
    y = scaled_dot_product_attention(*leaves, attn_mask=mask, is_causal="causal" in kind)
    return y, [*leaves, mask] if kind == "bias" else leaves  # type: ignore[list-item]


def torchs(kind: str) -> Callable[..., Any]:
    def function(q: Any, k: Any, v: Any, mask: Any = None) -> Any:
        if "causal" in kind and mask is not None:
            mask = mask & torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
            return functional.scaled_dot_product_attention(q, k, v, mask)
        return functional.scaled_dot_product_attention(q, k, v, mask, is_causal="causal" in kind)

    return function


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_two_orders_of_gradients_are_torchs(kind: str) -> None:
    """In double precision, where rows that see nothing are 0 with gradients 0."""
    y, at = attended(kind, f64)
    feeds = draw(kind, 3, 4, 5)
    names = [x.op.name for x in at]  # type: ignore[attr-defined]
    if "hidden" in kind or "bool" in kind or "padding" in kind:
        assert not in_numpy({"y": y}, feeds)["y"][..., 0, :].all()
    # torch's own gradients of a row that sees nothing are NaN in the second order.
    dead = kind not in ("none", "causal", "bias")
    order = 1 if dead else 2
    expected = torch_gradients(torchs(kind), feeds, names, order)
    assert_all_close(in_numpy(gradients(y, at, order), feeds), expected, **DOUBLE)
    optimized = optimize(Graph("test", gradients(y, at, order)))
    assert_all_close(evaluate(optimized, feeds), expected, **DOUBLE)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_serves_all_sizes(kind: str) -> None:
    y, at = attended(kind, f32)
    session = session_of(gradients(y, at, 2))
    doubles = gradients(*attended(kind, f64), 2)
    for b, t, s in ((3, 4, 5), (1, 6, 2), (2, 1, 1)):
        feeds = draw(kind, b, t, s, seed=b)
        found = session(in_single(feeds))
        assert_all_close(found, in_numpy(doubles, feeds), **SINGLE)
        assert all(np.isfinite(x).all() for x in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_in_double_precision_and_torchscript_too(kind: str, torchscript: Any) -> None:
    y, at = attended(kind, f64)
    values, feeds = gradients(y, at, 1), draw(kind, 2, 3, 4)
    expected = in_numpy(values, feeds)
    assert_all_close(session_of(values)(feeds), expected, **DOUBLE)
    graph = optimize(Graph("test", values))
    module = torchscript.to_script(graph, {})
    found = module(*(torch.tensor(feeds[name]) for name in graph.leaves))
    assert_all_close({n: x.numpy() for n, x in found.items()}, expected, **DOUBLE)


def test_scores_of_hundreds_and_hidden_rows_are_finite() -> None:
    y, at = attended("bool", f32)
    feeds = in_single(draw("bool", 2, 4, 5))
    feeds["q"] *= 1e3
    feeds["mask"][:] = False
    for name, x in session_of(gradients(y, at, 2))(feeds).items():
        assert (x == 0).all(), name
    feeds["mask"][1:] = True
    for x in session_of(gradients(y, at, 2))(feeds).values():
        assert np.isfinite(x).all()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_gradient_sums_over_features(dropout: float) -> None:
    """The row sums of the softmax's gradient are taken of what is as wide as the values, not of the
    scores; with dropout, too."""

    @model
    def net(q=f32["b", "t", 8], k=f32["b", "s", 8], v=f32["b", "s", 8]):
        return (scaled_dot_product_attention(q, k, v, dropout_p=dropout) ** 2).sum()

    at = list(net.inputs.values())
    graph = Graph("test", {x.op.name: g for x, g in zip(at, grad(net.outputs["output"], at))})  # type: ignore[attr-defined] # noqa: B905
    optimized = optimize(graph)
    sums = [v.args[0].shape for v in optimized.nodes if isinstance(v.op, Sum)]
    assert [shape[-1] for shape in sums] == [8]
    rng = np.random.default_rng(0)
    feeds: Any = {n: rng.normal(size=(2, 3, 8)).astype(np.float32) for n in "qkv"}
    if dropout:
        feeds |= {"seed": np.int64(3), "step": np.int64(1)}
    assert_all_close(evaluate(optimized, feeds), evaluate(graph, feeds), 1e-5, 1e-6)  # type: ignore[arg-type]


def test_dropout_of_weights_is_for_training_alone() -> None:
    @model
    def net(x=f32["b", "t", 4]):
        return scaled_dot_product_attention(x, x, x, dropout_p=0.5)

    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    feeds = {"x": x, "seed": np.int64(0), "step": np.int64(0)}
    plain = functional.scaled_dot_product_attention(*[torch.tensor(x)] * 3).numpy()
    assert np.abs(evaluate(net.graph, feeds)["output"] - plain).max() > 0.1  # type: ignore[call-overload]
    found = evaluate(inference(net.graph), {"x": x})["output"]  # type: ignore[call-overload]
    np.testing.assert_allclose(found, plain, 1e-5, 1e-6)


def test_masks_made_of_lengths_and_places() -> None:
    lengths = leaf("lengths", i64["b"])
    made = {"causal": dsl.causal_mask(2, 3), "padding": dsl.padding_mask(lengths, 3)}
    found = in_numpy(made, {"lengths": np.array([0, 2, 3])})
    np.testing.assert_array_equal(found["causal"], np.tri(2, 3, dtype=bool))
    np.testing.assert_array_equal(found["padding"], np.arange(3) < np.array([[0], [2], [3]]))
    with pytest.raises(DTypeError, match="lengths must be integers"):
        dsl.padding_mask(leaf("x", f32["b"]), 3)


# Several heads


def their_heads(width: int, heads: int, **options: Any) -> Any:
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(
        width, heads, batch_first=True, dtype=torch.float64, **options
    )
    for p in theirs.parameters():  # its biases start at zero
        torch.nn.init.normal_(p, std=0.4)
    return theirs


def our_weights(theirs: Any) -> Feeds:
    """torch's packed weights by our names."""
    if theirs.in_proj_weight is not None:
        projections = theirs.in_proj_weight.detach().chunk(3)
    else:
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        projections = [getattr(theirs, name).detach() for name in names]
    biases = theirs.in_proj_bias.detach().chunk(3)
    found = {"output": (theirs.out_proj.weight.detach(), theirs.out_proj.bias.detach())}
    found |= dict(zip(("query", "key", "value"), zip(projections, biases, strict=True)))  # noqa: B905
    return {
        f"attention.{name}.{part}": x.numpy().T.copy()
        for name, pair in found.items()
        for part, x in zip(("weight", "bias"), pair, strict=True)
    }


WIDTHS = {"self": 4, "cross": 6}
OPTIONS = ("plain", "causal", "mask", "key_mask", "masks")


def our_heads(kind: str, option: str, dtype: DType) -> dict[str, Value]:
    """Our layer with all gradients, of x to itself or to a memory of other features."""
    layer = MultiHeadAttention(2, causal=option == "causal", name="attention")
    types = {"x": dtype["b", "t", 4]}
    if kind == "cross":
        types["memory"] = dtype["b", "s", 6]
    s = "s" if kind == "cross" else "t"
    if option in ("mask", "masks"):
        types["mask"] = boolean["t", s]
    if option in ("key_mask", "masks"):
        types["key_mask"] = boolean["b", s]

    def function(x: Value, memory: Value | None = None, **masks: Value) -> Value:
        return layer(x, memory, **masks)

    y, parameters = built(function, **types)
    inputs = {"x": leaf("x", types["x"])} | {
        n: leaf(n, t) for n, t in types.items() if n == "memory"
    }
    return gradients(y, [*inputs.values(), *parameters.values()])


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
    weights = our_weights(theirs)
    session = session_of(our_heads(kind, option, f32))
    for b, t, s in ((2, 5, 3), (1, 2, 7)):
        feeds = heads_data(kind, option, b, t, s)
        named = {n: x for n, x in feeds.items() if n in ("x", "memory")}

        def function(x: Any, memory: Any = None, feeds: Feeds = feeds, t: int = t) -> Any:
            memory = x if memory is None else memory
            hidden = torch.tensor(~feeds["mask"]) if "mask" in feeds else None
            if option == "causal":
                hidden = ~torch.ones(t, memory.shape[1], dtype=torch.bool).tril()
            padding = torch.tensor(~feeds["key_mask"]) if "key_mask" in feeds else None
            y, _ = theirs(x, memory, memory, padding, attn_mask=hidden, need_weights=False)
            return y

        expected = torch_gradients(function, named, list(named))
        theirs.zero_grad()
        torch_probe(function(**{n: torch.tensor(x) for n, x in named.items()})).backward()
        for parameter in theirs.parameters():
            parameter.data, parameter.grad = parameter.grad, parameter.data
        expected |= {f"d1.{path}": x for path, x in our_weights(theirs).items()}
        for parameter in theirs.parameters():
            parameter.data, parameter.grad = parameter.grad, parameter.data
        found = in_numpy(our_heads(kind, option, f64), feeds | weights)
        assert_all_close(found, expected, **DOUBLE)
        assert_all_close(session(in_single(feeds | weights)), expected, **SINGLE)


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


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_grouped_heads_are_torchs(causal: bool, masked: bool) -> None:
    """Four heads, each two of which share keys and values."""

    def function(x: Value, key_mask: Value | None = None) -> Value:
        layer = MultiHeadAttention(4, num_key_value_heads=2, causal=causal, name="a")
        return layer(x, key_mask=key_mask)

    masks = {"key_mask": boolean["b", "t"]} if masked else {}
    y, parameters = built(function, x=f64["b", "t", 8], **masks)
    rng = np.random.default_rng(0)
    feeds = {n: rng.normal(size=p.shape) for n, p in parameters.items()}
    feeds["x"] = rng.normal(size=(2, 5, 8))
    if masked:
        feeds["key_mask"] = np.arange(5) >= np.array([[0], [2]])  # padding comes first
    assert parameters["a.key.weight"].shape == (8, 4)

    def theirs(x: Any, **p: Any) -> Any:
        def headed(name: str, heads: int) -> Any:
            z = x @ p[f"a.{name}.weight"] + p[f"a.{name}.bias"]
            return z.reshape(2, 5, heads, 2).transpose(1, 2)

        mask = torch.ones(5, 5, dtype=torch.bool)
        mask = mask.tril() if causal else mask
        if masked:
            mask = mask & torch.tensor(feeds["key_mask"])[:, None, None, :]
        z = functional.scaled_dot_product_attention(
            headed("query", 4), headed("key", 2), headed("value", 2), mask, enable_gqa=True
        )
        z = z.transpose(1, 2).reshape(2, 5, 8)
        return z @ p["a.output.weight"] + p["a.output.bias"]

    at = [leaf("x", f64["b", "t", 8]), *parameters.values()]
    expected = torch_gradients(
        theirs,
        {n: x for n, x in feeds.items() if n != "key_mask"},
        [x.op.name for x in at],  # type: ignore[attr-defined]
    )
    assert_all_close(in_numpy(gradients(y, at), feeds), expected, **DOUBLE)


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


def test_dot_products_that_do_not_fit_are_refused() -> None:
    q, k, v = leaf("q", f32["t", 4]), leaf("k", f32["s", 5]), leaf("v", f32["u", 3])
    with pytest.raises(ShapeError, match="different numbers of features"):
        scaled_dot_product_attention(q, k, v)
    with pytest.raises(ShapeError, match="numbers of keys and values are not known to be equal"):
        scaled_dot_product_attention(q, leaf("k", f32["s", 4]), v)
    with pytest.raises(DTypeError, match="of one element type"):
        scaled_dot_product_attention(q, leaf("k", f64["s", 4]), v)
    wide = leaf("w", f32["t", "n"])
    with pytest.raises(ShapeError, match=r"scale=0\.125"):
        scaled_dot_product_attention(wide, wide, wide)
    found = scaled_dot_product_attention(wide, wide, wide, scale=0.5)
    assert found.type == f32["t", "n"]
