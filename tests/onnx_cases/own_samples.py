"""Samples of what the node cases of onnx leave out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.onnx_cases.samples import ML, Sample, of_nodes, sample
from tests.onnx_files import nodes_of

MICROSOFT, TRAINING = "com.microsoft", "ai.onnx.preview.training"


def own_samples() -> list[Sample]:
    """What the node cases have no node of, or leave an input out of that has a gradient."""
    rng = np.random.default_rng(0)

    def real(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    regions = [[0, 0, 0, 5, 6], [1, 1, 2, 4, 3], [0, 2.5, 2, 9, 9]]
    coefficients = {"coefficients": real(6).tolist(), "intercepts": real(2).tolist()}
    return [
        sample("Conv", [real(1, 2, 5, 5), real(3, 2, 3, 3), real(3)], label="Conv with a bias"),
        sample(
            "ConvTranspose",
            [real(1, 2, 4, 4), real(2, 3, 3, 3), real(3)],
            label="ConvTranspose with a bias",
        ),
        sample("GlobalLpPool", [real(2, 3, 4, 4)], p=2, label="GlobalLpPool of order 2"),
        sample("GlobalLpPool", [real(2, 3, 4)], p=3, label="GlobalLpPool of order 3"),
        sample(
            "MaxRoiPool",
            [real(2, 3, 7, 8), np.array(regions, np.float32)],
            pooled_shape=[2, 3],
            spatial_scale=0.9,
        ),
        sample(
            "RoiAlign",
            [real(2, 3, 7, 8), np.array(regions, np.float32)[:, 1:], np.array([0, 1, 0])],
            opset=16,
            mode="max",
            coordinate_transformation_mode="output_half_pixel",
            output_height=2,
            output_width=3,
            sampling_ratio=2,
        ),
        sample(
            "DeformConv",
            [real(2, 4, 6, 5), real(6, 2, 3, 2), real(2, 24, 3, 3), real(6), real(2, 12, 3, 3)],
            opset=19,
            offset_group=2,
            group=2,
            strides=[2, 2],
            pads=[1, 1, 0, 0],
        ),
        sample("SimplifiedLayerNormalization", [real(2, 3, 4), real(4)], outputs=2),
        *_earlier(real),
        of_nodes(
            "the gradient of a product",
            nodes_of(f"""
                y = Mul (a, b)
                da, db = {TRAINING}.Gradient <xs = ["a", "b"], y = "y"> (a, b)"""),
            {"a": real(2, 3), "b": real(2, 3)},
            ["da", "db"],
        ),
        *_random(real),
        *_sequences(real),
        sample("FeatureVectorizer", [real(3, 2), real(3, 4)], domain=ML, inputdimensions=[2, 4]),
        sample(
            "Imputer",
            [np.array([[1.5, np.nan, 2], [np.nan, 0.5, -1]], np.float32)],
            domain=ML,
            imputed_value_floats=[0.5, 1.5, 2.5],
            replaced_value_float=float("nan"),
        ),
        sample("LinearRegressor", [real(4, 3)], domain=ML, targets=2, **coefficients),
        sample(
            "LinearClassifier",
            [real(4, 3)],
            outputs=2,
            domain=ML,
            classlabels_ints=[0, 1],
            post_transform="SOFTMAX",
            **coefficients,
        ),
        *(
            sample("Normalizer", [real(3, 4)], domain=ML, norm=norm, label=f"Normalizer {norm}")
            for norm in ("MAX", "L1", "L2")
        ),
        sample(
            "LabelEncoder",
            [np.array([3, 5, 4])],
            domain=ML,
            keys_int64s=[3, 4],
            values_floats=[0.5, 1.5],
        ),
        sample("ZipMap", [real(3, 2)], domain=ML, classlabels_int64s=[0, 1]),
        sample("OneHotEncoder", [np.array([2, 0, 5])], domain=ML, cats_int64s=[0, 2, 3]),
        sample("Scaler", [real(3, 2)], domain=ML, offset=[0.5, -1.0], scale=[2.0, 0.3]),
        sample("FastGelu", [real(3, 4), real(4)], domain=MICROSOFT),
        sample("Gelu", [real(3, 4)], domain=MICROSOFT),
        sample("FusedMatMul", [real(4, 3), real(4, 5)], domain=MICROSOFT, transA=1, alpha=0.7),
    ]


def _earlier(real: Any) -> list[Sample]:
    """Nodes of earlier versions that those of later ones are not brought back to."""
    doubled = onnx.parser.parse_graph(
        "body (int64 i, bool on, float[2, 3] v) => (bool go, float[2, 3] twice)"
        "{ go = Identity (on) twice = Add (v, v) }"
    )
    positive = np.array([0.5, 1, 2], np.float32)
    normalized = [real(2, 3, 4), real(3), real(3), real(3), positive]
    scales = np.array([1, 1, 2, 2], np.float32)
    return [
        sample("BatchNormalization", normalized, opset=1, is_test=1, consumed_inputs=[0] * 5),
        sample("BatchNormalization", normalized, opset=6, is_test=1),
        sample("Pad", [real(2, 3)], opset=1, paddings=[0, 1, 2, 0], value=1.5),
        sample("Tile", [real(2, 3), np.array(2, np.float32), np.array(1, np.float32)], opset=1),
        sample("Upsample", [real(1, 2, 3, 3)], opset=1, height_scale=2.0, width_scale=2.0),
        sample("Resize", [real(1, 2, 3, 3), scales], opset=10, mode="linear"),
        sample(
            "Resize", [real(1, 2, 3, 3), np.zeros(0, np.float32), scales], opset=11, mode="linear"
        ),
        sample("Loop", [np.array(3), np.array(True), real(2, 3)], opset=1, body=doubled),
        sample("Loop", [np.array(3), np.array(True), real(2, 3)], opset=21, body=doubled),
    ]


def _random(real: Any) -> list[Sample]:
    """Random numbers."""
    normal = {"mean": 0.5, "scale": 2.0}
    return [
        sample("RandomNormal", [], shape=[2, 3], **normal),
        sample("RandomUniform", [], shape=[2, 3], low=-1.0, high=2.0, seed=3.0),
        sample("RandomNormalLike", [real(2, 3)], **normal),
        sample("RandomUniformLike", [real(2, 3)]),
        sample("Multinomial", [real(2, 3)], sample_size=4, dtype=onnx.TensorProto.INT64),
    ]


# Sequences and optionals, which are made and taken apart within the file.
_SEQUENCES = {
    "a sequence, joined": """
        s = SequenceConstruct (a, b)
        y = ConcatFromSequence <axis = 1> (s)""",
    "an element of a sequence": """
        one = Constant <value = int64 {1}> ()
        s = SequenceConstruct (a, b)
        y = SequenceAt (s, one)""",
    "a sequence without an element": """
        one = Constant <value = int64 {1}> ()
        s = SequenceConstruct (a, b)
        t = SequenceErase (s, one)
        y = ConcatFromSequence <axis = 0> (t)""",
    "the length of a sequence": """
        none = SequenceEmpty ()
        s = SequenceInsert (none, a)
        y = SequenceLength (s)""",
    "an optional": """
        o = Optional (a)
        y = OptionalGetElement (o)""",
}


def _sequences(real: Any) -> list[Sample]:
    a, b = real(2, 3), real(2, 3)
    return [
        of_nodes(label, nodes_of(text), {"a": a, "b": b} if "(a, b)" in text else {"a": a}, ["y"])
        for label, text in _SEQUENCES.items()
    ]
