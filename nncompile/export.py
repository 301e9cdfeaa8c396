"""Files for other programs: the inference model, the training step and its halves, TorchScript."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.backends.onnx import OPSET, ExternalTensor, check, to_model
from nncompile.compiler import CompiledModel, Report, compile_model, compile_step
from nncompile.errors import BackendError, CheckpointError, FileError, ModelError
from nncompile.graph import Graph
from nncompile.model import Model, did_you_mean
from nncompile.passes import Observer
from nncompile.recipe import Recipe
from nncompile.runtime import save_state, write_atomically
from nncompile.step import Step, initial_values
from nncompile.types import DTYPES

Array = np.ndarray[Any, np.dtype[Any]]
Path_ = str | os.PathLike[str]

TARGETS = ("onnx", "step", "gradient", "update", "torchscript")
LIMIT = 2**31 - 2**20
"""The bytes of weights above which a model does not fit in one protobuf message, with room for
its graph."""


def export(
    source: Model | Recipe,
    path: Path_,
    to: str = "onnx",
    params: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    external_data: bool | Path_ | None = None,
    seed: int | None = None,
    without: Collection[str] = (),
    observe: Observer | None = None,
    report: Report | None = None,
) -> tuple[Path, ...]:
    """Writes a model or a recipe to `path` and returns the files written, each whole or not at
    all.

    `to`: "onnx" is the inference model with its weights; "step" the training step, with its first
    state beside it (`OUT.state.safetensors` for `OUT.onnx`); "gradient" and "update" its two
    halves; "torchscript" the inference model for `torch.jit.load`.

    `params` are the weights (and states) by path, those of a trainer as a rule; what they do not
    name is drawn from `seed` (that of the recipe, or 0). `external_data` moves the weights of an
    ONNX model out of it: True writes them to `OUT.safetensors` beside it, a path names a
    `.safetensors` file that has them already, None decides by their size.

    `without`, `observe` and `report` are those of `compile_step`.

    Raises `ModelError` for an unknown target or parameter and for a step without a recipe,
    `BackendError` for what the target cannot express, `FileError` for what cannot be written.
    """
    if to not in TARGETS:
        raise ModelError(f"cannot export to {to!r}", hint=f"choose one of {', '.join(TARGETS)}")
    if to in ("onnx", "torchscript"):
        model = source.model if isinstance(source, Recipe) else source
        if seed is None:
            seed = source.seed if isinstance(source, Recipe) else 0
        compiled = compile_model(model, without, opset, observe, report)
        return _export_model(compiled, Path(path), to, params, external_data, seed)
    if isinstance(source, Model):
        raise ModelError(
            f"{to} of model {source.name} needs a recipe",
            hint="export(training(model, optimizer=…), path, to=…)",
        )
    if external_data:
        raise ModelError(
            f"{to} has no weights in it, its state is a file of its own",
            hint="leave external_data out",
        )
    step = compile_step(source, without, opset, observe, report)
    proto = {
        "step": lambda: step.step_model,
        "gradient": lambda: step.gradient_model,
        "update": lambda: step.update_model,
    }[to]()
    with step.report.stage("checking"):
        check(proto)
    state = _first_state(step.source, params, seed) if to == "step" else None
    written = [write_atomically(path, proto.SerializeToString())]
    if state is not None:
        metadata = {"nncompile.model": source.model.name}
        written.insert(0, save_state(state_path(path), state, metadata))
    return tuple(written)


def state_path(path: Path_) -> Path:
    """Where the first state of the step at `path` is: `OUT.state.safetensors` for `OUT.onnx`."""
    return Path(path).with_suffix(".state.safetensors")


def _export_model(
    compiled: CompiledModel,
    path: Path,
    to: str,
    params: Mapping[str, Any] | None,
    external_data: bool | Path_ | None,
    seed: int,
) -> tuple[Path, ...]:
    model, graph, opset, report = compiled.source, compiled.graph, compiled.opset, compiled.report
    weights = _weights(model, graph, params, seed)
    if to == "torchscript":
        if external_data:
            raise ModelError("TorchScript holds its weights", hint="leave external_data out")
        return (write_atomically(path, _torchscript(graph, weights)),)
    size = sum(x.nbytes for x in weights.values())
    if external_data is None:
        external_data = size > LIMIT
    if external_data is False:
        if size > LIMIT:
            raise BackendError(
                f"{size:,} bytes of weights do not fit in one ONNX file, which holds {LIMIT:,}",
                hint="external_data=True writes them beside it",
            )
        with report.stage("lowering"):
            proto = to_model(graph, opset, weights)
        report.nodes[f"{model.name}, ONNX"] = len(proto.graph.node)
        with report.stage("checking"):
            check(proto)
        return (write_atomically(path, proto.SerializeToString()),)
    # Weights that lie elsewhere are not there for the checker, so it sees them as inputs.
    check(to_model(graph, opset))
    if external_data is True:
        file = path.with_suffix(".safetensors")
        save_state(file, weights, {"nncompile.model": model.name})
        written = [file]
    else:
        file, written = Path(external_data), []
    proto = to_model(graph, opset, external_tensors(file, path.parent, weights))
    return (*written, write_atomically(path, proto.SerializeToString()))


def external_tensors(
    file: Path, directory: Path, weights: Mapping[str, Array]
) -> dict[str, ExternalTensor]:
    """Where each of the weights lies in a `.safetensors` file, for a model in `directory`.

    Raises `FileError` where the file cannot be read, `CheckpointError` where it is no such file
    or a weight in it is missing or of another type, `BackendError` where it is not below
    `directory`, as ONNX demands.
    """
    try:
        location = file.resolve().relative_to(directory.resolve()).as_posix()
    except ValueError:
        raise BackendError(
            f"the weights {file} must be in the directory of the model, {directory}, or below it",
            hint="ONNX finds weights by a path that starts there",
        ) from None
    start, header = _header(file)
    by_name = {_SAFETENSORS[d.name]: d for d in DTYPES}
    found: dict[str, ExternalTensor] = {}
    for name, x in weights.items():
        entry = header.get(name)
        shape = tuple(entry["shape"]) if entry else ()
        dtype = by_name.get(entry["dtype"]) if entry else None
        if entry is None or dtype is None or dtype.numpy != x.dtype or shape != x.shape:
            got = f"{entry['dtype']}{entry['shape']}" if entry else "nothing"
            raise CheckpointError(
                f"{file} does not hold the weight {name}",
                rows=[("expected", f"{x.dtype}{list(x.shape)}"), ("got", got)],
            )
        first, end = entry["data_offsets"]
        found[name] = ExternalTensor(dtype, shape, location, start + first, end - first)
    return found


_SAFETENSORS = {
    "bool": "BOOL",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "float32": "F32",
    "float64": "F64",
}


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where the data of a `.safetensors` file begin, and what is said of each tensor."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            text = opened.read(min(length, file.stat().st_size))
        header = json.loads(text)
        if len(text) == length and isinstance(header, dict):
            return 8 + length, header
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError:
        pass  # told below, as the other ways of not being such a file are
    raise CheckpointError(f"{file} is not a safetensors file", hint="it may be truncated")


def _weights(
    model: Model, graph: Graph, params: Mapping[str, Any] | None, seed: int
) -> dict[str, Array]:
    """The parameters and states that the graph needs: those given, the others drawn."""
    needed = {n: v for n, v in graph.leaves.items() if v.op.kind != "input"}  # type: ignore[attr-defined]
    given = dict(params or {})
    random = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    if all(name in given for name in needed if name not in random):
        drawn: dict[str, Array] = {}
    else:
        drawn = initial_values(model, seed)
    known = {**needed, **model.parameters, **model.states, **random}
    for name in given:
        # A trainer's whole state may be given: the slots of parameters are not needed here.
        if name not in known and not any(name.startswith(f"{path}.") for path in model.parameters):
            raise ModelError(
                f"model {model.name} has no parameter {name!r}",
                rows=[(path, str(leaf.type)) for path, leaf in model.parameters.items()],
                hint=did_you_mean(name, model.parameters),
            )
    found = {**random, **drawn, **given}
    return {name: _fitted(name, found[name], leaf.type) for name, leaf in needed.items()}


def _first_state(
    step: Step, params: Mapping[str, Any] | None, seed: int | None
) -> dict[str, Array]:
    state = step.initial(seed)
    for name, x in (params or {}).items():
        if name not in state:
            raise ModelError(
                f"the step of model {step.model.name} has no state {name!r}",
                rows=[("state", path, str(type_)) for path, type_ in step.state.items()],
                hint=did_you_mean(name, state),
            )
        state[name] = _fitted(name, x, step.state[name])
    return state


def _fitted(name: str, x: Any, type_: Any) -> Array:
    array = np.asarray(x)
    if array.dtype != type_.dtype.numpy or array.shape != type_.shape:
        raise ModelError(
            f"the weight {name} has another type than the model's",
            rows=[("expected", str(type_)), ("got", f"{array.dtype}{list(array.shape)}")],
        )
    return array


def _torchscript(graph: Graph, weights: Mapping[str, Array]) -> bytes:
    # torch is an extra, takes seconds to import, and is needed for this target alone.
    try:
        backend = importlib.import_module("nncompile.backends.torchscript")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise BackendError(
            "the TorchScript backend needs torch, which is not installed",
            hint="pip install 'nncompile[torch]'",
        ) from None
    return bytes(backend.to_bytes(graph, weights))
