"""Bags of embeddings and bilinear layers: torch's values and gradients, in every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import Bilinear, EmbeddingBag, f32, f64, i64, model, sgd, tanh, training
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError, DTypeError, FeedError, ModelError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from nncompile.train import Trainer
from tests.backends import in_onnxruntime, script_of
from tests.gradient_checks import check_gradient
from tests.layer_checks import model_of
from tests.tolerances import assert_close

COUNT, WIDTH = 7, 3
RANDOM = np.random.default_rng(5)
WEIGHT = RANDOM.normal(size=(COUNT, WIDTH))


def table(layer: EmbeddingBag, padding: int | None) -> Array:
    start = WEIGHT.copy()
    if padding is not None:
        start[padding] = 0
    return start


def checked(net: Model, feeds: dict[str, Array], torchscript: Any = None) -> dict[str, Array]:
    """The results and the gradients of the sum of their cubes, in numpy; onnxruntime and
    TorchScript give the same."""
    y = net.outputs["y"]
    leaves = list(net.parameters.values())
    leaves += [v for v in net.inputs.values() if v.dtype.is_float]
    gradients = grad((y * y * y).sum(), leaves)
    named = {f"gradient {v.op.name}": s for v, s in zip(leaves, gradients, strict=True)}  # type: ignore[attr-defined]
    order = (*net.inputs.values(), *net.parameters.values())
    graph = Graph("g", {"y": y, **named}, order)
    expected = evaluate(graph, feeds)
    found = [in_onnxruntime(graph, feeds, expected)]
    if torchscript is not None:
        found.append(script_of(graph, {path: feeds[path] for path in net.parameters})(feeds))
    for results in found:
        for name, x in expected.items():
            assert_close(results[name], x, "float64", name)
    return expected


BAGS = np.array([[1, 2, 2, 0], [3, 6, 4, 5], [2, 2, 2, 2]])
VECTORS = {
    "several": (np.array([1, 2, 2, 0, 3, 6, 4, 5, 2]), np.array([0, 4, 4, 7])),
    "empty at both ends": (np.array([1, 2, 2]), np.array([0, 0, 2, 3, 3])),
    "one": (np.array([5]), np.array([0])),
    "all of nothing": (np.zeros(0, np.int64), np.array([0, 0])),
    "none": (np.zeros(0, np.int64), np.zeros(0, np.int64)),
}


def torch_bag(
    torch: Any, layer: EmbeddingBag, padding: int | None, x: Array, **more: Any
) -> dict[str, Array]:
    tensors = {n: None if a is None else torch.tensor(a) for n, a in more.items()}
    weights = tensors.get("per_sample_weights")
    if weights is not None:
        weights.requires_grad_()
    weight = torch.tensor(table(layer, padding), requires_grad=True)
    y = torch.nn.functional.embedding_bag(
        torch.tensor(x), weight, mode=layer.mode, padding_idx=padding, **tensors
    )
    (y**3).sum().backward()
    found = {"y": y.detach().numpy(), "gradient bag.weight": weight.grad.numpy()}
    if weights is not None:
        found["gradient w"] = weights.grad.numpy()
    return found


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_one_size(mode: str, padding: int | None, torchscript: Any) -> None:
    layer = EmbeddingBag(COUNT, WIDTH, mode, padding, dtype=f64, name="bag")
    for type_ in (i64["n", "k"], i64["n", 4]):
        net = model_of(layer, x=type_)
        feeds = {"bag.weight": table(layer, padding)}
        found = checked(net, {"x": BAGS, **feeds}, torchscript)
        for name, x in torch_bag(torchscript.torch, layer, padding, BAGS).items():
            np.testing.assert_allclose(found[name], x, 1e-12, 1e-12, err_msg=name)
        for size in ((0, 4), *(((2, 0), (1, 1)) if type_.shape[1] != 4 else ())):
            some = checked(net, {"x": np.ones(size, np.int64), **feeds})["y"]
            expected = np.zeros((size[0], 3)) if 0 in size else WEIGHT[[1]]
            np.testing.assert_array_equal(some, expected)


@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", VECTORS)
def test_bags_one_after_another(
    name: str, mode: str, padding: int | None, torchscript: Any
) -> None:
    layer = EmbeddingBag(COUNT, WIDTH, mode, padding, dtype=f64, name="bag")

    @model
    def net(x: Value = i64["n"], offsets: Value = i64["bags"]) -> dict[str, Value]:  # type: ignore[assignment]
        return {"y": layer(x, offsets)}

    x, offsets = VECTORS[name]
    feeds = {"x": x, "offsets": offsets, "bag.weight": table(layer, padding)}
    found = checked(net, feeds, torchscript)
    assert found["y"].shape == (len(offsets), WIDTH)
    if len(offsets):
        expected = torch_bag(torchscript.torch, layer, padding, x, offsets=offsets)
        for key, y in expected.items():
            np.testing.assert_allclose(found[key], y, 1e-12, 1e-12, err_msg=key)


@pytest.mark.parametrize("padding", [None, 2])
def test_weights_of_numbers(padding: int | None, torchscript: Any) -> None:
    layer = EmbeddingBag(COUNT, WIDTH, "sum", padding, dtype=f64, name="bag")

    @model
    def rows(x: Value = i64["n", "k"], w: Value = f64["n", "k"]) -> dict[str, Value]:  # type: ignore[assignment]
        return {"y": layer(x, per_sample_weights=w)}

    @model
    def vector(
        x: Value = i64["n"],  # type: ignore[assignment]
        offsets: Value = i64["bags"],  # type: ignore[assignment]
        w: Value = f64["n"],  # type: ignore[assignment]
    ) -> dict[str, Value]:
        return {"y": layer(x, offsets, w)}

    x, offsets = VECTORS["several"]
    for net, feeds in (
        (rows, {"x": BAGS, "w": RANDOM.normal(size=BAGS.shape)}),
        (vector, {"x": x, "offsets": offsets, "w": RANDOM.normal(size=x.shape)}),
    ):
        found = checked(net, feeds | {"bag.weight": table(layer, padding)}, torchscript)
        options = {"per_sample_weights": feeds["w"], "offsets": feeds.get("offsets")}
        expected = torch_bag(torchscript.torch, layer, padding, feeds["x"], **options)
        for name, y in expected.items():
            np.testing.assert_allclose(found[name], y, 1e-12, 1e-12, err_msg=name)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_second_gradients_are_differences(mode: str) -> None:
    x, offsets = VECTORS["several"]
    layer = EmbeddingBag(COUNT, WIDTH, mode, 2, dtype=f64, name="bag")

    @model
    def net(x: Value = i64["n"], offsets: Value = i64["bags"]) -> dict[str, Value]:  # type: ignore[assignment]
        y = layer(x, offsets)
        return {"loss": (tanh(y) * y).sum()}

    def loss(w: Value) -> Value:
        return net(x=x, offsets=offsets, params={"bag.weight": w})["loss"]

    check_gradient(loss, WEIGHT)


def test_a_bag_trains_and_its_data_are_checked() -> None:
    @model
    def net(x: Value = i64["n"], offsets: Value = i64["bags"], t: Value = f32["bags", 3]) -> Any:  # type: ignore[assignment]
        return {"loss": ((EmbeddingBag(COUNT, 3, padding_idx=0)(x, offsets) - t) ** 2).mean()}

    trainer = Trainer(training(net, optimizer=sgd(1.0)))
    x, offsets = VECTORS["several"]
    batch = {"x": x, "offsets": offsets, "t": np.zeros((4, 3), np.float32)}
    before = trainer.evaluate(batch)["loss"]
    trainer.fit([batch] * 20, epochs=1)
    assert trainer.evaluate(batch)["loss"] < before / 5
    np.testing.assert_array_equal(trainer.params["embedding_bag.weight"][0], np.zeros(3))
    for wrong, message in (
        ([1, 4, 4, 7], "the first offset of EmbeddingBag must be"),
        ([0, 4, 4, 10], "the offsets of EmbeddingBag must be"),
        ([0, 4, -1, 7], "the offsets of EmbeddingBag must be"),
    ):
        with pytest.raises(FeedError, match=message):
            trainer.fit([batch | {"offsets": np.array(wrong)}], epochs=1)


def of(function: Any, *types: Type) -> Model:
    return model_of(function, **dict(zip("ab", types, strict=False)))


@pytest.mark.parametrize(
    ("use", "types", "error", "message"),
    [
        (EmbeddingBag(5, 2), (f32["n", 3],), DTypeError, "looks up integers"),
        (EmbeddingBag(5, 2), (i64[()],), ShapeError, r"needs \[\.\.\., n\]"),
        (EmbeddingBag(5, 2), (i64["n", 3], i64["n"]), ShapeError, "one vector beside its offsets"),
        (EmbeddingBag(5, 2), (i64["n"], f32["b"]), ShapeError, r"must be i64\[bags\], got "
        r"f32\[b\]"),
        (
            lambda x, w: EmbeddingBag(5, 2)(x, per_sample_weights=w),
            (i64["n", 3], f32["n", 3]), ModelError, "need the mode 'sum', got 'mean'",
        ),
        (
            lambda x, w: EmbeddingBag(5, 2, "sum")(x, per_sample_weights=w),
            (i64["n", 3], f32["n", 2]), ShapeError, r"must be f32\[n, 3\], got f32\[n, 2\]",
        ),
        (Bilinear(2), (f32["n", 3], f32["m", 3]), ShapeError, "different leading axes"),
        (Bilinear(2), (f32["n", 3], f64["n", 3]), DTypeError, "the element types"),
        (Bilinear(2), (f32["n", 3], f32["n", "m"]), ShapeError, "last axes of known size"),
        (Bilinear(2), (i64["n", 3], i64["n", 3]), DTypeError, "needs floating numbers"),
    ],
)  # fmt: skip
def test_what_does_not_fit(
    use: Any, types: tuple[Type, ...], error: type[CompileError], message: str
) -> None:
    with pytest.raises(error, match=message):
        of(use, *types)


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match='"mean", "sum" or "max", got \'avg\''):
        EmbeddingBag(3, 2, "avg")
    with pytest.raises(ModelError, match=r"padding_idx of EmbeddingBag must be in 0 … 2"):
        EmbeddingBag(3, 2, padding_idx=3)
    with pytest.raises(ModelError, match="EmbeddingBag: index 9 is out of range for 5 rows"):
        of(lambda x: EmbeddingBag(5, 2)([[1, 9]]) + x, f32[1, 2])


@pytest.mark.parametrize("shape", [("n", 4), (2, "t", 4), (4,)])
def test_a_bilinear_layer(shape: Any, torchscript: Any) -> None:
    torch = torchscript.torch
    net = of(Bilinear(5, tanh, name="b"), f64[shape], f64[(*shape[:-1], 3)])
    params = {p: RANDOM.normal(size=v.shape) for p, v in net.parameters.items()}
    start = initial_values(net, 0)["b.weight"]
    assert 0.45 < abs(start).max() <= 0.5
    for count in (3, 0, 1):
        sizes = tuple(s if isinstance(s, int) else count for s in shape)
        a, b = RANDOM.normal(size=sizes), RANDOM.normal(size=(*sizes[:-1], 3))
        found = checked(net, {"a": a, "b": b, **params}, torchscript)
        theirs = torch.nn.Bilinear(4, 3, 5, dtype=torch.float64)
        theirs.load_state_dict({n: torch.tensor(params[f"b.{n}"]) for n in ("weight", "bias")})
        x, y = (torch.tensor(v, requires_grad=True) for v in (a, b))
        z = torch.tanh(theirs(x, y))
        (z**3).sum().backward()
        np.testing.assert_allclose(found["y"], z.detach().numpy(), 1e-12, 1e-12)
        for name, tensor in (("a", x), ("b", y), ("b.weight", theirs.weight)):
            np.testing.assert_allclose(found[f"gradient {name}"], tensor.grad.numpy(), 1e-11, 1e-12)
