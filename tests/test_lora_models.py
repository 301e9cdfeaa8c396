"""Low-rank adaptation of models: what is trained, names, merging, files of factors, and what is
refused."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors import safe_open

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Layer,
    adam,
    f32,
    flatten,
    lora,
    mean_squared_error,
    model,
    relu,
    sgd,
    training,
)
from nncompile import Trainer, evaluate, export, load_lora, load_onnx, merge
from nncompile.diagnostics.errors import CheckpointError, ModelError, ModelWarning
from nncompile.ir.graph import Graph
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from nncompile.train import RunDirectory
from tests.low_rank import data, network


class Block(Layer):
    """A dense layer with dropout."""

    def __call__(self, x: Any) -> Any:
        return x >> Dense(4, name="dense") >> Dropout(0.5)


def of_file(path: Path, seed: int) -> Any:
    """A model without attention, written to a file and read from it."""

    @model
    def net(x=f32["batch", "time", 6]):
        return {"y": x >> Dense(8, relu, name="stem") >> Dense(4, name="head")}

    export(net, path, seed=seed)
    return load_onnx(path)


def trained(adapted: Model, **options: Any) -> Trainer:
    recipe = training(adapted, optimizer=adam(1e-2), batch_size=16, **options)
    trainer = Trainer(recipe, threads=1)
    trainer.fit(data(1), epochs=5, verbose=0)
    return trainer


def moved(trainer: Trainer, before: Mapping[str, Any]) -> set[str]:
    return {p for p, x in trainer.params.items() if not np.array_equal(x, before[p])}


def test_a_model_is_adapted_as_its_layers_are() -> None:
    """The same names, shapes, starts and outputs as of `lora` of each layer."""
    whole, layers = lora(network(), rank=2), network(lambda layer: lora(layer, rank=2))
    assert set(whole.parameters) == set(layers.parameters)
    starts = initial_values(layers, 3)
    for path, x in initial_values(whole, 3).items():
        np.testing.assert_array_equal(x, starts[path], err_msg=path)
    assert whole.outputs["loss"] is layers.outputs["loss"]  # the same node
    assert dict(whole.adapters) == dict(layers.adapters)
    assert not layers.frozen


def test_its_factors_alone_are_trained() -> None:
    base = network()
    adapted = lora(base, rank=2, params=["*.query.*", "head.*"])
    factors = {f"{layer}.lora_{x}" for layer in ("mix.query", "head") for x in "ab"}
    assert set(adapted.parameters) == set(base.parameters) | factors
    before = initial_values(adapted, 0)
    assert moved(trained(adapted), before) == factors
    assert moved(trained(adapted, freeze=()), before) == set(adapted.parameters)
    some = trained(adapted, freeze="mix.*")
    assert "head.weight" in moved(some, before) and "mix.query.lora_b" not in moved(some, before)


def test_what_it_had_is_as_after_training() -> None:
    """Statistics stay and dropout of frozen layers is off, where the model is called in another
    one, too, whose own layers learn."""

    @model
    def base(x=f32["batch", 4]):
        return {"y": x >> Dense(6, name="first") >> BatchNorm(name="bn") >> Dense(5, name="last")}

    adapted = lora(base, rank=1, params="last.*")

    @model
    def net(x=f32["batch", 4]):
        z = adapted(x * 2)["y"] >> Dense(2, name="head")
        return {"z": z, "loss": (z**2).mean()}

    recipe = training(net, optimizer=sgd(1e-3))
    trainer = Trainer(recipe, threads=1)
    before = trainer.state
    x = np.random.default_rng(0).normal(2, 3, size=(16, 4)).astype(np.float32)
    trainer.fit({"x": x}, epochs=2, batch_size=8, verbose=0)
    changed = {p for p, y in trainer.state.items() if not np.array_equal(before[p], y)}
    learned = {"last.lora_a", "last.lora_b", "head.weight", "head.bias"}
    assert {p for p in changed if "." in p} == learned
    loss = Graph("g", {"loss": recipe.trained_model.outputs["loss"]})
    feeds: dict[str, Any] = {**trainer.state, "x": x}
    found = evaluate(loss, feeds)["loss"]
    np.testing.assert_allclose(found, evaluate(net.inference(["loss"]), feeds)["loss"], 1e-5)


def test_layers_of_a_model_that_is_called_are_where_they_were_written() -> None:
    """They can be frozen with their dropout, by the names of their layers, in another model."""

    @model
    def base(x=f32["batch", 64]):
        return {"y": x >> Block(name="block")}

    @model
    def net(x=f32["batch", 64]):  # of the same input: no node of the base is made anew
        return {"loss": ((base(x)["y"] >> Dense(2, name="head")) ** 2).mean()}

    @model
    def scaled(x=f32["batch", 64]):
        return {"loss": ((base(3 * x)["y"] >> Dense(2, name="head")) ** 2).mean()}

    for outer in (net, scaled):
        scopes = {
            location.scope
            for v in outer.graph.nodes
            for location in outer.graph.locations.all_locations(v)
        }
        assert f"{outer.name}/block/dense" in scopes
        recipe = training(outer, optimizer=sgd(0.1), freeze="block.*")
        random = {leaf for leaf in recipe.trained_model.whole.leaves if leaf in ("seed", "step")}
        assert not random
        assert "seed" in outer.whole.leaves


def test_merged_it_is_the_model_of_other_weights(tmp_path: Path) -> None:
    base = of_file(tmp_path / "base.onnx", 3)
    adapted = lora(base, rank=2, alpha=8.0)

    @model
    def net(x=f32["batch", "time", 6], target=f32["batch", "time", 4]):
        y = adapted(x)["y"]
        return {"y": y, "loss": mean_squared_error(y, target)}

    trainer = trained(net)
    merged = merge(adapted, trainer.state)
    assert merged.graph.outputs["y"] is base.graph.outputs["y"]
    assert type(merged) is type(base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # its weights are known: no word of initial ones
        export(merged, tmp_path / "merged.onnx")
        export(base, tmp_path / "again.onnx")
    export(trainer, tmp_path / "tuned.onnx")
    expected = trainer.predict({"x": data()["x"]})["y"]
    for file in ("merged", "tuned"):
        again = load_onnx(tmp_path / f"{file}.onnx")
        found = evaluate(again.graph, {**initial_values(again, 0), "x": data()["x"]})["y"]
        np.testing.assert_allclose(found, expected, 1e-4, 1e-5)
    one, two = (onnx.load(tmp_path / f"{n}.onnx").graph for n in ("again", "merged"))
    weights = [{t.name: onnx.numpy_helper.to_array(t) for t in g.initializer} for g in (one, two)]
    assert list(weights[0]) == list(weights[1])
    differing = {n for n, x in weights[0].items() if not np.array_equal(x, weights[1][n])}
    assert differing == set(adapted.adapters) & set(weights[0]) != set()
    structures = [[(n.op_type, [*n.input], [*n.output]) for n in g.node] for g in (one, two)]
    assert structures[0] == structures[1]


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_factors_have_a_file_of_their_own(tmp_path: Path, alpha: float | None) -> None:
    base = network()
    adapted = lora(base, rank=2, alpha=alpha, params="*.query.*")
    trainer = trained(adapted)
    (file,) = export(trainer, tmp_path / "query.safetensors")
    assert file.stat().st_size < 2000
    with safe_open(file, "numpy") as opened:
        names, about = set(opened.keys()), opened.metadata()
    assert names == {"mix.query.lora_a", "mix.query.lora_b"}
    assert (about["rank"], about["alpha"], about["base"]) == ("2", "6" if alpha else "2", "net")
    again = load_lora(base, file)
    assert dict(again.adapters) == dict(adapted.adapters) and again.frozen == adapted.frozen
    starts = initial_values(again, 0)
    for name in names:
        np.testing.assert_array_equal(starts[name], trainer.params[name])
    merged = merge(again, initial_values(again, 0))
    weight = initial_values(merged, 0)["mix.query.weight"]
    p = trainer.params
    change = (alpha or 2) / 2 * p["mix.query.lora_a"] @ p["mix.query.lora_b"]
    np.testing.assert_allclose(weight, p["mix.query.weight"] + change, 1e-5, 1e-6)


def test_a_file_tells_other_weights_and_models(tmp_path: Path) -> None:
    one, two = (of_file(tmp_path / f"{seed}.onnx", seed) for seed in (1, 2))
    (file,) = export(lora(one, rank=2, params="head.*"), tmp_path / "a.safetensors", seed=0)
    merge(load_lora(one, file))
    with pytest.warns(ModelWarning, match=r"beside other weights than those of 2: head\.weight"):
        load_lora(two, file)
    with pytest.raises(ModelError, match=r"head\.weight of model 1 has low-rank factors already"):
        load_lora(load_lora(one, file), file)
    other = load_onnx(tmp_path / "1.onnx", prefix="backbone")
    with pytest.raises(ModelError, match=r"changes head\.weight, which model 1 does not have"):
        load_lora(other, file)
    trainer = Trainer(training(network(), optimizer=sgd(0.1)))
    with pytest.raises(CheckpointError, match="is not a file of low-rank factors"):
        load_lora(one, trainer.save(tmp_path / "state.safetensors"))
    with pytest.raises(ModelError, match="an adapter file needs a model with low-rank factors"):
        export(trainer, tmp_path / "b.safetensors", "adapter")


def test_kernels_embeddings_and_transposed_matrices(tmp_path: Path) -> None:
    """Of a file whose matrices lie [out, in], A takes what enters."""
    rng = np.random.default_rng(0)
    weight, table = rng.normal(size=(3, 5)), rng.normal(size=(7, 5))
    make = onnx.helper
    graph = make.make_graph(
        [
            make.make_node("Gather", ["table", "ids"], ["e"]),
            make.make_node("Gemm", ["e", "w", "b"], ["y"], transB=1),
        ],
        "g",
        [make.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch"])],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 3])],
        [
            onnx.numpy_helper.from_array(x.astype(np.float32), n)
            for n, x in (("w", weight), ("b", np.zeros(3)), ("table", table))
        ],
    )
    opsets = [make.make_opsetid("", 17)]
    onnx.save(make.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    adapted = lora(load_onnx(tmp_path / "m.onnx"), rank=2)
    shapes = {p: v.shape for p, v in adapted.parameters.items() if "lora" in p}
    assert shapes == {
        "w.lora_a": (2, 5), "w.lora_b": (3, 2), "table.lora_a": (7, 2), "table.lora_b": (2, 5),
    }  # fmt: skip
    p = {n: rng.normal(size=v.shape).astype(np.float32) for n, v in adapted.parameters.items()}
    ids = np.array([2, 2, 6])
    found = evaluate(adapted.graph, {**p, "ids": ids})["y"]  # type: ignore[call-overload]
    e = (p["table"] + p["table.lora_a"] @ p["table.lora_b"])[ids]
    expected = e @ (p["w"] + p["w.lora_b"] @ p["w.lora_a"]).T + p["b"]
    np.testing.assert_allclose(found, expected, 1e-4, 1e-4)

    @model
    def images(x=f32["batch", 2, 5, 5]):
        y = x >> Conv2d(4, 3, name="c") >> relu >> flatten >> Dense(2, name="d")
        return {"y": y, "loss": (y**2).mean()}

    layers = lora(images, rank=2)
    assert {p: v.shape for p, v in layers.parameters.items() if "c.lora" in p} == {
        "c.lora_a": (2, 2, 3, 3), "c.lora_b": (4, 2, 1, 1),
    }  # fmt: skip
    assert layers.adapters["c.weight"].layout == "kernel"
    assert merge(layers, initial_values(layers, 0)).outputs["loss"] is images.outputs["loss"]


def test_a_teacher_and_its_student_share_their_weights() -> None:
    """The model itself beside it with factors, as in distillation."""
    base = network()
    student = lora(base, rank=2, params="head.*")

    @model
    def net(x=f32["batch", "time", 6]):
        return {"loss": ((base(x=x)["y"] - student(x=x)["y"]) ** 2).mean()}

    assert "head.lora_a" in net.parameters and set(base.parameters) < set(net.parameters)

    with pytest.raises(ModelError, match=r"stem\.weight is a parameter of both net and net"):

        @model
        def two(x=f32["batch", "time", 6]):  # of which one is another model
            return {"loss": network()(x=x)["y"].mean() + student(x=x)["y"].mean()}


def test_adapted_twice_and_copied() -> None:
    once = lora(network(), rank=2, params="*.query.*")
    twice = lora(once, rank=3, params="*")
    assert twice.adapters["mix.query.weight"] == once.adapters["mix.query.weight"]
    assert twice.adapters["head.weight"].rank == 3
    assert not any("lora_a" in p for p in twice.adapters)
    before = initial_values(twice, 0)
    assert moved(trained(twice), before) == {p for p in twice.parameters if "lora" in p}
    copied = pickle.loads(pickle.dumps(twice))
    assert copied.frozen == twice.frozen and dict(copied.adapters) == dict(twice.adapters)


def test_a_long_list_is_cut_in_a_message() -> None:
    @model
    def deep(x=f32["batch", 4]):
        for _ in range(50):
            x = x >> Dense(4)
        return {"y": x}

    with pytest.raises(ModelError, match=r"dense_39\.weight .*\n +and 10 more\n") as raised:
        lora(deep, params="nix")
    assert len(raised.value.rows) == 50


def test_what_cannot_be_adapted_is_refused() -> None:
    net = network()
    with pytest.raises(ModelError, match="the rank of LoRA must be at least 1"):
        lora(net, rank=0)
    with pytest.raises(ModelError, match=r"kernels\) of model net that '\*\.queri\.\*' matches"):
        lora(net, params="*.queri.*")
    with pytest.raises(ModelError, match=r"kernels\) of model net that '\*' matches"):
        lora(lora(net))
    with pytest.raises(ModelError, match="merge needs a model with low-rank factors"):
        merge(net)
    with pytest.raises(ModelError, match="the weights of net are not known"):
        merge(lora(net))


def test_a_run_of_adapted_layers_has_their_file(tmp_path: Path) -> None:
    layers = network(lambda layer: lora(layer, rank=2))
    trainer = Trainer(training(layers, params="*.lora_*", optimizer=adam(1e-2)), threads=1)
    run = RunDirectory(tmp_path / "run")
    trainer.fit(data(), steps=1, callbacks=run, verbose=0)
    assert tmp_path / "run" / "adapter.safetensors" in run.files
    again = load_lora(network(), tmp_path / "run" / "adapter.safetensors")
    assert dict(again.adapters) == dict(layers.adapters)
    np.testing.assert_array_equal(
        initial_values(again, 0)["head.lora_b"], trainer.params["head.lora_b"]
    )
