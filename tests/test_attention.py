"""Scaled dot-product attention against torch's: values, gradients, masks, dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import boolean, f32, f64, i64, model, scaled_dot_product_attention
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType
from nncompile.ops.reduction.sums import Sum
from nncompile.passes import inference, optimize
from tests.attention_checks import (
    DOUBLE,
    SINGLE,
    Feeds,
    assert_all_close,
    gradients,
    in_numpy,
    in_single,
    session_of,
    torch_gradients,
)
from tests.backends import script_of
from tests.leaves import leaf

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional


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
def test_in_double_precision_and_torchscript_too(kind: str) -> None:
    y, at = attended(kind, f64)
    values, feeds = gradients(y, at, 1), draw(kind, 2, 3, 4)
    expected = in_numpy(values, feeds)
    assert_all_close(session_of(values)(feeds), expected, **DOUBLE)
    graph = optimize(Graph("test", values))
    assert_all_close(script_of(graph)(feeds), expected, **DOUBLE)


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
