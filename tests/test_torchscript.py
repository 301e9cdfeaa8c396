"""TorchScript: readable source, the user's names, and modules that do what the graph says."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.elementwise import exp, relu, sigmoid
from nncompile.ir.basic import const, size_value
from nncompile.ir.dims import dim
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import DType, boolean, f32, f64, i32, i64, u32
from nncompile.ops import take, take_along_axis
from nncompile.ops.core.counting import iota
from nncompile.ops.random.generator import random_bits, random_key, seed_leaf, step_leaf
from nncompile.ops.shape.reshape import transpose
from tests.leaves import leaf
from tests.tolerances import assert_close
from tests.torchscript_checks import fed

WEIGHTS = {
    "stem.weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3),
    "stem.bias": np.array([0.5, -0.5, 0.25], np.float32),
}


@pytest.fixture
def classifier() -> Graph:
    with recording_locations(LocationTable()) as locations:
        image = leaf("image", f32["batch", 2, 2])
        weight = leaf("stem.weight", f32[4, 3], "parameter")
        bias = leaf("stem.bias", f32[3], "parameter")
        hidden = image.reshape(-1, 4) @ weight + bias
        logits = hidden * sigmoid(1.5 * hidden)
        outputs = {"logits": logits, "mean": logits.sum() / image.shape[0]}
        return Graph("classifier", outputs, (image,), locations, "Two outputs.")


def test_source_is_readable(classifier: Graph, torchscript: SimpleNamespace) -> None:
    here = Path(__file__).name
    lines = torchscript.backend.source(classifier).splitlines()
    assert lines[0] == "def forward(self, image: Tensor) -> Dict[str, Tensor]:"
    assert "    # Two outputs." in lines
    assert "    # parameter stem.weight: f32[4, 3]" in lines
    code = [line.partition("  #") for line in lines if " = " in line]
    assert [text.strip() for text, _, _ in code] == [
        "batch = image.size(0)",
        "reshape = image.reshape([batch, 4])",
        "stem = reshape @ self.stem.weight",
        "stem_2 = self.stem.bias + stem",
        *[text.strip() for text, _, _ in code[4:]],
    ]
    assert any(text.strip().startswith("logits = ") for text, _, _ in code)
    assert all(here in comment for text, _, comment in code if "stem" in text.partition("=")[0])
    assert lines[-3:] == ['        "logits": logits,', '        "mean": mean', "    }"]


@pytest.mark.parametrize("batch", [0, 1, 7])
def test_numbers_names_and_dynamic_batch(
    classifier: Graph, torchscript: SimpleNamespace, batch: int
) -> None:
    script = torchscript.to_script(classifier, WEIGHTS)
    image = np.random.default_rng(batch).normal(size=(batch, 2, 2)).astype(np.float32)
    results = script(*fed(torchscript.torch, image))
    assert list(results) == ["logits", "mean"]
    expected = evaluate(classifier, {**WEIGHTS, "image": image}, precision=np.float64)
    for name, array in expected.items():
        assert_close(results[name].detach().numpy(), array, "float32", name)
    assert {n for n, _ in script.named_parameters()} == {"stem.weight", "stem.bias"}
    assert sorted(script.state_dict()) == sorted(WEIGHTS)


def test_round_trip_through_a_file(
    classifier: Graph, torchscript: SimpleNamespace, tmp_path: Path
) -> None:
    torch = torchscript.torch
    path = tmp_path / "model.pt"
    path.write_bytes(torchscript.backend.to_bytes(classifier, WEIGHTS))
    image = torch.linspace(-1, 1, 12).reshape(3, 2, 2)
    loaded = torch.jit.load(str(path))
    before = torchscript.to_script(classifier, WEIGHTS)(image)
    for name, result in loaded(image).items():
        assert torch.equal(result, before[name])
    assert {n for n, _ in loaded.named_parameters()} == {"stem.weight", "stem.bias"}


def test_autograd_and_freezing(classifier: Graph, torchscript: SimpleNamespace) -> None:
    torch = torchscript.torch
    script = torchscript.to_script(classifier, WEIGHTS)
    image = torch.ones(2, 2, 2)
    script(image)["mean"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in script.parameters())
    frozen = torch.jit.freeze(script.eval())
    assert torch.allclose(frozen(image)["logits"], script(image)["logits"])


def test_two_modules_of_one_structure(torchscript: SimpleNamespace) -> None:
    """torch shares the type of modules that look alike, methods included."""
    torch, x, w = torchscript.torch, leaf("x", f32["n"]), leaf("w", f32[()], "parameter")
    weights = {"w": np.float32(3).reshape(())}
    first = torchscript.to_script(Graph("g", {"y": x + w}), weights)
    second = torchscript.to_script(Graph("g", {"y": x * w}), weights)
    two = torch.full((1,), 2.0)
    assert (first(two)["y"].item(), second(two)["y"].item()) == (5.0, 6.0)


@pytest.mark.parametrize(
    "name", ["class", "None", "self", "torch", "a.b", "x-y", "π", "2", "a b", "batch", "print", "_"]
)
def test_names_of_every_kind(name: str, torchscript: SimpleNamespace) -> None:
    """Words of Python, other alphabets and names that are in use stay what they are outside."""
    torch = torchscript.torch
    x, n = leaf(name, f32["batch", 2]), dim("batch")
    w = leaf(f"layer.{name}", f32[2], "parameter")
    graph = Graph("g", {name: x * w, "size": size_value(n)}, (x,))
    script = torchscript.to_script(graph, {f"layer.{name}": np.array([2, 3], np.float32)})
    results = script(torch.ones(4, 2))
    assert results[name].tolist() == [[2, 3]] * 4
    assert results["size"].item() == 4
    assert [n for n, _ in script.named_parameters()] == [f"layer.{name}"]


@pytest.mark.parametrize("path", ["forward", "layer.type", "layer..w", "layer", ""])
def test_names_that_a_module_cannot_have(path: str, torchscript: SimpleNamespace) -> None:
    x = leaf("x", f32[2])
    w = leaf("layer.weight", f32[2], "parameter")
    odd = leaf(path, f32[2], "parameter")
    array = np.ones(2, np.float32)
    with pytest.raises(BackendError, match="cannot hold") as caught:
        torchscript.to_script(Graph("g", {"y": x * w + odd}), {"layer.weight": array, path: array})
    assert repr(path) in caught.value.message


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "no value for parameter 'w'"),
        ({"w": np.ones(3, np.float32)}, "wrong type"),
        ({"w": np.ones(2, np.float64)}, "wrong type"),
    ],
)
def test_weights_that_do_not_fit(
    weights: dict[str, np.ndarray], message: str, torchscript: SimpleNamespace
) -> None:
    graph = Graph("g", {"y": leaf("x", f32[2]) * leaf("w", f32[2], "parameter")})
    with pytest.raises(BackendError, match=message):
        torchscript.to_script(graph, weights)


def test_a_graph_with_random_state_is_refused(torchscript: SimpleNamespace) -> None:
    bits = random_bits(random_key("noise", seed_leaf(), step_leaf()), (3,))
    with pytest.raises(BackendError, match=r"seed|step") as caught:
        torchscript.to_script(Graph("g", {"y": bits}), {})
    assert caught.value.hint is not None and "inference" in caught.value.hint


def test_states_are_buffers(torchscript: SimpleNamespace) -> None:
    x, mean = leaf("x", f32["n"]), leaf("norm.running_mean", f32[()], "state")
    weights = {"norm.running_mean": np.float32(2).reshape(())}
    script = torchscript.to_script(Graph("g", {"y": x - mean}), weights)
    assert [n for n, _ in script.named_buffers()] == ["norm.running_mean"]
    assert not list(script.parameters())
    assert script(torchscript.torch.ones(1))["y"].item() == -1


def test_sizes_from_arithmetic(torchscript: SimpleNamespace) -> None:
    """A name is solved for where an input only has arithmetic of it."""
    x = leaf("x", f32["4*h", "h + w - 1"])
    h, w = dim("h"), dim("w")
    outputs = {
        "h": size_value(h),
        "w": size_value(w),
        "parts": size_value(dim("(h + 2*w) // 3")),
        "more": size_value(dim("h * (w - 1) + h*h - 2")),
        "reshaped": x.reshape(2, 2 * h, -1),
    }
    script = torchscript.to_script(Graph("g", outputs, (x,)), {})
    results = script(torchscript.torch.ones(12, 7))  # h = 3, w = 5
    numbers = [results[n].item() for n in ("h", "w", "parts", "more")]
    assert numbers == [3, 5, 13 // 3, 3 * 4 + 9 - 2]
    assert tuple(results["reshaped"].shape) == (2, 6, 7)


def test_a_size_that_no_input_has(torchscript: SimpleNamespace) -> None:
    with pytest.raises(BackendError, match="no input has the size n"):
        torchscript.backend.source(Graph("g", {"y": iota("n")}))


@pytest.mark.parametrize("dtype", [f32, f64, i64, i32, u32, boolean])
@pytest.mark.parametrize("shape", [(), (2, 3), (7, 9), (0, 4)])
def test_constants(dtype: DType, shape: tuple[int, ...], torchscript: SimpleNamespace) -> None:
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) * 2654435761).astype(dtype.numpy)
    graph = Graph("g", {"y": const(array, dtype)})
    result = torchscript.to_script(graph, {})()["y"].numpy()
    assert result.dtype == dtype.numpy
    np.testing.assert_array_equal(result, array)


def test_extreme_constants(torchscript: SimpleNamespace) -> None:
    numbers = {
        "f": np.array([np.inf, -np.inf, np.nan, -0.0, 1e-45, 3.4028235e38], np.float32),
        "d": np.array([1e308, 5e-324, 0.1]),
        "e": np.array(0.1),
        "i": np.array([-(2**63), 2**63 - 1]),
        "u": np.array([0, 2**32 - 1], np.uint32),
    }
    script = torchscript.to_script(Graph("g", {n: const(a) for n, a in numbers.items()}), {})
    for name, result in script().items():
        np.testing.assert_array_equal(result.numpy(), numbers[name])
        assert np.array_equal(np.signbit(result.numpy()), np.signbit(numbers[name]))


def test_outputs_that_are_inputs_parameters_or_one_value(torchscript: SimpleNamespace) -> None:
    x, w = leaf("x", u32["n"]), leaf("w", f32[2], "parameter")
    y = relu(w)
    graph = Graph("g", {"x": x, "w": w, "a": y, "b": y})
    script = torchscript.to_script(graph, {"w": np.array([-1, 1], np.float32)})
    data = np.array([2**32 - 1, 0], np.uint32)
    results = script(*fed(torchscript.torch, data))
    np.testing.assert_array_equal(results["x"].numpy(), data)
    assert results["w"].tolist() == [-1, 1]
    assert results["a"].tolist() == results["b"].tolist() == [0, 1]


@pytest.mark.parametrize("place", [4, -5])
@pytest.mark.parametrize("function", [take, take_along_axis])
def test_places_out_of_range_are_refused(
    function: Any, place: int, torchscript: SimpleNamespace
) -> None:
    torch = torchscript.torch
    x, places = leaf("x", f32[4]), leaf("places", i64["n"])
    script = torchscript.to_script(Graph("g", {"y": function(x, places, 0)}, (x, places)), {})
    data = torch.arange(4.0)
    assert script(data, torch.tensor([3, -4, -1]))["y"].tolist() == [3, 0, 3]
    with pytest.raises((RuntimeError, IndexError), match="out of"):
        script(data, torch.tensor([0, place]))


def test_deep_graphs_lower(torchscript: SimpleNamespace) -> None:
    x = leaf("x", f32["n", 2])
    y = x
    for _ in range(1500):
        y = transpose(exp(y * 1e-3))
        y = transpose(y)
    result = torchscript.to_script(Graph("g", {"y": y}), {})(torchscript.torch.ones(1, 2))
    expected = evaluate(y, {"x": np.ones((1, 2), np.float32)}, precision=np.float64)
    assert_close(result["y"].numpy(), expected, "float32")


def test_source_runs_as_plain_python(classifier: Graph, torchscript: SimpleNamespace) -> None:
    """The same text is a Python function: torch.export, TorchScript's successor, traces it."""
    torch = torchscript.torch
    scope: dict[str, Any] = {"torch": torch, "Tensor": torch.Tensor, "Dict": dict}
    exec(torchscript.backend.source(classifier), scope)
    script = torchscript.to_script(classifier, WEIGHTS)
    image = torch.linspace(-1, 1, 8).reshape(2, 2, 2)
    plain = scope["forward"](script, image)
    assert torch.equal(plain["logits"], script(image)["logits"])


def test_without_torch_the_export_says_what_to_install(tmp_path: Path) -> None:
    """Nobody imports torch unless TorchScript is asked for."""
    code = f"""
        import sys
        sys.modules["torch"] = None  # as if it were not installed
        import nncompile
        from dsl import Dense, f32, model
        @model
        def net(x=f32["n", 2]):
            return {{"y": x >> Dense(1)}}
        try:
            nncompile.export(net, {str(tmp_path / "net.pt")!r}, to="torchscript")
        except nncompile.diagnostics.errors.BackendError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "needs torch" in done.stdout and "nncompile[torch]" in done.stdout, done.stderr
    assert not list(tmp_path.iterdir())


def test_only_the_known_deprecation_warns(classifier: Graph, torchscript: SimpleNamespace) -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit") as seen:
        data = torchscript.backend.to_bytes(classifier, WEIGHTS)
        torchscript.torch.jit.load(io.BytesIO(data))
    assert all(item.category is DeprecationWarning for item in seen)
