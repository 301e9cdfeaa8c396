"""Ops and values: a value is an op applied to values.

Values are immutable and interned: equal nodes are one object, so common subexpressions merge and
dead code disappears by construction.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import sympy as sp

from nncompile.diagnostics.errors import CompileError, GradientError, ShapeError
from nncompile.diagnostics.locations import (
    Location,
    call_label,
    current_locations,
    record_maker,
    user_location,
)
from nncompile.ir.argument_labels import argument_labels
from nncompile.ir.attributes import Attributes
from nncompile.ir.dims import Dim, Shape
from nncompile.ir.operators import Operators
from nncompile.ir.pool import Pool
from nncompile.ir.types import AnyType, DType, TupleType, Type, component_types


class Mask(Protocol):
    """Where a cotangent may be other than 0: where `condition`, a formula of `args`, holds; there
    it is `inside`."""

    @property
    def condition(self) -> sp.Expr: ...
    @property
    def args(self) -> tuple[Value, ...]: ...
    @property
    def inside(self) -> Value: ...
    def same_along(self, axis: int) -> Value | None: ...


class Backward(Protocol):
    """Reverse mode, as it is handed to the ops that need it for their own cotangents."""

    def __call__(self, seeds: Mapping[Value, Value], wrt: Sequence[Value]) -> list[Value]:
        """The cotangents at `wrt`, given those at results of a graph."""
        ...

    def mask_of(self, g: Value) -> Mask | None:
        """Where the cotangent `g` is known to be 0; None where nothing is known."""
        ...


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


class Op(Attributes):
    """What is known about one operation. A subclass is an op; its fields are its attributes.

    An op says: `infer` (type rule), `pullback` (gradient), `numpy` (meaning), `onnx` and
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
    # Whether its second argument holds indices of elements of the first, along the field `axis`.
    indexes: ClassVar[bool] = False
    # Which field takes any axis of equally shaped arguments of any rank: "axis" (one of them),
    # "axes" (some) or "order" (`axes`: all, in any order). The tests then draw random ones.
    varies: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Keyed by place of definition: a re-run notebook cell replaces its own op, and a
        # foreign class of the same name does not take another's place.
        Op.registry[cls.__module__, cls.__qualname__] = cls

    def __call__(self, *args: Value) -> Value:
        return apply(self, *args)

    def rebuild(self, *args: Value) -> Value:
        """The op on other arguments, in the form that equal values have in common."""
        return apply(self, *args)

    def ordered(self, args: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]] | None:
        """The op and the arguments of `rebuild` on arguments of the same types, where known."""
        return None if self.makes else (self, args)

    def within(self, change: Callable[[Any], Any]) -> Op:
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
    def origin(self) -> str:
        """Where its result comes from, for an error message; empty where a line made it."""
        return ""

    @property
    def makes(self) -> tuple[sp.Symbol, ...]:
        """The sizes of its result that depend on data: names that `made_size` gave, in its fields.

        They are known once it has run, which it does before anything that needs them.
        """
        return ()

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        """The axis of the result, of all where there are several, along which it is computed row by
        row: where row i is made of rows i of the arguments along their axes `row_axes` (None: of an
        argument that is the same for all rows) and of nothing else. None where it is not so, or
        not known.

        Every op says which axes it mixes: here, by `mixes` where it keeps none apart, or by
        `varies` where it works along one or some of its axes.
        """
        same = set(row_axes)
        if not self.varies or len(same) != 1 or None in same:
            return None
        (axis,) = same
        assert axis is not None
        field: Any = getattr(self, _AXES[self.varies])
        if self.varies == "order":
            return int(field.index(axis))
        axes = (field,) if isinstance(field, int) else field
        if axis in axes:
            return None
        result: Any = self.infer(*types)
        rank = (result.items[0] if isinstance(result, TupleType) else result).rank
        return axis if rank == types[0].rank else axis - sum(a < axis for a in axes)

    def batched(self, length: Dim) -> Op | None:
        """The op that does the same to each of `length` rows of its arguments, which are stacked
        along a new first axis. None where there is none, or it is not known.

        An op that says in `varies` along which of its axes it works need say no more.
        """
        if not self.varies:
            return None
        field: Any = getattr(self, _AXES[self.varies])
        new: Any = field + 1 if isinstance(field, int) else tuple(axis + 1 for axis in field)
        if self.varies == "order":
            new = (0, *new)
        return dataclasses.replace(self, **{_AXES[self.varies]: new})

    # What an op says. Parameters are the types, values, arrays or names of the arguments.

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

    def macs(self, result: Any, *types: Any) -> Dim:
        """The multiplications whose products are added up, of arguments of these types: those of a
        matrix product [n, k] @ [k, m] are n·k·m. Elementwise ops and reductions have none."""
        return 0

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        """The ops and argument types that the tests run."""
        return iter(())


