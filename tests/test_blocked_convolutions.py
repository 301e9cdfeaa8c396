"""Convolutions of a training step in the layout of onnxruntime's fastest kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dsl import Conv2d, ConvTranspose2d, cross_entropy, f32, flatten, i64, model, sgd, training
from nncompile.compiler.compile import compile_step
from nncompile.runtime import blocked_convolutions as layout
from nncompile.runtime import step_session
from nncompile.runtime.session import Session

CASES: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "same": ("Conv", (32, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "strides": ("Conv", (16, 32, 5, 3), {"pads": [0, 1, 2, 0], "strides": [2, 3]}),
    "dilations": ("Conv", (16, 16, 3, 2), {"pads": [2, 0, 1, 1], "dilations": [2, 1]}),
    "transposed": ("ConvTranspose", (32, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "transposed sides": ("ConvTranspose", (16, 32, 3, 2), {"pads": [0, 1, 2, 0]}),
    "transposed dilations": ("ConvTranspose", (16, 16, 3, 2), {"dilations": [1, 2]}),
}
LEFT: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "few channels": ("Conv", (32, 3, 3, 3), {}),
    "groups": ("Conv", (32, 16, 3, 3), {"group": 2}),
    "kernel of one": ("Conv", (32, 16, 1, 1), {}),
    "one axis": ("Conv", (32, 16, 3), {}),
    "large": ("Conv", (512, 512, 3, 3), {}),
    "transposed strides": ("ConvTranspose", (16, 16, 3, 3), {"strides": [2, 2]}),
    "missing": ("ConvTranspose", (16, 16, 3, 3), {"output_padding": [1, 0], "strides": [2, 1]}),
}


def convolution(operator: str, weight: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    channels = weight[operator == "Conv"] * attributes.get("group", 1)
    results = weight[operator != "Conv"]
    sizes = {"x": [2, channels, *[11, 9][: len(weight) - 2]], "w": weight}
    if operator == "Conv":
        sizes["b"] = [results]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items()]
    node = helper.make_node(operator, list(sizes), ["y"], "net/conv", **attributes)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "test", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def size() -> int:
    """The channels of a block of this processor."""
    size = layout.block_size()
    if size is None:
        pytest.skip("this processor has no blocks of channels")
    return size


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_computes_what_the_operator_does(name: str, size: int) -> None:
    operator, weight, attributes = CASES[name]
    plain = convolution(operator, weight, **attributes)
    rewritten = layout.blocked(plain, size)
    kernels = [node.op_type for node in rewritten.graph.node if node.domain == layout.DOMAIN]
    assert kernels == ["ReorderInput", "Conv", "ReorderOutput"]
    assert all(node.name.startswith("net/conv") for node in rewritten.graph.node)  # for profiles
    rng = np.random.default_rng(0)
    sessions = [Session(m, threads=1) for m in (plain, rewritten)]
    feeds = {
        port.name: rng.normal(size=port.shape).astype(np.float32) for port in sessions[0].inputs
    }
    expected, found = (session.run(feeds)["y"] for session in sessions)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", layout.BLOCKS)
@pytest.mark.parametrize("name", LEFT)
def test_others_stay_as_they_are(name: str, size: int) -> None:
    operator, weight, attributes = LEFT[name]
    plain = convolution(operator, weight, **attributes)
    assert layout.blocked(plain, size) is plain


def test_channels_are_whole_blocks() -> None:
    plain = convolution("Conv", (8, 24, 3, 3))
    assert layout.blocked(plain, 16) is plain
    assert layout.blocked(plain, 8) is not plain


def test_blocks_of_another_size_are_not_used(size: int) -> None:
    assert layout.has_blocks(size)
    assert not layout.has_blocks(sum(layout.BLOCKS) - size)


@model
def net(x: Any = f32["batch", 16, 8, 8], label: Any = i64["batch"]) -> dict[str, Any]:
    x = x >> Conv2d(32, 3, padding=1) >> Conv2d(16, 3, 2, padding=1)
    x = x >> ConvTranspose2d(16, 3, 1, padding=1)
    return {"loss": cross_entropy(x >> flatten, label)}


def test_a_step_is_the_same_in_blocks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    step = compile_step(training(net, optimizer=sgd(0.1), batch_size=4))
    assert layout.DOMAIN not in str(step.step_model)
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(4, 16, 8, 8)).astype(np.float32),
        "label": rng.integers(0, 256, 4),
    }
    used: list[Any] = []
    states = []

    def session(run: Any, *args: Any, **options: Any) -> Session:
        used.append(run)
        return Session(run, *args, **options)

    monkeypatch.setattr(step_session, "Session", session)
    for block_size in (size, None):
        monkeypatch.setattr(layout, "block_size", lambda block_size=block_size: block_size)
        runner = step.runner(threads=1, native=False)
        runner.step(batch)
        states.append(runner.state())
    rewritten, plain = used
    assert isinstance(plain, bytes)
    kernels = [n.op_type for n in rewritten.graph.node if n.domain == layout.DOMAIN]
    # Three convolutions, one of them transposed, and the gradient at what that one takes.
    assert kernels.count("Conv") == 4
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=1e-4, atol=1e-6)
