"""Large weights of files: how often they are copied and hashed on their way in and out."""

from __future__ import annotations

import hashlib
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from dsl import adam, f32, mean_squared_error
from dsl import model as declared
from nncompile import DTypeError, FileError, Trainer, export, load_onnx, training
from nncompile.compiler.originals import inference_target
from nncompile.frontends.onnx import original
from nncompile.frontends.onnx.apart import without_weights
from nncompile.ir.basic import Constant, Stored, const, stored
from nncompile.ir.interpreter import evaluate
from nncompile.program.heads import with_new_head
from nncompile.runtime import Session, save_state

SIDE = 512
WEIGHTS = 4 * SIDE * SIDE * 4  # bytes of four matrices


@pytest.fixture(params=[False, True], ids=["one file", "external data"])
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    draw = np.random.default_rng(0)
    arrays = {f"w{i}": draw.standard_normal((SIDE, SIDE), np.float32) for i in range(4)}
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(4)]
    ends = [helper.make_tensor_value_info(n, 1, ["batch", SIDE]) for n in ("x0", "x4")]
    tensors = [numpy_helper.from_array(x, name) for name, x in arrays.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "net.onnx"
    onnx.save(model, path, save_as_external_data=request.param, location="net.data")
    return path


@contextmanager
def traced() -> Iterator[Callable[[], tuple[float, float]]]:
    """How many times the weights are in Python's and numpy's memory: now, and at most."""
    tracemalloc.start()
    try:
        yield lambda: tuple(x / WEIGHTS for x in tracemalloc.get_traced_memory())  # type: ignore[return-value]
    finally:
        tracemalloc.stop()


def test_a_file_is_loaded_with_one_copy_of_its_weights(file: Path) -> None:
    load_onnx(file)  # all that is made once
    with traced() as copies:
        model = load_onnx(file)
        now, most = copies()
        del model
    assert now < 1.1 and most < 1.6, (now, most)  # one tensor is compared with a number


def parsed(content: Any) -> onnx.ModelProto | None:
    model = onnx.ModelProto()
    try:
        model.MergeFromString(content)
    except DecodeError:
        return None
    return model


def put_back(content: bytes) -> onnx.ModelProto | None:
    """What protobuf makes of the bytes without weights, with the weights again."""
    stripped, weights = without_weights(memoryview(content))
    model = parsed(stripped)
    for tensor in model.graph.initializer if model is not None else ():
        if tensor.name in weights and not tensor.HasField("raw_data"):
            tensor.raw_data = bytes(weights[tensor.name])
    return model


def with_weights(*numbers: float) -> onnx.ModelProto:
    """A model with a large weight for each of the numbers, all of it, and a small one."""
    arrays = {f"w{i}": np.full((40, 40), x, np.float32) for i, x in enumerate(numbers)}
    tensors = [numpy_helper.from_array(x, name) for name, x in arrays.items()]
    tensors += [numpy_helper.from_array(np.ones(3, np.float32), "small")]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["y"])]
    ends = [helper.make_tensor_value_info(n, 1, None) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors, doc_string="é")
    return helper.make_model(graph, producer_name="p")


def test_weights_apart_are_those_of_the_file() -> None:
    model = with_weights(1, 2, 3)
    content = model.SerializeToString()
    stripped, weights = without_weights(memoryview(content))
    assert set(weights) == {"w0", "w1", "w2"} and len(stripped) < 600
    assert put_back(content) == model
    model.graph.initializer.append(model.graph.initializer[0])  # of two, nobody knows which
    assert without_weights(memoryview(model.SerializeToString()))[1] == {}


def test_broken_files_are_as_broken_without_their_weights() -> None:
    content = with_weights(0, 0, 0).SerializeToString()
    headers = [i for i in range(len(content)) if content[max(0, i - 40) : i + 1] != bytes(41)]
    draw = np.random.default_rng(0)
    read = 0
    for _ in range(600):
        broken = bytearray(content)
        for i in draw.choice(headers, draw.integers(1, 4)):
            broken[i] = draw.integers(256)
        if draw.integers(4) == 0:
            broken = broken[: draw.integers(len(broken))]
        again, expected = put_back(bytes(broken)), parsed(bytes(broken))
        assert (again is None) == (expected is None)
        if again is not None and expected is not None:
            assert again.SerializeToString() == expected.SerializeToString()
            read += 1
    assert 50 < read < 500


def test_weights_of_a_file_are_not_hashed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = 0
    plain = hashlib.blake2b

    class Counting:
        def __init__(self, data: Any = b"", **options: Any) -> None:
            self.digest_of = plain(**options)
            self.update(data)

        def update(self, data: Any) -> None:
            nonlocal hashed
            hashed += memoryview(data).nbytes
            self.digest_of.update(data)

        def digest(self) -> bytes:
            return self.digest_of.digest()

        def hexdigest(self) -> str:
            return self.digest_of.hexdigest()

    monkeypatch.setattr(hashlib, "blake2b", Counting)
    load_onnx(file)
    assert 0 < hashed < 0.15 * WEIGHTS


