"""Embeddings and vectors for places: against torch's and the papers' formulas, and what is
refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import (
    Embedding,
    LearnedPositions,
    SinusoidalPositions,
    const,
    f32,
    f64,
    i32,
    i64,
    model,
    normal,
    rotary,
    sinusoidal,
)
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import BackendError, DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.shape.gathering import ScatterAdd
from nncompile.passes import optimize
from nncompile.program.initialization import initial_values
from nncompile.runtime import Session
from tests.attention_checks import (
    assert_all_close,
    built,
    gradients,
    in_numpy,
    in_single,
    session_of,
    torch_gradients,
)
from tests.leaves import leaf

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional

EXACT = {"rtol": 1e-10, "atol": 1e-12}
SINGLE = {"rtol": 1e-5, "atol": 2e-6}


# 16 rows of 4 numbers are few, and 200 are many: the gradient has a form of its own for each.
@pytest.mark.parametrize("count", [16, 200])
@pytest.mark.parametrize("padding", [None, 3])
@pytest.mark.parametrize("kind", [i64, i32], ids=str)
def test_values_and_gradients_are_torchs(count: int, padding: int | None, kind: Any) -> None:
    """With repeated numbers; in one file for all sizes."""
    tables = {}
    for dtype in (f32, f64):
        layer = Embedding(count, 4, padding_idx=padding, dtype=dtype, name="e")
        y, parameters = built(layer, x=kind["b", "t"])
        tables[dtype] = gradients(y, list(parameters.values()), 2)
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(count, 4))
    if padding is not None:
        weight[padding] = 0
    session = session_of(tables[f32])
    forms = optimize(Graph("test", tables[f32])).nodes
    assert any(isinstance(v.op, Gemm) for v in forms) is (count == 16)
    assert any(isinstance(v.op, ScatterAdd) for v in forms) is (count == 200)
    for shape in ((2, 5), (7, 1), (1, 40)):
        x = rng.integers(0, min(count, 6), shape)

        def function(x: Any = x, **p: Any) -> Any:
            return functional.embedding(torch.tensor(x), p["e.weight"], padding_idx=padding)

        expected = torch_gradients(function, {"e.weight": weight}, ["e.weight"], 2)
        feeds = {"x": x.astype(kind.numpy), "e.weight": weight}
        assert_all_close(in_numpy(tables[f64], feeds), expected, **EXACT)
        assert_all_close(session(in_single(feeds)), expected, **SINGLE)


def test_few_rows_take_numbers_from_the_end_too() -> None:
    """`take` counts negative numbers from the end, in the product form of its gradient as well."""
    table, x = leaf("table", f64[5, 2]), leaf("x", i64["n"])
    gradient = grad((table[x] * const(np.array([1.0, 2.0]))).sum(), table)
    graph = optimize(Graph("test", {"gradient": gradient}))
    assert not any(isinstance(v.op, ScatterAdd) for v in graph.nodes)
    feeds = {"table": np.zeros((5, 2)), "x": np.array([-1, 4, 0, -5, 2])}
    found = evaluate(graph, feeds)["gradient"]  # type: ignore[call-overload]
    np.testing.assert_array_equal(found, np.outer([2, 0, 1, 0, 2], [1.0, 2.0]))


def test_the_row_of_padding_starts_at_zero() -> None:
    @model
    def net(x=i64["n"]):
        return x >> Embedding(50, 8, padding_idx=2, init=normal(0.5))

    weight = initial_values(net, 0)["embedding.weight"]
    assert (weight[2] == 0).all()
    rest = np.delete(weight, 2, 0)
    assert 0.45 < rest.std() < 0.55


def test_a_table_can_be_shared_with_the_logits() -> None:
    @model
    def net(x=i64["b", "t"]):
        table = Embedding(11, 4)
        return table(x) @ table.weight().T

    assert {p: v.type for p, v in net.parameters.items()} == {"embedding.weight": f32[11, 4]}
    assert net.outputs["output"].type == f32["b", "t", 11]


def test_numbers_beyond_the_table_are_refused() -> None:
    table = Embedding(10, 2)
    with pytest.raises(ModelError, match="Embedding: index 10 is out of range for 10 rows"):
        built(lambda: table(const(np.array([0, 10]))))
    with pytest.raises(ModelError, match="Embedding: index -1 is out of range for 10 rows"):
        built(lambda: table(const(np.array([-1]))))
    with pytest.raises(DTypeError, match="Embedding looks up integers"):
        built(table, x=f32["n"])
    with pytest.raises(ModelError, match="padding_idx of Embedding must be in 0 … 9, got 10"):
        Embedding(10, 2, padding_idx=10)
    with pytest.raises(ModelError, match="num_embeddings of Embedding must be at least 1"):
        Embedding(0, 2)
    y, _ = built(table, x=i64["n"])
    weight = np.zeros((10, 2), np.float32)
    with pytest.raises(BackendError, match="out of data bounds"):
        Session(to_model(Graph("test", {"y": y}))).run(
            {"x": np.array([3, 12]), "embedding.weight": weight}
        )


# Places


def sines(length: int, width: int, base: float = 10000.0) -> Any:
    """Vaswani et al. 2017, section 3.5, number by number."""
    table = np.zeros((length, width))
    for p in range(length):
        for i in range(width // 2):
            table[p, 2 * i] = np.sin(p / base ** (2 * i / width))
            table[p, 2 * i + 1] = np.cos(p / base ** (2 * i / width))
    return table


def test_sinusoids_are_the_papers() -> None:
    found = in_numpy({"y": sinusoidal(7, 6, dtype=f64), "z": sinusoidal(7, 6, 50.0, f64)}, {})
    np.testing.assert_allclose(found["y"], sines(7, 6), 1e-12, 1e-14)
    np.testing.assert_allclose(found["z"], sines(7, 6, 50.0), 1e-12, 1e-14)
    later = sinusoidal(None, 6, dtype=f64, positions=const(np.array([5, 2])))
    np.testing.assert_allclose(in_numpy({"y": later}, {})["y"], sines(7, 6)[[5, 2]], 1e-12, 1e-14)


def test_sinusoids_are_added_at_any_length() -> None:
    y, parameters = built(SinusoidalPositions(scale=2.0), x=f32["b", "t", 6])
    assert not parameters
    session = session_of({"y": y})
    for b, t in ((2, 3), (1, 300)):
        x = np.random.default_rng(t).normal(size=(b, t, 6))
        found = session(in_single({"x": x}))["y"]
        # Of 300 rounded to single precision the sine is right to 300·2⁻²⁴.
        np.testing.assert_allclose(found, 2 * x + sines(t, 6), 1e-5, 4e-5)


def test_learned_places_and_their_gradients() -> None:
    y, parameters = built(LearnedPositions(5, name="places"), x=f32["b", "t", 3])
    assert {p: v.type for p, v in parameters.items()} == {"places.weight": f32[5, 3]}
    session = session_of(gradients(y, list(parameters.values()), 2))
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(2, 4, 3)), "places.weight": rng.normal(size=(5, 3))}
    for t in (4, 1, 5):
        feeds["x"] = rng.normal(size=(2, t, 3))

        def function(t: int = t, **p: Any) -> Any:
            return torch.tensor(feeds["x"]) + p["places.weight"][:t]

        weight = {"places.weight": feeds["places.weight"]}
        expected = torch_gradients(function, weight, list(weight), 2)
        assert_all_close(session(in_single(feeds)), expected, **SINGLE)
    feeds["x"] = rng.normal(size=(2, 6, 3))  # there is no sixth place
    with pytest.raises(BackendError):
        Session(to_model(Graph("test", {"y": y}))).run(in_single(feeds))


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(ModelError, match=r"vectors for 5 positions, x is f32\[b, 6, 3\]"):
        built(LearnedPositions(5), x=f32["b", 6, 3])
    with pytest.raises(ShapeError, match="LearnedPositions needs floating"):
        built(LearnedPositions(5), x=i64["b", "t"])
    with pytest.raises(ShapeError, match="SinusoidalPositions needs floating"):
        built(SinusoidalPositions(), x=f32["t"])
    with pytest.raises(ModelError, match="needs an even number of features, got 5"):
        sinusoidal(3, 5)
    with pytest.raises(ModelError, match="needs an even number of features, got 3"):
        rotary(leaf("x", f32["t", 3]))
    with pytest.raises(ShapeError, match="rotary rotates features at positions"):
        rotary(leaf("x", f32[4]))
    with pytest.raises(ModelError, match="base of sinusoidal must be positive"):
        sinusoidal(3, 4, base=0.0)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_is_a_product_of_complex_numbers(interleaved: bool) -> None:
    """Su et al. 2021, equation 12: pair m at place p turns by p·base^(−2m/d)."""
    x = leaf("x", f64["b", "t", 6])
    values = gradients(rotary(x, interleaved=interleaved), [x], 2)
    data = np.random.default_rng(0).normal(size=(2, 5, 6))

    def function(x: Any) -> Any:
        pairs = x.reshape(2, 5, 3, 2) if interleaved else x.reshape(2, 5, 2, 3).transpose(2, 3)
        angles = torch.arange(5.0, dtype=torch.float64)[:, None] * 10000.0 ** (
            -torch.arange(0, 6, 2, dtype=torch.float64) / 6
        )
        turned = torch.view_as_complex(pairs.contiguous()) * torch.exp(1j * angles)
        y = torch.view_as_real(turned)
        return (y if interleaved else y.transpose(2, 3)).reshape(2, 5, 6)

    expected = torch_gradients(function, {"x": data}, ["x"], 2)
    assert_all_close(in_numpy(values, {"x": data}), expected, **EXACT)
    assert_all_close(session_of(values)({"x": data}), expected, **EXACT)


def test_scores_after_rotation_depend_on_distances_alone() -> None:
    q, k, places = leaf("q", f64["t", 8]), leaf("k", f64["t", 8]), leaf("places", i64["t"])
    scores = rotary(q, places) @ rotary(k, places).T
    rng = np.random.default_rng(0)
    feeds = {"q": rng.normal(size=(5, 8)), "k": rng.normal(size=(5, 8))}
    near = in_numpy({"y": scores}, {**feeds, "places": np.arange(5)})["y"]
    far = in_numpy({"y": scores}, {**feeds, "places": np.arange(1000, 1005)})["y"]
    other = in_numpy({"y": scores}, {**feeds, "places": 2 * np.arange(5)})["y"]
    np.testing.assert_allclose(far, near, 1e-9, 1e-10)
    assert np.abs(other - near).max() > 0.1
