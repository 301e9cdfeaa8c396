"""Data against declared inputs, checked before anything runs.

A check answers with the input's name and both types; what onnxruntime says of the same mistake
names a node somewhere inside the model, or an index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import FeedError, Row, ShapeError, closest, did_you_mean
from nncompile.diagnostics.printable import element
from nncompile.ir.dims import Dim, dim, solve, substitute, symbols
from nncompile.ir.op import Value
from nncompile.ir.types import (
    DTYPES,
    Array,
    as_bfloat16,
    check_unmasked,
    is_numeric,
    is_real,
    numpy_name,
)

DeclaredShape = tuple[int | str | None, ...]

_SHORT = {d.numpy: d.short for d in DTYPES}


def describe(dtype: np.dtype[Any], shape: Sequence[object]) -> str:
    """`f32[batch, 8]`; an unknown size is `?`, an element type that has no short name its own."""
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    return f"{_SHORT.get(dtype, str(dtype))}[{sizes}]"


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a loaded model. A size is a number, a name (or arithmetic of names),
    or None where the model does not say."""

    name: str
    dtype: np.dtype[Any]
    shape: DeclaredShape

    @property
    def is_static(self) -> bool:
        """Whether all sizes are numbers."""
        return all(isinstance(size, int) for size in self.shape)

    @property
    def type(self) -> str:
        """Element type and shape, as messages show them."""
        return describe(self.dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


def ports_of(values: Mapping[str, Value]) -> list[Port]:
    """The ports of inputs or outputs of a graph."""
    return [
        Port(n, x.dtype.numpy, tuple(d if isinstance(d, int) else str(d) for d in x.shape))
        for n, x in values.items()
    ]


class Shaped(Protocol):
    """What has a shape and an element type."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


def check_feeds(ports: Sequence[Port], feeds: Mapping[str, Any]) -> dict[str, Array]:
    """The feeds as arrays, one for each port and in that order.

    Python numbers and lists are converted to the declared element type where nothing is lost by
    kind (integers to floats, not the reverse); arrays must have it already. Raises `FeedError` for
    a missing or unknown feed, another element type, rank or size, or one name with two sizes.
    """
    check_names(ports, feeds)
    arrays = {port.name: as_array(port, feeds[port.name]) for port in ports}
    check_sizes(ports, arrays)
    return arrays


def check_examples(feeds: Mapping[str, Array]) -> None:
    """Raises `FeedError` where there are none: a mean loss is 0/0 then, and onnxruntime's Gemm
    ignores β where it sums nothing."""
    empty = [(n, describe(x.dtype, x.shape)) for n, x in feeds.items() if x.size == 0]
    if empty:
        raise FeedError(
            f"input {empty[0][0]!r} is empty: a training step needs at least one example",
            rows=[("got", *row) for row in empty],
            hint="skip empty batches",
        )


def check_names(
    ports: Sequence[Port], feeds: Mapping[str, Any], written: str | None = None
) -> None:
    """Raises `FeedError` for a missing or unknown feed; `written` is how all of them are given,
    the hint for a missing one that no unknown name is like."""
    names = [port.name for port in ports]
    missing = [port for port in ports if port.name not in feeds]
    unknown = [name for name in feeds if name not in names]
    if missing:
        close = closest(missing[0].name, unknown)
        raise FeedError(
            f"no data for input {', '.join(repr(port.name) for port in missing)}",
            rows=[("input", port.name, port.type) for port in missing],
            hint=f"{close!r} was given: is it {missing[0].name!r}?" if close else written,
        )
    if unknown:
        raise FeedError(
            f"the model has no input {', '.join(map(repr, unknown))}",
            rows=[("input", port.name, port.type) for port in ports],
            hint=did_you_mean(unknown[0], names),
        )


def as_array(port: Port, value: Any) -> Array:
    """The feed of one port; see `check_feeds`. Raises `FeedError` for another element type."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise FeedError(
            f"the data of input {port.name!r} cannot be converted to an array: {error}",
            rows=[("expected", port.type)],
        ) from None
    check_unmasked(value, f"input {port.name!r}", FeedError)
    array = as_bfloat16(array)
    if array.dtype == port.dtype:
        return array
    # A Python number or list has no element type of its own, an array's was somebody's choice.
    literal = isinstance(value, bool | int | float | list | tuple)
    if literal and not isinstance(value, np.generic) and _converts(array, port.dtype):
        return array.astype(port.dtype)
    raise FeedError(
        f"input {port.name!r} has the wrong element type",
        rows=[
            ("expected", port.type),
            ("got", describe(array.dtype, array.shape)),
            *_strangers(port.name, array),
        ],
        hint=_conversion(port, array),
    )


