"""`.pt2` files: torch.export of the same source, with the sizes that the model has names for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsl import (
    GRU,
    LSTM,
    Conv1d,
    Conv2d,
    Dense,
    Embedding,
    GlobalAveragePool,
    LearnedPositions,
    MaxPool2d,
    TransformerEncoder,
    f32,
    flatten,
    i64,
    model,
    relu,
    u32,
)
from nncompile.compiler.compile import compile_model
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import BackendError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import full
from nncompile.ops.loops.scan import Scan
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from nncompile.runtime import TorchSession
from tests import op_checks, op_types
from tests.tolerances import assert_close

Sizes = tuple[dict[str, tuple[int, ...]], ...]


@model
def images(image=f32["batch", 1, "height", "width"]):  # type: ignore[no-untyped-def]
    x = image >> Conv2d(4, 3, padding=1) >> relu >> MaxPool2d(2) >> Conv2d(5, 3, padding=1)
    return {"logits": x >> GlobalAveragePool() >> Dense(3)}


@model
def upscaled(image=f32["batch", "4*h", "h + w"]):  # type: ignore[no-untyped-def]
    """Sizes that are arithmetic."""
    batch, rows, columns = image.shape
    return {"y": image.reshape(batch, rows // 4, 4, columns).sum(axis=(1, 3))}


@model
def doubled(image=f32["batch", "2*h", 3], other=f32["batch", "h"]):  # type: ignore[no-untyped-def]
    return {"y": image.sum(axis=-1).reshape(-1, other.shape[1], 2) * other[:, :, None]}


@model
def sentences(text=i64["batch", "time"]):  # type: ignore[no-untyped-def]
    x = text >> Embedding(9, 6)
    y = LSTM(4, bidirectional=True, return_sequences=True)(x)
    return {"all": y, "last": GRU(3, reverse=True)(y)}


@model
def gpt(text=i64["batch", "time"]):  # type: ignore[no-untyped-def]
    x = text >> Embedding(9, 8) >> LearnedPositions(16)
    return {"logits": TransformerEncoder(num_heads=2, is_causal=True)(x) >> Dense(9)}


@model
def named(code=f32["graph", 4], self_=u32["graph"]):  # type: ignore[no-untyped-def]
    """Names that an exported program has, too."""
    x = Dense(3, name="code")(code) + Dense(3, name="graph")(code)
    return {"forward": x, "module": self_ + 1}


@model
def waves(sound=f32["batch", 1, 20]):  # type: ignore[no-untyped-def]
    return {"y": sound >> Conv1d(2, 3) >> flatten >> Dense(2)}


CASES: dict[str, tuple[Model, Sizes]] = {
    "images": (images, tuple({"image": (n, 1, h, w)} for n, h, w in ((1, 8, 8), (5, 9, 30)))),
    "arithmetic": (upscaled, ({"image": (2, 12, 10)}, {"image": (3, 8, 5)})),
    "linear": (
        doubled,
        tuple({"image": (n, 2 * h, 3), "other": (n, h)} for n, h in ((2, 4), (5, 3))),
    ),
    "loops": (sentences, tuple({"text": s} for s in ((2, 7), (1, 1), (3, 40)))),
    "gpt": (gpt, tuple({"text": s} for s in ((2, 7), (1, 16)))),
    "names": (named, ({"code": (5, 4), "self_": (5,)}, {"code": (1, 4), "self_": (1,)})),
    "fixed": (waves, tuple({"sound": (n, 1, 20)} for n in (1, 3))),
}  # fmt: skip


def drawn(net: Model, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    found = {}
    for name, shape in shapes.items():
        dtype = net.inputs[name].dtype
        x = random.normal(size=shape) if dtype.is_float else random.integers(0, 9, shape)
        found[name] = x.astype(dtype.numpy)
    return found


@pytest.fixture(scope="module")
def exported(
    torchscript: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    directory = tmp_path_factory.mktemp("pt2")

    def file(name: str) -> Path:
        path = directory / f"{name}.pt2"
        if not path.exists():
            export(CASES[name][0], path, to="pt2", seed=0)
        return path

    return file


@pytest.mark.parametrize("name", CASES)
def test_one_file_for_all_sizes(
    name: str, torchscript: SimpleNamespace, exported: Callable[[str], Path]
) -> None:
    net, sizes = CASES[name]
    module = torchscript.torch.export.load(exported(name)).module()
    graph = compile_model(net).graph
    weights = initial_values(net, 0)
    for shapes in sizes:
        feeds = drawn(net, shapes)
        results = module(*(torchscript.torch.from_numpy(x) for x in feeds.values()))
        expected = evaluate(graph, {**weights, **feeds}, precision=np.float64)
        assert list(results) == list(expected)
        for output, x in expected.items():
            found = results[output].detach().numpy()
            assert_close(found, x, found.dtype.name, f"{output} {shapes}")


def test_equal_names_are_one_size(
    torchscript: SimpleNamespace, exported: Callable[[str], Path]
) -> None:
    torch = torchscript.torch
    program = torch.export.load(exported("linear"))
    names = {name for size in program.range_constraints for name in size.free_symbols}
    assert len(names) == 2  # batch and h: 2*h is arithmetic of one
    with pytest.raises((AssertionError, RuntimeError)):
        program.module()(torch.zeros(2, 8, 3), torch.zeros(3, 4))
    with pytest.raises((AssertionError, RuntimeError)):
        program.module()(torch.zeros(2, 8, 3), torch.zeros(2, 5))


def test_a_table_bounds_a_size(
    torchscript: SimpleNamespace, exported: Callable[[str], Path]
) -> None:
    torch = torchscript.torch
    module = torch.export.load(exported("gpt")).module()
    with pytest.raises((AssertionError, RuntimeError)):
        module(torch.zeros(1, 17, dtype=torch.int64))
    session = TorchSession(exported("gpt"), trust=True)
    for text in (np.zeros((1, 17), np.int64), np.full((1, 2), 9)):
        with pytest.raises(BackendError, match="failed on these data"):
            session.run({"text": text})


def test_loops_are_scans(torchscript: SimpleNamespace, exported: Callable[[str], Path]) -> None:
    """One operation of any length, not one for each step."""
    nodes = torchscript.torch.export.load(exported("loops")).graph.nodes
    scans = [n for n in nodes if n.op == "call_function" and "scan" in str(n.target)]
    assert len(scans) == 3  # two directions, and one


@pytest.mark.parametrize("case", op_types.cases_of(Scan), ids=lambda case: case.name)
def test_loops_mean_what_graphs_do(case: op_types.Case, torchscript: SimpleNamespace) -> None:
    """The source that is traced, with calls of torch's scan, of loops and of their gradients."""
    gradients, weights = case.first_order
    outputs = {f"y{i}": y for i, y in enumerate((*case.results, *gradients))}
    graph = Graph("loop", outputs, (*case.inputs, *weights))
    module = torchscript.backend.to_eager(graph, {}, scans=True)
    sizes = case.bindings[0]  # for others torch would compile each scan anew
    feeds = case.feeds(sizes)
    for leaf, type_ in weights.items():
        feeds[leaf.op.name] = op_types.draw(case.rng("weights"), case.sample, type_, sizes)  # type: ignore[attr-defined]
    results = module(*(torchscript.torch.from_numpy(feeds[name]) for name in graph.leaves))
    for name, expected in op_checks.in_double(graph, feeds).items():
        assert_close(results[name].numpy(), expected, graph.outputs[name].dtype.name, name)


def test_what_cannot_be_exported(torchscript: SimpleNamespace, tmp_path: Path) -> None:
    @model
    def wide(x=f32["batch", 1, "time"]):  # type: ignore[no-untyped-def]
        return {"y": x >> Conv1d(2, 200)}

    with pytest.raises(BackendError, match="cannot export wide") as caught:
        export(wide, tmp_path / "wide.pt2", to="pt2")
    assert caught.value.rows == (("x", "f32[batch, 1, time]"),)
    assert caught.value.hint is not None and "torchscript" in caught.value.hint
    with pytest.raises(BackendError, match="has no inputs"):
        torchscript.backend.to_exported(Graph("none", {"y": full((2,), 1.0)}), {})
    assert not list(tmp_path.iterdir())
