"""A file simplified: the same inputs, outputs and numbers of fewer nodes."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path

import onnx

from nncompile.backends.onnx.protos import replace_nodes
from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.reading import Path_
from nncompile.frontends.onnx.reading import read_model
from nncompile.frontends.onnx.simplify import branches as branches  # declares rules
from nncompile.frontends.onnx.simplify import chains as chains
from nncompile.frontends.onnx.simplify import channels as channels
from nncompile.frontends.onnx.simplify import products as products
from nncompile.frontends.onnx.simplify import shapes as shapes
from nncompile.frontends.onnx.simplify import spelled as spelled
from nncompile.frontends.onnx.simplify import trivial as trivial
from nncompile.frontends.onnx.simplify.common import common, dead
from nncompile.frontends.onnx.simplify.facts import facts_of
from nncompile.frontends.onnx.simplify.folding import (
    constants_are_folded,
    constants_are_stored,
    equal_sizes_are_one,
    sizes_are_stored,
)
from nncompile.frontends.onnx.simplify.rules import apply_rules
from nncompile.frontends.onnx.simplify.work import Work
from nncompile.runtime.session import Session

_ROUNDS = 32  # that change something; five are usual
_OWN_INITIALIZERS = 4  # the version of files whose weights need not be inputs


def simplified(path: Path_, is_exact: bool = False) -> onnx.ModelProto:
    """The model in a file with fewer nodes: inputs, outputs, metadata, and the names of nodes and
    tensors that are left stay. With `is_exact`, no number is rounded in another way.

    Raises what `read_model` does, and `BackendError` for a file that neither onnxruntime nor the
    checker of onnx takes.
    """
    model = read_model(path)
    _check(path)
    directory = os.fspath(Path(path).parent)
    _without_weights_as_inputs(model)
    work = Work(model, facts_of(model, os.path.basename(os.fspath(path)), directory), directory)
    dead(work)
    constants_are_stored(work)
    for _ in range(_ROUNDS):
        before = work.changes
        sizes_are_stored(work)
        constants_are_folded(work)
        equal_sizes_are_one(work)
        dead(work)
        apply_rules(work, is_exact)
        dead(work)
        common(work)
        dead(work)
        if work.changes == before:
            break
    return _written(work)


def _check(path: Path_) -> None:
    """The rules are for valid files: their sizes fit together, and their nodes are in order."""
    try:
        Session(path, threads=1, optimization="none")
    except BackendError:
        try:  # one of operators that onnxruntime has not
            onnx.checker.check_model(os.fspath(path), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError):
            pass
        else:
            return
        raise


def _without_weights_as_inputs(model: onnx.ModelProto) -> None:
    """Of a file of a version before weights need not be inputs, these are inputs no more, as they
    are none for runtimes."""
    if model.ir_version >= _OWN_INITIALIZERS:
        return
    model.ir_version = _OWN_INITIALIZERS
    weights = {t.name for t in model.graph.initializer}
    kept = [i for i in model.graph.input if i.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _written(work: Work) -> onnx.ModelProto:
    model, graph = work.model, work.model.graph
    nodes = [item.proto for item in work.live()]
    made = {name for node in nodes for name in node.output}
    infos = [deepcopy(info) for info in graph.value_info if info.name in made]
    replace_nodes(graph, nodes)
    del graph.value_info[:]
    graph.value_info.extend(infos)
    stored = {t.name for t in graph.initializer}
    changed = [t for name, t in work.tensors.items() if name not in stored]
    for position in reversed(range(len(graph.initializer))):
        tensor = graph.initializer[position]
        if tensor.name not in work.tensors:
            del graph.initializer[position]
        elif work.tensors[tensor.name] is not tensor:
            tensor.CopyFrom(work.tensors[tensor.name])
    graph.initializer.extend(changed)
    return model
