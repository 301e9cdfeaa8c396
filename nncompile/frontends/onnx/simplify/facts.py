"""What is known of the tensors of a file before it runs: types, numbers, and sizes of inputs."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import sympy as sp

from nncompile.frontends.onnx import entries as entries  # fills the table
from nncompile.frontends.onnx.importing import Importer
from nncompile.frontends.onnx.inputs import leaves_of_file
from nncompile.frontends.onnx.refusals import Refusal, Refused
from nncompile.frontends.onnx.tensors import Tensor, array_of, dtype_from
from nncompile.ir.graph import Input
from nncompile.ir.types import Type

_NUMBERS = 4096  # elements of a constant whose numbers are looked at
_WEIGHTS = 16  # of floats


def facts_of(model: onnx.ModelProto, file: str, directory: str) -> dict[str, Tensor]:
    """The tensors of the main graph by name, as far as its nodes can be imported. Weights are not
    evaluated, only what shapes and conditions are made of.

    A size that a node of the file needs to be some number, as where a file was written for one
    length of its input, is that number: with another the file does not run."""
    static: dict[str, int] = {}
    while True:
        importer = Importer(model, file, directory, training=False)
        _, environment = leaves_of_file(importer, model.graph, {}, static)
        for tensor in model.graph.initializer:
            try:
                environment[tensor.name] = _stored(tensor, directory)
            except Refused:
                continue  # of an element type that there is none of here
        importer.nodes(model.graph.node, environment, {}, importer.opsets)
        found = _needed_sizes(model.graph, importer.refusals)
        if not found.keys() - static.keys():
            return {name: x for name, x in environment.items() if isinstance(x, Tensor)}
        static |= found


def _needed_sizes(graph: onnx.GraphProto, refusals: Sequence[Refusal]) -> dict[str, int]:
    """Sizes by name that nodes need to be numbers."""
    names = {d.dim_param for i in graph.input for d in i.type.tensor_type.shape.dim}
    found = {}
    for refusal in refusals:
        pair = getattr(refusal.cause, "undecided", None)
        if pair is None:
            continue
        ratio = sp.cancel(sp.sympify(pair[0]) / pair[1])
        above, below = sp.fraction(ratio)
        for size, number in ((above, below), (below, above)):
            coefficient, symbol = size.as_coeff_Mul()
            if symbol.is_Symbol and number.is_Integer and str(symbol) in names:
                exact = number / coefficient
                if exact.is_Integer and exact > 0:
                    found[str(symbol)] = int(exact)
    return found


def _stored(tensor: onnx.TensorProto, directory: str) -> Tensor:
    dtype = dtype_from(tensor.data_type)
    count = 1
    for size in tensor.dims:
        count *= size
    if count <= (_WEIGHTS if dtype.is_float else _NUMBERS):
        return Tensor.of_numbers(array_of(tensor, directory))
    return Tensor.of(Input(tensor.name, Type(dtype, tuple(tensor.dims)))())
