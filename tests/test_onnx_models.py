"""Files of the kinds that exporters write: their numbers and gradients are those of the module
that they come from, and what is promised of files holds (`python -m tests.onnx_models`)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from dsl import adam, custom_gradient, relu, training
from nncompile import Trainer, export, grad, load_onnx
from nncompile.finetuning.objectives import with_loss
from nncompile.frontends.onnx.loading import ImportedModel
from nncompile.frontends.onnx.registry import ENTRIES, Registered
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ops import softmax
from nncompile.program.initialization import initial_values
from tests.onnx_files import FLOAT, convolutional, run, tied_language_model, weight, written
from tests.onnx_models import checking
from tests.onnx_models import gradients as compared
from tests.onnx_models.__main__ import table
from tests.onnx_models.checking import COLUMNS, checked
from tests.torch_exported import NETS, Arrays, Net

node = helper.make_node
TOLERANCE = 1e-5  # of the largest element


def gradients(model: ImportedModel, graph: Graph, feeds: Arrays, factor: Any) -> Arrays:
    """Those of Σ y·factor in double, by path."""
    y = graph.outputs["y"]
    f = Input("factor", y.type)()
    leaves = model.parameters
    found = dict(zip(leaves, grad((y * f).sum(), list(leaves.values())), strict=True))
    derived = Graph("gradients", found, tuple(model.inputs.values()))
    point = {**initial_values(model, 0), **feeds, "factor": factor}
    return dict(evaluate(derived, point, np.float64))


def assert_equal(found: Arrays, expected: Arrays) -> None:
    """To 1e-5 of each tensor's largest element; what is 0 but for rounding is so on both sides."""
    assert set(found) == set(expected)
    largest = max(np.abs(x).max() for x in expected.values())
    for name, x in expected.items():
        assert found[name].shape == x.shape, name
        scale = max(np.abs(x).max(), 1e-9 * largest)
        assert np.abs(found[name] - x).max() <= TOLERANCE * scale, name


def by_path(model: ImportedModel, net: Net, tensors: Arrays) -> Arrays:
    """Tensors of a module by the paths of the same ones in the file, and laid as there: a tensor of
    another name is known by its numbers."""
    weights = net.laid({n: p.detach().numpy() for n, p in net.module.named_parameters()})
    tensors = net.laid(tensors)
    found: Arrays = {}
    for path, x in initial_values(model, 0).items():
        for name in (path,) if path in weights else weights:
            w = weights[name]
            if path in model.parameters and np.array_equal(w, x):
                found[path] = tensors[name]
            elif path in model.parameters and w.ndim == 2 and np.array_equal(w.T, x):
                found[path] = tensors[name].T
    return found


