"""Models as `torch.nn.Module`s: predictions, training by torch's autograd, and the state."""

from __future__ import annotations

import copy
import io
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsl import (
    GRU,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Embedding,
    MultiHeadAttention,
    cross_entropy,
    f32,
    f64,
    flatten,
    formula,
    i64,
    model,
    relu,
    stop_gradient,
)
from nncompile import to_torch_module
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import BackendError, ModelError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import custom_gradient
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from tests.tolerances import assert_close


def images() -> Model:
    @model
    def net(image=f32["batch", 2, 5, 5], label=i64["batch"]):  # type: ignore[no-untyped-def]
        x = image >> Conv2d(3, 3, name="conv") >> BatchNorm(name="norm") >> relu >> flatten
        logits = x >> Dropout(0.3) >> Dense(4, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return net


def texts() -> Model:
    @model
    def net(text=i64["batch", "time"], label=i64["batch"]):  # type: ignore[no-untyped-def]
        x = text >> Embedding(5, 6)
        x = x + MultiHeadAttention(2, is_causal=True)(x)
        logits = GRU(4)(x) >> Dense(4)
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return net


def batch_of(net: Model, size: int = 6) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for name, value in net.inputs.items():
        shape = [n if isinstance(n, int) else size + ("time" in str(n)) for n in value.shape]
        whole = value.dtype.is_integer
        drawn = random.integers(0, 4, shape) if whole else random.normal(size=shape)
        found[name] = drawn.astype(value.dtype.numpy)
    return found


MODELS = {"images": images, "texts": texts}


@pytest.mark.parametrize("name", MODELS)
def test_it_predicts(name: str, torchscript: SimpleNamespace) -> None:
    torch, net = torchscript.torch, MODELS[name]()
    module = to_torch_module(net, seed=3)
    assert isinstance(module, torch.nn.Module) and not module.training
    assert dict(module.named_parameters()).keys() == net.parameters.keys()
    weights = initial_values(net, 3)
    for path, p in module.named_parameters():
        assert p.requires_grad
        np.testing.assert_array_equal(p.detach().numpy(), weights[path])
    for size in (1, 6):
        feeds = batch_of(net, size)
        (data, _) = feeds
        expected = evaluate(net.inference(), {**weights, **feeds}, precision=np.float64)
        x = torch.from_numpy(feeds[data])
        for results in (module(x), module(**{data: x})):
            assert list(results) == ["logits"]
            assert_close(results["logits"].detach().numpy(), expected["logits"], "float32")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_ours(name: str, training: bool, torchscript: SimpleNamespace) -> None:
    """torch differentiates what it is given to what our gradients are."""
    torch, net = torchscript.torch, MODELS[name]()
    feeds, weights = batch_of(net), initial_values(net, 0)
    module = to_torch_module(net).train(training)
    (data, label) = feeds
    logits = module(torch.from_numpy(feeds[data]))["logits"]
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(feeds[label]))
    loss.backward()
    ours = net.outputs["loss"] if training else net.inference(("loss",)).outputs["loss"]
    gradients = grad(ours, list(net.parameters.values()))
    graph = Graph("gradients", {"loss": ours, **dict(zip(net.parameters, gradients, strict=True))})
    random = {"seed": np.int64(0), "step": np.int64(0)}
    states = {**weights, **random, **feeds}
    expected = evaluate(graph, {n: states[n] for n in graph.leaves}, precision=np.float64)
    assert_close(loss.detach().numpy(), expected["loss"], "float32")
    for path, p in module.named_parameters():
        assert_close(p.grad.numpy(), expected[path], "float32", path)


def test_training_follows_the_state(torchscript: SimpleNamespace) -> None:
    """Dropout goes on from step to step, running statistics from batch to batch, and neither in
    inference."""
    torch, net = torchscript.torch, images()
    module, x = to_torch_module(net), torch.from_numpy(batch_of(net)["image"])
    same = module(x)["logits"]
    assert torch.equal(module(x)["logits"], same) and module.step == 0
    module.train()
    first = module(x)["logits"]
    second = module(x)["logits"]
    assert not torch.equal(first, second) and module.step == 2
    state = {**initial_values(net, 0), "seed": np.int64(0), "step": np.int64(0)}
    for _ in range(2):
        feeds = {n: v for n, v in {**state, **batch_of(net)}.items() if n in net.whole.leaves}
        found = evaluate(net.whole, feeds)
        state |= {path: found[f"{path}.next"] for path in net.updates}
        state["step"] = state["step"] + 1
    for path in net.updates:
        assert_close(module.state_dict()[path].numpy(), state[path], "float32", path)
    second.sum().backward()  # what was saved for it is as it was
    module.eval()
    assert torch.equal(module(x)["logits"], module(x)["logits"]) and module.step == 2


