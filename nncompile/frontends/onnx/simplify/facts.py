"""What is known of the tensors of a file before it runs: types, numbers, and sizes of inputs."""

from __future__ import annotations

import math

import onnx

from nncompile.frontends.onnx import entries as entries  # fills the table
from nncompile.frontends.onnx.equal_sizes import needed, ordered
from nncompile.frontends.onnx.importing import Importer
from nncompile.frontends.onnx.inputs import leaves_of_file
from nncompile.frontends.onnx.refusals import Refused
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
    names = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim}
    while True:
        importer = Importer(model, file, directory, training=False)
        leaves, environment = leaves_of_file(importer, model.graph, {}, static)
        for tensor in model.graph.initializer:
            try:
                environment[tensor.name] = _stored(tensor, directory)
            except Refused:
                continue  # of an element type that there is none of here
        importer.nodes(model.graph.node, environment, {}, importer.opsets)
        sizes = [s for s in ordered({n: v.type for n, v in leaves.items()}) if str(s) in names]
        pairs = needed(importer.refusals, sizes, repeats=False)
        found = {str(s): n for s, n in pairs if isinstance(n, int)}
        if not found.keys() - static.keys():
            return {name: x for name, x in environment.items() if isinstance(x, Tensor)}
        static |= found


def _stored(tensor: onnx.TensorProto, directory: str) -> Tensor:
    dtype = dtype_from(tensor.data_type)
    if math.prod(tensor.dims) <= (_WEIGHTS if dtype.is_float else _NUMBERS):
        return Tensor.of_numbers(array_of(tensor, directory))
    return Tensor.of(Input(tensor.name, Type(dtype, tuple(tensor.dims)))())
