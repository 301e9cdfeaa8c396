"""The session of a training step, whose model is written for this processor when it is loaded.

Files are of standard operators. For some of these onnxruntime has others that are faster, which it
does not take by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from nncompile.runtime.blocked_convolutions import with_blocks
from nncompile.runtime.providers import Provider, resolve_providers
from nncompile.runtime.scaled_sums import with_scaled_sums
from nncompile.runtime.session import Model, Session


def step_session(
    model: Model, providers: Provider | Sequence[Provider] = "cpu", **options: Any
) -> Session:
    """A session of a training step or its update, with the fastest operators that the processor
    has. See `Session` for the options."""
    is_cpu = [name for name, _ in resolve_providers(providers)] == ["CPUExecutionProvider"]
    return Session(_for_cpu(model) if is_cpu else model, providers, **options)


def _for_cpu(model: Model) -> Model:
    """The model with operators of the CPU; that of a file as it is."""
    if isinstance(model, bytes):
        parsed = onnx.load_model_from_string(model)
    elif isinstance(model, onnx.ModelProto):
        parsed = model
    else:
        return model
    result = with_scaled_sums(with_blocks(parsed))
    return model if result is parsed else result