def _conversion(port: Port, array: Array) -> str | None:
    """How data of another element type become what is expected."""
    number = numpy_name(port.dtype)
    if is_real(array.dtype) and not is_real(port.dtype):
        missing = np.argwhere(np.isnan(array))
        if len(missing):
            place = [int(i) for i in missing[0]] or ""
            return f"{port.name}{place} is NaN: remove or fill what is missing, then convert it"
    if is_numeric(array.dtype) and array.dtype in _SHORT:
        declared = f"declare the input {describe(array.dtype, port.shape)}"
        beyond = _beyond(port, array)
        if beyond is not None:
            return f"{beyond}: {declared}"
        if array.dtype == np.uint8 and is_real(port.dtype):
            declared += ", as images may be, and convert it in the model: x.astype(f32)"
            return f"convert it with {port.name}.astype({number}); or {declared}"
    if is_numeric(array.dtype) or (array.dtype.kind == "O" and not _strangers("", array)):
        return f"convert it with {port.name}.astype({number})"
    if array.dtype.kind == "c":
        return f"{port.name}.real and {port.name}.imag are real: pass them as two inputs"
    if array.dtype.kind in "US" or _is_text(array):
        codes = "codes = Vocabulary().adapt(column); the model is fed codes.encode(column)"
        return f"a model has no text: {codes}"
    if array.dtype.kind == "O":
        return f"fill in missing values, then convert it with {port.name}.astype({number})"
    return None


def _is_text(array: Array) -> bool:
    """Whether the first object that is not missing is text."""
    if array.dtype.kind != "O":
        return False
    return isinstance(next((x for x in array.ravel().tolist() if x is not None), None), str)


def _beyond(port: Port, array: Array) -> str | None:
    """What a conversion to the declared element type would lose; None where it is no more than
    digits."""
    if array.size == 0 or port.dtype.kind == "b":
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        if is_real(array.dtype) and not is_real(port.dtype):
            integral = np.isfinite(array) & (array == np.trunc(array))
            if not integral.all():
                return f"{port.name}.astype({numpy_name(port.dtype)}) would truncate fractions"
        low, high = array.min(), array.max()
        if is_real(port.dtype):
            largest = float(np.finfo(np.float16).max) if port.dtype == np.float16 else math.inf
            smallest = -largest
        else:
            limits = np.iinfo(port.dtype)
            smallest, largest = limits.min, limits.max
    if (low >= smallest and high <= largest) or np.isnan(low) or not np.isfinite([low, high]).all():
        return None
    worst = high if high > largest else low
    name = _SHORT[port.dtype]
    return f"{port.name} holds {worst}, but {name} ranges from {smallest:g} to {largest:g}"


def _strangers(name: str, array: Array) -> list[Row]:
    """The objects that are not numbers: how many, and the first."""
    if array.dtype.kind != "O":
        return []
    wrong = [index for index, x in np.ndenumerate(array) if not isinstance(x, Real)]
    if not wrong:
        return []
    first = f"{element(name, wrong[0])} = {array[wrong[0]]!r:.40}"
    return [("no numbers", f"{len(wrong):,} of {array.size:,}, first {first}")]


def _converts(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether Python's numbers in `array` have a value in `dtype`."""
    if array.size == 0:
        return True
    if not is_numeric(array.dtype) or dtype.kind == "b":
        return False
    if is_real(dtype):
        return True
    if is_real(array.dtype):
        return False
    limits = np.iinfo(dtype)
    return bool(np.all((array >= limits.min) & (array <= limits.max)))


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a feed: the size that its port declares, and the one that came."""

    port: Port
    array: Shaped
    index: int
    declared: Dim

    @property
    def actual(self) -> int:
        size: int = self.array.shape[self.index]
        return size

    @property
    def difficulty(self) -> int:
        """Numbers are compared first, then names get sizes, then arithmetic of names."""
        if isinstance(self.declared, int):
            return 0
        return 1 if self.declared.is_Symbol else 2


def check_sizes(ports: Sequence[Port], arrays: Mapping[str, Shaped]) -> None:
    """Raises `FeedError` for another rank or size, or one name with two sizes."""
    axes: list[_Axis] = []
    for port in ports:
        array = arrays[port.name]
        if array.ndim != len(port.shape):
            raise _mismatch(port, array, f"has rank {array.ndim}, not {len(port.shape)}")
        axes += [_Axis(port, array, i, _dim(size)) for i, size in enumerate(port.shape)]
    sizes: dict[sp.Symbol, Dim] = {}
    origin: dict[sp.Symbol, Port] = {}
    for axis in sorted(axes, key=lambda axis: axis.difficulty):
        expected = substitute(axis.declared, sizes)
        try:
            solved = solve([(expected,)], [(axis.actual,)])
        except ShapeError:
            substituted = sorted(symbols([axis.declared]) & sizes.keys(), key=str)
            raise _mismatch(
                axis.port,
                axis.array,
                f"has size {axis.actual} on axis {axis.index}, not {axis.declared}",
                [(str(s), f"{sizes[s]} by input {origin[s].name!r}") for s in substituted],
            ) from None
        sizes.update(solved)
        origin.update(dict.fromkeys(solved, axis.port))


def _dim(size: int | str | None) -> Dim:
    """The declared size as a dimension. Other exporters write any text: what does not parse is
    one name, and a size without text is a name that nothing else has."""
    if size is None:
        return sp.Dummy("size", integer=True, nonnegative=True)
    try:
        return dim(size)
    except ShapeError:
        return sp.Symbol(str(size), integer=True, nonnegative=True)


def _mismatch(
    port: Port, array: Shaped, problem: str, size_rows: Sequence[tuple[str, str]] = ()
) -> FeedError:
    return FeedError(
        f"input {port.name!r} {problem}",
        rows=[("expected", port.type), ("got", describe(array.dtype, array.shape)), *size_rows],
    )
