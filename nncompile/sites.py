"""Where a node was written: the user's line, and the layers it was written in.

Frames of this project are skipped, so that a site is always a line that the user can change.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType

_OURS = frozenset({"nncompile", "dsl"})
_OUTERMOST = "nncompile.commands.shared"  # what called a command is not the user's
_PLUMBING = frozenset({"functools", "contextlib", "dataclasses", "typing", "importlib", "sympy"})


@dataclass(frozen=True, slots=True)
class Site:
    """A line of the user's source and the scope (path of layers) it ran in."""

    file: str
    line: int
    scope: str = ""

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


def _is_ours(frame: FrameType) -> bool:
    package = frame.f_globals.get("__name__", "").partition(".")[0]
    return package in _OURS or package in _PLUMBING


def user_site() -> Site | None:
    """The innermost line of the user's that runs now; None where there is none."""
    fixed = _located.get()
    if fixed is not None:
        return fixed
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        if frame.f_globals.get("__name__") == _OUTERMOST:
            return None
        frame = frame.f_back
    if frame is None:
        return None
    return Site(frame.f_code.co_filename, frame.f_lineno, _scope.get())
