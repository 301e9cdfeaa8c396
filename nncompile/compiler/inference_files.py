"""Files of inference models: their graph with the weights in it, or beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.backends.onnx import check, from_bytes, pieces, to_model, without_weights, write
from nncompile.backends.optional import torch_backend
from nncompile.compiler.companions import companion, save_beside
from nncompile.compiler.compile import CompiledModel
from nncompile.compiler.stages import Target
from nncompile.compiler.targets import REPOSITORIES, TORCH_TARGETS
from nncompile.compiler.weights import ParameterSet, Path_, weights_of
from nncompile.diagnostics.errors import BackendError, FeedError, ModelError
from nncompile.ir.graph import Graph
from nncompile.ir.types import Array, f16
from nncompile.ops.quantization.linear import Dequantize
from nncompile.passes.integer_forms import integer_forms
from nncompile.passes.mixed_precision import mixed_precision
from nncompile.passes.normalization_folding import fold_normalization
from nncompile.passes.strip_annotations import release
from nncompile.passes.weight_folding import bake
from nncompile.program.model import Model
from nncompile.program.precision import precision_name
from nncompile.program.rows import rows_apart
from nncompile.runtime import check_feeds, write_atomically
from nncompile.runtime.external_data import WEIGHTS
from nncompile.runtime.feeds import ports_of
from nncompile.runtime.quantization import quantized, weights_of_4_bits
from nncompile.runtime.tensor_files import external_tensors, weights_path
from nncompile.runtime.tensor_header import content_id

PRECISIONS = ("f32", "f16", "int8", "int4")
QUANTIZING = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"),
    )
)
"""The operators of quantized ONNX files."""
BATCH = 64  # examples that ranges are measured on at a time
LIMIT = 2**31 - 2**20
"""The bytes of weights above which a model does not fit in one protobuf message, with room for
its graph."""


@dataclass(frozen=True)
class Stored:
    """How an inference file stores its weights and computes with them: see `export`."""

    precision: str
    calibration: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None
    skip: tuple[str, ...]

    @classmethod
    def of(
        cls,
        precision: str,
        calibration: Any,
        skip: str | Sequence[str],
        to: str,
        training_info: bool = False,
    ) -> Stored:
        """The options as they were given. Raises `ModelError` for an unknown precision, and for
        options that another target or precision has not."""
        name = precision_name(precision, PRECISIONS)
        if name != "f32" and (training_info or to not in ("onnx", "ort", *REPOSITORIES)):
            other = "a file with training_info" if training_info else to
            raise ModelError(
                f"precision {name} is of the target onnx, not of {other}",
                hint="the precision of a training step is that of its recipe: "
                "training(…, precision='bf16')",
            )
        if calibration is not None and name != "int8":
            raise ModelError(
                f"calibration is for precision int8, not for {name}",
                hint="leave it out, or precision='int8' (--precision int8)",
            )
        patterns = (skip,) if isinstance(skip, str) else tuple(skip)
        if patterns and name not in ("int8", "int4"):
            raise ModelError(f"skip is for precisions int8 and int4, not for {name}")
        return cls(name, calibration, patterns)

    def quantized(self, content: bytes, model: Model) -> bytes:
        """The file of fewer bits that is made of a float32 one."""
        proto = from_bytes(content)
        if self.precision == "int4":
            return bytes(weights_of_4_bits(proto, self.skip).SerializeToString())
        batches = None
        if self.calibration is not None:
            batches = batches_of(model, model.inference().leaves.keys(), self.calibration)
        return bytes(quantized(proto, batches, self.skip).SerializeToString())


def batches_of(
    model: Model,
    names: Collection[str],
    data: Mapping[str, Any] | Iterable[Mapping[str, Any]],
) -> list[dict[str, Array]]:
    """Arrays of examples, or several batches of them, as batches of at most `BATCH` of the inputs
    with these names alone. Raises `FeedError` for what does not fit."""
    ports = ports_of({n: v for n, v in model.inputs.items() if n in names})
    batches = []
    for given in batches_given(data):
        arrays = check_feeds(ports, {n: x for n, x in given.items() if n in names})
        count = examples_in(model, arrays)
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            batches.append({n: x[rows] if n in model.cut else x for n, x in arrays.items()})
    return batches


def batches_given(
    data: Mapping[str, Any] | Iterable[Mapping[str, Any]],
) -> list[Mapping[str, Any]]:
    """One batch or several as a list. Raises `FeedError` for what is no arrays by names."""
    several = [data] if isinstance(data, Mapping) else list(data)
    for given in several:
        if not isinstance(given, Mapping):
            raise FeedError(
                f"data are arrays by the names of the inputs, got {type(given).__name__}",
                hint='{"image": images}, or a list of such batches',
            )
    return several


def examples_in(model: Model, batch: Mapping[str, Array]) -> int:
    """The number of examples in a batch; one where the model has no batches."""
    return next((len(batch[name]) for name in model.cut if name in batch), 1)


def export_model(
    compiled: CompiledModel,
    path: Path,
    to: str,
    parameters: ParameterSet | None,
    external_data: bool | Path_ | None,
    seed: int,
    stored: Stored,
) -> tuple[Path, ...]:
    """Writes an inference model, and the file of its weights where these lie beside it."""
    model, opset = compiled.source, compiled.opset
    if to in TORCH_TARGETS and external_data:
        raise ModelError(f"{TORCH_TARGETS[to]} holds its weights", hint="leave external_data out")
    if stored.precision != "f32":
        return (_export_stored(compiled, path, parameters, external_data, seed, stored),)
    if isinstance(external_data, bool | None):
        graph, weights = _with_weights(compiled, parameters, seed)
        if to == "onnx" and not external_data and _size(weights) <= LIMIT:
            return (_export_whole(compiled, path, graph, weights),)
        graph = compiled.optimized(model.name, graph)
        weights = {name: x for name, x in weights.items() if name in graph.leaves}
    else:  # weights that have a place of their own stay as they are
        graph = compiled.graph
        weights = weights_of(model, graph, parameters, seed)
    if to in TORCH_TARGETS:
        backend = torch_backend()
        serialize = {"torchscript": backend.to_bytes, "pt2": backend.exported_to_bytes}[to]
        return (write_atomically(path, bytes(serialize(graph, weights))),)
    if external_data is None:
        external_data = _size(weights) > LIMIT
    if external_data is False:
        check_size(_size(weights), "external_data=True writes them beside it")
        return (_export_whole(compiled, path, graph, weights),)

    def bound(file: Path, directory: Path) -> bytes:
        """The model in `directory`, of the weights in `file` and of no others."""
        tensors = external_tensors(file, directory, weights)
        location = next((tensor.location for tensor in tensors.values()), None)
        about = {WEIGHTS: json.dumps({location: content_id(file)})} if location else {}
        proto = to_model(graph, opset, tensors, {**model.metadata, **rows_apart(graph), **about})
        return bytes(proto.SerializeToString())

    # Weights that lie elsewhere are not there for the checker, so it sees them as inputs.
    check(to_model(graph, opset))
    if external_data is not True:
        return (write_atomically(path, bound(Path(external_data), path.parent)),)
    with companion(path, weights_path(path), "weights") as (model_file, file):
        save_beside(file, weights, model, "weights")
        write_atomically(model_file, bound(file, file.parent))
    return weights_path(path), path


def check_size(size: int, hint: str) -> None:
    """Raises `BackendError` for weights that one file does not hold."""
    if size > LIMIT:
        raise BackendError(
            f"{size:,} bytes of weights do not fit in one ONNX file, which holds {LIMIT:,}",
            hint=hint,
        )


def _size(weights: Mapping[str, Array]) -> int:
    return sum(x.nbytes for x in weights.values())


def _export_stored(
    compiled: CompiledModel,
    path: Path,
    parameters: ParameterSet | None,
    external_data: bool | Path_ | None,
    seed: int,
    stored: Stored,
) -> Path:
    """Writes one file whose weights have fewer bits."""
    if external_data:
        raise ModelError(
            f"a file of {stored.precision} holds its weights", hint="leave external_data out"
        )
    if is_quantized(compiled.source.inference()):
        raise ModelError(
            f"{compiled.source.name} is quantized already",
            hint="leave precision out, or export the float32 model that it was made of",
        )
    if stored.precision == "f16":
        narrow = replace(compiled, halves=True)
        graph, weights = _with_weights(narrow, parameters, seed, in_halves)
        _check_range(weights)
        return _export_whole(narrow, path, graph, weights)
    graph, weights = _with_weights(compiled, parameters, seed)
    check_size(_size(weights), "quantize a smaller model")
    content = b"".join(map(bytes, pieces(*_whole(compiled, graph, weights))))
    with compiled.report.stage("quantization"):
        return write_atomically(path, stored.quantized(content, compiled.source))


def is_quantized(graph: Graph) -> bool:
    """Whether a graph computes with numbers that are rounded to few bits, by its own ops or by
    those of the file that it was loaded from."""
    places = map(graph.locations.location, graph.nodes)
    called = {place.call for place in places if place is not None}
    return not called.isdisjoint(QUANTIZING) or any(
        isinstance(v.op, Dequantize) for v in graph.nodes
    )


def in_halves(graph: Graph) -> Graph:
    """The inference graph with products and tables of weights in f16. Raises `ModelError` where
    there are none in float32."""
    result = mixed_precision(graph, f16, tables=True)
    if result is graph:
        raise ModelError(
            f"{graph.name} has no float32 matrix product, convolution or table to store in f16",
            hint="leave precision out",
        )
    return result


def _check_range(weights: Mapping[str, Array]) -> None:
    for name, x in weights.items():
        if x.dtype != np.float16 or np.isfinite(x).all():
            continue
        if np.isnan(x).any():
            raise ModelError(f"the weight {name} holds NaN", hint="export an earlier checkpoint")
        raise ModelError(
            f"the weight {name} has numbers beyond 65504, which f16 does not hold",
            hint="leave precision out, or precision='int8'",
        )


def _export_whole(
    compiled: CompiledModel, path: Path, graph: Graph, weights: Mapping[str, Array]
) -> Path:
    """Writes one file of an inference graph, which may be compiled already, and its weights."""
    proto, needed = _whole(compiled, graph, weights)
    return write_atomically(path, lambda file: write(proto, file, needed))


def _whole(
    compiled: CompiledModel, graph: Graph, weights: Mapping[str, Array]
) -> tuple[Any, dict[str, Array]]:
    """The model of an inference graph, whose weights have no elements, and these."""
    model = compiled.source
    metadata = {**model.metadata, **rows_apart(graph)}
    target = Target(
        model.name,
        graph,
        lambda: compiled.optimized(model.name, graph),
        metadata,
        lambda _: metadata,
        weights=tuple(weights),
    )
    proto = from_bytes(compiled.made(target).content)
    names = {tensor.name for tensor in proto.graph.initializer}
    needed = {name: x for name, x in weights.items() if name in names}
    with compiled.report.stage("checking"):
        check(without_weights(proto, needed))
    return proto, needed


def _with_weights(
    compiled: CompiledModel,
    parameters: ParameterSet | None,
    seed: int,
    change: Callable[[Graph], Graph] = lambda graph: graph,
) -> tuple[Graph, dict[str, Array]]:
    """The inference graph before the passes, changed so, and its weights. All that follows from
    weights alone is computed: batch normalization is part of the products before it."""
    model = compiled.source
    with compiled.report.stage("folding"):
        graph = change(integer_forms(fold_normalization(release(model.inference()))))
        return bake(graph, weights_of(model, graph, parameters, seed))
