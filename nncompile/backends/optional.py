"""Backends whose packages are extras, imported when they are first asked for."""

from __future__ import annotations

import importlib
from typing import Any

from nncompile.diagnostics.errors import BackendError


def torch_backend() -> Any:
    """The package `nncompile.backends.torchscript`: torch takes seconds to import, and is needed
    for what is torch's alone. Raises `BackendError` where it is not installed."""
    try:
        return importlib.import_module("nncompile.backends.torchscript")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise BackendError(
            "the TorchScript backend needs torch, which is not installed",
            hint="pip install 'nncompile[torch]'",
        ) from None
