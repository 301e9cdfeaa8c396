"""Models and recipes as bytes, for processes and for programs that keep objects."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.locations import (
    Location,
    LocationTable,
    recording_locations,
    user_location,
)
from nncompile.ir.graph import Graph, toposort
from nncompile.ir.op import Packed, Value, packed, unpacked
from nncompile.program.category_codes import CategoryCodes
from nncompile.program.low_rank import LowRank

_HINT = "a function that is pickled stands in a module, by its name: no lambda, none within another"
# What pickle raises for what it cannot write, such as functions within functions.
_FAILURES = (pickle.PicklingError, AttributeError, TypeError)


class PackedModel(Protocol):
    """What is pickled of a model."""

    @property
    def name(self) -> str: ...
    @property
    def graph(self) -> Graph: ...
    @property
    def whole(self) -> Graph: ...
    @property
    def initial(self) -> Mapping[str, Value]: ...
    @property
    def updates(self) -> Mapping[str, Value]: ...
    @property
    def predict(self) -> tuple[str, ...]: ...
    @property
    def doc(self) -> str: ...
    @property
    def layers(self) -> Mapping[str, str]: ...
    @property
    def vocabularies(self) -> Mapping[str, CategoryCodes]: ...
    @property
    def adapters(self) -> Mapping[str, LowRank]: ...
    @property
    def frozen(self) -> tuple[str, ...]: ...


def model_bytes(model: PackedModel) -> bytes:
    """A model, pickled. Raises `ModelError` where an op of it cannot be."""
    values = [_packed(x) for x in (model.initial, model.updates)]
    named = model.layers, model.vocabularies, model.adapters
    others = model.predict, model.doc, *map(dict, named), model.frozen
    nodes = toposort([*model.whole.outputs.values(), *model.initial.values()])
    lines = model.graph.locations
    ops = ((f"the op {v.op.label}", v.op, lines.location(v)) for v in nodes)
    return as_bytes(f"model {model.name}", (model.name, model.graph, values, others), ops)


M = TypeVar("M", bound=PackedModel)


def restored_model(kind: Callable[..., M], content: bytes) -> M:
    """The model of that class that was pickled."""
    name, graph, values, others = pickle.loads(content)
    return kind(name, graph, *map(_unpacked, values), *others)


def _packed(values: Mapping[str, Value]) -> tuple[Packed, dict[str, int]]:
    """Named values, what they have in common once."""
    nodes, places = packed(values.values())
    return nodes, {name: places[v] for name, v in values.items()}


def _unpacked(content: tuple[Packed, Mapping[str, int]]) -> dict[str, Value]:
    nodes, places = content
    with recording_locations(LocationTable()):
        values = unpacked(nodes)
    return {name: values[i] for name, i in places.items()}


def as_bytes(what: str, state: Any, parts: Iterable[tuple[str, Any, Location | None]]) -> bytes:
    """The pickled `state`. Raises `ModelError` where it cannot be pickled: `what`, and the first
    of the `parts` (a name, the part itself, and where it was written) that is to blame."""
    try:
        return pickle.dumps(state, pickle.HIGHEST_PROTOCOL)
    except _FAILURES as error:
        for name, part, location in parts:
            try:
                pickle.dumps(part)
            except _FAILURES as cause:
                raise ModelError(
                    f"{what} cannot be pickled: {name}",
                    rows=[("reason", str(cause))],
                    hint=_HINT,
                    location=location or user_location(),
                ) from None
        raise ModelError(
            f"{what} cannot be pickled", rows=[("reason", str(error))], hint=_HINT
        ) from None
