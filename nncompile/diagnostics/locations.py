"""Where a node was written: the user's line, and the layers it was written in.

Frames of this project are skipped, so that a location is always a line that the user can change.
What is known of the nodes of a model is a table beside the graph, not on its nodes.
"""

from __future__ import annotations

import functools
import linecache
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import CodeType, FrameType
from typing import Any, Generic, TypeVar

import sympy as sp

_OURS = frozenset({"nncompile", "dsl"})
_OUTERMOST = "nncompile.cli.shared"  # what called a command is not the user's
_OF_OBJECTS = frozenset({"__call__", "__init__", "__post_init__"})  # called by the object's name
_PLUMBING = frozenset(
    ("functools", "contextlib", "dataclasses", "typing", "importlib", "multiprocessing", "sympy")
)

F = TypeVar("F", bound=Callable[..., Any])
# What a frame of such code is called, where that is not the function's name; empty: it stands
# between the user and the function. By identity, as code is slow to hash; it is kept here.
_message_names: dict[int, tuple[CodeType, str]] = {}


@dataclass(frozen=True, slots=True)
class Location:
    """A line of the user's source and the scope (path of layers) it ran in.

    `call` is what of this project the line calls: a function, a formula or a class of layers.
    `backward` tells what the gradient of the line computes from the line itself.
    """

    file: str
    line: int
    scope: str = ""
    call: str = field(default="", compare=False)
    backward: bool = field(default=False, compare=False)

    @property
    def place(self) -> str:
        """`digits.py:22`, as printed beside a node."""
        return f"{os.path.basename(self.file)}:{self.line}"

    @property
    def text(self) -> str:
        """The source line itself, or nothing where it cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    def within(self, scope: str, model: str) -> Location:
        """The location of the same line of that model where another one applies it in `scope`: its
        layers are layers of the other."""
        outer, own = scope.partition("/")[0], self.scope.removeprefix(f"{model}/")
        own = "" if own == model else own
        return replace(self, scope="/".join(filter(None, (outer, own)))) if outer else self

    def __str__(self) -> str:
        return f"{self.place}, in {self.scope.replace('/', ' / ')}" if self.scope else self.place


@functools.lru_cache(maxsize=1024)
def _location(file: str, line: int, scope: str, call: str, backward: bool = False) -> Location:
    """The location, one object for all nodes of a place: they are many, and are told apart."""
    return Location(file, line, scope, call, backward)


_scope: ContextVar[str] = ContextVar("scope", default="")


class Following:
    """The place of the `node` that is at hand, where nodes are gone through one by one."""

    __slots__ = ("_otherwise", "_table", "node")

    def __init__(self, table: LocationTable, otherwise: Location | Following | None) -> None:
        self._table, self._otherwise = table, otherwise
        self.node: object = None

    @property
    def location(self) -> Location | None:
        """Where the node was first written; where that is not known, what held around."""
        location = self._table.location(self.node)
        if location is not None:
            return location
        around = self._otherwise
        return around.location if isinstance(around, Following) else around


_located: ContextVar[Location | Following | None] = ContextVar("located", default=None)


@contextmanager
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


T = TypeVar("T")


class _Setting(Generic[T]):
    """A block in which a variable has a value: entered for every node, where a generator takes
    three times as long."""

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[Any], value: T) -> None:
        self._variable, self._value = variable, value

    def __enter__(self) -> T:
        self._token = self._variable.set(self._value)
        return self._value

    def __exit__(self, *_: object) -> None:
        self._variable.reset(self._token)


def located(location: Location | None) -> AbstractContextManager[object]:
    """Nodes made in the block are reported at `location`, where that is known: gradients and
    rewrites keep the line of the node that they come from."""
    return _Setting(_located, location or _located.get())


_NOWHERE = Location("", 0)


def located_nowhere() -> AbstractContextManager[object]:
    """Nodes made in the block have no location but that of the node that they come from: the line
    that is running at the moment has nothing to do with them."""
    return _Setting(_located, _NOWHERE)


def message_name(name: str = "") -> Callable[[F], F]:
    """A decorator: messages call the function `name`. Without a name, they call it as the function
    that it wraps."""

    def declare(function: F) -> F:
        if name:  # in code of its own: that of a closure is one for all that are made of it
            function.__code__ = function.__code__.replace(co_name=name)
        code = function.__code__
        _message_names[id(code)] = code, name
        return function

    return declare


def call_label(location: Location | None, label: str) -> str:
    """What the user knows an op of that label as: `kthvalue (top_k)`, the call at `location` with
    the op where their names differ."""
    call = location.call if location else ""
    a, b = (x.lower().replace("_", "") for x in (call, label))
    if a.startswith(b) or b.startswith(a):
        return call or label
    return f"{call} ({label})"


def _call(frame: FrameType) -> str:
    """What a frame of ours is called; empty for what no user calls by a name."""
    code = frame.f_code
    if id(code) in _message_names:
        return _message_names[id(code)][1]
    name = code.co_name
    if name in _OF_OBJECTS:
        instance = frame.f_locals.get("self")
        if isinstance(instance, Exception):
            return ""
        name = getattr(instance, "__dict__", {}).get("__name__") or type(instance).__name__
    return "" if name.startswith(("_", "<")) else name


@functools.lru_cache(maxsize=4096)
def _is_our_module(name: str) -> bool:
    package = name.partition(".")[0]
    return package in _OURS or package in _PLUMBING


def _is_ours(frame: FrameType) -> bool:
    return _is_our_module(frame.f_globals.get("__name__", ""))


def user_location() -> Location | None:
    """The innermost line of user code that runs now; None where there is none."""
    fixed = _located.get()
    if isinstance(fixed, Following):
        fixed = fixed.location
    if fixed is not None:
        return None if fixed is _NOWHERE else fixed
    frame: FrameType | None = sys._getframe(1)
    ours: list[FrameType] = []
    while frame is not None:  # for every node that a model is traced to
        name = frame.f_globals.get("__name__", "")
        if not _is_our_module(name):
            break
        if name == _OUTERMOST:
            return None
        ours.append(frame)
        frame = frame.f_back
    if frame is None:
        return None
    call = ""
    while ours and not call:
        call = _call(ours.pop())
    return _location(frame.f_code.co_filename, frame.f_lineno, _scope.get(), call)


def user_frame() -> FrameType | None:
    """The innermost frame of user code that runs now; None where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_ours(frame):
        frame = frame.f_back
    return frame


