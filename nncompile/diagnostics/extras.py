"""What only some need, imported on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
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


def installed(module: str) -> Any:
    """The module of an optional package, or None where that is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module:
            raise
        return None


def on_demand(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562): the modules, and what the package takes from them,
    which are imported when they are first asked for."""
    homes = {name: module for module, names in modules.items() for name in names}

    def attribute(name: str) -> Any:
        module = f"{package}.{name}"
        if module in modules:
            return importlib.import_module(module)  # which makes it an attribute
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        found = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return attribute
