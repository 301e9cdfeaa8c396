"""Nodes on arrays: samples of an operator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from nncompile.frontends.onnx.refusals import Refused
from tests.onnx_cases.running import data_of

ML = "ai.onnx.ml"
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
