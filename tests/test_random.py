"""Random numbers: their distributions, dropout, and the same bits everywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import DTypeError, ModelError
from nncompile.ir.basic import const
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import replace
from nncompile.ir.types import f32, f64, i64
from nncompile.ops.random.generator import (
    bernoulli,
    dropout,
    normal,
    permutation,
    randint,
    random_bits,
    random_key,
    seed_leaf,
    step_leaf,
    truncated_normal,
    uniform,
)
from tests.backends import script_of, session
from tests.random_checks import COUNT, SIGMAS


def keyed(salt: int | str = "layer", step: int = 5) -> Value:
    return random_key(salt, 42, step)


def test_uniform() -> None:
    x = evaluate(uniform(keyed(), (COUNT,), -2.0, 6.0), {})
    assert x.dtype == np.float32
    assert x.min() >= -2
    assert x.max() < 6
    assert abs(x.mean() - 2) < SIGMAS * 8 / math.sqrt(12 * COUNT)
    assert abs(x.var() - 64 / 12) < SIGMAS * 64 / math.sqrt(180 * COUNT)
    counts, _ = np.histogram(x, 64, (-2, 6))
    assert abs(((counts - 1024) ** 2 / 1024).sum() - 63) < SIGMAS * math.sqrt(126)


def test_normal() -> None:
    x = evaluate(normal(keyed(), (COUNT,), 1.0, 3.0, f64), {})
    z = (x - 1) / 3
    assert abs(z.mean()) < SIGMAS / math.sqrt(COUNT)
    assert abs(z.var() - 1) < SIGMAS * math.sqrt(2 / COUNT)
    assert abs((z**3).mean()) < SIGMAS * math.sqrt(15 / COUNT)
    assert abs((z**4).mean() - 3) < SIGMAS * math.sqrt(96 / COUNT)
    below = [(z < edge).mean() for edge in (-3, -2, -1, 0, 1, 2, 3)]
    for edge, share in zip((-3, -2, -1, 0, 1, 2, 3), below, strict=True):
        p = 0.5 * (1 + math.erf(edge / math.sqrt(2)))
        assert abs(share - p) < SIGMAS * math.sqrt(p * (1 - p) / COUNT)


def test_truncated_normal() -> None:
    x = evaluate(truncated_normal(keyed(), (COUNT,), 10.0, 2.0, -1.0, 2.0), {})
    assert x.min() >= 8
    assert x.max() <= 14
    inside = 0.5 * (math.erf(2 / math.sqrt(2)) + math.erf(1 / math.sqrt(2)))
    below = 0.5 * math.erf(1 / math.sqrt(2)) / inside
    assert abs((x < 10).mean() - below) < SIGMAS * 0.5 / math.sqrt(COUNT)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_bernoulli(p: float) -> None:
    share = evaluate(bernoulli(keyed(), p, (COUNT,)), {}).mean()
    assert abs(share - p) <= SIGMAS * math.sqrt(p * (1 - p) / COUNT)


def test_randint_and_permutation() -> None:
    x = evaluate(randint(keyed(), (60_000,), -2, 4), {})
    counts = np.bincount(x + 2, minlength=6)
    assert len(counts) == 6
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 5 + SIGMAS * math.sqrt(10)
    order = evaluate(permutation(keyed(), 1000), {})
    assert sorted(order) == list(range(1000))
    assert list(order) != list(range(1000))


@pytest.mark.parametrize("pattern", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_extreme_bits_stay_in_range(pattern: int) -> None:
    key, shape = keyed(), (1,)
    bits_of_key = {random_bits(key, shape): const(np.array([pattern], np.uint32))}
    drawn = [
        uniform(key, shape),
        uniform(key, shape, 1.0, 2.0),  # where the step of float32 is 2⁻²³
        uniform(key, shape, -1.0, 1.0, f64),
        normal(key, shape),
        truncated_normal(key, shape),
    ]
    bounds = [(0, 1), (1, 2), (-1, 1)]
    arrays = evaluate(replace(drawn, bits_of_key), {})
    for x, (low, high) in zip(arrays, bounds, strict=False):
        assert low <= x < high
    assert abs(arrays[3]) < 5.5
    assert abs(arrays[4]) <= 2


def outputs() -> dict[str, Value]:
    x = apply(Input("x", f32["n", 5]))
    key = random_key("other", seed_leaf(), step_leaf())
    return {
        "bits": random_bits(key, ("n", 5)),
        "one": random_bits(key, ()),
        "places": randint(key, ("n",), -3, 9),
        "coin": bernoulli(key, 0.3, ("n", 5)),
        "order": permutation(key, "n"),
        "dropped": dropout(x, 0.4, "drop"),
        "gradient": grad((dropout(x, 0.4, "drop") ** 2).sum(), x),
        "uniform": uniform(key, ("n", 5), -1.0, 3.0),
        "normal": normal(key, (3, "n")),
        "truncated": truncated_normal(key, ("n",)),
    }


FEEDS = [
    {"seed": np.array(s), "step": np.array(t), "x": np.linspace(-1, 1, n * 5, dtype=np.float32)}
    for s, t, n in [(0, 0, 3), (-1, 2**32 - 1, 1), (2**40 + 3, 77, 1000)]
]


@pytest.mark.parametrize("feeds", FEEDS, ids=["zero", "wrapping", "large"])
def test_the_same_bits_in_onnx(feeds: dict[str, np.ndarray]) -> None:
    feeds = feeds | {"x": feeds["x"].reshape(-1, 5)}
    graph = Graph("random", outputs())
    expected = evaluate(graph, feeds)
    model = to_model(graph)
    assert not {"BitShift", "BitwiseXor", "BitwiseAnd"} & {n.op_type for n in model.graph.node}
    assert_equal_bits(session(model)(feeds, expected), expected)


@pytest.mark.parametrize("feeds", FEEDS, ids=["zero", "wrapping", "large"])
def test_the_same_bits_in_torchscript(feeds: dict[str, np.ndarray]) -> None:
    feeds = feeds | {"x": feeds["x"].reshape(-1, 5)}
    graph = Graph("random", outputs())
    expected = evaluate(graph, feeds)
    state = {name: feeds[name] for name in ("seed", "step")}
    assert_equal_bits(script_of(graph, state)(feeds), expected)


def assert_equal_bits(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Integers and masks exactly; what is computed in floats to their accuracy."""
    for name, value in expected.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(actual[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(actual[name], value, err_msg=name, strict=True)
    np.testing.assert_array_equal(actual["dropped"] == 0, expected["dropped"] == 0)


def dropped(rate: float, x: np.ndarray, step: int = 0) -> np.ndarray:
    leaf = apply(Input("x", f32["n"]))
    feeds = {"x": x, "seed": np.array(1), "step": np.array(step)}
    return np.asarray(evaluate(dropout(leaf, rate, "drop"), feeds))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_dropout_keeps_the_mean(rate: float) -> None:
    y = dropped(rate, np.ones(COUNT, np.float32))
    share = (y == 0).mean()
    assert abs(share - rate) <= SIGMAS * math.sqrt(rate * (1 - rate) / COUNT)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate) if rate < 1 else 1, rtol=1e-6)


