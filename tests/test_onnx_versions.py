"""Files of every opset: what operators of their versions say is what is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from dsl import adam, cross_entropy, f32, i64, model, training
from nncompile import Trainer, export, load_onnx
from nncompile.diagnostics.errors import BackendError
from nncompile.runtime import Session
from tests.onnx_files import FLOAT, INT64, ints, weight, written

node = helper.make_node
NEWEST = min(26, onnx.defs.onnx_opset_version())  # of those that are promised
OPSETS = range(7, NEWEST + 1)
HALF = TensorProto.FLOAT16


def compare(path: Path, feeds: Mapping[str, Any], rtol: float = 1e-5) -> None:
    """What is imported computes what onnxruntime makes of the file, or onnx where that cannot."""
    try:
        expected = Session(path, threads=1, optimization="none").run(feeds)
    except BackendError:
        evaluator = ReferenceEvaluator(str(path))
        expected = dict(zip(evaluator.output_names, evaluator.run(None, dict(feeds)), strict=True))
    (exported,) = export(load_onnx(path, training=False), path.with_name("out.onnx"), seed=0)
    session = Session(exported, threads=1)
    got = session.run({port.name: feeds[port.name] for port in session.inputs})
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        largest = np.abs(array[np.isfinite(array)], dtype=np.float64).max(initial=1e-30)
        np.testing.assert_allclose(
            got[name].astype(float), array.astype(float), rtol=0, atol=rtol * largest
        )


class Network:
    """An image network that uses what changed from opset to opset, as each has it."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Any] = {}
        self.last = "image"

    def put(self, op: str, *others: Any, outputs: Sequence[str] = (), **attributes: Any) -> None:
        """A node of what is last, and of constants."""
        names = [self.last]
        for other in others:
            names.append(other if isinstance(other, str) else f"c{len(self.weights)}")
            if not isinstance(other, str):
                self.weights[names[-1]] = np.asarray(other)
        made = list(outputs) or [f"t{len(self.nodes)}"]
        self.nodes.append(node(op, names, made, **attributes))
        self.last = made[0]

    def option(self, since: int, op: str, *others: Any, **options: Any) -> None:
        """The same, with options that are inputs since that opset, and attributes before."""
        if self.opset < since:
            self.put(op, *others, **options)
        else:
            self.put(op, *others, *(np.asarray(x) for x in options.values()))

    def build(self) -> None:
        self.option(11, "Pad", pads=ints(0, 0, 1, 0, 0, 0, 0, 2))
        self.put("Conv", weight(6, 3, 3, 3), weight(6), kernel_shape=[3, 3])
        self.put("BatchNormalization", np.float32([1, 2, 1, 0.5, 1, 1]), weight(6, seed=1),
                 weight(6, seed=2), np.abs(weight(6, seed=3)) + 1, epsilon=1e-3)  # fmt: skip
        self.option(11, "Clip", min=np.float32(-0.5), max=np.float32(1.5))
        self.resize()
        self.put("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        self.put("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
        if self.opset >= 18:
            size = 6 if self.opset >= 21 else 2
            self.put("GroupNormalization", weight(size, seed=4), weight(size, seed=5), num_groups=2)
        self.put("Dropout", **({"ratio": 0.4} if self.opset < 12 else {}))
        if self.opset < 10:
            self.put("Slice", axes=[1], starts=[1], ends=[5])
        else:
            self.put("Slice", ints(1), ints(5), ints(1))
        self.split()
        self.option(13, "Unsqueeze", axes=ints(1))
        self.option(13, "Squeeze", axes=ints(1))
        if self.opset < 18:
            self.put("ReduceMean", axes=[2, 3], keepdims=0)
        else:
            self.put("ReduceMean", ints(2, 3), keepdims=0)
        self.put("Gemm", weight(4, 5, seed=6), weight(5, seed=7))
        self.activate()
        self.put("Softmax", axis=1)
        self.put("Cast", to=TensorProto.DOUBLE)

    def resize(self) -> None:
        scales = np.float32([1, 1, 2, 2])
        if self.opset < 9:
            self.put("Upsample", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])
        elif self.opset < 10:
            self.put("Upsample", scales, mode="linear")
        elif self.opset < 11:
            self.put("Resize", scales, mode="linear")
        else:
            mode = "cubic" if self.opset < 18 else "linear"
            way = "half_pixel" if self.opset < 19 else "half_pixel_symmetric"
            region = np.float32([]) if self.opset < 13 else ""
            self.put("Resize", region, scales, mode=mode, coordinate_transformation_mode=way)

    def split(self) -> None:
        if self.opset < 13:
            self.put("Split", outputs=["left", "right"], axis=1, split=[2, 2])
        elif self.opset < 18:
            self.put("Split", ints(2, 2), outputs=["left", "right"], axis=1)
        else:
            self.put("Split", outputs=["left", "right"], axis=1, num_outputs=2)
        self.put("Concat", "right", axis=1)

    def activate(self) -> None:
        if self.opset >= 17:
            self.put("LayerNormalization", weight(5, seed=8), weight(5, seed=9))
        if self.opset >= 23:
            self.put("RMSNormalization", weight(5, seed=8))
        if self.opset >= 20:
            self.put("Gelu", approximate="tanh")
        self.put("Swish", alpha=1.5) if self.opset >= 24 else self.put("Elu", alpha=0.5)

    @staticmethod
    def features(opset: int) -> int:
        """The number of the node before the softmax."""
        made = Network(opset)
        made.build()
        return len(made.nodes) - 3


