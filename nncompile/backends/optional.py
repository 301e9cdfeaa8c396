"""Backends whose packages are extras."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.extras import extra


def torch_backend() -> Any:
    """The package `nncompile.backends.torchscript`: torch takes seconds to import, and is needed
    for what is torch's alone. Raises `BackendError` where it is not installed."""
    hint = "pip install 'nncompile[torch]'"
    module = "nncompile.backends.torchscript"
    return extra(module, "torch", "the TorchScript backend", hint, BackendError)
