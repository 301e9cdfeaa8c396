"""The inputs of a file and what of it its outputs need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from nncompile.backends.onnx.protos import needs, replace_nodes
from nncompile.diagnostics.errors import CompileError, ModelError, did_you_mean
from nncompile.frontends.onnx.checking import check_size
from nncompile.frontends.onnx.equal_sizes import Equal, assumptions, checked, with_equal
from nncompile.frontends.onnx.importing import Importer
from nncompile.frontends.onnx.naming import clean
from nncompile.frontends.onnx.refusals import Refusal, Refused
from nncompile.frontends.onnx.tensors import Tensor, declared_size, dtype_from
from nncompile.ir.dims import Dim, dim, symbol
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.program.model import RANDOM_STATE

_LISTED = 12  # tensors that an error lists


def _unknown(graph: onnx.GraphProto, wanted: str, file: str) -> ModelError:
    """Of a tensor that is not there: the last ones whose names, or whose operator's, are like it,
    or the last ones of all."""
    named = {
        name: f"{node.op_type} {node.name}".strip()
        for node in graph.node
        for name in node.output
        if name and node.op_type not in ("Constant", "Shape")
    }
    word = wanted.strip("/").lower()
    alike = [name for name, maker in named.items() if word in f"{name} {maker}".lower()]
    found = alike or [*named]
    rows = [(name, named[name]) for name in found[-_LISTED:]]
    if len(found) > _LISTED:
        rows.insert(0, ("...", f"{len(found) - _LISTED:,} before"))
    otherwise = "a part of a name, or an operator, lists those like it: outputs=['Relu']"
    hint = did_you_mean(wanted, named, f"outputs=[{alike[-1]!r}]" if alike else otherwise)
    return ModelError(f"{file} has no tensor {wanted!r}", rows=rows, hint=hint)


def cut(graph: onnx.GraphProto, outputs: Sequence[str], file: str) -> None:
    """Makes these tensors the outputs of the graph, and leaves out what they do not need."""
    if isinstance(outputs, str):
        raise ModelError(f"outputs must be names, got {outputs!r}", hint=f"outputs=[{outputs!r}]")
    makers = {o: node for node in graph.node for o in node.output if o}
    given = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    for wanted in outputs:
        if wanted not in makers and wanted not in given:
            raise _unknown(graph, wanted, file)
    needed: set[int] = set()
    waiting = [*outputs]
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            waiting += needs(node)
    kept = [node for node in graph.node if id(node) in needed]
    replace_nodes(graph, kept)
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)


class _Sizes:
    """The sizes of inputs by their names in the file, as the user renames or fixes them."""

    def __init__(self, renamed: Mapping[str, str], static: Mapping[str, int]) -> None:
        self.renamed = renamed
        self.static = static
        self.named: set[str] = set()

    def __call__(self, text: str) -> Dim:
        self.named.add(text)
        if text in self.static:
            return int(self.static[text])
        chosen = self.renamed.get(text, text)
        try:
            return dim(chosen)
        except CompileError:
            plain = re.sub(r"\W+", "_", chosen).strip("_") or "size"
            return symbol(plain if plain.isidentifier() else f"size_{plain}")


def leaves_of_file(
    importer: Importer,
    graph: onnx.GraphProto,
    sizes: Mapping[str, str],
    static: Mapping[str, int],
    equal: Sequence[Equal] = (),
) -> tuple[dict[str, Value], dict[str, Any]]:
    """The data of the model by name, and as tensors: the inputs of the graph that no initializer
    stands for. `equal` are sizes that are assumed to be others; the values of the inputs are such
    that this is checked. Raises `ModelError` for the name of a size that there is none of."""
    initialized = {t.name for t in graph.initializer}
    formals = [i for i in graph.input if i.name not in initialized]
    leaves: dict[str, Value] = {}
    types: dict[str, Type] = {}
    environment: dict[str, Any] = {}
    size = _Sizes(sizes, static)
    for formal in formals:
        path = formal.name if formal.name not in RANDOM_STATE else f"{formal.name}_input"
        try:
            declared = _declared(formal, len(formals) == 1, size)
            value = Input(path, with_equal(declared, equal))()
        except Refused as error:
            refusal = Refusal("input", 0, (), formal.name, error.reason)
            importer.refusals.append(refusal)
            environment[formal.name] = refusal
            continue
        leaves[path], types[path] = value, declared
        environment[formal.name] = Tensor.of(value)
    for option, given in (("sizes", sizes), ("static", static)):
        for text in given:
            if text not in size.named:
                raise ModelError(
                    f"{option}: no input of {importer.file} has a size called {text!r}",
                    rows=[(n, str(v.type)) for n, v in leaves.items()],
                    hint=did_you_mean(text, size.named),
                )
    for name, value in checked(leaves, types, equal).items():
        environment[name] = Tensor.of(value)
    for text in assumptions(types, equal):
        importer.note("assumptions", text)
    return leaves, environment


def _declared(formal: onnx.ValueInfoProto, alone: bool, size: _Sizes) -> Type:
    """The type of an input. A size without a name is called after the input and its axis; the first
    one of the only input `batch`."""
    tensor = formal.type.tensor_type
    kind = formal.type.WhichOneof("value")
    if kind != "tensor_type" or not tensor.HasField("shape"):
        raise Refused("its rank is not declared" if kind == "tensor_type" else f"it is a {kind}")
    stem = clean(formal.name).replace(".", "_")
    shape = []
    for axis, d in enumerate(tensor.shape.dim):
        place = f"{formal.name}[{axis}]"
        if place in size.renamed:
            shape.append(size(place))  # also where the file says a number
            continue
        shape.append(declared_size(d, "batch" if alone and not axis else f"{stem}_{axis}", size))
    declared = Type(dtype_from(tensor.elem_type), tuple(shape))
    check_size(declared)
    return declared