@pytest.mark.parametrize("kind", NETS)
def test_gradients_are_those_of_the_module(torch: Any, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    net = NETS[kind](torch)
    check_module(torch, net, net.written(torch, tmp_path / "m.onnx"))


@pytest.mark.parametrize("kind", ["language_model", "unet"])
def test_gradients_of_files_of_the_newer_exporter(torch: Any, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = NETS[kind](torch)
    file = net.written(torch, tmp_path / "m.onnx", dynamo=True, opset_version=20)
    check_module(torch, net, file)


def check_module(torch: Any, net: Net, file: Path) -> None:
    """Numbers of the file, gradients of the module, in use and by the batch, and its statistics."""
    model = load_onnx(file)
    (y,) = run(file, net.feeds)
    weights = initial_values(model, 0)
    found = evaluate(model.inference(), {**weights, **net.feeds})["y"]
    assert np.abs(found - y).max() <= TOLERANCE * np.abs(y).max()
    factor = np.random.default_rng(1).standard_normal(y.shape)
    graphs = {False: model.inference(), True: model.graph}
    for is_training in (False, True) if model.updates else (False,):
        net.module.train(is_training)
        expected = by_path(model, net, net.gradients(torch, factor))
        assert set(expected) == set(model.parameters)
        assert_equal(gradients(model, graphs[is_training], net.feeds, factor), expected)


def test_what_an_exporter_merged_learns_apart(torch: Any, tmp_path: Path) -> None:
    """Scales that begin as ones are one tensor of the file, and `Identity` of it."""
    net = NETS["language_model"](torch)
    file = net.written(torch, tmp_path / "m.onnx")
    assert "Identity" in {n.op_type for n in onnx.load(file).graph.node}
    model = load_onnx(file)
    names = {"tok.weight", *(n for n, _ in net.module.named_parameters())}
    assert set(model.parameters) == names - {"head.weight"}
    assert set(model.report.ties) == {"tok.weight"}
    label = np.roll(net.feeds["ids"], -1, 1)
    objective = with_loss(model, "cross_entropy", "y", "label", label).model
    trainer = Trainer(training(objective, optimizer=adam(1e-2)), threads=1)
    trainer.fit({**net.feeds, "label": label}, steps=5, verbose=0)
    scales = [trainer.params[f"{name}.weight"] for name in ("block.before", "block.after", "norm")]
    assert not np.allclose(scales[0], scales[1]) and not np.allclose(scales[1], scales[2])
    export(trainer, tmp_path / "tuned.onnx", "original")
    (found,) = run(tmp_path / "tuned.onnx", net.feeds)
    expected = trainer.predict(net.feeds)["y"]
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


KINKS: dict[str, tuple[dict[str, Any], Any]] = {
    "Elu": ({"alpha": 0.7}, lambda f, x: f.elu(x, 0.7)),
    "Celu": ({"alpha": 0.7}, lambda f, x: f.celu(x, 0.7)),
    "Selu": ({}, lambda f, x: f.selu(x)),
    "LeakyRelu": ({"alpha": 0.1}, lambda f, x: f.leaky_relu(x, 0.1)),
    "Relu": ({}, lambda f, x: f.relu(x)),
    "HardSigmoid": ({"alpha": 1 / 6}, lambda f, x: f.hardsigmoid(x)),
    "HardSwish": ({}, lambda f, x: f.hardswish(x)),
    "Softsign": ({}, lambda f, x: f.softsign(x)),
    "Shrink": ({"lambd": 1.0, "bias": 1.0}, lambda f, x: f.softshrink(x, 1.0)),
    "PRelu": ({}, lambda f, x: f.prelu(x, x.new_tensor([0.1]))),
    "Clip": ({}, lambda f, x: x.clamp(-3.0, 3.0)),
    "ReLU6": ({}, lambda f, x: f.relu6(x)),
}


@pytest.mark.choosing
@pytest.mark.parametrize("op", KINKS)
def test_derivatives_at_kinks_are_torchs(torch: Any, tmp_path: Path, op: str) -> None:
    attributes, of_torch = KINKS[op]
    limits = {"Clip": (-3.0, 3.0), "ReLU6": (0.0, 6.0), "PRelu": (0.1,)}.get(op, ())
    names = [f"limit {i}" for i in range(len(limits))]
    one = node("Clip" if op == "ReLU6" else op, ["x", *names], ["y"], **attributes)
    weights = {n: np.array([x] if op == "PRelu" else x, np.float32)
               for n, x in zip(names, limits, strict=True)}  # fmt: skip
    file = written(tmp_path / "m.onnx", [one], {"x": (FLOAT, ["n"])}, ["y"], weights)
    net = load_onnx(file, trainable=[])
    x = np.array([-100, -3, -1, -0.5, 0, 0.5, 1, 3, 6, 100], np.float32)
    (g,) = grad(net.outputs["y"].sum(), [net.inputs["x"]])
    found = evaluate(Graph("g", {"g": g}), {"x": x})["g"]
    given = torch.tensor(x, requires_grad=True)
    of_torch(torch.nn.functional, given).sum().backward()
    np.testing.assert_allclose(found, given.grad.numpy(), 1e-6, 1e-30)


@pytest.mark.choosing
@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_quantized_gradients_are_those_of_torchs_fake_quantization(
    torch: Any, tmp_path: Path, kind: Any, axis: int | None
) -> None:
    """Numbers and gradients, where something is cut off, too: nothing goes through there, and at
    the limits it does."""
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    count = () if axis is None else ((5, 40)[axis],)
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 0.02, count).astype(np.float32)
    zero = rng.integers(low // 2, high // 2, count).astype(kind)
    spread = (-1, 1) if axis == 0 else (-1,) if axis == 1 else ()
    x = rng.standard_normal((5, 40)).astype(np.float32) * 3
    for place, limit in ((0, low), (1, high)):  # exactly at the limits
        ends = (limit - zero.astype(int).reshape(spread)) * scale.reshape(spread)
        x[place] = np.broadcast_to(ends, x.shape)[place]
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **attributes),
        node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **attributes),
    ]
    weights = {"scale": scale, "zero": zero}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, [5, 40])}, ["y"], weights)
    net = load_onnx(file)
    factor = rng.standard_normal(x.shape).astype(np.float32)
    (g,) = grad((net.outputs["y"] * factor).sum(), [net.inputs["x"]])
    found = evaluate(Graph("g", {"g": g, "y": net.outputs["y"]}), {"x": x})
    given = torch.tensor(x, requires_grad=True)
    numbers = (torch.tensor(scale.reshape(-1)), torch.tensor(zero.reshape(-1).astype(np.int32)))
    if axis is None:
        y = torch.fake_quantize_per_tensor_affine(given, *numbers, int(low), int(high))
    else:
        y = torch.fake_quantize_per_channel_affine(given, *numbers, axis, int(low), int(high))
    (y * torch.tensor(factor)).sum().backward()
    cut = given.grad.numpy() == 0
    assert 10 < cut.sum() < x.size - 10
    np.testing.assert_array_equal(found["g"], given.grad.numpy())
    np.testing.assert_allclose(found["y"], y.detach().numpy(), 1e-6, 1e-7)
    np.testing.assert_array_equal(found["y"], run(file, {"x": x})[0])


