"""Weights of torch's networks in models, and back; and mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Conv2d, Dense, Embedding, PReLU, f32, flatten, i64, lora, model, relu
from nncompile import from_torch_state_dict, to_torch_module, to_torch_state_dict
from nncompile.diagnostics.errors import ModelError
from nncompile.program.initialization import initial_values
from tests.torch_layers import agrees, shaken


def classifier(torch: Any) -> Any:
    """A network of its own names, as somebody wrote it by hand."""
    n = torch.nn

    class Classifier(n.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.features = n.Sequential(
                n.Conv2d(1, 4, 3), n.BatchNorm2d(4), n.PReLU(), n.Flatten()
            )
            self.fc1 = n.Linear(36, 36)
            self.fc2 = n.Linear(36, 3)

        def forward(self, x: Any) -> Any:
            return self.fc2(torch.relu(self.fc1(self.features(x))))

    return shaken(torch, Classifier())


@model
def same(x=f32["batch", 1, 5, 5]):  # type: ignore[no-untyped-def]
    y = x >> Conv2d(4, 3) >> BatchNorm() >> PReLU() >> flatten
    return {"y": y >> Dense(36, relu, name="stem") >> Dense(3, name="head")}


NAMES = {
    "features.0": "conv2d",
    "features.1": "batch_norm",
    "features.2": "prelu",
    "fc1": "stem",
    "fc2.weight": "head.weight",
    "fc2.bias": "head.bias",
}


@pytest.mark.parametrize("names", [None, NAMES])
def test_a_network(names: Any, torchscript: SimpleNamespace) -> None:
    """By order of definition, or by the names that are given; it goes on in both directions."""
    torch, module = torchscript.torch, classifier(torchscript.torch)
    params = from_torch_state_dict(module.state_dict(), same, names)
    agrees(torch, module, same, params, 4)
    ours = to_torch_module(same, params)
    x = torch.randn(3, 1, 5, 5)
    assert torch.allclose(ours(x)["y"], module(x), rtol=2e-5, atol=2e-6)
    other = classifier(torch)
    with torch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(to_torch_state_dict(params, same, names=module.state_dict()))
    assert torch.equal(other(x), module(x))


def test_what_is_trained_by_us_runs_in_torch(torchscript: SimpleNamespace) -> None:
    torch, module = torchscript.torch, classifier(torchscript.torch)
    params = initial_values(same, 7)
    module.load_state_dict(to_torch_state_dict(params, same, names=module))
    agrees(torch, module, same, params, 4)


def test_shared_tables_and_low_ranks(torchscript: SimpleNamespace) -> None:
    """A table that also makes the logits is one in torch, too; adapted weights are weights."""
    torch = torchscript.torch
    table = Embedding(6, 4, name="table")

    @model
    def tied(text=i64["batch", "time"]):  # type: ignore[no-untyped-def]
        return {"y": table(text) @ table.weight().T}

    weight = torch.randn(6, 4)
    params = from_torch_state_dict({"table.weight": weight}, tied)
    np.testing.assert_array_equal(params["table.weight"], weight.numpy())

    @model
    def adapted(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
        return {"y": x >> lora(Dense(4, name="head"), rank=2)}

    state = to_torch_state_dict(initial_values(adapted, 0), adapted)
    np.testing.assert_array_equal(
        state["head.weight"].numpy().T, initial_values(adapted, 0)["head.weight"]
    )
    assert tuple(state["head.lora_a"].shape) == (4, 2)


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (lambda s: s.pop("fc2.bias"), None, "layer 'head' of the model and 'fc2' .* differ"),
        (lambda s: s.pop("fc2.bias"), NAMES, "the state dict has no layer or tensor 'fc2.bias'"),
        (
            lambda s: [s.pop(k) for k in list(s) if "fc2" in k],
            None,
            "5 layers with weights, .* has 4",
        ),
        (lambda s: s.update({"fc3.weight": s["fc2.weight"]}), None, "5 layers .* has 6"),
        (lambda s: s.update({"fc3.weight": s["fc2.weight"]}), NAMES, "has fc3.weight, which model"),
        (lambda s: s.update({"fc2.weight": s["fc2.weight"].T}), None, "does not fit 'head.weight'"),
        (lambda s: s.update({"fc2.bias": s["fc2.bias"].half()}), None, "of another type"),
        (lambda s: s.update({"fc2.bias": s["fc2.bias"].double()}), None, r"module\.float\(\)"),
        (lambda s: None, {"fc9": "stem"}, "the state dict has no layer or tensor 'fc9'"),
        (lambda s: None, {"fc1": "stern"}, "the model has no layer or tensor 'stern'"),
        (lambda s: None, {"fc1": "stem"}, "has nothing for conv2d.weight"),
    ],
)
def test_mistakes(
    change: Callable[[Any], Any], names: Any, message: str, torchscript: SimpleNamespace
) -> None:
    state = dict(classifier(torchscript.torch).state_dict())
    change(state)
    with pytest.raises(ModelError) as caught:
        from_torch_state_dict(state, same, names)
    assert re.search(message, str(caught.value)), caught.value


def test_layers_of_equal_shapes_by_name(torchscript: SimpleNamespace) -> None:
    """A module that defines its layers in another order than it uses them."""
    torch = torchscript.torch

    class Crossed(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.out = torch.nn.Linear(4, 4)
            self.inp = torch.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.out(torch.relu(self.inp(x)))

    @model
    def net(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
        return {"y": x >> Dense(4, relu) >> Dense(4)}

    named = {"inp": "dense", "out": "dense_1"}
    module, x = Crossed(), torch.randn(5, 4)
    params = initial_values(net, 3)
    expected = to_torch_module(net, params)(x)["y"]
    for like in (module, module.state_dict()):
        theirs = to_torch_state_dict(params, net, like=like, names=named)
        module.load_state_dict(theirs)
        assert torch.allclose(module(x), expected, rtol=2e-5, atol=2e-6)
    back = from_torch_state_dict(module.state_dict(), net, names=named)
    for path, array in params.items():
        np.testing.assert_array_equal(back[path], array)
    by_order = to_torch_state_dict(params, net, like=module)
    assert torch.equal(by_order["out.weight"], theirs["inp.weight"])
    assert by_order.keys() == to_torch_state_dict(params, net, names=module).keys()
    with pytest.raises(ModelError, match="there is no module"):
        to_torch_state_dict(params, net, names=named)
    with pytest.raises(ModelError, match="names is a module"):
        to_torch_state_dict(params, net, names=module, like=module)
    with pytest.raises(ModelError, match="no layer or tensor 'input'"):
        to_torch_state_dict(params, net, like=module, names={"input": "dense"})


def test_parameters_that_are_none(torchscript: SimpleNamespace) -> None:
    params = initial_values(same, 0)
    with pytest.raises(ModelError, match="1 missing"):
        to_torch_state_dict({n: x for n, x in params.items() if n != "head.bias"}, same)
    wrong = {**params, "head.bias": np.zeros(4, np.float32)}
    with pytest.raises(ModelError, match="1 of another type"):
        to_torch_state_dict(wrong, same)
