"""Nodes on arrays, for each operator: the node cases of onnx, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nncompile.frontends.onnx.refusals import Refused
from tests.onnx_cases.running import data_of

ML, MICROSOFT = "ai.onnx.ml", "com.microsoft"
REAL = "tensor(float)"
Operator = tuple[str, str]
"""Domain and name."""


@dataclass(frozen=True)
class Sample:
    """A model of nodes, and its inputs; of the operators that it is a sample of."""

    name: str
    operators: tuple[Operator, ...]
    model: onnx.ModelProto
    inputs: Mapping[str, Any]

    @property
    def node(self) -> onnx.NodeProto:
        return self.model.graph.node[0]

    @property
    def opset(self) -> int:
        """The opset of the domain of its operator."""
        domain = self.operators[0][0]
        return opset_of(self.model, domain)


def opset_of(model: onnx.ModelProto, domain: str) -> int:
    return next((o.version for o in model.opset_import if _plain(o.domain) == domain), 1)


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def operator_of(node: onnx.NodeProto) -> Operator:
    return _plain(node.domain), node.op_type


def samples_of_cases(cases: Iterable[Any]) -> Iterator[Sample]:
    """The first inputs of each case of one node whose element types there are here."""
    for case in cases:
        if case.model is None or len(case.model.graph.node) != 1:
            continue
        try:
            inputs, _ = data_of(case, case.model)
        except Refused:
            continue
        operator = operator_of(case.model.graph.node[0])
        yield Sample(case.name, (operator,), case.model, inputs[0])


def sample(
    op: str, inputs: Sequence[Any], outputs: int = 1, domain: str = "", opset: int = 21,
    label: str = "", **attributes: Any,
) -> Sample:  # fmt: skip
    """A node on these arrays."""
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names, results, domain=domain, **attributes)
    return of_nodes(
        label or f"{op} of opset {opset}",
        [node],
        dict(zip(names, inputs, strict=True)),
        results,
        opset,
    )


def of_nodes(
    label: str, nodes: Sequence[onnx.NodeProto], inputs: Mapping[str, Any], results: Sequence[str],
    opset: int = 21,
) -> Sample:  # fmt: skip
    """Nodes on these arrays."""
    graph = helper.make_graph(
        list(nodes),
        "sample",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for n, x in inputs.items()
        ],
        [onnx.ValueInfoProto(name=n) for n in results],
    )
    operators = tuple(dict.fromkeys(map(operator_of, nodes)))
    opsets = [helper.make_opsetid("", opset if nodes[0].domain == "" else 21)]
    opsets += [helper.make_opsetid(d, 3 if d == ML else 1) for d, _ in operators if d]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Sample(label, operators, model, inputs)


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
        sample("SimplifiedLayerNormalization", [real(2, 3, 4), real(4)], outputs=2),
        *_earlier(real),
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
    doubled = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["go"]),
            helper.make_node("Add", ["v", "v"], ["twice"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [2, 3]),
        ],
        [
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, [2, 3]),
        ],
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


def _sequences(real: Any) -> list[Sample]:
    """Sequences and optionals, which are made and taken apart within the file."""
    node = helper.make_node
    made = node("SequenceConstruct", ["a", "b"], ["s"])
    one = node("Constant", [], ["one"], value=numpy_helper.from_array(np.array(1)))
    inputs = {"a": real(2, 3), "b": real(2, 3)}
    return [
        of_nodes(
            "a sequence, joined",
            [made, node("ConcatFromSequence", ["s"], ["y"], axis=1)],
            inputs,
            ["y"],
        ),
        of_nodes(
            "an element of a sequence",
            [one, made, node("SequenceAt", ["s", "one"], ["y"])],
            inputs,
            ["y"],
        ),
        of_nodes(
            "a sequence without an element",
            [
                one,
                made,
                node("SequenceErase", ["s", "one"], ["t"]),
                node("ConcatFromSequence", ["t"], ["y"], axis=0),
            ],
            inputs,
            ["y"],
        ),
        of_nodes(
            "the length of a sequence",
            [
                node("SequenceEmpty", [], ["none"]),
                node("SequenceInsert", ["none", "a"], ["s"]),
                node("SequenceLength", ["s"], ["y"]),
            ],
            {"a": real(2, 3)},
            ["y"],
        ),
        of_nodes(
            "an optional",
            [node("Optional", ["a"], ["o"]), node("OptionalGetElement", ["o"], ["y"])],
            {"a": real(2, 3)},
            ["y"],
        ),
    ]


def as_real(sample: Sample) -> Sample:
    """The sample with reals for the whole numbers of inputs that onnx calls differentiable."""
    schema = schema_of(sample)
    if schema is None:
        return sample
    letters = {
        i.type_str
        for i in schema.inputs
        if i.differentiation_category == DIFFERENTIABLE and REAL in types_of(schema, i.type_str)
    }
    inputs = dict(sample.inputs)
    for i, name in enumerate(sample.node.input):
        x = inputs.get(name)
        is_whole = isinstance(x, np.ndarray) and x.dtype.kind in "iu"
        if is_whole and formal(schema.inputs, i).type_str in letters:
            inputs[name] = x.astype(np.float32)
    return Sample(sample.name, sample.operators, sample.model, inputs)


DIFFERENTIABLE = onnx.defs.OpSchema.DifferentiationCategory.Differentiable


def schema_of(sample: Sample) -> onnx.defs.OpSchema | None:
    """What onnx says of the first operator of a sample; None where it does not know it."""
    domain, op = sample.operators[0]
    try:
        return onnx.defs.get_schema(op, sample.opset, domain)
    except onnx.defs.SchemaError:
        return None


def formal(formals: Sequence[Any], i: int) -> Any:
    """The parameter that the i-th argument is for; the last may take several."""
    return formals[min(i, len(formals) - 1)]


def types_of(schema: onnx.defs.OpSchema, letter: str) -> Sequence[str]:
    """The types that a letter of a schema may stand for."""
    found = [c for c in schema.type_constraints if c.type_param_str == letter]
    return found[0].allowed_type_strs if found else [letter]