def network(path: Path, opset: int) -> Path:
    made = Network(opset)
    made.build()
    inputs = {"image": (FLOAT, ["N", 3, 7, 8])}
    return written(path / "net.onnx", made.nodes, inputs, [made.last], made.weights, opset)


@pytest.mark.parametrize("opset", OPSETS)
def test_a_network_of_each_opset(opset: int, tmp_path: Path) -> None:
    path = network(tmp_path, opset)
    for count in (1, 3):
        image = np.random.default_rng(count).normal(size=(count, 3, 7, 8)).astype(np.float32)
        compare(path, {"image": image})


@pytest.mark.parametrize("opset", [7, 13, NEWEST])
def test_such_a_network_is_trained(opset: int, tmp_path: Path) -> None:
    loaded = load_onnx(network(tmp_path, opset), outputs=[f"t{Network.features(opset)}"])

    @model
    def classes(image: Any = f32["N", 3, 7, 8], label: Any = i64["N"]) -> Any:
        (features,) = loaded(image).values()
        return {"loss": cross_entropy(features, label)}

    random = np.random.default_rng(0)
    image, label = random.normal(size=(8, 3, 7, 8)).astype(np.float32), random.integers(0, 5, 8)
    trainer = Trainer(training(classes, optimizer=adam(0.02), batch_size=8))
    history = trainer.fit({"image": image, "label": label}, epochs=50, verbose=0)
    assert history["loss"][-1] < 0.8 * history["loss"][0]


X = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
WHOLE = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
IMAGE = np.random.default_rng(1).normal(size=(2, 4, 5, 5)).astype(np.float32)


def one(op: str, *others: Any, outputs: int = 1, **attributes: Any) -> tuple[Any, ...]:
    """A node of the input x, of other inputs that are constants (None for none), and attributes."""
    return op, others, outputs, attributes


