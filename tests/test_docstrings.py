"""Every public method has a docstring where it is declared first.

ruff holds that for classes and functions (D101, D103), but cannot see whether a method overrides
another, whose docstring then is its own.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.rooms import modules

# The hooks of a callback, which `nncompile.train.events` explains for all.
HOOKS = ("on_step", "on_tick", "on_epoch", "on_end")


def undocumented(owner: type) -> Iterator[str]:
    """The public methods without a docstring that no base class declares."""
    if getattr(owner, "_is_protocol", False):  # a view of classes that are documented themselves
        return
    for name, member in vars(owner).items():
        if name.startswith("_") or name in HOOKS or any(name in vars(b) for b in owner.__mro__[1:]):
            continue
        function: Any = getattr(member, "__func__", member)
        for inner in ("fget", "func"):  # of a property, and of a cached one
            function = getattr(function, inner, function)
        is_own = inspect.isfunction(function) and function.__module__ == owner.__module__
        if is_own and not function.__doc__ and function.__name__ != "<lambda>":
            yield f"{owner.__module__}.{owner.__qualname__}.{name}"


def room(module: str) -> str:
    """The package that the module is in, `nncompile.ops`."""
    return ".".join(module.split(".")[:2])


def classes(module: str) -> Iterator[type]:
    """The public classes of a module."""
    for x in vars(importlib.import_module(module)).values():
        if inspect.isclass(x) and x.__module__ == module and not x.__name__.startswith("_"):
            yield x


MISSING = tuple(  # what needs a package that is not installed
    module
    for module, package in (
        ("nncompile.backends.torchscript", "torch"),
        ("nncompile.serving", "fastapi"),
    )
    if not find_spec(package)
)


@pytest.mark.parametrize("package", sorted({room(m) for m in modules()}))
def test_public_methods_have_docstrings(package: str) -> None:
    found = [m for m in modules() if room(m) == package and not m.startswith(MISSING)]
    imported = [m for m in found if not m.endswith("__main__")]
    assert not [name for m in imported for x in classes(m) for name in undocumented(x)]


def test_a_method_without_one_is_found() -> None:
    class Base:
        def first(self) -> int:
            return 1

        def second(self) -> int:
            """Two."""
            return 2

    class Derived(Base):
        def second(self) -> int:
            return 3

        @property
        def third(self) -> int:
            return 3

    assert [name.rpartition(".")[2] for name in undocumented(Base)] == ["first"]
    assert [name.rpartition(".")[2] for name in undocumented(Derived)] == ["third"]
