"""Products of products: the cheaper order, and where the given one stays."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from dsl import Dense, adam, f32, lora, model, mse, relu, training
from nncompile.compiler.compile import compile_step
from nncompile.ir.op import Value
from nncompile.ops.contraction.gemm import Gemm, gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.program.composition import compose
from nncompile.train import Trainer
from tests.pass_checks import after, leaf

X, G = leaf("data", f32["n", 12]), leaf("gradients", f32["n", 10])
A, B = leaf("down", f32[12, 2]), leaf("up", f32[2, 10])


def test_gradients_of_a_low_rank_change_do_without_that_of_the_weight() -> None:
    gradient = gemm(X, G, transpose_a=True)
    of_a, of_b = gemm(gradient, B, A, transpose_b=True, alpha=0.5, beta=-2.0), A.T @ gradient
    found_a, found_b, _ = after("chains", of_a, of_b)
    inner = gemm(G, B, transpose_b=True)
    assert found_a is gemm(X, inner, A, transpose_a=True, alpha=0.5, beta=-2.0)
    (_, last) = found_b.args
    assert last is G and found_b.args[0].type == f32[2, "n"]


@pytest.mark.parametrize("flips", list(itertools.product([False, True], repeat=4)))
@pytest.mark.parametrize("on_the_left", [False, True])
def test_every_way_to_be_transposed(flips: tuple[bool, ...], on_the_left: bool) -> None:
    """A large matrix of two narrow ones, times a narrow one, on either side."""
    inner_a, inner_b, inner, other = flips
    p = leaf("p", f32[2, 40] if inner_a else f32[40, 2])
    q = leaf("q", f32[30, 2] if inner_b else f32[2, 30])
    square = gemm(p, q, transpose_a=inner_a, transpose_b=inner_b, alpha=3.0)
    rows, columns = (30, 40) if inner else (40, 30)
    if on_the_left:
        r = leaf("r", f32[3, columns] if other else f32[columns, 3])
        given = gemm(square, r, transpose_a=inner, transpose_b=other, alpha=0.5)
    else:
        r = leaf("r", f32[rows, 3] if other else f32[3, rows])
        given = gemm(r, square, transpose_a=other, transpose_b=inner, alpha=0.5)
    found, _ = after("chains", given)
    assert found is not given
    assert all(x.type not in (f32[40, 30], f32[30, 40]) for x in found.args)


WIDE = leaf("wide", f32[12, 10])
STAYING: dict[str, tuple[Value, ...]] = {
    "needed by something else": (gemm(X, G, transpose_a=True) @ B.T, gemm(X, G, transpose_a=True)),
    "added to": (gemm(X, G, WIDE, transpose_a=True) @ B.T,),
    "cheaper for one row": ((X @ leaf("w", f32[12, 30])) @ leaf("v", f32[30, 10]),),
    "cheaper as it is": ((X @ A) @ B,),
    "times itself": (gemm(WIDE, WIDE, transpose_a=True) @ gemm(WIDE, WIDE, transpose_a=True),),
}


@pytest.mark.parametrize("case", STAYING)
def test_products_stay_where_that_is_no_gain(case: str) -> None:
    found = after("chains", *STAYING[case])
    assert all(a is b for a, b in zip(found, STAYING[case], strict=False))


def network(base: bool) -> Any:
    @model
    def net(x: Any = f32["batch", 24], target: Any = f32["batch", 16]) -> Any:
        y = x >> lora(Dense(32, relu, name="a"), rank=2) >> lora(Dense(16, name="b"), rank=2)
        return {"y": y, "loss": mse(y, target)}

    return training(net, params="*" if base else "*.lora_*", optimizer=adam(1e-2))


def test_the_gradient_of_a_frozen_weight_is_not_computed() -> None:
    """The products of the step that are as large as a weight are those of the forward pass."""
    counts = []
    for base in (False, True):
        graph = compile_step(network(base)).step
        weights = (f32[24, 32], f32[32, 16])
        found = [v for v in graph.nodes if isinstance(v.op, Gemm | MatMul) and v.type in weights]
        counts.append(len(found))
    assert counts == [2, 4]


def test_training_is_the_same_without_the_pass() -> None:
    random = np.random.default_rng(0)
    data = {
        "x": random.normal(size=(48, 24)).astype(np.float32),
        "target": random.normal(size=(48, 16)).astype(np.float32),
    }
    recipe = network(False)
    ours = Trainer(recipe)
    ours.fit(data, epochs=3, shuffle=False)
    plain = compile_step(recipe, without=["chains"]).runner(compose(recipe).initial(), "cpu", 1)
    for _ in range(3):
        for start in (0, 32):
            plain.step({n: x[start : start + 32] for n, x in data.items()})
    for path, x in ours.params.items():
        np.testing.assert_allclose(x, plain.state()[path], 1e-4, 1e-5, err_msg=path)
