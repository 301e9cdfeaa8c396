"""Estimators and pipelines as ONNX models."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper
from sklearn.pipeline import Pipeline

from nncompile.backends.onnx import OPSET
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.files import write_atomically
from nncompile.ir.types import Array
from nncompile.train.trainer import Trainer


def to_onnx(
    estimator: Any, X: Any = None, path: str | os.PathLike[str] | None = None
) -> onnx.ModelProto:
    """A fitted estimator, pipeline or search as one ONNX model, also written to `path` where one
    is given.

    What stands before a `NeuralClassifier` or `NeuralRegressor` in a pipeline is converted by
    skl2onnx, for which `X` is an example of the data (an array, or a frame: then each column is an
    input of its own); the network follows in the same model. A classifier has the outputs `label`
    and `probabilities`, a regressor `prediction`.

    Raises `ModelError` for an estimator that does not end with one of these, and where `X` is
    missing, `CompileError` where skl2onnx is, `FileError` for a path that cannot be written.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    *before, (_, last) = getattr(estimator, "steps", [("", estimator)])
    before = [(name, step) for name, step in before if step is not None and step != "passthrough"]
    if not callable(getattr(last, "_proto", None)):
        raise ModelError(
            f"to_onnx takes a pipeline that ends with a network, got {type(last).__name__}",
            hint="skl2onnx.to_onnx(pipeline, X) converts those of scikit-learn alone",
        )
    proto: onnx.ModelProto = last.to_onnx()
    if before:
        if X is None:
            raise ModelError(
                "to_onnx needs an example of the data that the pipeline takes",
                hint="to_onnx(pipeline, X_train[:1])",
            )
        proto = _joined(_prepared(Pipeline(before), X), proto)
    if path is not None:
        write_atomically(Path(path), proto.SerializeToString())
    return proto


def exported(trainer: Trainer) -> onnx.ModelProto:
    """The inference model of a trainer."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "network.onnx")
        trainer.export(path)
        return onnx.load(path)


def classifier_proto(trainer: Trainer, classes: Array, multilabel: bool) -> onnx.ModelProto:
    """The inference model of a classifier, with the output `label` before `probabilities`: the
    classes themselves, text too."""
    proto = exported(trainer)
    graph = proto.graph
    if multilabel:
        half = numpy_helper.from_array(np.array(0.5, _dtype_of(graph.output[0])), "half")
        graph.initializer.append(half)
        graph.node.append(helper.make_node("Greater", ["probabilities", "half"], ["is_likely"]))
        to = onnx.TensorProto.INT64
        graph.node.append(helper.make_node("Cast", ["is_likely"], ["label"], to=to))
        label = helper.make_tensor_value_info("label", to, ["batch", len(classes)])
    else:
        table = _table(classes)
        graph.initializer.append(table)
        place = helper.make_node("ArgMax", ["probabilities"], ["place"], axis=1, keepdims=0)
        graph.node.append(place)
        graph.node.append(helper.make_node("Gather", ["classes", "place"], ["label"]))
        label = helper.make_tensor_value_info("label", table.data_type, ["batch"])
    graph.output.insert(0, label)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def _table(classes: Array) -> onnx.TensorProto:
    """The classes as a tensor: text, truth values, integers or floats."""
    if classes.dtype.kind in "OUS":
        text = np.array([str(c) for c in classes.tolist()], object)
        return numpy_helper.from_array(text, "classes")
    if classes.dtype.kind in "iu":
        classes = classes.astype(np.int64)
    return numpy_helper.from_array(np.ascontiguousarray(classes), "classes")


def _prepared(pipeline: Any, X: Any) -> onnx.ModelProto:
    """The steps before the network, by skl2onnx."""
    user, hint = "to_onnx of a pipeline", "pip install skl2onnx"
    skl2onnx = extra("skl2onnx", "skl2onnx", user, hint)
    example = X[:1]
    if hasattr(X, "columns"):
        converted = skl2onnx.to_onnx(pipeline, example, target_opset=OPSET)
    else:
        converted = skl2onnx.to_onnx(pipeline, np.asarray(example), target_opset=OPSET)
    proto: onnx.ModelProto = converted
    return proto


def _joined(before: onnx.ModelProto, network: onnx.ModelProto) -> onnx.ModelProto:
    """One model after the other: the first output of one is the input of the other, converted to
    its element type."""
    source, destination = before.graph.output[0], network.graph.input[0]
    name = source.name
    wanted = destination.type.tensor_type.elem_type
    if source.type.tensor_type.elem_type != wanted:
        before.graph.node.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=wanted))
        name = f"{name}_cast"
        source.name = name
        source.type.tensor_type.elem_type = wanted
    before.ir_version = network.ir_version = max(before.ir_version, network.ir_version)
    opsets = {o.domain: o.version for o in network.opset_import}
    for opset in before.opset_import:
        opset.version = opsets.get(opset.domain, opset.version)
    network = compose.add_prefix(network, "network_", rename_inputs=True, rename_outputs=False)
    merged = compose.merge_models(before, network, io_map=[(name, f"network_{destination.name}")])
    versions = {o.domain: o.version for o in merged.opset_import}
    del merged.opset_import[:]  # which has one twice where it is written in two ways
    merged.opset_import.extend(helper.make_opsetid(d, v) for d, v in versions.items())
    onnx.checker.check_model(merged, full_check=True)
    return merged


def _dtype_of(port: Any) -> Any:
    return helper.tensor_dtype_to_np_dtype(port.type.tensor_type.elem_type)