_lock = threading.RLock()


class _Entry(weakref.ref[object]):
    """A node, and where it was written: first, and everywhere if that is more than one place."""

    __slots__ = ("everywhere", "first", "key")
    key: int
    first: Location
    everywhere: dict[Location, None] | None


class LocationTable:
    """Where nodes were written: every location of every node, of one model.

    Locations are kept here and not on the interned node, which another file may share. `makers` are
    the nodes that made the sizes which depend on data: such a size outlives what was selected.
    """

    def __init__(self) -> None:
        # By identity: a WeakKeyDictionary would ask `==`, which is elementwise.
        self._entries: dict[int, _Entry] = {}
        self.makers: dict[sp.Symbol, Any] = {}
        table = weakref.ref(self)

        def forget(entry: Any) -> None:
            """Takes a node that is gone out of its table, where that is still there."""
            this = table()
            if this is not None:
                this._entries.pop(entry.key, None)

        self._forget = forget

    def record(self, node: object, location: Location | None) -> None:
        """Stores the location of a node; the first one stays."""
        if location is None:
            return
        key, entries = id(node), self._entries
        entry = entries.get(key)
        if entry is None:
            new = _Entry(node, self._forget)
            new.key, new.first, new.everywhere = key, location, None
            entry = entries.setdefault(key, new)  # that of another thread, if it was first
        if entry.first is location:
            return
        with _lock:
            if entry.everywhere is None and entry.first != location:
                entry.everywhere = {entry.first: None, location: None}
            elif entry.everywhere is not None:
                entry.everywhere[location] = None

    def all_locations(self, node: object) -> tuple[Location, ...]:
        """All locations of the node, oldest first."""
        with _lock:
            entry = self._entries.get(id(node))
            if entry is None:
                return ()
            return (entry.first,) if entry.everywhere is None else tuple(entry.everywhere)

    def location(self, node: object) -> Location | None:
        """Where the node was first written."""
        entry = self._entries.get(id(node))
        return None if entry is None else entry.first

    def of(self, nodes: Iterable[object]) -> LocationTable:
        """A table of its own with what is known of these nodes, and with the makers."""
        table = LocationTable()
        table.makers.update(self.makers)
        with _lock:
            for node in nodes:
                entry = self._entries.get(id(node))
                if entry is not None:
                    table.record(node, entry.first)
                    for location in entry.everywhere or ():
                        table.record(node, location)
        return table

    def following(self) -> AbstractContextManager[Following]:
        """Nodes made in the block are reported where its `node` was first written: it is set again
        and again, where a block for each would take longer than what is done in it."""
        return _Setting(_located, Following(self, _located.get()))

    def located(self, node: object, backward: bool = False) -> AbstractContextManager[object]:
        """Nodes made in the block are reported where `node` was first written, and if told so as
        of its gradient."""
        location = self.location(node)
        if backward and location is not None and not location.backward:
            location = _location(
                location.file, location.line, location.scope, location.call, backward=True
            )
        return located(location)


# What makes sizes in a graph that is being rewritten, in the place of the table's.
_makers: ContextVar[dict[sp.Symbol, Any] | None] = ContextVar("makers", default=None)

_locations: ContextVar[LocationTable] = ContextVar("locations", default=LocationTable())  # noqa: B039 (shared on purpose)


def current_locations() -> LocationTable:
    """The table that records locations at present."""
    return _locations.get()


def recording_locations(locations: LocationTable) -> AbstractContextManager[LocationTable]:
    """Records the locations of nodes made in the block in `locations`."""
    return _Setting(_locations, locations)


def current_makers() -> dict[sp.Symbol, Any]:
    """The nodes that make the sizes which depend on data."""
    makers = _makers.get()
    return _locations.get().makers if makers is None else makers


def record_maker(size: sp.Symbol, node: object) -> None:
    """Notes what makes a size: as it was written first, or in the graph that is being rewritten."""
    makers = _makers.get()
    if makers is None:
        _locations.get().makers.setdefault(size, node)
    else:
        makers[size] = node


def making(makers: dict[sp.Symbol, Any]) -> AbstractContextManager[object]:
    """Takes these for the nodes that make sizes in the block."""
    return _Setting(_makers, makers)
