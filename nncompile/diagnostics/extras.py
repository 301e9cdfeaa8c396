"""Packages that only some need, imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

from nncompile.diagnostics.errors import CompileError


def extra(
    module: str, package: str, user: str, hint: str, error: type[CompileError] = CompileError
) -> Any:
    """The module, which needs `package`. Raises the `error` where that is not installed: that
    `user` needs it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != package:
            raise
        raise error(f"{user} needs {package}, which is not installed", hint=hint) from None
