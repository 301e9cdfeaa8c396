"""A directory that trains in a browser and in Node: the files of a step, and what runs them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from nncompile.backends.onnx import check
from nncompile.compiler.compile import CompiledModel, CompiledStep
from nncompile.diagnostics.errors import BackendError, FileError, ModelError, ShapeError
from nncompile.ir.types import Array, bf16
from nncompile.runtime import Port, check_feeds, save_state, written_together
from nncompile.runtime.feeds import ports_of
from nncompile.runtime.origin import origin_of

MANIFEST = "manifest.json"
"""The file that says which files there are, what goes into them and what comes out."""

_STATE, _DATA = "state.safetensors", "data.safetensors"
_PROGRAM = ("nncompile.mjs", "index.html", "package.json")  # the same for all networks


def export_web(
    step: CompiledStep,
    directory: Path,
    state: Mapping[str, Array],
    sample: Mapping[str, Any] | None = None,
) -> tuple[Path, ...]:
    """Writes a step, the step for several batches in one run, the model, their `state` and a
    `sample` of data to a directory, with the module and the page that train by them. Gives the
    files.

    Raises `FileError` where the directory has other files, `FeedError` for a sample that does not
    fit the inputs, `BackendError` for element types that JavaScript has no arrays of.
    """
    if directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST).is_file():
        raise FileError(
            f"{directory} holds files already, and none of them is {MANIFEST}: no export wrote it",
            hint="name a new directory",
        )
    source, ports = step.source, ports_of(step.source.model.inputs)
    graphs = source.step, source.model.inference()
    for name, value in {n: x for g in graphs for n, x in {**g.leaves, **g.outputs}.items()}.items():
        if value.type.dtype is bf16:
            raise BackendError(f"{name} is {value.type}: JavaScript has no arrays of bfloat16")
    data = {} if sample is None else check_feeds(ports, sample)
    contents = _contents(step)
    for content in contents.values():
        with step.report.stage("checking"):
            check(content)
    about = _manifest(step, ports, contents, bool(data))
    program = {name: _program(name) for name in _PROGRAM}
    with written_together(directory) as place:
        for name, content in contents.items():
            (place / f"{name}.onnx").write_bytes(content)
        save_state(place / _STATE, state, origin_of(source))
        if data:
            save_state(place / _DATA, data)
        for name, text in {MANIFEST: f"{about}\n", **program}.items():
            (place / name).write_text(text, encoding="utf-8")
        written = sorted(file.name for file in place.iterdir())
    return tuple(directory / name for name in written)


def _contents(step: CompiledStep) -> dict[str, bytes]:
    """The ONNX files by name: the model takes the weights as inputs, as they change."""
    model = CompiledModel(step.without, step.opset, None, step.report, source=step.source.model)
    contents = {"step": step.content("step"), "model": model.content}
    # Without data to go through, or with sizes that depend on them, there is no such loop.
    with contextlib.suppress(ModelError, ShapeError):
        contents["steps"] = step.content("steps")
    return contents


def _manifest(
    step: CompiledStep, ports: list[Port], contents: Mapping[str, bytes], has_data: bool
) -> str:
    """What other programs need to know of the files, as JSON."""
    source = step.source
    graph, model = source.step, source.model
    files = {name: f"{name}.onnx" for name in contents} | {"state": _STATE}
    about = {
        "model": model.name,
        "batch_size": int(source.recipe.batch_size),
        "examples": None if model.examples is None else str(model.examples),
        "files": files | ({"data": _DATA} if has_data else {}),
        "inputs": {p.name: {"type": p.dtype.name, "shape": list(p.shape)} for p in ports},
        "predict": [name for name in model.inputs if name in model.inference().leaves],
        "minimize": source.recipe.losses,
        "metrics": [name for name in model.metrics if name in graph.outputs],
        "state": source.state_map,
    }
    return json.dumps(about, indent=1, ensure_ascii=False)


def _program(name: str) -> str:
    return (files("nncompile") / "templates" / "web" / name).read_text(encoding="utf-8")
