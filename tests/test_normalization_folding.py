"""An exported model has its batch normalization in the weights beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Dense,
    f32,
    mean_squared_error,
    model,
    relu,
)
from nncompile.compiler.export import export
from nncompile.interop.torch_modules import to_torch_module
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.passes.normalization_folding import fold_normalization
from nncompile.passes.weight_folding import bake
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from tests.leaves import leaf
from tests.normalized import ROUNDING, off


def moved(of: Model) -> dict[str, Array]:
    """Weights and statistics as after training: none of them trivial."""
    rng = np.random.default_rng(5)
    first = initial_values(of, 0)
    return {n: (x + rng.uniform(0.2, 1.5, x.shape)).astype(x.dtype) for n, x in first.items()}


@model(predict=("y",))
def dense(x=f32["batch", 6], target=f32["batch", 2]):  # type: ignore[no-untyped-def]
    h = relu(x >> Dense(5) >> BatchNorm())
    y = h >> Dense(2, bias=False) >> BatchNorm(affine=False)
    return {"y": y, "loss": mean_squared_error(y, target)}


@model(predict=("y",))
def convolved(x=f32["batch", 4, "h", "w"], target=f32["batch", 3]):  # type: ignore[no-untyped-def]
    h = relu(x >> Conv2d(6, 3, groups=2) >> BatchNorm())
    y = h >> Conv2d(3, 2, stride=2, bias=False) >> BatchNorm(eps=1e-2)
    return {"y": y, "loss": mean_squared_error(y.mean(axis=(2, 3)), target)}


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    ("of", "shape", "kinds"),
    [(dense, (6,), ["Gemm", "Relu", "Gemm"]), (convolved, (4, 7, 8), ["Conv", "Relu", "Conv"])],
)
def test_an_exported_model_has_batch_normalization_in_its_weights(
    tmp_path: Path, of: Model, shape: tuple[int, ...], kinds: list[str], external: bool
) -> None:
    state = moved(of)
    *_, path = export(of, tmp_path / "model.onnx", params=state, external_data=external)
    proto = onnx.load(path)
    assert [n.op_type for n in proto.graph.node] == kinds
    names = {t.name for t in proto.graph.initializer}
    assert not names & {*of.states, *(n for n in of.parameters if "batch_norm" in n)}
    loaded = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 9):
        x = np.random.default_rng(count).normal(size=(count, *shape)).astype(np.float32)
        (y,) = loaded.run(["y"], {"x": x})
        feeds = {n: a for n, a in state.items() if n in of.inference().leaves}
        exact = evaluate(of.inference(), {"x": x} | feeds, np.float64)["y"]
        assert off(y, exact) < ROUNDING


@pytest.mark.parametrize("sizes", [(5,), (5, 4), (3, 4, 2)])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_transposed_convolutions_take_normalization_along_whatever_their_groups(
    tmp_path: Path, sizes: tuple[int, ...], groups: int, bias: bool
) -> None:
    """With as many groups as channels, too, and several results in each group."""
    layer = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)[len(sizes) - 1]

    @model
    def up(x=f32[("batch", 4, *sizes)]):  # type: ignore[no-untyped-def]
        y = x >> layer(12, 3, stride=2, padding=1, groups=groups, bias=bias)
        return {"y": y >> BatchNorm(eps=1e-2)}

    state = moved(up)
    *_, path = export(up, tmp_path / "model.onnx", params=state)
    assert [n.op_type for n in onnx.load(path).graph.node] == ["ConvTranspose", "Add"]
    loaded = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        x = np.random.default_rng(count).normal(size=(count, 4, *sizes)).astype(np.float32)
        exact = evaluate(up.inference(), {"x": x, **state}, np.float64)["y"]
        assert off(loaded.run(["y"], {"x": x})[0], exact) < ROUNDING


def test_torchscript_is_folded_and_a_module_keeps_the_names(
    tmp_path: Path, torchscript: SimpleNamespace
) -> None:
    """A file is for inference; a module may be trained on, and its weights may be exchanged."""
    state = moved(convolved)
    (path,) = export(convolved, tmp_path / "model.pt", to="torchscript", params=state)
    folded_module = torchscript.torch.jit.load(path)
    assert not any("running" in name for name in folded_module.state_dict())
    module = to_torch_module(convolved, state)
    assert "batch_norm.running_mean" in module.state_dict()
    x = np.random.default_rng(0).normal(size=(3, 4, 7, 8)).astype(np.float32)
    feeds = {n: a for n, a in state.items() if n in convolved.inference().leaves}
    exact = evaluate(convolved.inference(), {"x": x} | feeds, np.float64)["y"]
    for made in (folded_module, module):
        actual = made(torchscript.torch.from_numpy(x))["y"].detach().numpy()
        assert off(actual, exact) < ROUNDING


def folded(y: Value, *kept: Value) -> Graph:
    return fold_normalization(Graph("test", {f"y{i}": v for i, v in enumerate((y, *kept))}))


def test_only_what_is_by_channel_and_of_weights_is_folded() -> None:
    x, w = leaf("x", f32["n", 3]), Input("w", f32[3, 2], "parameter")()
    f, c = (Input(n, f32[2], "parameter")() for n in "fc")
    rows = leaf("rows", f32[2])
    product = x @ w
    assert folded(product * f + c).outputs["y0"] is x @ (w * f) + c
    assert folded((product + c) * f).outputs["y0"] is x @ (w * f) + c * f
    assert folded(product + c).outputs["y0"] is product + c
    refused = [product * rows, product * product, (product * f, product)]
    for case in refused:
        y, *kept = case if isinstance(case, tuple) else (case,)
        assert folded(y, *kept).outputs["y0"] is y
    sequence = leaf("sequence", f32["n", 2, 3]) @ w
    by_row = f.reshape((2, 1))
    assert folded(sequence * by_row).outputs["y0"] is sequence * by_row
    assert folded(sequence * f).outputs["y0"] is sequence.args[0] @ (w * f)


def test_a_shared_weight_is_not_kept_twice() -> None:
    x = leaf("x", f32["n", 40])
    w, f = Input("w", f32[40, 40], "parameter")(), Input("f", f32[40], "parameter")()
    arrays = {"w": np.ones((40, 40), np.float32), "f": np.ones(40, np.float32)}
    alone, weights = bake(Graph("one", {"y": x @ (w * f)}), arrays)
    assert set(weights) == {"w_folded"}
    np.testing.assert_array_equal(weights["w_folded"], arrays["w"])
    assert list(alone.leaves) == ["x", "w_folded"]
    both = Graph("two", {"y": x @ (w * f) + x @ w})
    same, weights = bake(both, arrays)
    assert same.outputs["y"] is both.outputs["y"]
    assert set(weights) == {"w", "f"}
