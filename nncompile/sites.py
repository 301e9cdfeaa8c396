"""Where a node was written: the user's line, and the layers it was written in.

Frames of this project are skipped, so that a site is always a line that the user can change.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any, TypeVar

_OURS = frozenset({"nncompile", "dsl"})
_OUTERMOST = "nncompile.commands.shared"  # what called a command is not the user's
_OF_OBJECTS = frozenset({"__call__", "__init__", "__post_init__"})  # called by the object's name
_PLUMBING = frozenset({"functools", "contextlib", "dataclasses", "typing", "importlib", "sympy"})

F = TypeVar("F", bound=Callable[..., Any])
# What a frame of such code is called, where that is not the function's name; empty: it stands
# between the user and the function. By identity, as code is slow to hash; it is kept here.
_spoken: dict[int, tuple[CodeType, str]] = {}


@dataclass(frozen=True, slots=True)
class Site:
    """A line of the user's source and the scope (path of layers) it ran in.

    `call` is what of this project the line calls: a function, a formula or a class of layers.
    """

    file: str
    line: int
    scope: str = ""
    call: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """`digits.py:22`, as printed beside a node."""
        return f"{os.path.basename(self.file)}:{self.line}"

    @property
    def text(self) -> str:
        """The source line itself, or nothing where it cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.place}, in {self.scope.replace('/', ' / ')}" if self.scope else self.place


_scope: ContextVar[str] = ContextVar("scope", default="")
_located: ContextVar[Site | None] = ContextVar("located", default=None)


@contextlib.contextmanager
def scope(name: str) -> Iterator[None]:
    """Adds `name` to the path of layers while the block runs."""
    token = _scope.set(f"{_scope.get()}/{name}" if _scope.get() else name)
    try:
        yield
    finally:
        _scope.reset(token)


def current_scope() -> str:
    """The path of layers, `digits/stem`, in which the code runs; empty outside a model."""
    return _scope.get()


@contextlib.contextmanager
def located(site: Site | None) -> Iterator[None]:
    """Nodes made in the block are reported at `site`: gradients and rewrites keep the line of
    the node that they come from."""
    token = _located.set(site)
    try:
        yield
    finally:
        _located.reset(token)


def spoken(name: str = "") -> Callable[[F], F]:
    """A decorator: messages call the function `name`; without one, as what it calls, which a
    wrapper is for."""

    def named(function: F) -> F:
        code = function.__code__
        _spoken[id(code)] = code, name
        return function

    return named


def named(site: Site | None, label: str) -> str:
    """What the user knows an op of that label as: `kthvalue (top_k)`, the call at `site` with the
    op where their names differ."""
    call = site.call if site else ""
    a, b = (x.lower().replace("_", "") for x in (call, label))
    if a.startswith(b) or b.startswith(a):
        return call or label
    return f"{call} ({label})"


def _call(frame: FrameType) -> str:
    """What a frame of ours is called; empty for what no user calls by a name."""
    code = frame.f_code
    if id(code) in _spoken:
        return _spoken[id(code)][1]
    name = code.co_name
    if name in _OF_OBJECTS:
        called = frame.f_locals.get("self")
        if isinstance(called, Exception):
            return ""
        name = getattr(called, "__dict__", {}).get("__name__") or type(called).__name__
    return "" if name.startswith(("_", "<")) else name


def _is_ours(frame: FrameType) -> bool:
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in _OURS or package in _PLUMBING


def user_site() -> Site | None:
    """The innermost line of the user's that runs now; None where there is none."""
    fixed = _located.get()
    if fixed is not None:
        return fixed
    frame: FrameType | None = sys._getframe(1)
    ours: list[FrameType] = []
    while frame is not None and _is_ours(frame):
        if frame.f_globals.get("__name__") == _OUTERMOST:
            return None
        ours.append(frame)
        frame = frame.f_back
    if frame is None:
        return None
    call = next(filter(None, map(_call, reversed(ours))), "")
    return Site(frame.f_code.co_filename, frame.f_lineno, _scope.get(), call)
