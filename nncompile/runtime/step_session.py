"""The session of a training step, whose model is rewritten for the processor when it is loaded.

Files hold standard operators. For some of them onnxruntime has faster ones, which it does not use
by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has no stubs

from nncompile.runtime.blocked_convolutions import with_blocks
from nncompile.runtime.providers import Provider, resolve_providers
from nncompile.runtime.scaled_sums import with_scaled_sums
from nncompile.runtime.session import Model, Session


def step_session(
    model: Model, providers: Provider | Sequence[Provider] = "cpu", **options: Any
) -> Session:
    """A session of a training step or its update, with the fastest operators that the processor
    has. See `Session` for the options and the errors raised."""
    return Session(for_device(model, providers), providers, **options)


def for_device(model: Model, providers: Provider | Sequence[Provider]) -> Model:
    """The model with operators of the CPU, where that is the device; that of a file as it is."""
    if [name for name, _ in resolve_providers(providers)] != ["CPUExecutionProvider"]:
        return model
    parsed = _parsed(model)
    if parsed is None:
        return model
    result = with_scaled_sums(with_blocks(parsed))
    return model if result is parsed else result


def _parsed(model: Model) -> onnx.ModelProto | None:
    if isinstance(model, bytes):
        try:
            return onnx.load_model_from_string(model)
        except DecodeError:  # another format of onnxruntime's, or of none, as it says itself
            return None
    return model if isinstance(model, onnx.ModelProto) else None
