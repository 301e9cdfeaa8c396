"""Low-rank adaptation: the start, names, what is trained, checkpoints, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    Conv1d,
    Conv2d,
    Dense,
    Embedding,
    LoRA,
    TransformerEncoder,
    adam,
    f32,
    i64,
    lora,
    model,
    training,
)
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.interpreter import evaluate
from nncompile.ops import conv
from nncompile.program.initialization import initial_values
from nncompile.train import Trainer
from tests.low_rank import data, network

ADAPTED = ["stem", "mix.query", "mix.key", "mix.value", "mix.output", "head"]


def test_names_are_the_bases_and_the_start_is_its() -> None:
    base, adapted = network(), network(lambda layer: lora(layer, rank=2))
    extra = {f"{layer}.lora_{part}" for layer in ADAPTED for part in "ab"}
    assert set(adapted.parameters) == set(base.parameters) | extra
    for path, leaf in base.parameters.items():
        assert adapted.parameters[path] is leaf
    assert adapted.parameters["stem.lora_a"].type == f32[6, 2]
    assert adapted.parameters["stem.lora_b"].type == f32[2, 8]
    starts = initial_values(adapted, 0)
    assert all((x == 0).all() for path, x in starts.items() if path.endswith("lora_b"))
    for path, x in initial_values(base, 0).items():
        np.testing.assert_array_equal(starts[path], x)
    spread = np.abs(starts["stem.lora_a"])
    assert 0.2 < spread.max() <= 6**-0.5  # the uniform one of the paper's code
    feeds = {**starts, **data()}
    found = evaluate(adapted.graph, feeds)["y"]  # type: ignore[call-overload]
    own = {n: x for n, x in feeds.items() if n in base.graph.leaves}
    np.testing.assert_array_equal(found, evaluate(base.graph, own)["y"])  # type: ignore[call-overload]


def test_the_weight_is_the_sum_with_its_factor() -> None:
    @model
    def net(x=f32["batch", 3]):
        return x >> LoRA(Dense(2, name="d"), rank=4, alpha=10.0)

    rng = np.random.default_rng(0)
    p = {n: rng.normal(size=v.shape).astype(np.float32) for n, v in net.parameters.items()}
    x = rng.normal(size=(5, 3)).astype(np.float32)
    weight = p["d.weight"] + 10.0 / 4 * p["d.lora_a"] @ p["d.lora_b"]
    found = evaluate(net.graph, {**p, "x": x})["output"]  # type: ignore[call-overload]
    np.testing.assert_allclose(found, x @ weight + p["d.bias"], 1e-4, 1e-5)


def test_a_checkpoint_of_the_base_is_adapted(tmp_path: Path) -> None:
    """The base's weights load by name and stay; the rest learns, and fits new data better."""
    base = Trainer(training(network(), optimizer=adam(1e-2), batch_size=16), threads=1)
    base.fit(data(), epochs=10)
    adapted = network(lambda layer: lora(layer, rank=2))
    trainer = Trainer(
        training(adapted, optimizer=adam(1e-2), params="*.lora_*", batch_size=16), threads=1
    )
    trainer.set_params(base.params)
    new = data(1) | {"target": -data(1)["target"]}
    before = trainer.evaluate(new)["loss"]
    assert before == pytest.approx(base.evaluate(new)["loss"], rel=1e-6)
    trainer.fit(new, epochs=20)
    for path, x in base.params.items():
        np.testing.assert_array_equal(trainer.params[path], x, err_msg=path)
    assert trainer.evaluate(new)["loss"] < 0.7 * before
    assert all(np.abs(trainer.params[f"{layer}.lora_b"]).max() > 0 for layer in ADAPTED[:1])
    slots = {path for path in trainer.state if path not in trainer.params}
    assert not any("weight" in path for path in slots)  # the optimizer keeps nothing of the base


def test_patterns_choose_what_is_adapted() -> None:
    def encoder(params: Any) -> set[str]:
        @model
        def net(x=f32["batch", "time", 8]):
            return x >> lora(TransformerEncoder(2, num_layers=2, name="e"), 1, params=params)

        return {path for path in net.parameters if "lora_a" in path}

    queries = {f"e.layer{i}.attention.query.lora_a" for i in range(2)}
    values = {f"e.layer{i}.attention.value.lora_a" for i in range(2)}
    assert encoder("*.query.weight") == queries
    assert encoder(("*.query.weight", "*.value.weight")) == queries | values
    assert len(encoder("*")) == 12


