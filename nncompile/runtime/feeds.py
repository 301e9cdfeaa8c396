"""Data against declared inputs, checked before anything runs.

A check answers with the input's name and both types; what onnxruntime says of the same mistake
names a node somewhere inside the model, or an index.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.dims import Dim, dim, solve, substitute
from nncompile.errors import FeedError, ShapeError
from nncompile.types import DTYPES

Array = np.ndarray[Any, np.dtype[Any]]
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
        return all(isinstance(size, int) for size in self.shape)

    @property
    def type(self) -> str:
        return describe(self.dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


def check_feeds(ports: Sequence[Port], feeds: Mapping[str, Any]) -> dict[str, Array]:
    """The feeds as arrays, one for each port and in that order.

    Python numbers and lists are converted to the declared element type where nothing is lost by
    kind (integers to floats, not the reverse); arrays must have it already. Raises `FeedError` for
    a missing or unknown feed, another element type, rank or size, or one name with two sizes.
    """
    _check_names(ports, feeds)
    arrays = {port.name: _as_array(port, feeds[port.name]) for port in ports}
    _check_sizes(ports, arrays)
    return arrays


def _check_names(ports: Sequence[Port], feeds: Mapping[str, Any]) -> None:
    missing = [port for port in ports if port.name not in feeds]
    unknown = [name for name in feeds if all(name != port.name for port in ports)]
    if missing:
        close = difflib.get_close_matches(missing[0].name, unknown, n=1)
        raise FeedError(
            f"no data for input {', '.join(repr(port.name) for port in missing)}",
            rows=[("input", port.name, port.type) for port in missing],
            hint=f"{close[0]!r} was given: did you mean {missing[0].name!r}?" if close else None,
        )
    if unknown:
        names = [port.name for port in ports]
        close = difflib.get_close_matches(unknown[0], names, n=1)
        raise FeedError(
            f"the model has no input {', '.join(map(repr, unknown))}",
            rows=[("input", port.name, port.type) for port in ports],
            hint=f"did you mean {close[0]!r}?" if close else None,
        )


def _as_array(port: Port, value: Any) -> Array:
    exact = not isinstance(value, bool | int | float | list | tuple) or isinstance(
        value, np.generic
    )
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise FeedError(
            f"the data of input {port.name!r} do not make an array: {error}",
            rows=[("expected", port.type)],
        ) from None
    if array.dtype == port.dtype:
        return array
    if not exact and (_converts(array, port.dtype) or array.size == 0):
        return array.astype(port.dtype)
    shown = np.bool_ if port.dtype == np.bool_ else port.dtype
    raise FeedError(
        f"input {port.name!r} has another element type",
        rows=[("expected", port.type), ("got", describe(array.dtype, array.shape))],
        hint=f"convert it with {port.name}.astype(np.{np.dtype(shown).name})"
        if array.dtype.kind in "biuf"
        else None,
    )


def _converts(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether Python's numbers in `array` have a value in `dtype`."""
    if array.dtype.kind not in "biuf" or dtype.kind == "b":
        return False
    if dtype.kind == "f":
        return True
    if array.dtype.kind == "f":
        return False
    limits = np.iinfo(dtype)
    return bool(np.all((array >= limits.min) & (array <= limits.max)))


def _check_sizes(ports: Sequence[Port], arrays: Mapping[str, Array]) -> None:
    """Ranks, then numbers, then names; arithmetic of names last, when the names have sizes."""
    seen: dict[str, tuple[int, Port]] = {}
    arithmetic: list[tuple[Port, Array, Dim, int]] = []
    for port in ports:
        array = arrays[port.name]
        if array.ndim != len(port.shape):
            raise _mismatch(port, array, f"has rank {array.ndim}, not {len(port.shape)}")
        for axis, (size, actual) in enumerate(zip(port.shape, array.shape, strict=True)):
            if size is None or size == actual:
                continue
            if isinstance(size, int):
                raise _mismatch(port, array, f"has size {actual} on axis {axis}, not {size}")
            if not size.isidentifier():
                arithmetic.append((port, array, _arithmetic(size), axis))
                continue
            first, other = seen.setdefault(size, (actual, port))
            if first != actual:
                raise FeedError(
                    f"{size} is {first} in one input and {actual} in another",
                    rows=[
                        ("input", p.name, p.type, describe(p.dtype, arrays[p.name].shape))
                        for p in (other, port)
                    ],
                )
    bindings = {dim(name): size for name, (size, _) in seen.items()}
    for port, array, expected, axis in arithmetic:
        try:
            found = solve([(substitute(expected, bindings),)], [(array.shape[axis],)])
        except ShapeError as error:
            raise _mismatch(
                port, array, f"has size {array.shape[axis]} on axis {axis}: {error.message}"
            ) from None
        bindings.update(found)


def _arithmetic(text: str) -> Dim:
    """A size as other exporters write it may be any text; what does not parse is one name."""
    try:
        return dim(text)
    except ShapeError:
        return dim(f"size_{abs(hash(text))}")


def _mismatch(port: Port, array: Array, problem: str) -> FeedError:
    return FeedError(
        f"input {port.name!r} {problem}",
        rows=[("expected", port.type), ("got", describe(array.dtype, array.shape))],
    )