def test_dropout_drops_what_is_not_finite() -> None:
    y = dropped(0.5, np.full(64, np.inf, np.float32))
    assert set(y) == {0.0, np.inf}


def test_dropout_differs_by_step_and_salt() -> None:
    x = np.ones(64, np.float32)
    assert (dropped(0.5, x, 0) != dropped(0.5, x, 1)).any()
    leaf = apply(Input("x", f32["n"]))
    assert dropout(leaf, 0.5, "a") is not dropout(leaf, 0.5, "b")
    assert dropout(leaf, 0.5, "a") is dropout(leaf, 0.5, "a")


def test_gradient_of_dropout_has_its_mask() -> None:
    leaf = apply(Input("x", f32["n"]))
    y = dropout(leaf, 0.5, "drop")
    feeds = {"x": np.ones(64, np.float32), "seed": np.array(1), "step": np.array(0)}
    values = evaluate([y, grad(y.sum(), leaf)], feeds)
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dropout(apply(Input("x", f32["n"])), 1.5, "s"), ModelError, "in \\[0, 1\\]"),
        (lambda: dropout(apply(Input("x", i64["n"])), 0.5, "s"), DTypeError, "must be real"),
        (lambda: random_key("s", const(1.0)), DTypeError, "made from integer scalars"),
        (lambda: random_key("s", const([1, 2])), DTypeError, "integer scalars"),
        (lambda: uniform(keyed(), (2,), 1.0, 1.0), ModelError, "low must be below high"),
        (lambda: randint(keyed(), (2,), 3, 3), ModelError, "1 to 2³¹ numbers"),
        (lambda: random_bits(const(1), (2,)), DTypeError, "a key of u32"),
    ],
)
def test_mistakes_are_explained(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
