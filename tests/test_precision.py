"""Training with products of 16 bits: what is rounded, how far that is from float32, and losses that
are scaled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from dsl import (
    LSTM,
    BatchNorm,
    Conv2d,
    Dense,
    Embedding,
    LayerNorm,
    LearnedPositions,
    MaxPool2d,
    Model,
    TransformerEncoder,
    adam,
    adamw,
    bf16,
    conv,
    cosine,
    cross_entropy,
    einsum,
    ema,
    f16,
    f32,
    flatten,
    gelu,
    grad_scaler,
    i64,
    lora,
    minimize,
    model,
    plateau,
    relu,
    sgd,
    training,
)
from nncompile import ModelError, ProviderError, Trainer, compile_step, export
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.passes.mixed_precision import mixed_precision
from nncompile.program.accumulation_halves import accumulation_halves
from nncompile.program.composition import compose
from nncompile.program.loss_scaling import SCALE, SKIPPED, TRACKER
from nncompile.runtime import Session
from nncompile.runtime.cuda.placement import predicted
from nncompile.runtime.cuda.spelling import spelled
from nncompile.runtime.cuda.spellings import SPELLINGS
from tests.leaves import leaf

RNG = np.random.default_rng(0)
N = 128
HALVES = {"bf16": bf16, "f16": f16}


@model(predict="logits")
def mlp(x=f32["batch", 20], label=i64["batch"]):  # type: ignore[no-untyped-def]
    logits = x >> Dense(48, gelu) >> LayerNorm() >> Dense(48, relu) >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


@model(predict="logits")
def cnn(x=f32["batch", 1, 8, 8], label=i64["batch"]):  # type: ignore[no-untyped-def]
    h = x >> Conv2d(8, 3, padding=1) >> BatchNorm() >> relu >> MaxPool2d(2)
    logits = h >> Conv2d(16, 3, stride=2, padding=1) >> relu >> flatten >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


@model(predict="logits")
def gpt(x=i64["batch", 8], label=i64["batch", 8]):  # type: ignore[no-untyped-def]
    h = x >> Embedding(12, 16) >> LearnedPositions(8)
    h = h >> TransformerEncoder(2, num_layers=1, is_causal=True, norm_first=True)
    logits = h >> Dense(12)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


@model(predict="logits")
def recurrent(x=f32["batch", 5, 4], label=i64["batch"]):  # type: ignore[no-untyped-def]
    logits = x >> LSTM(8) >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def data_of(net: Model) -> dict[str, Any]:
    random = np.random.default_rng(0)
    if net is gpt:
        text = np.cumsum(random.integers(1, 3, (N, 9)), 1) % 12
        return {"x": text[:, :-1], "label": text[:, 1:]}
    shape = tuple(int(d) for d in net.inputs["x"].shape[1:])
    x = random.normal(size=(N, *shape)).astype(np.float32)
    return {"x": x, "label": x.reshape(N, -1)[:, :4].argmax(1)}


def rounded(x: Any, name: str) -> Any:
    return np.asarray(x, np.float32).astype(HALVES[name].numpy).astype(np.float32)


# Arguments of more digits than 16 bits have, of whole multiples of a power of two, so that float32
# adds up their rounded products exactly and in any order.
def digits(*shape: int) -> Any:
    return (RNG.integers(-(2**12), 2**12, shape) / 2**10).astype(np.float32)


PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], Callable[..., Any]]] = {
    "matmul": (lambda a, b: a @ b, ((3, 4), (4, 5)), lambda a, b: a @ b),
    "matrices": (lambda a, b: a @ b, ((2, 3, 4), (2, 4, 5)), lambda a, b: a @ b),
    "einsum": (
        lambda a, b: einsum("ij,kj->ik", a, b),
        ((3, 4), (5, 4)),
        lambda a, b: a @ b.T,
    ),
    "conv": (
        conv,
        ((2, 1, 3, 3), (2, 1, 3, 3)),
        lambda x, w: np.einsum("nchw,ochw->no", x, w)[:, :, None, None],
    ),
}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("product", PRODUCTS)
def test_products_are_those_of_rounded_numbers_to_the_bit(product: str, name: str) -> None:
    function, shapes, reference = PRODUCTS[product]
    arrays = {n: digits(*shape) for n, shape in zip("ab", shapes, strict=True)}
    leaves = [leaf(n, f32[x.shape]) for n, x in arrays.items()]
    graph = Graph("product", {"y": function(*leaves)})
    half = mixed_precision(graph, HALVES[name])
    expected = rounded(reference(*(rounded(x, name) for x in arrays.values())), name)
    assert not np.array_equal(expected, reference(*arrays.values()))  # the rounding is seen
    np.testing.assert_array_equal(evaluate(half, arrays)["y"], expected)
    np.testing.assert_array_equal(Session(to_model(half)).run(arrays)["y"], expected)


@pytest.mark.parametrize("name", HALVES)
def test_gradients_of_products_are_products_of_16_bits(name: str) -> None:
    a, b = digits(3, 4), digits(4, 5)
    leaves = [leaf("a", f32[3, 4]), leaf("b", f32[4, 5])]
    y = mixed_precision(Graph("y", {"y": leaves[0] @ leaves[1]}), HALVES[name]).outputs["y"]
    g = digits(3, 5)
    graph = Graph("g", dict(zip(("da", "db"), grad((y * g).sum(), leaves), strict=True)))
    found = Session(to_model(graph)).run({"a": a, "b": b})
    halves = [rounded(x, name) for x in (a, b, g)]
    np.testing.assert_array_equal(found["da"], rounded(halves[2] @ halves[1].T, name))
    np.testing.assert_array_equal(found["db"], rounded(halves[0].T @ halves[2], name))


# Relative differences of the first loss and of that after 8 steps; the largest seen are 6e-4 and
# 1.1e-3 for bf16, 5e-5 and 3e-4 for f16.
BOUNDS = {"bf16": (2e-3, 5e-3), "f16": (2.5e-4, 1e-3)}


@pytest.mark.parametrize("net", [mlp, cnn, gpt, recurrent], ids=lambda net: net.name)
def test_training_in_16_bits_is_near_that_in_32(net: Model) -> None:
    data = data_of(net)

    def losses(**options: Any) -> list[float]:
        recipe = training(net, optimizer=adamw(2e-3), batch_size=N, **options)
        return Trainer(recipe).fit(data, epochs=9, verbose=0)["loss"]

    exact = losses()
    assert exact[-1] < exact[0]
    for name, (first, last) in BOUNDS.items():
        found = losses(precision=name, emulate=True)
        assert found != exact
        assert found[0] == pytest.approx(exact[0], rel=first)
        assert found[-1] == pytest.approx(exact[-1], rel=last)


@model(predict="logits")
def noisy(x=f32["batch", 20], label=i64["batch"]):  # type: ignore[no-untyped-def]
    logits = x >> Dense(16) >> BatchNorm() >> relu >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


SMALL = {name: x[:32] for name, x in data_of(noisy).items()}
WITH: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_norm": 0.5},
    "averaged": {"average": ema(0.9)},
    "watching": {"optimizer": sgd(plateau(0.1, monitor="loss", patience=1), momentum=0.9)},
    "recomputed": {"recompute": "dense"},
}


def scaled(**options: Any) -> Any:
    options = {"optimizer": adamw(cosine(1e-2, steps=50)), "precision": "f16", **options}
    return training(noisy, batch_size=32, emulate=True, **options)


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {path for path, x in after.items() if not np.array_equal(x, before[path])}


@pytest.mark.parametrize("name", WITH)
def test_a_step_with_an_infinite_gradient_changes_the_scale_alone(name: str) -> None:
    trainer, plain = Trainer(scaled(**WITH[name])), Trainer(scaled(**WITH[name]))
    for t in (trainer, plain):
        t.fit([SMALL], steps=1, verbose=0)
    before = trainer.state
    trainer.set_params({SCALE: np.float32(2.0**40)})
    trainer.fit([SMALL], steps=1, verbose=0)
    assert changed(before, trainer.state) == {"step", SCALE, SKIPPED, TRACKER}
    assert trainer.state[SCALE] == 2.0**39
    assert (trainer.state[SKIPPED], trainer.state[TRACKER]) == (1, 0)
    # Rates, corrections of Adam and averages go on as if the step had not been.
    trainer.set_params({SCALE: np.float32(2.0**16)})
    for t in (trainer, plain):
        t.fit([SMALL], steps=2, verbose=0)
    assert changed(plain.state, trainer.state) == {"step", SKIPPED, TRACKER}


def test_accumulated_gradients_are_left_out_together() -> None:
    trainer = Trainer(scaled(accumulate=3))
    trainer.set_params({SCALE: np.float32(2.0**40)})
    before = trainer.state
    trainer.fit([SMALL], steps=1, verbose=0)
    assert not np.isfinite(trainer.state["dense.weight.accumulated"]).all()
    trainer.set_params({SCALE: np.float32(2.0**10)})  # a finite rest does not save the window
    trainer.fit([SMALL], steps=2, verbose=0)
    assert trainer.state[SCALE] == 2.0**9 and trainer.state[SKIPPED] == 1
    assert np.array_equal(trainer.state["dense.weight"], before["dense.weight"])
    trainer.fit([SMALL], steps=3, verbose=0)
    assert changed(before, trainer.state) >= {"dense.weight", "batch_norm.running_mean"}
    assert trainer.state[SKIPPED] == 1


def test_the_scale_follows_as_in_torch() -> None:
    scaler = grad_scaler(2.0**34, growth_factor=4, backoff_factor=0.25, growth_interval=2)
    trainer = Trainer(scaled(scaler=scaler, optimizer=sgd(1e-3)))
    scale, tracker = torch.tensor(2.0**34), torch.tensor(0, dtype=torch.int32)
    skips = []
    for _ in range(16):
        before = trainer.state[SKIPPED]
        trainer.fit([SMALL], steps=1, verbose=0)
        skips.append(int(trainer.state[SKIPPED] - before))
        found = torch.tensor(float(skips[-1]))
        torch._amp_update_scale_(scale, tracker, found, 4.0, 0.25, 2)
        assert (trainer.state[SCALE], trainer.state[TRACKER]) == (scale.item(), tracker.item())
    assert 0 < sum(skips) < len(skips) and scale < 2.0**34


def test_a_scale_does_not_grow_to_infinity() -> None:
    quiet = training(
        mlp, optimizer=sgd(1e-3), scaler=grad_scaler(init_scale=2.0**127, growth_interval=1)
    )
    step = compose(quiet)
    batch = {name: x[:2] for name, x in data_of(mlp).items()}
    state = {**step.initial(), **{p: 0 * x for p, x in step.initial().items() if "weight" in p}}
    after = evaluate(step.step, {**state, **batch})
    assert after[f"{SKIPPED}.next"] == 0 and after[f"{SCALE}.next"] == 2.0**127


def test_a_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    recipe = scaled(scaler=grad_scaler(init_scale=2.0**26, growth_interval=3))
    whole, part = Trainer(recipe), Trainer(recipe)
    data = data_of(noisy)
    whole.fit(data, epochs=3, verbose=0)
    part.fit(data, steps=5, verbose=0)
    part.save(tmp_path / "part.safetensors")
    rest = Trainer(recipe)
    rest.load(tmp_path / "part.safetensors")
    rest.fit(data, steps=7, verbose=0)
    assert not changed(whole.state, rest.state)
    assert 0 < whole.state[SKIPPED] < 12


def of_halves(step: Any, feeds: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    gradient = evaluate(step.gradient, feeds)
    update = evaluate(step.update, {**feeds, **gradient})
    for path, following in step.state_map.items():
        yield path, gradient[following] if following in gradient else update[following]


@model
def rivals(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
    made = x >> Dense(4, name="generator")
    score = Dense(1, name="judge")
    return {"first": (score(x) ** 2).mean(), "second": (score(made) ** 2).mean()}


RIVALS = training(
    rivals,
    updates=[
        minimize("first", params="judge.*", optimizer=adam(1e-2)),
        minimize("second", params="generator.*", optimizer=adam(1e-2)),
    ],
    precision="f16",
    emulate=True,
)


@pytest.mark.parametrize("factor", [2.0**10, 2.0**40])
@pytest.mark.parametrize("recipe", [RIVALS, scaled(accumulate=2)], ids=["rivals", "accumulated"])
def test_the_halves_of_a_scaled_step_are_the_step(recipe: Any, factor: float) -> None:
    step = compose(recipe)
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    state = {**step.initial(), SCALE: np.float32(factor), "step": np.asarray(1, np.int64)}
    feeds = {**state, **({"x": x} if recipe is RIVALS else SMALL)}
    whole = evaluate(step.step, feeds)
    for path, value in of_halves(step, feeds):
        np.testing.assert_array_equal(value, whole[step.state_map[path]], path)
    is_made = factor == 2.0**10
    assert np.array_equal(whole[f"{SKIPPED}.next"], 0 if is_made else 1)
    learned = [p for p in step.parameters if not np.array_equal(whole[f"{p}.next"], state[p])]
    assert bool(learned) is is_made


@pytest.mark.parametrize("factor", [2.0**10, 2.0**40])
def test_what_is_accumulated_and_applied_is_the_step(factor: float) -> None:
    recipe = scaled(accumulate=2, optimizer=sgd(0.1, momentum=0.9))
    step, halves = compose(recipe), accumulation_halves(recipe)
    whole = {**step.initial(), SCALE: np.float32(factor)}
    leaves = halves.accumulate.leaves.items()
    sums = {n: v for n, v in leaves if n.endswith(".accumulated")}
    apart = {n: np.zeros(v.shape, v.dtype.numpy) for n, v in sums.items()} | whole
    for _ in range(2):
        found = evaluate(step.step, {**whole, **SMALL})
        whole |= {p: found[n] for p, n in step.state_map.items()}
        found = evaluate(halves.accumulate, {**apart, **SMALL})
        assert not {f"{p}.next" for p in (*step.parameters, SCALE)} & found.keys()
        apart |= {p: found[n] for p, n in step.state_map.items() if n in found}
    found = evaluate(halves.apply, apart)
    apart |= {p: found[n] for p, n in step.state_map.items() if n in found}
    assert whole[SKIPPED] == (factor > 2.0**10)
    for path in (*step.state, "dense.weight.accumulated"):
        np.testing.assert_allclose(apart[path], whole[path], rtol=2e-6, atol=1e-8, err_msg=path)


def test_factors_of_low_rank_are_trained_in_16_bits() -> None:
    recipe = training(lora(mlp, rank=2), optimizer=adam(1e-2), precision="f16", emulate=True)
    trainer = Trainer(recipe)
    before = trainer.state
    history = trainer.fit(data_of(mlp), epochs=4, verbose=0)
    assert history["loss"][-1] < history["loss"][0]
    assert {p for p in changed(before, trainer.state) if p in recipe.model.parameters} == {
        p for p in recipe.model.parameters if "lora" in p
    }


def test_a_step_for_kernels_of_16_bits_has_them(tmp_path: Path) -> None:
    data = {name: x[:16] for name, x in data_of(cnn).items()}
    recipe = training(cnn, optimizer=sgd(0.1), precision="f16", batch_size=16)
    export(recipe, tmp_path / "step.onnx", "step", kernels=False)
    session = ort.InferenceSession(tmp_path / "step.onnx", providers=["CPUExecutionProvider"])
    state = compile_step(recipe).source.initial()
    names = [x.name for x in session.get_inputs()]
    outputs = [x.name for x in session.get_outputs()]
    results = session.run(None, {n: x for n, x in {**state, **data}.items() if n in names})
    exact = evaluate(compose(recipe).step, {**state, **data})
    found = dict(zip(outputs, results, strict=True))
    assert found["loss"] == pytest.approx(exact["loss"], rel=1e-3)
    for path in recipe.model.parameters:  # the runtime leaves out some of the roundings
        moved, expected = (x[f"{path}.next"] - state[path] for x in (found, exact))
        assert np.linalg.norm(moved - expected) < 1e-3 + 0.02 * np.linalg.norm(expected), path
    assert found[f"{SCALE}.next"] == exact[f"{SCALE}.next"]
    step = compile_step(recipe, kernels=False).step_model
    inferred = onnx.shape_inference.infer_shapes(step).graph.value_info
    types = {x.name: x.type.tensor_type.elem_type for x in inferred}
    products = [n for n in step.graph.node if n.op_type in ("Gemm", "Conv", "ConvTranspose")]
    assert len(products) == 5  # sums are products with ones, of float32
    assert {types[n.output[0]] for n in products} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("net", [mlp, cnn, gpt, recurrent], ids=lambda net: net.name)
def test_cuda_has_a_kernel_for_each_node_of_a_step(net: Model, name: str) -> None:
    step = compile_step(training(net, optimizer=adamw(1e-3), precision=name), kernels=False)
    model, _ = spelled(step.step_model, SPELLINGS)
    assert not predicted(model)


def test_what_cannot_be_computed_in_16_bits_is_said() -> None:
    for name in HALVES:
        recipe = training(mlp, precision=HALVES[name])
        assert recipe.precision == name
        with pytest.raises(ProviderError, match=f"(?s)no kernels of {name}.*emulate=True"):
            Trainer(recipe)
    with pytest.raises(ModelError, match=r'(?s)precision must be f32.*precision="bf16"'):
        training(mlp, precision="bfloat16")
    with pytest.raises(ModelError, match="emulate is for precisions of 16 bits"):
        training(mlp, emulate=True)
    with pytest.raises(ModelError, match="scaler must be a grad_scaler"):
        training(mlp, scaler=1024)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="growth_factor must be above 1"):
        grad_scaler(growth_factor=1)
    with pytest.raises(ModelError, match="init_scale must be a positive float32"):
        grad_scaler(np.inf)
