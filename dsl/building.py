"""What a model collects while its function runs: parameters, states, updates, and their names.

A name is a path of layers, `a.dense.weight`. A layer object has one path in a model, so calling it
again shares its weights; layers that every call of their owner creates get the same names
each time, and so share theirs too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from dsl.initializers import InitialValues
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.diagnostics.locations import scope
from nncompile.ir.basic import as_value
from nncompile.ir.dims import CLIPPED, is_clipped
from nncompile.ir.graph import Input, input_of
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.types import DType, Type, dtype_of
from nncompile.ops.loops.body import iterations, outside_loops
from nncompile.program.category_codes import CategoryCodes
from nncompile.program.low_rank import LowRank

_NAME = re.compile(r"[\w-]+")


class Named(Protocol):
    """What the builder knows of a layer."""

    @property
    def name(self) -> str | None: ...


@dataclass
class _Call:
    """A layer that is being called (the model itself at the root), and the names that the layers
    in it have."""

    path: str
    layer: Named | None = None
    names: dict[str, Named] = field(default_factory=dict)


class Builder:
    """The parameters and states of one model, in order of first use.

    `initial` holds the value that each starts with, an expression over the seed; `updates` the
    value that each state has after the model ran, where it was updated; `vocabularies` the
    categories whose codes an input has, by its name.
    """

    def __init__(self) -> None:
        self.leaves: dict[str, Value] = {}
        self.initial: dict[str, Value] = {}
        self.updates: dict[str, Value] = {}
        self.layers: dict[str, str] = {}  # the class of each layer by path, as it was first called
        self.vocabularies: dict[str, CategoryCodes] = {}
        self.adapters: dict[str, LowRank] = {}  # of weights, by their paths
        self.is_of_a_model = True  # and not of a computation on the way to one
        self._paths: dict[Named, str] = {}
        self._calls = [_Call("")]
        self._initial_values = InitialValues()
        self._random: Counter[str] = Counter()
        self._adapting: list[Adaptation] = []

    @property
    def path(self) -> str:
        """The path of the layer that is being called; empty in the model itself."""
        return self._calls[-1].path

    def path_of(self, layer: Named) -> str:
        """The path of the layer: the one it got at its first call."""
        call = self._calls[-1]
        if call.layer is layer:
            return call.path
        path = self._paths.get(layer) or _join(call.path, _layer_name(layer, call.names))
        parent, _, name = path.rpartition(".")
        if parent == call.path and call.names.setdefault(name, layer) is not layer:
            raise ModelError(
                f"two layers are called {path}",
                hint="give one another name; one layer object used twice shares its weights",
            )
        self._paths[layer] = path
        return path

    @contextmanager
    def calling(self, layer: Named) -> Iterator[None]:
        """While the block runs, names are inside the layer."""
        if self._calls[-1].layer is layer:  # a subclass that calls its base
            yield
            return
        path = self.path_of(layer)
        self.layers.setdefault(path, type(layer).__name__)
        self._calls.append(_Call(path, layer))
        try:
            with scope(path.rpartition(".")[2]):
                yield
        finally:
            self._calls.pop()

    def parameter(
        self, owner: str, name: str, shape: Any, init: Any, dtype: DType, fans: Any
    ) -> Value:
        """The trained parameter `owner.name`; a second call returns the same one."""
        leaf = self._leaf("parameter", _path(owner, name), dtype_of(dtype)[shape], init, fans)
        for adapt in reversed(self._adapting):  # the innermost first
            leaf = adapt(self, owner, name, leaf)
        return leaf

    @contextmanager
    def adapting(self, adapt: Adaptation) -> Iterator[None]:
        """While the block runs, layers get `adapt(builder, owner, name, parameter)` in place of
        each parameter that they ask for."""
        self._adapting.append(adapt)
        try:
            yield
        finally:
            self._adapting.pop()

    def state(self, owner: str, name: str, shape: Any, init: Any, dtype: DType) -> Value:
        """The state `owner.name` as it stands now: after the updates that were made so far."""
        path = _path(owner, name)
        leaf = self._leaf("state", path, dtype_of(dtype)[shape], init, None)
        return self.updates.get(path, leaf)

    def update(self, owner: str, state: Value | str, new: Any) -> None:
        """Makes `new` the value of the owner's state from here on."""
        path = self._state_path(owner, state)
        if iterations():
            raise ModelError(
                f"state {path} is updated in the body of a loop, and the value does not exist "
                "outside of it",
                hint="carry it from one iteration to the next, and update the state with the "
                "last one",
            )
        type_ = self.leaves[path].type
        value = as_value(new, like=self.leaves[path])
        if value.type != type_:
            error = DTypeError if value.dtype is not type_.dtype else ShapeError
            raise error(f"state {path} is {type_}, its update is {value.type}")
        self.updates[path] = value

    def salt(self) -> str:
        """A name of its own for each random op, or two dropouts would be one."""
        self._random[self.path] += 1
        return f"{self.path}#{self._random[self.path]}"

    def _leaf(self, kind: str, path: str, type_: Type, init: Any, fans: Any) -> Value:
        name = path.rpartition(".")[2]
        if not _NAME.fullmatch(name):
            raise ModelError(
                f"{name!r} is not a valid name for a {kind}", hint="letters, digits, _ and -"
            )
        for size in type_.shape:
            if not isinstance(size, int):
                raise ModelError(
                    f"{kind} {path} would be {type_}, but the size {size} is known only from "
                    "the data",
                    hint=CLIPPED
                    if is_clipped(size)
                    else "declare that axis of the model's input as a number, or reduce over it "
                    "first",
                )
            if size < 0:
                raise ShapeError(f"{kind} {path} would be {type_}: a size cannot be negative")
        leaf = Input(path, type_, kind)()
        with outside_loops():  # the weights of a layer that a loop calls are drawn once
            start = self._initial_values.of(init, type_, path, fans)
        declared = self.leaves.setdefault(path, leaf)
        if declared is not leaf:
            raise ShapeError(
                f"{input_of(declared).kind} {path} is {declared.type}, but this call needs {type_}",
                hint="a shared layer has one set of weights: call it on equal widths, or make two",
            )
        if self.initial.setdefault(path, start) is not start:
            raise ModelError(f"{kind} {path} is declared with two different initial values")
        return leaf

    def _state_path(self, owner: str, state: Value | str) -> str:
        if isinstance(state, str):
            path = _join(owner, state)
            if path in self.leaves and input_of(self.leaves[path]).kind == "state":
                return path
            raise ModelError(f"no state {path}", hint="declare it first, with self.state(...)")
        candidates = [
            path
            for path, leaf in self.leaves.items()
            if path.rpartition(".")[0] == owner
            and input_of(leaf).kind == "state"
            and self.updates.get(path, leaf) is state
        ]
        if len(candidates) == 1:
            return candidates[0]
        raise ModelError(
            f"{state!r} is the value of {' and of '.join(candidates)}"
            if candidates
            else f"{state!r} is not a state of {owner or 'the model'} as it stands now",
            hint='name the state: self.update("running_mean", new)',
        )