def test_an_export_has_no_second_copy_of_weights_that_lie_beside_it(file: Path) -> None:
    model = load_onnx(file)
    to = file.with_name("out.onnx")
    export(model, to, external_data=True)
    with traced() as copies:
        files = export(model, to, external_data=True)
        _, most = copies()
    assert most < 0.6, most
    exported = load_file(files[0])
    for name, leaf in model.parameters.items():
        value = model.initial[name].op
        assert isinstance(value, Stored)
        np.testing.assert_array_equal(exported[name], value.value)
        assert leaf.type == model.initial[name].type


def test_a_state_is_written_from_where_it_lies(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    state = {f"w{i}": draw.standard_normal((SIDE, SIDE), np.float32) for i in range(4)}
    state |= {"step": np.asarray(3, np.int64), "mask": np.ones(3, bool), "none": np.zeros((0, 2))}
    with traced() as copies:
        path = save_state(tmp_path / "state.safetensors", state, {"b": "ü", "a": ""})
        assert copies()[1] < 0.1
    loaded = load_file(path)
    assert loaded.keys() == state.keys()
    for name, x in state.items():
        assert loaded[name].dtype == x.dtype
        np.testing.assert_array_equal(loaded[name], x)


def test_stored_arrays_are_equal_where_their_bytes_are() -> None:
    array = np.arange(1 << 20, dtype=np.float32)
    value = stored(array)
    assert isinstance(value.op, Stored) and np.shares_memory(value.op.value, array)
    with pytest.raises(ValueError, match="read-only"):
        value.op.value[0] = 1
    assert stored(array.copy()) is value
    assert stored(array.reshape(2, -1)) is not value
    assert value is not const(array) and value.op != const(array).op
    other = array.copy()
    other[5000] = -1  # between the blocks of the sample
    assert hash(Stored(other)) == hash(value.op)
    assert stored(other) is not value
    assert pickle.loads(pickle.dumps(value)) is value
    assert isinstance(value.op, Constant)
    with pytest.raises(DTypeError):
        stored(np.array(["a"]))


def test_a_trainer_keeps_no_copy_of_the_weights_in_python(file: Path) -> None:
    model = load_onnx(file)
    recipe = training(_with_loss(model), optimizer=adam(1e-3))
    Trainer(recipe)
    with traced() as copies:
        trainer = Trainer(recipe)
        now, most = copies()
    assert now < 0.2 and most < 3.3, (now, most)  # while it starts, the weights and Adam's slots
    assert trainer.step == 0


@pytest.mark.parametrize("file", [True], indirect=True, ids=["external data"])
def test_a_file_that_is_too_large_for_one_has_its_other_weights_beside_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original, "LIMIT", WEIGHTS // 2)
    model = load_onnx(file)
    assert inference_target(model) == ("original", None)
    draw = np.random.default_rng(1)
    params = {
        n: draw.standard_normal(leaf.shape, np.float32) for n, leaf in model.parameters.items()
    }
    same = {"w1": params["w1"], **{n: model.initial[n].op.value for n in ("w0", "w2", "w3")}}  # type: ignore[attr-defined]
    out = file.with_name("out.onnx")
    for given in (same, params):
        files = export(model, out, "original", params=given)
        assert [f.name for f in files] == ["out.weights.safetensors", "out.onnx"]
        proto = onnx.load(out)
        assert [t.name for t in proto.graph.initializer] == ["w0", "w1", "w2", "w3"]
        for tensor in proto.graph.initializer:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), given[tensor.name])
        assert proto.graph.node == onnx.load(file).graph.node
        x = draw.standard_normal((2, SIDE), np.float32)
        found = Session(out).run({"x0": x})["x4"]
        expected = evaluate(model.inference(), {**given, "x0": x})["x4"]
        np.testing.assert_allclose(found, expected, 1e-4, 1e-4 * np.abs(expected).max())
    assert load_onnx(out).parameters.keys() == model.parameters.keys()
    headed, _ = with_new_head(model, 5, "x4")
    assert inference_target(headed) == ("original", None)
    export(headed, out, "original", seed=0)
    assert Session(out).run({"x0": x})["x4"].shape == (2, 5)
    taken = file.with_name("taken.weights.safetensors")
    taken.write_bytes(b"mine")
    with pytest.raises(FileError, match="no export wrote it"):
        export(model, file.with_name("taken.onnx"), "original")
    assert taken.read_bytes() == b"mine"


def _with_loss(model: Any) -> Any:
    @declared
    def net(x: Any = f32["batch", SIDE], y: Any = f32["batch", SIDE]) -> Any:
        return {"loss": mean_squared_error(model(x)["x4"], y)}

    return net