class _Node:
    """What a value holds, while it is filled in: setting what is immutable takes five times as
    long, and this is done for every node that is made."""

    __slots__ = ("__weakref__", "args", "digest", "op", "settled", "settled_if", "type")
    op: Op
    args: tuple[Value, ...]
    type: Any
    digest: bytes
    settled: int  # bits of sets of rewritings of which none applies: see passes/rewriting.py
    settled_if: Any  # and of which none applies under conditions


class Value(Operators, _Node):
    """An op applied to values: immutable, interned, compared elementwise by `==`. `x is y` asks
    whether two values are the same node."""

    __slots__ = ()

    __hash__ = object.__hash__  # identity, and as fast as that of any object

    def __repr__(self) -> str:
        return f"<{self.op.label} : {self.type}>"

    def __setattr__(self, name: str, _: Any) -> None:
        raise AttributeError(f"a value is immutable: {name} cannot be set")

    def __reduce__(self) -> Any:
        return _unpacked_one, (packed([self])[0],)

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
        return len(self.type.shape)

    ndim = rank


_pool: Pool[Value] = Pool()
_LARGEST = 2**63 - 1  # size of an axis


def apply(op: Op, *args: Value) -> Value:
    """The node `op(*args)`, the same object for equal op and arguments.

    Raises the error of the op's type rule at the user's line, with the types and lines of the
    arguments.
    """
    location = user_location()
    key = (op, *map(id, args))
    value = _pool.get(key)
    if value is None:
        try:
            type_ = op.infer(*[a.type for a in args])
        except CompileError as error:
            raise _explained(error, op, args, location) from None
        for component in component_types(type_):
            for size in component.shape:
                if size.__class__ is int and size > _LARGEST:
                    raise ShapeError(f"{op.label}: a size of {size:,} is beyond 64 bits")
        value = _interned(key, op, args, type_)
    current_locations().record(value, location)
    for size in op.makes:
        record_maker(size, value)
    return value


def remade(value: Value, args: tuple[Value, ...], location: Location | None = None) -> Value | None:
    """The op of a value on other arguments of the same types, as `Op.rebuild` makes it, at that
    location or the value's; None where it does more than that."""
    table = current_locations()
    location = location or table.location(value) or user_location()
    ordered = value.op.ordered(args)
    if ordered is None:
        return None
    return typed(*ordered, value.type, location)


def typed(op: Op, args: tuple[Value, ...], type_: AnyType, location: Location | None) -> Value:
    """The node `op(*args)` at a location, where its type is known and the op makes no sizes."""
    key = (op, *map(id, args))
    new = _pool.get(key)
    if new is None:
        new = _interned(key, op, args, type_)
    current_locations().record(new, location)
    return new


def _interned(key: Any, op: Op, args: tuple[Value, ...], type_: AnyType) -> Value:
    """A new node, or the one that another thread has made meanwhile."""
    digest = hashlib.blake2b(op.digest + b"".join([a.digest for a in args]), digest_size=8)
    value: Any = _Node()
    value.op, value.args, value.type = op, args, type_
    value.digest, value.settled, value.settled_if = digest.digest(), 0, None
    value.__class__ = Value
    return _pool.add(key, value)


Packed = list[tuple[Op, tuple[int, ...]]]
"""Nodes, each with the places of its arguments, which stand before it."""


def packed(values: Iterable[Value]) -> tuple[Packed, dict[Value, int]]:
    """The values and all that they need, for pickle, which would recurse into their arguments; and
    their places."""
    places: dict[Value, int] = {}
    nodes: Packed = []
    stack = list(values)[::-1]
    while stack:
        value = stack[-1]
        missing = [a for a in value.args if a not in places]
        if missing:
            stack += missing[::-1]
            continue
        stack.pop()
        if value not in places:
            places[value] = len(nodes)
            nodes.append((value.op, tuple(places[a] for a in value.args)))
    return nodes, places


def unpacked(nodes: Packed) -> list[Value]:
    """The values of the nodes, in their order; the same objects where there are equal ones."""
    values: list[Value] = []
    for op, places in nodes:
        values.append(apply(op, *(values[i] for i in places)))
    return values


def _unpacked_one(nodes: Packed) -> Value:
    return unpacked(nodes)[-1]


def described(value: Value) -> tuple[str, str, str]:
    """Type, place and text of a value, as a row of an error message."""
    if value.op.origin:
        return str(value.type), value.op.origin, ""
    location = current_locations().location(value)
    return (
        (str(value.type), location.place, location.text) if location else (str(value.type), "", "")
    )


def _explained(
    error: CompileError, op: Op, args: Sequence[Value], location: Location | None
) -> CompileError:
    if error.rows:
        return error
    labels = argument_labels(op, len(args))
    rows = [(label, *described(a)) for label, a in zip(labels, args, strict=False)]
    message = f"{call_label(location, op.label)}: {error.problem}"
    explained = type(error)(message, rows=rows, hint=error.hint, location=location)
    if isinstance(error, ShapeError) and isinstance(explained, ShapeError):
        explained.undecided, explained.repeats = error.undecided, error.repeats
    return explained