def test_paths_are_ones_that_a_module_can_hold(tmp_path: Path) -> None:
    """No tensor has the name of a layer; of several without a name, each has another last word."""
    nodes = [
        node("MatMul", ["x", "net/dense"], ["a"]),
        node("Add", ["a", "net/dense/BiasAdd"], ["b"]),
        node("MatMul", ["b", "onnx::MatMul_1"], ["c"], name="/r/MatMul"),
        node("MatMul", ["c", "onnx::MatMul_2"], ["y"], name="/r/MatMul_1"),
    ]
    weights = {
        "net/dense": weight(3, 4),
        "net/dense/BiasAdd": weight(4),
        "onnx::MatMul_1": weight(4, 4, seed=1),
        "onnx::MatMul_2": weight(4, 2, seed=2),
    }
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 3])}, ["y"], weights)
    net = load_onnx(file)
    assert list(net.parameters) == [
        "net.dense.weight",
        "net.dense.BiasAdd",
        "r.weight",
        "r.weight_2",
    ]
    chosen = {"net/dense": "net"}
    assert "net" in load_onnx(file, renames=chosen).parameters


def test_a_bias_and_a_slope_of_one_number_are_trained(tmp_path: Path) -> None:
    nodes = (
        "a = MatMul(x, w)  b1 = Add(a, b)  c = PRelu(b1, slope)  d = Mul(c, scale)  "
        "y = Gemm(d, v, last)"
    )
    one = np.array([0.3], np.float32)
    weights = {"w": weight(3, 1), "b": one, "slope": one, "scale": one,
               "v": weight(1, 1), "last": one}  # fmt: skip
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 3])}, ["y"], weights)
    assert set(load_onnx(file).parameters) == {"w", "b", "slope", "v", "last"}
    weights["w"] = weight(3, 4)  # one number for four results
    weights["v"] = weight(4, 1)
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 3])}, ["y"], weights)
    assert "b" not in load_onnx(file).parameters


def test_a_file_is_checked(torch: Any, tmp_path: Path) -> None:
    row = checked(tied_language_model(tmp_path / "m.onnx"))
    assert row.short == []
    assert set(row.cells) == set(COLUMNS)
    assert row.cells["other sizes"] == "batch [1, 4, 5], seq [1, 12, 13]"
    assert (row.cells["ties"], row.cells["states"]) == ("1", "none")
    assert table([row]).splitlines()[2].startswith("| m.onnx | ids i64[batch, seq] ")