def test_shared_nested_and_other_matrices() -> None:
    dense, table = Dense(4, name="d"), Embedding(9, 4, name="table")

    @model
    def net(x=f32["batch", 4], n=i64["batch"]):
        y = x >> lora(lora(dense, rank=2), rank=3) >> dense  # once adapted, once as it is
        return {"y": y, "z": lora(table, 2)(n)}

    shapes = {p: v.shape for p, v in net.parameters.items()}
    assert {p for p in shapes if "lora" in p} == {
        "d.lora_a", "d.lora_b", "table.lora_a", "table.lora_b",
    }  # fmt: skip
    assert shapes["d.lora_a"] == (4, 2)  # the inner one's
    assert shapes["table.lora_b"] == (2, 4)
    gradients = grad(net.outputs["z"].sum(), [net.parameters["table.lora_b"]])
    rng = np.random.default_rng(0)
    feeds = {p: rng.normal(size=s).astype(np.float32) for p, s in shapes.items()}
    feeds["n"] = np.array([3, 3, 8])
    used = {n: feeds[n] for n in ("n", "table.lora_a")}
    (found,) = evaluate(gradients, used)  # type: ignore[misc]
    expected = feeds["table.lora_a"][feeds["n"]].sum(0)[:, None]
    np.testing.assert_allclose(found, np.broadcast_to(expected, (2, 4)), 1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kernel", [(3,), (3, 2)])
def test_convolutions_have_one_of_few_filters_and_one_of_kernel_one_beside_them(
    kernel: tuple[int, ...], groups: int
) -> None:
    """With strides and padding, at several sizes of one model: y + (alpha/rank)·B(A(x))."""
    kind = (Conv1d, Conv2d)[len(kernel) - 1]
    space = ("h", "w")[: len(kernel)]
    options = {"stride": 2, "padding": 1}

    @model
    def net(x=f32[("n", 4, *space)]):
        layer = kind(6, kernel, **options, groups=groups, name="c")
        return x >> LoRA(layer, rank=2, alpha=3.0)

    each = 4 // groups
    shapes = {path: v.shape for path, v in net.parameters.items()}
    assert shapes["c.lora_a"] == (2, each, *kernel)
    assert shapes["c.lora_b"] == (6, 2, *(1 for _ in kernel))
    starts = initial_values(net, 0)
    assert (starts["c.lora_b"] == 0).all()
    bound = (each * np.prod(kernel)) ** -0.5  # that of the paper's code, by what enters
    assert 0.5 * bound < np.abs(starts["c.lora_a"]).max() <= bound
    rng = np.random.default_rng(0)
    p = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    for size in (5, 8):
        x = rng.normal(size=(3, 4, *(size + i for i in range(len(kernel))))).astype(np.float32)
        found = evaluate(net.graph, {**p, "x": x})["output"]  # type: ignore[call-overload]
        plain = conv(x, p["c.weight"], p["c.bias"], **options, groups=groups)
        parts = np.split(x, groups, 1)
        b = np.split(p["c.lora_b"], groups)
        beside = [conv(conv(c, p["c.lora_a"], **options), w) for c, w in zip(parts, b, strict=True)]
        expected = evaluate([plain, *beside], {})
        total = expected[0] + 1.5 * np.concatenate(expected[1:], 1)
        np.testing.assert_allclose(found, total, 1e-4, 1e-4)


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(ModelError, match="the rank of LoRA must be at least 1"):
        lora(Dense(4), rank=0)
    with pytest.raises(ModelError, match="LoRA adapts a layer, got 3"):
        lora(3)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="LoRA adapts a layer"):
        lora(Dense)
    with pytest.raises(
        ModelError, match=r"no weight matrix \(or kernels\) in Dense\(.*that '\*.query' matches"
    ):

        @model
        def net(x=f32["batch", 4]):
            return x >> lora(Dense(4), params="*.query")