def test_torchs_optimizers_train_it(torchscript: SimpleNamespace) -> None:
    torch, net = torchscript.torch, texts()
    module = to_torch_module(net).train()
    feeds = {name: torch.from_numpy(x) for name, x in batch_of(net).items()}
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(feeds["text"])["logits"], feeds["label"])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]
    trained = to_torch_module(net, params=module.state_dict())  # tensors are arrays, too
    assert torch.equal(trained(feeds["text"])["logits"], module.eval()(feeds["text"])["logits"])


def test_copies_and_files(torchscript: SimpleNamespace) -> None:
    torch, net = torchscript.torch, images()
    module, x = to_torch_module(net), torch.from_numpy(batch_of(net)["image"])
    expected = module(x)["logits"]
    twin = copy.deepcopy(module)
    with torch.no_grad():
        module.head.weight.zero_()
    assert torch.equal(twin(x)["logits"], expected)
    again = pickle.loads(pickle.dumps(twin))
    assert torch.equal(again(x)["logits"], expected)
    buffer = io.BytesIO()
    torch.save(twin.state_dict(), buffer)
    buffer.seek(0)
    module.load_state_dict(torch.load(buffer))
    assert torch.equal(module(x)["logits"], expected)
    doubled = module.double()(x.double())["logits"]
    assert doubled.dtype is torch.float64


def test_torch_compiles_and_exports_it(torchscript: SimpleNamespace) -> None:
    torch, net = torchscript.torch, images()
    module, x = to_torch_module(net), torch.from_numpy(batch_of(net)["image"])
    expected = module(x)["logits"]
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x)["logits"], expected)
    assert compiled(x)["logits"].requires_grad
    program = torch.export.export(module, (x,))
    assert torch.allclose(program.module()(x)["logits"], expected)


@pytest.mark.parametrize("training", [False, True])
def test_inputs_that_do_not_fit(training: bool, torchscript: SimpleNamespace) -> None:
    torch = torchscript.torch
    module = to_torch_module(images()).train(training)
    for shape in ((2, 5, 5), (3, 1, 5, 5), (3, 2, 5, 6)):
        with pytest.raises(AssertionError, match=r"input 'image' is f32.*got the shape"):
            module(torch.ones(shape))
    assert module.double()(torch.ones(3, 2, 5, 5).double())["logits"].dtype is torch.float64


def test_stopped_gradients_stay_so(torchscript: SimpleNamespace) -> None:
    torch = torchscript.torch

    @model
    def net(x=f64[3]):  # type: ignore[no-untyped-def]
        y = x >> Dense(2, name="a")
        return {"y": stop_gradient(y) * y}

    module = to_torch_module(net)
    x = torch.ones(3, dtype=torch.float64)
    y = module(x)["y"]
    y.sum().backward()
    plain = x @ module.a.weight.detach()
    assert torch.allclose(module.a.bias.grad, plain)


@formula(derivative=lambda x: 1)
def straight(x: Any) -> Any:
    """x, rounded; its gradient is declared."""
    return round(x)


@custom_gradient(lambda g, y, x: 2 * g)
def rerouted(x: Any) -> Any:
    return x * x


def test_gradients_that_torch_does_not_know(torchscript: SimpleNamespace) -> None:
    torch = torchscript.torch

    @model
    def net(x=f32["batch", 3]):  # type: ignore[no-untyped-def]
        y, z = x >> Dense(2), x >> Dense(2)
        return {"rerouted": rerouted(y), "straight": straight(y) + z, "z": z}

    module = to_torch_module(net)
    results = module(torch.ones(1, 3))
    results["z"].sum().backward()
    for name in ("rerouted", "straight"):
        with pytest.raises(BackendError, match=r"declared at test_torch_module\.py:\d+") as caught:
            results[name].sum().backward()
        assert caught.value.hint is not None and "torchscript-step" in caught.value.hint
    with torch.no_grad():
        assert module(torch.ones(1, 3))["straight"].shape == (1, 2)


def test_what_is_refused(torchscript: SimpleNamespace) -> None:
    with pytest.raises(ModelError, match="takes a model, got int"):
        to_torch_module(3)  # type: ignore[arg-type]
    net = images()
    with pytest.raises(ModelError, match=r"missing"):
        to_torch_module(net, params={"head.weight": np.zeros((27, 4), np.float32)})
    with pytest.raises(TypeError, match="picture"):
        to_torch_module(net)(picture=torchscript.torch.ones(1, 2, 5, 5))