# What a version says otherwise than those before or after: opset, node, input.
CASES: dict[str, tuple[int, tuple[Any, ...], Any]] = {
    # Of all axes from that one on, as a matrix, and since 13 along one axis.
    **{f"{op} {opset}": (opset, one(op, axis=1), X)
       for op in ("Softmax", "LogSoftmax", "Hardmax") for opset in (7, 11, 12, 13)},
    **{f"{op} {opset}, by default": (opset, one(op), X)
       for op in ("Softmax", "LogSoftmax", "Hardmax") for opset in (11, 13)},
    "Clip 7": (7, one("Clip", min=-0.5, max=0.25), X),
    "Clip 11": (11, one("Clip", np.float32(-0.5), None), X),
    "Clip 12": (12, one("Clip", None, np.int64(2)), ints(1, 5, -3)),
    "Clip 13": (13, one("Clip", np.float32(0.5), np.float32(-0.5)), X),
    "Squeeze 7": (7, one("Squeeze", axes=[1]), X[:, :1]),
    "Squeeze 11": (11, one("Squeeze", axes=[-2]), X[:, :1]),
    "Squeeze 13": (13, one("Squeeze", ints(-2)), X[:, :1]),
    "Squeeze 13, all": (13, one("Squeeze"), X[:1, :1]),
    "Unsqueeze 7": (7, one("Unsqueeze", axes=[0, 2]), X),
    "Unsqueeze 11": (11, one("Unsqueeze", axes=[-1, 0]), X),
    "Unsqueeze 13": (13, one("Unsqueeze", ints(3, 0)), X),
    "Flatten 7": (7, one("Flatten", axis=0), X),
    "Flatten 11": (11, one("Flatten", axis=-1), X),
    "Pad 7": (7, one("Pad", pads=[0, 1, 0, 0, 0, 2], value=1.5), X),
    "Pad 7, backwards": (7, one("Pad", pads=[0, -1, 0, 0, 0, 2]), X),
    "Pad 7, edge": (7, one("Pad", pads=[0, 1, 0, 0, 0, 2], mode="edge"), X),
    "Pad 11": (11, one("Pad", ints(0, 1, 0, 0, 0, 2), np.float32(-2)), X),
    "Pad 18": (18, one("Pad", ints(1, 2), np.float32(3), ints(-1)), X),
    "Pad 19": (19, one("Pad", ints(0, 1, 2, 0, 0, 3), mode="wrap"), X),
    "Slice 7": (7, one("Slice", starts=[1, -3], ends=[9, -1], axes=[0, 2]), X),
    "Slice 7, without axes": (7, one("Slice", starts=[1, 1], ends=[2, 3]), X),
    "Slice 10": (10, one("Slice", ints(-1), ints(-9), ints(2), ints(-2)), X),
    "Slice 13": (13, one("Slice", ints(1), ints(3), ints(-1)), X),
    "Split 7": (7, one("Split", axis=2, split=[1, 3], outputs=2), X),
    "Split 7, in halves": (7, one("Split", axis=2, outputs=2), X),
    "Split 11": (11, one("Split", axis=-1, split=[3, 1], outputs=2), X),
    "Split 13": (13, one("Split", ints(3, 1), axis=-1, outputs=2), X),
    "Split 18": (18, one("Split", num_outputs=3, axis=-1, outputs=3), X),
    "TopK 7": (7, one("TopK", k=2, axis=1, outputs=2), X),
    "TopK 10": (10, one("TopK", ints(2), axis=1, outputs=2), X),
    "TopK 11": (11, one("TopK", ints(2), axis=-2, largest=0, outputs=2), X),
    **{f"{op} {opset}": (opset, one(op, axes=[1], keepdims=0), np.abs(X))
       for op in ("ReduceMax", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSum",
                  "ReduceLogSumExp", "ReduceProd", "ReduceMin", "ReduceSumSquare")
       for opset in (7, 11, 13)},
    **{f"{op} 18": (18, one(op, ints(-2), keepdims=0), np.abs(X))
       for op in ("ReduceMax", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceLogSum",
                  "ReduceLogSumExp", "ReduceProd", "ReduceMin", "ReduceSumSquare")},
    "ReduceSum 7": (7, one("ReduceSum", axes=[2]), X),
    "ReduceSum 7, all": (7, one("ReduceSum", keepdims=0), X),
    "ReduceSum 13": (13, one("ReduceSum", ints(0, 2)), X),
    "ReduceSum 13, none": (13, one("ReduceSum", ints(), noop_with_empty_axes=1), X),
    "ReduceMean 18, none": (18, one("ReduceMean", ints(), noop_with_empty_axes=1), X),
    "ReduceMax 20": (20, one("ReduceMax", ints(1)), X > 0),
    "ArgMax 7": (7, one("ArgMax", axis=1), WHOLE % 3),
    "ArgMax 12": (12, one("ArgMax", axis=-1, select_last_index=1, keepdims=0), WHOLE % 3),
    "Cast 7": (7, one("Cast", to=INT64), 3 * X),
    "Cast 13": (13, one("Cast", to=HALF), 3 * X),
    "Cast 19": (19, one("Cast", to=TensorProto.BOOL, saturate=1), np.trunc(X)),
    "CastLike 15": (15, one("CastLike", ints(1)), 3 * X),
    "Dropout 7": (7, one("Dropout", ratio=0.3), X),
    "Dropout 10": (10, one("Dropout", ratio=0.3, outputs=2), X),
    "Dropout 7, its mask": (7, one("Dropout", ratio=0.3, outputs=2), X),
    "Dropout 12": (12, one("Dropout", np.float32(0.3), outputs=2), X),
    "Dropout 13": (13, one("Dropout", np.float32(0.3), np.bool_(False)), X),
    "Gemm 7": (7, one("Gemm", weight(4, 5), weight(5), alpha=0.5, beta=2.0), WHOLE),
    "Gemm 11": (11, one("Gemm", weight(4, 5), transB=0), WHOLE),
    "Gemm 13": (13, one("Gemm", weight(5, 4), weight(3, 1), transB=1), WHOLE),
    "BatchNormalization 7": (
        7, one("BatchNormalization", *(np.abs(weight(4, seed=i)) for i in range(4)), spatial=1),
        IMAGE,
    ),
    "BatchNormalization 9": (
        9, one("BatchNormalization", *(np.abs(weight(4, seed=i)) for i in range(4)), epsilon=0.1),
        IMAGE,
    ),
    "BatchNormalization 14": (
        14, one("BatchNormalization", *(np.abs(weight(4, seed=i)) for i in range(4))), IMAGE,
    ),
    "BatchNormalization 15, in training": (
        15, one("BatchNormalization", *(np.abs(weight(4, seed=i)) for i in range(4)),
                training_mode=1, momentum=0.7, outputs=3), IMAGE,
    ),
    "Upsample 7": (7, one("Upsample", scales=[1.0, 1.0, 1.6, 2.0]), IMAGE),
    "Upsample 7, linear": (7, one("Upsample", scales=[1.0, 1.0, 2.0, 3.0], mode="linear"), IMAGE),
    "Upsample 9": (9, one("Upsample", np.float32([1, 1, 2, 1.6])), IMAGE),
    "Resize 10": (10, one("Resize", np.float32([1, 1, 0.6, 1.6])), IMAGE),
    "Resize 10, linear": (10, one("Resize", np.float32([1, 1, 2, 0.8]), mode="linear"), IMAGE),
    "Resize 11": (11, one("Resize", np.float32([]), np.float32([1, 1, 2, 0.8])), IMAGE),
    "Resize 11, pytorch": (
        11, one("Resize", np.float32([]), np.float32([]), ints(2, 4, 7, 3), mode="linear",
                coordinate_transformation_mode="pytorch_half_pixel"), IMAGE,
    ),
    "Resize 13": (
        13, one("Resize", None, None, ints(2, 4, 8, 9), mode="cubic", cubic_coeff_a=-0.5,
                exclude_outside=1), IMAGE,
    ),
    "Resize 18": (
        18, one("Resize", None, None, ints(3, 4), axes=[2, 3], mode="linear", antialias=1), IMAGE,
    ),
    "Resize 18, not larger": (
        18, one("Resize", None, None, ints(9, 12), axes=[2, 3],
                keep_aspect_ratio_policy="not_larger"), IMAGE,
    ),
    "Resize 19": (
        19, one("Resize", None, np.float32([1.3, 0.7]), axes=[3, 2], mode="linear",
                coordinate_transformation_mode="half_pixel_symmetric"), IMAGE,
    ),
    "AveragePool 7": (7, one("AveragePool", kernel_shape=[2, 2], pads=[1, 0, 0, 1]), IMAGE),
    "AveragePool 10": (
        10, one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1,
                count_include_pad=1), IMAGE,
    ),
    "AveragePool 19": (19, one("AveragePool", kernel_shape=[2, 2], dilations=[2, 1]), IMAGE),
    "MaxPool 8": (8, one("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), IMAGE),
    "MaxPool 10": (
        10, one("MaxPool", kernel_shape=[2, 2], dilations=[2, 2], ceil_mode=1, strides=[2, 2]),
        IMAGE,
    ),
    "MaxPool 12": (12, one("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_UPPER"), IMAGE),
    "LpPool 18": (18, one("LpPool", kernel_shape=[2, 2], p=2, ceil_mode=0), IMAGE),
    "Scatter 9": (9, one("Scatter", ints(1, 0)[:, None] * ints(1, 1, 1, 1), WHOLE[:2] / 3), WHOLE),
    "ScatterElements 18": (
        18, one("ScatterElements", ints(1, 1)[:, None] * ints(1, 1, 1, 1), WHOLE[:2] / 3,
                reduction="max"), WHOLE,
    ),
    "OneHot 9": (9, one("OneHot", np.int64(4), np.float32([-1, 2])), ints(0, 3, 1)),
    "OneHot 11": (11, one("OneHot", np.int64(4), np.float32([-1, 2]), axis=0), ints(0, -1, 7)),
    "DepthToSpace 7": (7, one("DepthToSpace", blocksize=2), IMAGE),
    "DepthToSpace 11": (11, one("DepthToSpace", blocksize=2, mode="CRD"), IMAGE),
    "Gather 7": (7, one("Gather", ints(0, 2), axis=1), X),
    "Gather 11": (11, one("Gather", ints(-1, 1), axis=-1), X),
    "Reshape 7": (7, one("Reshape", ints(0, -1)), X),
    "Reshape 14": (14, one("Reshape", ints(2, -1), allowzero=1), X),
    "Shape 15": (15, one("Shape", start=-2, end=5), X),
    "Where 9": (9, one("Where", WHOLE, np.float32(9)), WHOLE > 0),
    "Mod 10": (10, one("Mod", np.float32(3), fmod=1), WHOLE),
    "Pow 12": (12, one("Pow", ints(2)), WHOLE),
    "Max 8": (8, one("Max", np.float32([1, -2, 0, 5])), WHOLE),
    "Equal 7": (7, one("Equal", ints(1, 0, 3)), ints(1, 2, 3)),
    "CumSum 11": (11, one("CumSum", np.int64(1), exclusive=1, reverse=1), X),
    "Einsum 12": (12, one("Einsum", WHOLE, equation="bij,ij->bi"), X),
    "Trilu 14": (14, one("Trilu", np.int64(1), upper=0), X),
    "PRelu 16": (16, one("PRelu", weight(3, 1)), X),
    "Conv 22": (22, one("Conv", weight(6, 2, 2, 2), group=2, dilations=[1, 2]), IMAGE),
    "Transpose 25": (25, one("Transpose", perm=[2, 0, 1]), X),
    "HardSwish 14": (14, one("HardSwish"), 3 * X),
    "LayerNormalization 17": (17, one("LayerNormalization", weight(3, 4), axis=-2), X),
    "Mish 18": (18, one("Mish"), X),
    "GroupNormalization 18": (
        18, one("GroupNormalization", weight(2), weight(2, seed=1), num_groups=2), IMAGE,
    ),
    "GroupNormalization 21": (
        21, one("GroupNormalization", weight(4), weight(4, seed=1), num_groups=2), IMAGE,
    ),
    "Gelu 20": (20, one("Gelu"), X),
    "IsInf 20": (20, one("IsInf", detect_negative=0), np.float32([1, np.inf, -np.inf, np.nan])),
    "QuantizeLinear 10": (10, one("QuantizeLinear", np.float32(0.05), np.uint8(100)), X),
    "QuantizeLinear 13": (
        13, one("QuantizeLinear", np.float32([0.1, 0.2, 0.3]), np.int8([0, 1, 2]), axis=1), X,
    ),
    "QuantizeLinear 21": (21, one("QuantizeLinear", np.float32(0.05), np.int16(9)), X),
    "RMSNormalization 23": (23, one("RMSNormalization", weight(4)), X),
    "Attention 23": (
        23, one("Attention", weight(2, 2, 3, 4), weight(2, 2, 3, 4, seed=2), is_causal=1),
        weight(2, 2, 3, 4, seed=3),
    ),
    "Attention 24": (
        24, one("Attention", weight(2, 2, 5, 4), weight(2, 2, 5, 4, seed=2), weight(3, 5),
                softcap=2.0), weight(2, 2, 3, 4, seed=3),
    ),
    "RotaryEmbedding 23": (
        23, one("RotaryEmbedding", weight(8, 2), weight(8, 2, seed=1), ints(1, 4, 2)[None]),
        weight(1, 2, 3, 4, seed=3),
    ),
    "TensorScatter 24": (24, one("TensorScatter", weight(2, 2, 4), ints(0, 1)), X),
    "Swish 24": (24, one("Swish", alpha=0.5), X),
    "CumProd 26": (26, one("CumProd", np.int64(-1)), X),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
def test_what_a_version_says(kind: str, tmp_path: Path) -> None:
    opset, (op, others, count, attributes), x = CASES[kind]
    if opset > NEWEST:
        pytest.skip(f"onnx {onnx.__version__} has no opset {opset}")
    if kind == "AveragePool 10" and onnxruntime.__version__.startswith("1.23."):
        pytest.skip("onnxruntime 1.23 divides by the kernel beyond the padding, too")
    stored = {f"c{i}": np.asarray(a) for i, a in enumerate(others) if a is not None}
    names = ["x", *(f"c{i}" if a is not None else "" for i, a in enumerate(others))]
    outputs = [f"y{i}" for i in range(count)]
    inputs = {"x": (helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)}
    nodes = [node(op, names, outputs, **attributes)]
    compare(written(tmp_path / "m.onnx", nodes, inputs, outputs, stored, opset), {"x": x})


def test_they_are_of_every_opset() -> None:
    since = {
        schema.since_version
        for opset, (op, *_), _ in CASES.values()
        if opset <= NEWEST
        for schema in [onnx.defs.get_schema(op, opset)]
    }
    assert since >= {*OPSETS}
