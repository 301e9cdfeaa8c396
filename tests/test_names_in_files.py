"""Names that a user gives are the same in every file, or have a known other one; none is code."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from dsl import Dense, Layer, adam, f32, model, mse, training
from nncompile import export
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.locations import Location, LocationTable
from nncompile.ir.graph import Graph, Input
from nncompile.program.model import Model
from nncompile.runtime import Session, TorchSession

# As names of layers: what Python, TorchScript, or a module has already, and other alphabets.
LAYERS = (
    "class", "None", "True", "lambda", "self", "torch", "__class__", "__init__", "forward", "T",
    "training", "_modules", "state_dict", "_c", "graph", "code", "nncompile", "slots", "type",
    "x", "ünï", "日本", "1a", "a-b", "class_", "getattr", "print", "Tensor", "aten", "L" * 200,
)  # fmt: skip
OUTPUTS = (
    "class", "a.b", "a/b", "../up", 'say "hi"', "it's", "back\\slash", "\\n", "{0}", "%s", "#",
    "日 本", "None", "self.x", " ", "a b", "$x", "<b>", "self.forward", "O" * 300, '"""', "\\",
)  # fmt: skip
TITLES = ("class", "None", "torch", "a b", "日本", 'x"); import os; ("', "#", "Tensor", "module")


def named(title: str) -> Model:
    @model(name=title)
    def net(  # type: ignore[no-untyped-def]
        self=f32["batch", 3], torch=f32["batch", 3], getattr=f32["batch", 3], 日本=f32["batch", 3]
    ):
        x = self + torch * getattr - 日本
        for name in LAYERS:
            x = x >> Dense(3, name=name)
        return {**{name: x * i for i, name in enumerate(OUTPUTS)}, "loss": mse(x, self)}

    return net


FEEDS = {
    name: np.random.default_rng(i).normal(size=(2, 3)).astype(np.float32)
    for i, name in enumerate(("self", "torch", "getattr", "日本"))
}


def test_a_model_of_odd_names_is_the_same_in_every_file(
    torchscript: SimpleNamespace, tmp_path: Path
) -> None:
    net = named('x"); import os; ("')
    export(net, tmp_path / "net.onnx", seed=0)
    expected = Session(tmp_path / "net.onnx").run(FEEDS)
    assert list(expected) == list(OUTPUTS)
    for target in ("torchscript", "pt2"):
        path = tmp_path / f"net.{ {'torchscript': 'pt', 'pt2': 'pt2'}[target] }"
        export(net, path, to=target, seed=0)
        found = TorchSession(path, trust=True).run(FEEDS)
        assert list(found) == list(OUTPUTS)
        for name, x in expected.items():
            np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=1e-6)


def test_a_step_of_odd_names_trains_from_every_file(
    torchscript: SimpleNamespace, tmp_path: Path
) -> None:
    torch = torchscript.torch
    recipe = training(named("class"), minimize="loss", optimizer=adam(1e-2))
    export(recipe, tmp_path / "step.pt", to="torchscript-step")
    step = torch.jit.load(tmp_path / "step.pt")
    losses = [float(step.train_step(*map(torch.from_numpy, FEEDS.values()))["loss"]) for _ in "123"]
    assert losses[2] < losses[0]
    about = json.loads(step.nncompile)
    assert set(step.get_state()) == set(about["state"])
    assert {f"{name}.weight" for name in LAYERS} < set(about["state"])
    assert about["places"]["class.weight"] == "class_2.weight"  # class_ is a layer, too
    held = {name for name, _ in step.named_parameters()}
    assert {about["places"].get(f"{name}.bias", f"{name}.bias") for name in LAYERS} < held
    export(recipe, tmp_path / "step.onnx", to="step")
    ort.InferenceSession(tmp_path / "step.onnx")


@pytest.mark.parametrize("title", TITLES)
def test_the_title_of_a_model_is_no_code(
    title: str, torchscript: SimpleNamespace, tmp_path: Path
) -> None:
    @model(name=title)
    def net(x=f32["batch", 2]):  # type: ignore[no-untyped-def]
        """A docstring with \r\r    raise ValueError and \u2028 lines."""
        return {"y": x * 2}

    export(net, tmp_path / "net.pt", to="torchscript", seed=0)
    session = TorchSession(tmp_path / "net.pt", trust=True)
    assert session.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[2, 2]]


CONTROLS = ("a\rb", "a\nb", "\x1b[2J", "a\0b", "a\x85b", "a\u2028b", "a\u202eb", "a\ud800", "\x7f")


@pytest.mark.parametrize("name", CONTROLS)
def test_control_characters_are_refused_in_every_name(name: str) -> None:
    def titled() -> Any:
        return model(name=name)(lambda x=f32["n"]: {"y": x})

    def output() -> Any:
        return model(lambda x=f32["n"]: {name: x})

    def layer() -> Any:
        return model(lambda x=f32["n", 2]: {"y": x >> Dense(2, name=name)})

    def parameter() -> Any:
        class Named(Layer):
            def __call__(self, x: Any) -> Any:
                return x * self.parameter(name, 2)

        return model(lambda x=f32["n", 2]: {"y": x >> Named()})

    def leaf() -> Any:
        return Model("net", Graph("net", {"y": Input(name, f32[2])()}))

    for declare in (titled, output, layer, parameter, leaf):
        with pytest.raises(ModelError) as caught:
            declare()
        assert repr(name) in str(caught.value)
        assert str(caught.value).replace("\n", "").isprintable()


def test_a_comment_is_one_line_whatever_stands_in_it(torchscript: SimpleNamespace) -> None:
    """The name of the user's file, and of a layer."""
    x = Input("x", f32[2])()
    y, table = x * 2, LocationTable()
    table.record(y, Location("net\r    raise ValueError\n.py", 1, "a\rb\u2028c"))
    doc = "first\r    raise ValueError\x85\u2028third"
    graph = Graph("g", {"y": y}, (), table, doc)
    source = torchscript.backend.source(graph)
    assert "\\r    raise ValueError" in source
    assert "\r" not in source and "\u2028" not in source
    for line in source.splitlines():
        assert line.lstrip().startswith(("#", "def ", "y = ", "return {", '"y": ', "}")), line