def _path(owner: str, name: Any) -> str:
    """The path of a parameter or state of that name."""
    if not isinstance(name, str):
        raise ModelError(f"the name of a parameter or state must be a string, got {name!r}")
    return _join(owner, name)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _layer_name(layer: Named, used_names: dict[str, Named]) -> str:
    """The layer's name, or its class in small letters with the first number that is free."""
    if layer.name is not None:
        if not isinstance(layer.name, str) or not _NAME.fullmatch(layer.name):
            raise ModelError(
                f"{layer.name!r} is not a valid name for a layer", hint="letters, digits, _ and -"
            )
        return layer.name
    base = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", type(layer).__name__).lower()
    return unused_name(base, used_names, "_", 1)


Adaptation = Callable[[Builder, str, str, Value], Value]

_active: ContextVar[Builder | None] = ContextVar("builder", default=None)


@contextmanager
def building() -> Iterator[Builder]:
    """A new builder, which layers that are called in the block declare their parameters in."""
    builder = Builder()
    token = _active.set(builder)
    try:
        yield builder
    finally:
        _active.reset(token)


def active(caller: str) -> Builder:
    """The builder of the model whose function runs now. Raises `ModelError` where none does."""
    builder = _active.get()
    if builder is None:
        raise ModelError(
            f"{caller} is called outside of a model, where nothing holds its weights",
            hint="call it in a function decorated with @model",
        )
    return builder