def test_what_falls_short_is_told(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tied_language_model(tmp_path / "m.onnx")
    monkeypatch.setattr(checking, "load_onnx", functools.partial(load_onnx, ties=False))
    (problem,) = checked(file).short
    assert problem == "ties: tok.weight and onnx::MatMul_12 are tied and not one parameter"
    monkeypatch.undo()
    entry = Registered(lambda n, x: softmax(x, n["axis"]) * 1.001, frozenset(), False)
    monkeypatch.setitem(ENTRIES, ("", "Softmax"), entry)
    columns = {problem.partition(":")[0] for problem in checked(file).short}
    assert {"numbers", "gradient", "float32", "TorchScript"} <= columns
    monkeypatch.undo()
    (tmp_path / "n.onnx").write_text("no model")
    assert "BackendError" in checked(tmp_path / "n.onnx").short[0]


@pytest.mark.parametrize("kind", ["convolutional", "language_model"])
def test_all_that_is_promised_of_files(torch: Any, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    file = NETS[kind](torch).written(torch, tmp_path / "m.onnx")
    row = checked(file)
    assert row.short == [], row.cells


def test_without_torch_differences_tell_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (checking, compared):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    file = convolutional(tmp_path / "m.onnx")
    row = checked(file)
    assert row.short == []
    assert row.cells["gradient"] == row.cells["float32"] == "-"
    assert float(row.cells["differences"]) < TOLERANCE
    assert row.cells["states"] == "2 held"

    def doubled(x: Value) -> Value:
        return custom_gradient(lambda g, y, x: 2 * g)(relu)(x)

    monkeypatch.setitem(
        ENTRIES, ("", "Relu"), Registered(lambda n, x: doubled(x), frozenset(), False)
    )
    (problem,) = checked(file).short
    assert problem.startswith("differences: ")


def test_a_quantized_network_has_the_gradients_of_torchs(torch: Any, tmp_path: Path) -> None:
    """Of the floats that its whole weights stand for, by way of activations that are cut off."""
    rng = np.random.default_rng(0)
    nodes, tensors, of_torch = [], {}, []
    name = "x"
    for k, (wide, narrow) in enumerate(((6, 8), (8, 3))):
        scales = rng.uniform(0.003, 0.006, narrow).astype(np.float32)
        whole = rng.integers(-127, 128, (narrow, wide)).astype(np.int8)
        step, zero = np.float32(0.02 / (k + 1)), np.uint8(110)
        bias = weight(narrow, seed=k)
        tensors |= {f"s{k}": step, f"z{k}": zero, f"q{k}": whole, f"ws{k}": scales, f"b{k}": bias}
        tensors |= {f"wz{k}": np.zeros(narrow, np.int8)}
        nodes += [
            node("QuantizeLinear", [name, f"s{k}", f"z{k}"], [f"a{k}"]),
            node("DequantizeLinear", [f"a{k}", f"s{k}", f"z{k}"], [f"d{k}"]),
            node("DequantizeLinear", [f"q{k}", f"ws{k}", f"wz{k}"], [f"w{k}"], axis=0),
            node("Gemm", [f"d{k}", f"w{k}", f"b{k}"], [f"g{k}"], transB=1),
        ]
        nodes += [node("Elu", ["g0"], ["h"])] if k == 0 else []
        of_torch.append((step, zero, scales, whole * scales[:, None], bias))
        name = "h"
    nodes[-1].output[0] = "y"
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 6])}, ["y"], tensors)
    model = load_onnx(file)
    feeds = {"x": 8 * weight(16, 6, seed=5)}
    factor = rng.standard_normal((16, 3))
    found = gradients(model, model.graph, feeds, factor)

    leaves = [
        (torch.tensor(w, dtype=torch.float64, requires_grad=True),
         torch.tensor(b, dtype=torch.float64, requires_grad=True))
        for *_, w, b in of_torch
    ]  # fmt: skip
    y = torch.tensor(feeds["x"], dtype=torch.float64)
    cut = 0
    for k, ((step, zero, scales, *_), (w, b)) in enumerate(zip(of_torch, leaves, strict=True)):
        before = y
        y = torch.fake_quantize_per_tensor_affine(before, float(step), int(zero), 0, 255)
        cut += int(((before - y).abs() > step).sum())
        zeros = torch.zeros(len(scales), dtype=torch.int32)
        whole = torch.fake_quantize_per_channel_affine(w, torch.tensor(scales), zeros, 0, -128, 127)
        y = y @ whole.T + b
        y = torch.nn.functional.elu(y) if k == 0 else y
    assert cut > 5
    (expected,) = run(file, feeds)
    np.testing.assert_allclose(y.detach().numpy(), expected, 1e-5, 1e-5)
    (y * torch.tensor(factor)).sum().backward()
    exact = {f"{n}{k}": leaf.grad.numpy() for k, pair in enumerate(leaves)
             for n, leaf in zip("qb", pair, strict=True)}  # fmt: skip
    assert_equal(found, exact)
