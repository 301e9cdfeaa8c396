"""Models on CUDA: spelled in the kernels that are there, and told of where they are not. Every op
and gradient is checked beside its other tests (`tests/op_checks.py`); none needs a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx.inliner import inline_local_functions

from dsl import adam, f32, i64, model, relu, training
from nncompile.backends.onnx import to_model
from nncompile.compiler.compile import compile_model, compile_step
from nncompile.diagnostics.errors import BackendError, ProviderError
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import apply
from nncompile.ir.types import f64
from nncompile.runtime import Session
from nncompile.runtime.cuda.failures import cuda_failure
from nncompile.runtime.cuda.kernels import has_kernel, table
from nncompile.runtime.cuda.model import OnCuda
from nncompile.runtime.cuda.placement import PlacementWarning, predicted, tell
from nncompile.runtime.cuda.spelling import spelled
from nncompile.runtime.cuda.spellings import SPELLINGS
from nncompile.runtime.providers import on_device, resolve_providers, strictness
from tests.placement_checks import ALLOWED, spelled_for_cuda
from tests.small_models import perceptron
from tests.source_lines import line_of


def computed(source: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime computes of a model, without rewriting it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = source.SerializeToString() if hasattr(source, "SerializeToString") else source
    return ort.InferenceSession(content, options, ["CPUExecutionProvider"]).run(None, feeds)


def one_node(operator: str, *arrays: np.ndarray, count: int = 1, **attributes: Any) -> Any:
    """A model of one node on inputs like these."""
    infos = [
        helper.make_tensor_value_info(
            f"x{i}", helper.np_dtype_to_tensor_dtype(a.dtype), [f"n{i}_{k}" for k in range(a.ndim)]
        )
        for i, a in enumerate(arrays)
    ]
    inputs = [f"x{i}" for i in range(len(arrays))]
    node = helper.make_node(operator, inputs, ["y"], "the node", **attributes)
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name="y")])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def on_cuda(operator: str, *arrays: np.ndarray, **attributes: Any) -> np.ndarray:
    """What a node gives as it is spelled for CUDA, which has kernels for all of that."""
    changed = spelled_for_cuda(one_node(operator, *arrays, **attributes))
    assert changed is not None and operator not in ALLOWED
    return computed(changed, {f"x{i}": a for i, a in enumerate(arrays)})[0]


FUNCTIONS = ("Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh")
NUMPY = {name: name.lower().replace("asin", "arcsin").replace("acos", "arccos")
         .replace("atan", "arctan") for name in FUNCTIONS}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_of_real_numbers(name: str, dtype: Any) -> None:
    sizes = np.geomspace(1e-30, 1e30, 400)
    near_one = 1 + np.geomspace(1e-6, 0.5, 50)
    x = np.concatenate([sizes, near_one, 1 / near_one, np.linspace(0, 90, 500), [np.inf, np.nan]])
    if name == "Tan":  # beyond, the CPU's sines of float64 are less exact
        x = x[~(x > 1.5)]
    x = np.concatenate([x, -x]).astype(dtype)
    with np.errstate(all="ignore"):
        expected = getattr(np, NUMPY[name])(x.astype(np.float64))
        limits = expected.astype(dtype)
    found = on_cuda(name, x)
    tiny = float(np.finfo(dtype).tiny)
    np.testing.assert_allclose(found, limits, rtol=16 * np.finfo(dtype).eps, atol=tiny)


WORDS = np.array(
    [[2**62 + 3, 2**62 + 2, -(2**62) - 1, 2**32], [-(2**32) - 7, -(2**33), -(2**34), -(2**33) - 1]],
    np.int64,
)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        ("ReduceSum", (WORDS, np.array([1])), {}),
        ("ReduceMax", (WORDS, np.array([1])), {"keepdims": 0}),
        ("ReduceMin", (WORDS, np.array([0])), {}),
        ("ReduceMax", (2**24 + np.arange(6, dtype=np.int32).reshape(2, 3), np.array([1])), {}),
        ("ReduceMax", (np.zeros((2, 0), np.int32), np.array([1])), {}),
        ("ReduceMin", (np.zeros((2, 0), np.int32), np.array([1])), {}),
        ("ArgMax", (WORDS,), {"axis": 1}),
        ("ArgMin", (WORDS,), {"axis": 1, "keepdims": 0}),
        ("Pad", (WORDS, np.array([0, 1, 1, 0]), np.array(2**61 + 1)), {}),
        ("Pad", (WORDS, np.array([0, 1, 0, 1])), {"mode": "reflect"}),
        ("BitwiseNot", (WORDS,), {}),
        ("Clip", (np.arange(9, dtype=np.int32), np.array(2, np.int32)), {}),
    ],
)  # fmt: skip
def test_integers_keep_all_their_digits(
    operator: str, inputs: tuple[np.ndarray, ...], attributes: dict[str, Any]
) -> None:
    feeds = {f"x{i}": a for i, a in enumerate(inputs)}
    expected = computed(one_node(operator, *inputs, **attributes), feeds)[0]
    if operator == "ReduceSum":  # onnxruntime's own is a float's on the CPU, too
        expected = inputs[0].sum(int(inputs[1][0]), keepdims=True)
    found = on_cuda(operator, *inputs, **attributes)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["i1", "u1", "i4", "u4", "i8", "u8"])
def test_bits_with_a_constant(name: str) -> None:
    limits = np.iinfo(name)
    rng = np.random.default_rng(0)
    x = rng.integers(limits.min, limits.max, 50, name, endpoint=True)
    masks = [
        0,
        1,
        6,
        limits.max,
        limits.min,
        0b101101,
        *rng.integers(limits.min, limits.max, 5, name),
    ]
    operators = {"And": np.bitwise_and, "Or": np.bitwise_or, "Xor": np.bitwise_xor}
    for operator, function in operators.items():
        for mask in np.array(masks, name):
            plain = one_node(f"Bitwise{operator}", x, mask)
            plain.graph.initializer.append(onnx.numpy_helper.from_array(mask, "x1"))
            del plain.graph.input[1]
            changed, is_changed = spelled(plain, SPELLINGS)
            assert is_changed and not predicted(changed)
            found = computed(changed, {"x0": x})[0]
            np.testing.assert_array_equal(found, function(x, mask), f"{operator} {mask}")


def test_kernels_are_known_by_version_and_type() -> None:
    assert has_kernel("Equal", 21, (i64, i64), {}) and not has_kernel("Tan", 21, (f32,), {})
    assert has_kernel("Sin", 21, (f64,), {}) and not has_kernel("MatMul", 21, (i64, i64), {})
    assert not has_kernel("ReduceSum", 21, (i64, i64), {})  # it computes in float32
    even, uneven = ([1, 1, 1, 1], [1, 0, 1, 1])
    assert has_kernel("ConvTranspose", 21, (f32, f32), {"pads": even})
    assert not has_kernel("ConvTranspose", 21, (f32, f32), {"pads": uneven})
    assert table().version.split(".")[0] == "1" and len(table().kernels) > 140


def test_what_has_kernels_stays_as_it_is() -> None:
    x = apply(Input("x", f32["n", 3]))
    made = to_model(Graph("g", {"y": relu(x)}))
    given = OnCuda(made.SerializeToString(), ort.SessionOptions())
    assert given.source == made.SerializeToString()
    assert not spelled(made, SPELLINGS)[1]


def test_inputs_beside_sizes_are_computed_with_on_the_device() -> None:
    """onnxruntime would take them for sizes: an input of the graph, divided by one."""
    size = helper.make_node("Size", ["x"], ["n"])
    number = helper.make_node("Cast", ["n"], ["c"], to=TensorProto.FLOAT)
    ratio = helper.make_node("Div", ["x", "c"], ["y"], "ratio")
    shape = helper.make_node("Shape", ["x"], ["s"])
    moved = helper.make_node("Reshape", ["x", "s"], ["z"], "moved")  # it reads s there
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        [size, number, ratio, shape, moved],
        *("g", [info], [helper.make_tensor_value_info(y, 1, ["n", 2]) for y in "yz"]),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert [x.name for x in predicted(onnx.shape_inference.infer_shapes(made))] == ["ratio"]
    changed = spelled_for_cuda(made)
    assert changed is not None
    feeds = {"x": np.ones((4, 2), np.float32)}
    np.testing.assert_array_equal(computed(changed, feeds)[0], computed(made, feeds)[0])


def test_a_step_never_waits_to_read_whether_numbers_are_finite() -> None:
    made = compile_step(RECIPE).step_model
    branches = {a.g.name for x in _whole(made).graph.node for a in x.attribute if a.HasField("g")}
    changed, is_changed = spelled(made, SPELLINGS)
    left = {a.g.name for x in changed.graph.node for a in x.attribute if a.HasField("g")}
    assert is_changed and "product" in branches and "product" not in left
    assert not any(x.op_type == "ReduceL1" for x in changed.graph.node)
    assert changed.metadata_props == made.metadata_props


RECIPE = training(perceptron(drop=0.5), minimize="loss", optimizer=adam(1e-2), batch_size=256)


def _whole(made: onnx.ModelProto) -> onnx.ModelProto:
    return inline_local_functions(made) if made.functions else made


def test_nodes_of_native_kernels_keep_their_lines() -> None:
    changed, _ = spelled(compile_step(RECIPE).step_model, SPELLINGS)
    assert not changed.functions
    lines = [any(p.key == "source" for p in x.metadata_props) for x in changed.graph.node]
    plain = [x.op_type == "Constant" or not x.domain for x in changed.graph.node]
    assert sum(lines) > 0.8 * len(lines) and all(plain)


@model
def masked_bits(x=i64["batch"], z=i64["batch"], y=f32["batch"]):
    return {"bits": x & z, "twice": 2 * y}


place = line_of(__file__, "x & z")


def test_nodes_on_the_cpu_are_named_with_their_line() -> None:
    made = onnx.shape_inference.infer_shapes(compile_model(masked_bits).model)
    nodes = predicted(made)
    assert [(x.operator, x.types) for x in nodes] == [("BitwiseAnd", ("i64", "i64"))]
    with pytest.warns(PlacementWarning, match=rf"BitwiseAnd\(i64, i64\) at {place}$"):
        tell(nodes, "the model", strict=False)
    with pytest.raises(ProviderError, match="1 node that computes on the CPU") as caught:
        tell(nodes, "the model", strict=True)
    assert caught.value.rows == (("BitwiseAnd(i64, i64)", place),)
    tell([], "the model", strict=True)


def test_what_a_session_says_goes_before_the_table() -> None:
    class Node:
        name = compile_model(masked_bits).model.graph.node[-1].name

    class Group:
        ep_name = "CPUExecutionProvider"
        get_nodes = staticmethod(lambda: [Node])

    class Told:
        get_provider_graph_assignment_info = staticmethod(lambda: [Group])

    given = OnCuda(compile_model(masked_bits).model.SerializeToString(), ort.SessionOptions())
    with pytest.raises(ProviderError) as caught:
        given.tell(Told(), "the model", strict=True)  # type: ignore[arg-type]  # as a session
    assert [row[0] for row in caught.value.rows] == ["Mul(f32, f32)"]


def test_weights_beside_a_file_are_found(tmp_path: Path) -> None:
    node = helper.make_node("BitwiseNot", ["x"], ["y"], "turned")
    add = helper.make_node("Add", ["y", "w"], ["z"], "sum")
    weight = onnx.numpy_helper.from_array(np.arange(4, dtype=np.int64), "w")
    info = helper.make_tensor_value_info("x", TensorProto.INT64, [4])
    graph = helper.make_graph(
        [node, add], "g", [info], [helper.make_tensor_value_info("z", 7, [4])], [weight]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    file = tmp_path / "net.onnx"
    onnx.save(made, file, save_as_external_data=True, size_threshold=0, location="net.data")
    options = ort.SessionOptions()
    source = OnCuda(str(file), options).source
    assert isinstance(source, bytes)
    session = ort.InferenceSession(source, options, ["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": np.zeros(4, np.int64)})[0], [-1, 0, 1, 2])


def test_what_has_no_elements_is_computed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA refuses it."""
    summed = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])]
    graph = helper.make_graph([summed], "g", infos, [helper.make_tensor_value_info("y", 1, [])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = Session(made, threads=1)
    session._for_empty = made  # as that on CUDA

    class Cuda:
        @staticmethod
        def run(names: Any, feeds: Any, options: Any) -> list[Any]:
            assert all(x.size for x in feeds.values())
            return [np.float32(3)]

    monkeypatch.setattr(session, "onnxruntime", Cuda)
    assert session.run({"x": np.zeros(0, np.float32)})["y"] == 0
    assert session.run({"x": np.zeros(2, np.float32)})["y"] == 3


def test_files_that_are_no_models_are_left_to_onnxruntime(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    file = str(tmp_path / "net.onnx")
    assert OnCuda(file, ort.SessionOptions()).source == file


def test_a_provider_may_be_strict() -> None:
    resolved = resolve_providers(on_device("cpu", True))
    assert strictness(resolved) == ([("CPUExecutionProvider", {})], True)
    assert strictness(resolve_providers(on_device("cpu", False)))[1] is False
    assert json.dumps(on_device("cuda", False)) == '"cuda"'


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("a.cc CUDA failure 100: no CUDA-capable device is detected ; GPU=0", "no CUDA", "nvidia"),
        ("CUDA failure 35: CUDA driver version is insufficient ; GPU", "failure 35", "driver"),
        ("CUDNN failure 1001: NOT_INITIALIZED ; GPU=0", "CUDNN failure 1001", "doctor"),
        ("Failed to allocate memory for requested buffer of size 4096", "4,096", "batch_size"),
        ("CUDA failure 2: out of memory ; GPU=0", "not enough memory", "gpu_mem_limit"),
        ("Available memory of 1024 is smaller than requested bytes of 4096", "4,096", "gpu_mem"),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", "not enough", "gpu_mem_limit"),
        (
            "CUDA failure 804: forward compatibility was attempted on non supported HW ; GPU=0",
            *("failure 804: forward", "update the driver"),
        ),
        (
            "Name:'Relu_1' Status Message: CUDA error cudaErrorNoKernelImageForDevice:no kernel "
            "image is available for execution on the device",
            *("no kernel image is available for execution on the device", "for other GPUs"),
        ),
        ("CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED ; GPU=0", "CUDNN_FE failure 11", "doctor"),
    ],
)
def test_failures_of_cuda_are_one_line(text: str, says: str, hint: str) -> None:
    found = cuda_failure(text)
    assert found is not None
    assert says in found[0] and hint in found[1]
    assert cuda_failure("another mistake") is None


def test_the_memory_of_this_machine_is_not_that_of_a_gpu() -> None:
    sizes = np.array([2**24, 2**24])
    with pytest.raises(BackendError, match=r"memory for a tensor of 1,125,899,906,842,624 bytes"):
        Session(one_node("ConstantOfShape", sizes), threads=1).run({"x0": sizes})
