"""An ONNX file, read and checked before anything of it is believed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs

from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.reading import Path_, mapped_file
from nncompile.frontends.onnx.apart import without_weights
from nncompile.runtime.external_data import check_external_data

_LARGEST = (1 << 31) - 1  # bytes of a message, as protobuf has it
_NODES = 1_000_000
_LONGEST = 4000  # characters of a name
_NEWEST = onnx.defs.onnx_opset_version()


def read_model(path: Path_) -> onnx.ModelProto:
    """The model in the file, without the weights that lie in other files beside it.

    Raises `FileError` for a file that cannot be read, `BackendError` for what is no ONNX model, an
    opset that is not known, and weights outside the directory of the file.
    """
    # Only what protobuf makes of it is in memory.
    with mapped_file(path, "model", _LARGEST, BackendError) as content:
        return _parsed(path, content)


@contextlib.contextmanager
def model_apart(path: Path_) -> Iterator[tuple[onnx.ModelProto, Mapping[str, memoryview]]]:
    """The model in the file without its large initializers, and their bytes by name as they lie on
    disk, as long as the block takes. Raises what `read_model` does."""
    with mapped_file(path, "model", _LARGEST, BackendError) as content:
        stripped, weights = without_weights(content)
        try:
            yield _parsed(path, stripped), weights
        finally:
            for view in weights.values():
                with contextlib.suppress(BufferError):  # of an error that holds an array of it
                    view.release()


def _parsed(path: Path_, content: bytes | memoryview) -> onnx.ModelProto:
    name = os.fspath(path)
    if not content:
        raise BackendError(f"{name} is not an ONNX model: it is empty")
    model = onnx.ModelProto()
    try:
        model.MergeFromString(content)
    except DecodeError:
        text = f"{name} is not an ONNX model: protobuf cannot read it"
        raise BackendError(text, hint=_other_format(path)) from None
    if not model.HasField("graph") or not (model.graph.output or model.graph.node):
        raise BackendError(
            f"{name} is not an ONNX model: it has no graph", hint=_other_format(path)
        )
    check_external_data(path)
    _check(model, name)
    return model


def _other_format(path: Path_) -> str | None:
    known = {".pt": "torch", ".pth": "torch", ".h5": "Keras", ".keras": "Keras"}
    kind = known.get(Path(path).suffix.lower())
    return None if kind is None else f"it looks like a file of {kind}: export it to ONNX there"


def _check(model: onnx.ModelProto, name: str) -> None:
    """Raises `BackendError` for what no node of the model could be to blame for."""
    if not model.graph.output:
        raise BackendError(f"{name}: the graph has no output")
    if not model.opset_import:
        raise BackendError(f"{name}: the model says no opset")
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not 1 <= opset.version <= _NEWEST:
            raise BackendError(
                f"{name}: opset {opset.version} is not known",
                rows=[("expected", f"1 to {_NEWEST}, those of onnx {onnx.__version__}")],
                hint="a newer onnx knows it: pip install -U onnx"
                if opset.version > _NEWEST else None,
            )  # fmt: skip
        if opset.version >= 1 << 31:
            raise BackendError(f"{name}: opset {opset.version} of {opset.domain!r} is not known")
    for count, node in enumerate(all_nodes(model.graph.node)):
        if count >= _NODES:
            raise BackendError(f"{name}: the model has more than {_NODES:,} nodes")
        _check_text(name, node.name, node.op_type, node.domain, *node.input, *node.output)
        _check_text(name, *(a.name for a in node.attribute))
        for attribute in node.attribute:
            _check_names(name, attribute.g)
    for function in model.functions:
        for node in function.node:
            _check_text(name, node.name, node.op_type, node.domain, *node.input, *node.output)
    _check_names(name, model.graph)


def _check_names(file: str, graph: onnx.GraphProto) -> None:
    _check_text(file, *(x.name for x in (*graph.initializer, *graph.input, *graph.output)))


def _check_text(file: str, *names: object) -> None:
    """Raises `BackendError` for names that are not UTF-8, which protobuf leaves as bytes, and for
    those that are texts: patterns are looked for in names."""
    for name in names:
        if not isinstance(name, str):
            raise BackendError(f"{file}: the name {name!r} is not UTF-8")
        if len(name) > _LONGEST:
            raise BackendError(f"{file}: a name has {len(name):,} characters: {name[:40]!r}…")


def operator(node: onnx.NodeProto) -> str:
    """The operator of a node, with its domain unless that is ONNX's own."""
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    return f"{domain}{node.op_type}"
