"""Convolution layers: torch's numbers and training, and initial weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, i64, model, relu, sgd, training
from nncompile.compiler.compile import compile_model, compile_step
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Type
from nncompile.program.initialization import initial_values
from tests.backends import session
from tests.layer_checks import built
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in net.parameters.items()}


LAYERS: dict[str, tuple[Any, Type, Any, tuple[str, ...]]] = {
    "Conv1d": (
        dsl.Conv1d(6, 3, stride=2, padding=1),
        f32["n", 4, "t"],
        lambda: torch.nn.Conv1d(4, 6, 3, stride=2, padding=1),
        ("conv1d.weight", "conv1d.bias"),
    ),
    "Conv2d": (
        dsl.Conv2d(6, (3, 2), padding=(1, 0), dilation=2, groups=2),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=2, groups=2),
        ("conv2d.weight", "conv2d.bias"),
    ),
    "Conv3d": (
        dsl.Conv3d(2, 2, padding="same", bias=False),
        f32["n", 3, "d", "h", "w"],
        lambda: torch.nn.Conv3d(3, 2, 2, padding="same", bias=False),
        ("conv3d.weight",),
    ),
    "DepthwiseConv2d": (
        dsl.DepthwiseConv2d(3, depth_multiplier=2, stride=2),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.Conv2d(4, 8, 3, stride=2, groups=4),
        ("depthwise_conv2d.weight", "depthwise_conv2d.bias"),
    ),
    "SeparableConv2d": (
        dsl.SeparableConv2d(6, 3, padding=1),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.Sequential(
            torch.nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), torch.nn.Conv2d(4, 6, 1)
        ),
        (
            "separable_conv2d.depthwise.weight",
            "separable_conv2d.pointwise.weight",
            "separable_conv2d.pointwise.bias",
        ),
    ),
    "ConvTranspose1d": (
        dsl.ConvTranspose1d(6, 4, stride=2, padding=1),
        f32["n", 4, "t"],
        lambda: torch.nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1),
        ("conv_transpose1d.weight", "conv_transpose1d.bias"),
    ),
    "ConvTranspose2d": (
        dsl.ConvTranspose2d(6, 3, stride=2, padding=1, output_padding=1, groups=2),
        f32["n", 4, "h", "w"],
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
        ("conv_transpose2d.weight", "conv_transpose2d.bias"),
    ),
    "ConvTranspose3d": (
        dsl.ConvTranspose3d(2, 2, bias=False),
        f32["n", 3, "d", "h", "w"],
        lambda: torch.nn.ConvTranspose3d(3, 2, 2, bias=False),
        ("conv_transpose3d.weight",),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_torchs(name: str) -> None:
    """The same parameters, under their names, give the same numbers in onnxruntime."""
    layer, type_, theirs, paths = LAYERS[name]
    torch.manual_seed(0)
    peer = theirs()
    net = built(layer, type_)
    weights = dict(zip(paths, peer.parameters(), strict=True))
    assert shapes(net) == {path: tuple(p.shape) for path, p in weights.items()}
    run = session(compile_model(net).model)
    for first in (5, 6):
        sizes = [d if isinstance(d, int) else first + i for i, d in enumerate(type_.shape)]
        x = np.random.default_rng(0).normal(size=sizes).astype(np.float32)
        expected = peer(torch.tensor(x)).detach().numpy()
        feeds = {"x": x} | {path: p.detach().numpy() for path, p in weights.items()}
        assert_close(run(feeds, {"y": expected.shape})["y"], expected, "float32", name)


def test_training_is_torchs() -> None:
    """Ten steps of gradient descent on images: every weight within float32 rounding."""

    @model
    def net(image=f32["batch", 3, "h", "w"], label=i64["batch"]):  # type: ignore[no-untyped-def]
        y = image >> dsl.Conv2d(8, 3, padding=1, activation=relu, name="a")
        y = y >> dsl.Conv2d(16, 3, stride=2, padding=1, activation=relu, name="b")
        y = y >> dsl.DepthwiseConv2d(3, padding=1, name="c") >> relu
        y = y >> dsl.ConvTranspose2d(6, 2, stride=2, name="d")
        return {"loss": dsl.cross_entropy(y.mean((2, 3)), label)}

    step = compile_step(training(net, minimize="loss", optimizer=sgd(0.1), batch_size=4))
    state = step.source.initial(seed=0)
    start = {path: state[path] for path in net.parameters}
    runner = step.runner(state)
    peer = torch.nn.ModuleDict(
        {
            "a": torch.nn.Conv2d(3, 8, 3, padding=1),
            "b": torch.nn.Conv2d(8, 16, 3, stride=2, padding=1),
            "c": torch.nn.Conv2d(16, 16, 3, padding=1, groups=16),
            "d": torch.nn.ConvTranspose2d(16, 6, 2, stride=2),
        }
    )
    peer.load_state_dict({path: torch.tensor(a) for path, a in start.items()})
    peer.double()
    optimizer = torch.optim.SGD(peer.parameters(), 0.1)
    rng = np.random.default_rng(0)
    for i in range(10):
        size = 8 + i % 3  # one step for every size of image
        image = rng.normal(size=(4, 3, size, size + 1)).astype(np.float32)
        label = rng.integers(0, 6, 4)
        runner.step({"image": image, "label": label})
        y = torch.relu(peer["a"](torch.tensor(image, dtype=torch.float64)))
        y = torch.relu(peer["c"](torch.relu(peer["b"](y))))
        loss = functional.cross_entropy(peer["d"](y).mean((2, 3)), torch.tensor(label))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(runner.metrics()["loss"], loss.item(), rtol=1e-5)
    for path, expected in peer.state_dict().items():
        # Measured: 2e-7 of weights of size 0.5.
        np.testing.assert_allclose(runner.state()[path], expected.numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (dsl.Conv2d(64, 3, init=dsl.he_normal), 32 * 9),
        (dsl.Conv2d(64, 3, groups=4, init=dsl.he_normal), 8 * 9),
        (dsl.DepthwiseConv2d(5, depth_multiplier=4, init=dsl.he_normal), 25),
        (dsl.ConvTranspose2d(64, 4, stride=2, init=dsl.he_normal), 32 * 4),
    ],
)
def test_initial_weights_keep_the_size_of_what_flows(layer: Any, fans: int) -> None:
    """The variance is 2 over the numbers that enter into a result."""
    net = built(layer, f32["batch", 32, 8, 8])
    (path,) = (p for p in net.parameters if p.endswith("weight"))
    weights = initial_values(net, seed=0)[path]
    assert abs(weights.std() / np.sqrt(2 / fans) - 1) < 0.08


def test_a_causal_layer_and_activations() -> None:
    net = built(dsl.Conv1d(3, 2, padding="causal", activation=relu), f32["n", 2, "t"])
    assert net.graph.outputs["y"].type == f32["n", 3, "t"]
    feeds = initial_values(net, seed=0) | {"x": np.ones((1, 2, 4), np.float32)}
    assert evaluate(net.graph, feeds)["y"].min() >= 0
