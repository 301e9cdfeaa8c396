"""What tells ops apart: their class, and their fields compared by type and value."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, dataclass_transform

import numpy as np
import sympy as sp

from nncompile.ir.dims import Dim, substitute, text_of
from nncompile.ir.lazy import lazy
from nncompile.ir.types import Type


def attribute_key(x: Any) -> Any:
    """Equality by type and value: `1`, `True`, `1.0` differ, so do `0.0`, `-0.0`; NaN is NaN."""
    if x.__class__ in _PLAIN:  # most are
        return (x.__class__, x)
    if isinstance(x, float):
        return (float, x.hex())
    if isinstance(x, tuple):
        return tuple([attribute_key(item) for item in x])
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, _content(x))
    return (type(x), x)


def _content(x: np.ndarray[Any, Any]) -> bytes:
    """The bytes of an array; of a large one, such as a stored weight, what no other one has."""
    if x.nbytes <= _LARGE:
        return x.tobytes()
    return hashlib.blake2b(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data).digest()


_LARGE = 1 << 14  # bytes of a key that is kept with each op, and written as text for its digest


_PLAIN = frozenset((bool, int, str))


def _digested(x: Any) -> str:
    """What a field's digest is made of: no addresses, and no two keys that look the same."""
    if x is None or x.__class__ in _PLAIN:  # most are
        return f"({x!r},)"
    if x.__class__ is Type:
        return _digested_type(x)
    if isinstance(x, tuple):
        return f"({','.join(map(_digested, x))})"
    if callable(x) and hasattr(x, "__qualname__"):
        return f"{x.__module__}.{x.__qualname__}"
    if isinstance(x, sp.Expr):
        return f"({text_of(x)},)"
    return repr(attribute_key(x)[1:])


@functools.lru_cache(maxsize=4096)
def _digested_type(x: Type) -> str:
    return repr((x,))


@functools.lru_cache(maxsize=1024)
def _label(text: str) -> str:
    """The name of a class in lower case with underscores."""
    return "".join(
        "_" + c.lower() if c.isupper() and i and text[i - 1].islower() else c.lower()
        for i, c in enumerate(text)
    )


def _with_sizes(x: Any, sizes: Mapping[sp.Symbol, Dim]) -> Any:
    """A field with sizes in place of the names of dimensions; itself where it has none of them."""
    if isinstance(x, sp.Expr):
        return substitute(x, sizes)
    if isinstance(x, tuple):
        new = tuple(_with_sizes(item, sizes) for item in x)
        return new if any(a is not b for a, b in zip(new, x, strict=True)) else x
    if isinstance(x, Type) and not x.is_static:
        return x.with_shape(_with_sizes(x.shape, sizes))
    return x


def sizes_in(fields: Iterable[Any]) -> set[sp.Symbol]:
    """The names of dimensions in fields."""
    names: set[sp.Symbol] = set()
    pending = list(fields)
    while pending:
        x = pending.pop()
        if isinstance(x, sp.Expr):
            names |= x.free_symbols
        elif isinstance(x, tuple):
            pending += x
        elif isinstance(x, Type):
            pending += x.shape
    return names


@dataclass_transform(frozen_default=True, eq_default=False)
@dataclass(frozen=True, eq=False, repr=False)
class Attributes:
    """A class whose instances are equal where they are of one class and their fields are equal.

    A subclass declares its fields, as a dataclass does; they are hashable.
    """

    _names: ClassVar[tuple[str, ...]] = ()  # of the fields

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__annotations__:  # else it is made as its base is
            dataclass(frozen=True, eq=False, repr=False)(cls)
            cls._names = tuple(f.name for f in dataclasses.fields(cls))

    @lazy
    def label(self) -> str:
        """The op's name as printed, by its class."""
        return _label(type(self).__name__)

    @lazy
    def attributes(self) -> dict[str, Any]:
        """The fields of the op by name."""
        return {name: getattr(self, name) for name in self._names}

    @lazy
    def key(self) -> tuple[Any, ...]:
        """What equal ops have in common: the class and its attributes, hashable."""
        return (type(self), *[attribute_key(getattr(self, name)) for name in self._names])

    @lazy
    def _hash(self) -> int:
        return hash(self.key)

    @lazy
    def digest(self) -> bytes:
        """The same in every process, unlike `hash`: it orders symmetric arguments."""
        fields = [_digested(getattr(self, name)) for name in self._names]
        text = f"{type(self).__module__}.{type(self).__qualname__}{fields}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Attributes) and self.key == other.key)

    def __repr__(self) -> str:
        fields = ", ".join(f"{k}={v!r}" for k, v in self.attributes.items())
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> Any:
        # The fields alone: hashes of another process are none here.
        return type(self), tuple(self.attributes.values())

    def at(self, sizes: Mapping[sp.Symbol, Dim]) -> Self:
        """The op with sizes in place of the names of dimensions in its fields."""
        changed = {}
        for name, x in self.attributes.items():
            new = _with_sizes(x, sizes)
            if new is not x:
                changed[name] = new
        return dataclasses.replace(self, **changed) if changed else self
