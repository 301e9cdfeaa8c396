"""The graph: ops, values and their traversal.

A `Value` is an op applied to values. Values are immutable and interned: equal nodes are one
object, so common subexpressions merge and dead code disappears by construction.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol, dataclass_transform

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import CompileError, GradientError
from nncompile.diagnostics.locations import (
    Location,
    LocationTable,
    current_locations,
    current_makers,
    making,
    named,
    record_maker,
    recording_locations,
    user_location,
)
from nncompile.ir.dims import Dim, Shape, substitute, symbol, symbols
from nncompile.ir.operators import Operators
from nncompile.ir.types import DType, TupleType, Type

AnyType = Type | TupleType


class Mask(Protocol):
    """Where a cotangent may be other than 0: where `condition`, a formula of `args`, holds; there
    it is `inside`."""

    @property
    def condition(self) -> sp.Expr: ...
    @property
    def args(self) -> tuple[Value, ...]: ...
    @property
    def inside(self) -> Value: ...


class Backward(Protocol):
    """Reverse mode, as it is handed to the ops that need it for their own cotangents."""

    def __call__(self, seeds: Mapping[Value, Value], wrt: Sequence[Value]) -> list[Value]:
        """The cotangents at `wrt`, given those at results of a graph."""
        ...

    def mask_of(self, g: Value) -> Mask | None:
        """Where the cotangent `g` is known to be 0; None where nothing is known."""
        ...


def attribute_key(x: Any) -> Any:
    """Equality by type and value: `1`, `True`, `1.0` differ, so do `0.0`, `-0.0`; NaN is NaN."""
    if isinstance(x, float):
        return (float, x.hex())
    if isinstance(x, tuple):
        return tuple(attribute_key(item) for item in x)
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, x.tobytes())
    return (type(x), x)


def _text(x: Any) -> str:
    """What a field's digest is made of: no addresses, and no two keys that look the same."""
    if isinstance(x, tuple):
        return f"({','.join(map(_text, x))})"
    if callable(x) and hasattr(x, "__qualname__"):
        return f"{x.__module__}.{x.__qualname__}"
    return repr(attribute_key(x)[1:])


@dataclass(frozen=True)
class Sample:
    """An op with the types of arguments that it is tested on.

    `integers` is the half-open range that integer arguments are drawn from, `floats` the closed
    range of floating ones; `order` is how often the op may be differentiated. `dominant` adds so
    much to the diagonals of square matrices (the last two axes) that they can be inverted.
    """

    op: Op
    types: tuple[Type, ...]
    integers: tuple[int, int] = (0, 2)
    floats: tuple[float, float] = (-2.0, 2.0)
    distinct: bool = False
    order: int = 2
    dominant: bool = False


_AXES = {"axis": "axis", "axes": "axes", "order": "axes"}  # the field, by what `varies` says


@dataclass_transform(frozen_default=True, eq_default=False)
class Op:
    """What is known about one operation. A subclass is a op; its fields are its attributes.

    A op says: `infer` (type rule), `pullback` (gradient), `numpy` (meaning), `onnx` and
    `torch` (lowerings) and `samples` (what it is tested on).
    """

    registry: ClassVar[dict[tuple[str, str], type[Op]]] = {}
    differentiable: ClassVar[bool] = True
    # Whether results are elements of the arguments, as they are. Floats of 16 bits stay what they
    # are then; any other op is computed in float32 and rounded (see precision.py).
    moves: ClassVar[bool] = False
    # Whether no axis of its results is known to be computed row by row (see `rowwise`): it mixes
    # the elements of its arguments, or has none.
    mixes: ClassVar[bool] = False
    # Of how many of its first arguments the results hold elements, as they are and no others; the
    # arguments behind these say which. None for all, and 0 where other elements come in.
    copies: ClassVar[int | None] = 0
    # Whether it compares elements of an argument with each other. TorchScript carries u64 in int64,
    # and gives such an op what has the same order there (see torchscript/carriers.py).
    orders: ClassVar[bool] = False
    # Which field takes any axis of equally shaped arguments of any rank: "axis" (one of them),
    # "axes" (some) or "order" (`axes`: all, in any order). The tests then draw random ones.
    varies: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        dataclass(frozen=True, eq=False, repr=False)(cls)
        # Keyed by place of definition: a re-run notebook cell replaces its own op, and a
        # foreign class of the same name does not take another's place.
        Op.registry[cls.__module__, cls.__qualname__] = cls

    @cached_property
    def label(self) -> str:
        """The op's name as printed: the class name in lower case with underscores."""
        text = type(self).__name__
        return "".join(
            "_" + c.lower() if c.isupper() and i and text[i - 1].islower() else c.lower()
            for i, c in enumerate(text)
        )

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The fields of the op by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]  # __init_subclass__ makes dataclasses

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What equal ops have in common: the class and its attributes, hashable."""
        return (type(self), *(attribute_key(x) for x in self.attributes.values()))

    @cached_property
    def _hash(self) -> int:
        return hash(self.key)

    @cached_property
    def digest(self) -> bytes:
        """The same in every process, unlike `hash`: it orders symmetric arguments."""
        fields = [_text(x) for x in self.attributes.values()]
        text = f"{type(self).__module__}.{type(self).__qualname__}{fields}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Op) and self.key == other.key)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.attributes.items())
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> Any:
        # The fields alone: hashes of another process are none here.
        return type(self), tuple(self.attributes.values())

    def __call__(self, *args: Value) -> Value:
        return apply(self, *args)

    def rebuild(self, *args: Value) -> Value:
        """The op on other arguments, in the form that equal values have in common."""
        return apply(self, *args)

    def at(self, sizes: Mapping[sp.Symbol, Dim]) -> Op:
        """The op with sizes in place of the names of dimensions in its fields."""
        changed = {}
        for name, x in self.attributes.items():
            new = _at(x, sizes)
            if new is not x:
                changed[name] = new
        return dataclasses.replace(self, **changed) if changed else self  # type: ignore[type-var]  # an op is a dataclass

    def within(self, change: Callable[[Graph], Graph]) -> Op:
        """The op with `change` applied to the graphs in its fields; most have none."""
        return self

    def converting_to(self, change: Mapping[DType, DType]) -> Op:
        """The op whose conversions within are to other element types; most have none."""
        return self

    def expression(self, operands: Sequence[str]) -> str | None:
        """The op as mathematics of its arguments, as they are written; None where it is printed by
        its name and fields."""
        return None

    @property
    def makes(self) -> tuple[sp.Symbol, ...]:
        """The sizes of its result that depend on data: names that `made_size` gave, in its fields.

        They are known once it has run, which it does before anything that needs them.
        """
        return ()

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        """The axis of the result, of all where there are several, along which it is computed row by
        row: where row i is made of rows i of the arguments along their axes `places` (None: of an
        argument that is the same for all rows) and of nothing else. None where it is not so, or
        not known.

        Every op says which axes it mixes: here, by `mixes` where it keeps none apart, or by
        `varies` where it works along one or some of its axes.
        """
        same = set(places)
        if not self.varies or len(same) != 1 or None in same:
            return None
        (place,) = same
        assert place is not None
        along: Any = getattr(self, _AXES[self.varies])
        if self.varies == "order":
            return int(along.index(place))
        axes = (along,) if isinstance(along, int) else along
        if place in axes:
            return None
        result: Any = self.infer(*types)
        rank = (result.items[0] if isinstance(result, TupleType) else result).rank
        return place if rank == types[0].rank else place - sum(axis < place for axis in axes)

    def batched(self, length: Dim) -> Op | None:
        """The op that does the same to each of `length` rows of its arguments, which are stacked
        along a new first axis. None where there is none, or it is not known.

        An op that says in `varies` along which of its axes it works need say no more.
        """
        if not self.varies:
            return None
        along: Any = getattr(self, _AXES[self.varies])
        new: Any = along + 1 if isinstance(along, int) else tuple(axis + 1 for axis in along)
        if self.varies == "order":
            new = (0, *new)
        return dataclasses.replace(self, **{_AXES[self.varies]: new})  # type: ignore[type-var]  # an op is a dataclass

    # What a op says. Parameters are the types, values, arrays or names of the arguments.

    def infer(self, *types: Any) -> AnyType:
        """The type of the result. Raises `ShapeError` or `DTypeError` where types do not fit."""
        raise CompileError(f"op {type(self).__name__} has no type rule")

    def pullback(self, g: Any, y: Value, *args: Any) -> Sequence[Value | None]:
        """The gradients at the arguments from the gradient `g` at the result `y`; for an op with
        several results `g` is a tuple with None where a result was not used."""
        raise GradientError(
            f"{self.label} has no gradient",
            hint="stop_gradient(...) holds its input constant; custom_gradient declares a gradient",
        )

    def pullback_by(self, backward: Backward, g: Any, y: Value) -> Sequence[Value | None]:
        """The gradients at the arguments of `y`, as by `pullback`; an op that holds a graph, or
        whose derivative may be infinite, overrides this instead, and uses `backward`."""
        return self.pullback(g, y, *y.args)

    def numpy(self, *arrays: Any) -> Any:
        """The reference result, of arrays; every backend is compared with it."""
        raise CompileError(f"op {type(self).__name__} has no numpy implementation")

    def onnx(self, o: Any, *args: Any) -> Any:
        """The name of the result of standard ONNX nodes, which `o` emits, from names."""
        raise CompileError(f"op {type(self).__name__} has no ONNX lowering")

    def torch(self, t: Any, *args: Any) -> Any:
        """The name of the result of TorchScript lines, which `t` emits, from names."""
        raise CompileError(f"op {type(self).__name__} has no TorchScript lowering")

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        """The ops and argument types that the tests run."""
        return iter(())


def made_size(label: str, *args: Value) -> sp.Symbol:
    """The name of a size that depends on data: another one for other arguments of an op."""
    text = b"".join(a.digest for a in args)
    return symbol(f"{label}_{hashlib.blake2b(text, digest_size=6).hexdigest()}")


def makers_of(sizes: Iterable[Dim]) -> list[Value]:
    """The nodes that make the sizes which depend on data."""
    makers = current_makers()
    if not makers:
        return []
    return [makers[s] for s in sorted(symbols(sizes), key=str) if s in makers]


def _at(x: Any, sizes: Mapping[sp.Symbol, Dim]) -> Any:
    if isinstance(x, sp.Expr):
        return substitute(x, sizes)
    if isinstance(x, tuple):
        new = tuple(_at(item, sizes) for item in x)
        return new if any(a is not b for a, b in zip(new, x, strict=True)) else x
    if isinstance(x, Type) and not x.is_static:
        return x.with_shape(_at(x.shape, sizes))
    return x


class Value(Operators):
    """An op applied to values: immutable, interned, compared elementwise by `==`.

    `x is y` asks whether two values are the same node.
    """

    __slots__ = ("__weakref__", "args", "digest", "op", "type")

    op: Op
    args: tuple[Value, ...]
    type: Any
    digest: bytes

    __hash__ = object.__hash__  # identity, and as fast as that of any object

    def __repr__(self) -> str:
        return f"<{self.op.label} : {self.type}>"

    def __setattr__(self, name: str, _: Any) -> None:
        raise AttributeError(f"a value is immutable: {name} cannot be set")

    def __reduce__(self) -> Any:
        return apply, (self.op, *self.args)

    def __copy__(self, *_: Any) -> Value:
        return self

    __deepcopy__ = __copy__

    @property
    def shape(self) -> Shape:
        """The sizes: numbers, or expressions of the names of dimensions."""
        shape: Shape = self.type.shape
        return shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        dtype: DType = self.type.dtype
        return dtype

    @property
    def rank(self) -> int:
        """The number of axes; `ndim` of numpy."""
        return len(self.shape)

    ndim = rank


_pool: weakref.WeakValueDictionary[Any, Value] = weakref.WeakValueDictionary()
_pool_lock = threading.RLock()


def apply(op: Op, *args: Value) -> Value:
    """The node `op(*args)`, the same object for equal op and arguments.

    Raises the error of the op's type rule at the user's line, with the types and lines of the
    arguments.
    """
    location = user_location()
    key = (op, *map(id, args))
    with _pool_lock:
        value = _pool.get(key)
    if value is None:
        try:
            type_ = op.infer(*(a.type for a in args))
        except CompileError as error:
            raise _explained(error, op, args, location) from None
        digest = hashlib.blake2b(op.digest, digest_size=8)
        for a in args:
            digest.update(a.digest)
        value = Value.__new__(Value)
        set_ = object.__setattr__
        set_(value, "op", op)
        set_(value, "args", args)
        set_(value, "type", type_)
        set_(value, "digest", digest.digest())
        with _pool_lock:  # another thread may have been faster
            value = _pool.setdefault(key, value)
    current_locations().record(value, location)
    for size in op.makes:
        record_maker(size, value)
    return value


def described(value: Value) -> tuple[str, str, str]:
    """Type, place and text of a value, as a row of an error message."""
    if isinstance(value.op, Input):
        return str(value.type), f"{value.op.kind} {value.op.name}", ""
    location = current_locations().location(value)
    return (
        (str(value.type), location.place, location.text) if location else (str(value.type), "", "")
    )


def argument_labels(op: Op, count: int) -> list[str]:
    """What an error calls the arguments of an op that is given `count` of them: the names that its
    type rule has for them."""
    labels: list[str] = []
    for p in inspect.signature(op.infer).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            labels += [f"{p.name} {i}" for i in range(count - len(labels))]
        else:
            labels.append(p.name)
    return labels


def _explained(
    error: CompileError, op: Op, args: Sequence[Value], location: Location | None
) -> CompileError:
    if error.rows:
        return error
    labels = argument_labels(op, len(args))
    rows = [(label, *described(a)) for label, a in zip(labels, args, strict=False)]
    message = f"{named(location, op.label)}: {error.said}"
    return type(error)(message, rows=rows, hint=error.hint, location=location)


class Input(Op):
    """A leaf that is given from outside: data, a trained parameter, or state of the training."""

    name: str
    type: Type
    kind: str = "input"  # or "parameter", "state"
    mixes = True

    def infer(self) -> Type:
        return self.type


def input_of(leaf: Value) -> Input:
    """The input that a value is."""
    assert isinstance(leaf.op, Input)
    return leaf.op


class Item(Op):
    """One result of an op with several."""

    index: int
    moves = True

    def infer(self, results: TupleType) -> Type:
        return results.items[self.index]

    def rowwise(self, places: Sequence[int | None], *types: Any) -> int | None:
        return places[0]

    def batched(self, length: Dim) -> Op:
        return self

    def numpy(self, results: tuple[Any, ...]) -> Any:
        return results[self.index]

    def onnx(self, o: Any, *args: Any) -> Any:
        return args[0][self.index]

    def torch(self, t: Any, *args: Any) -> Any:
        return args[0][self.index]


def items(value: Value) -> tuple[Value, ...]:
    """The results of an op with several, each a value."""
    return tuple(Item(i)(value) for i in range(len(value.type.items)))


def toposort(outputs: Iterable[Value]) -> list[Value]:
    """All nodes that the outputs need, arguments first, and what makes a size before what needs
    it; deep graphs do not recurse."""
    outputs = list(outputs)
    order = _sorted(outputs, lambda v: v.args)
    makers: dict[sp.Symbol, Value] = {}
    for v in order:
        for size in v.op.makes:
            makers.setdefault(size, v)
    if not makers:
        return order
    return _sorted(outputs, lambda v: (*v.args, *_needed_makers(v.op, makers)))


def _needed_makers(op: Op, makers: Mapping[sp.Symbol, Value]) -> Iterable[Value]:
    """The nodes that make the sizes in the fields of an op."""
    return dict.fromkeys(makers[s] for s in _sizes_in(op) if s in makers and s not in op.makes)


def _sizes_in(op: Op) -> set[sp.Symbol]:
    """The names of sizes in the fields of an op, and in those of the graphs in it."""
    inner: list[Graph] = []

    def seen(graph: Graph) -> Graph:
        inner.append(graph)
        return graph

    op.within(seen)
    found = set().union(*(_sizes_in(v.op) for graph in inner for v in graph.nodes))
    pending = list(op.attributes.values())
    while pending:
        x = pending.pop()
        if isinstance(x, sp.Expr):
            found |= x.free_symbols
        elif isinstance(x, tuple):
            pending += x
        elif isinstance(x, Type):
            pending += x.shape
    return found


def _sorted(outputs: Sequence[Value], needed: Callable[[Value], Sequence[Value]]) -> list[Value]:
    order: list[Value] = []
    done: set[int] = set()
    stack: list[tuple[Value, bool]] = [(v, False) for v in reversed(outputs)]
    while stack:
        value, ready = stack.pop()
        if id(value) in done:
            continue
        if ready:
            done.add(id(value))
            order.append(value)
            continue
        stack.append((value, True))
        stack.extend((a, False) for a in reversed(needed(value)) if id(a) not in done)
    return order


@dataclass(frozen=True)
class Graph:
    """Named outputs computed from named leaves: what passes take and give, and backends lower."""

    name: str
    outputs: Mapping[str, Value]
    inputs: tuple[Value, ...] = ()  # order of the leaves; others follow as they are met
    locations: LocationTable = field(default_factory=current_locations, compare=False)
    doc: str = ""

    @cached_property
    def nodes(self) -> list[Value]:
        """All nodes, arguments first."""
        return toposort(self.outputs.values())

    @cached_property
    def leaves(self) -> dict[str, Value]:
        """The leaves that the outputs need or `inputs` declares, by name."""
        found = [v for v in self.nodes if isinstance(v.op, Input)]
        leaves: dict[str, Value] = {}
        for v in (*self.inputs, *found):
            if input_of(v).kind == "binder":
                raise CompileError(
                    f"a value of one iteration of a scan, {v.type}, is used outside of it",
                    hint="return it from the body: its last value or its stack is a result of scan",
                )
            known = leaves.setdefault(input_of(v).name, v)
            if known is not v:
                raise CompileError(
                    f"two different inputs are called {input_of(v).name}: "
                    f"{known.type} and {v.type}",
                    hint="give one of them another name",
                )
        return leaves

    def of_kind(self, kind: str) -> dict[str, Value]:
        """The leaves of one kind: "input", "parameter" or "state"."""
        return {n: v for n, v in self.leaves.items() if input_of(v).kind == kind}

    def with_outputs(self, outputs: Mapping[str, Value]) -> Graph:
        """The graph with other outputs: the same name, order of leaves, locations and doc."""
        return dataclasses.replace(self, outputs=dict(outputs))

    def mapped(self, change: Callable[[Sequence[Value]], Sequence[Value]]) -> Graph:
        """The graph with `change` applied to its outputs, all at once."""
        makers = {size: v for v in self.nodes for size in v.op.makes}
        with recording_locations(self.locations), making(makers):
            new = change(list(self.outputs.values()))
        return self.with_outputs(dict(zip(self.outputs, new, strict=True)))
