"""What an option may be: annotations that say it, checked where a class of options is made.

>>> class Falling(Options):
...     '''A rate that falls.'''
...     factor: Fraction = 0.5
>>> Falling(0.25)
Falling(factor=0.25)
>>> try:
...     Falling(2)
... except ModelError as error:
...     print(error.problem)
factor must be at least 0 and below 1, got 2.0
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    ParamSpec,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
)

import numpy as np

from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import message_name

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[[str, Any], Any]
"""From the name and the value of an option to the value as it is kept; raises `ModelError`."""


def real(name: str, x: Any) -> float:
    """`x` as a Python number, also where it is one of numpy's."""
    if isinstance(x, np.ndarray | np.generic) and x.ndim == 0:
        # By its shortest text: the float32 nearest to 0.1 means 0.1. Types of ml_dtypes are "V".
        x = float(str(x)) if x.dtype.kind in "fV" else x.item()
    if isinstance(x, bool) or not isinstance(x, int | float):
        raise ModelError(f"{name} must be a number, got {x!r}")
    return float(x)


def not_negative(name: str, x: Any) -> float:
    """`x` as a Python number that is neither negative nor NaN."""
    number = real(name, x)
    if not number >= 0:
        raise ModelError(f"{name} must not be negative, got {number}")
    return number


def positive(name: str, x: Any) -> float:
    """`x` as a Python number above 0."""
    number = real(name, x)
    if not number > 0:
        raise ModelError(f"{name} must be positive, got {x}")
    return number


def fraction(name: str, x: Any) -> float:
    """`x` as a Python number from 0, below 1."""
    number = real(name, x)
    if not 0 <= number < 1:
        raise ModelError(f"{name} must be at least 0 and below 1, got {number}")
    return number


def flag(name: str, x: Any) -> bool:
    """True or False."""
    if not isinstance(x, bool | np.bool_):
        raise ModelError(f"{name} must be True or False, got {x!r}")
    return bool(x)


def at_least(least: int) -> Check:
    """Whole numbers from `least` on."""

    def check(name: str, x: Any) -> Any:
        whole_number(name, x, least)
        return x

    return check


def pair(first: Check, second: Check | None = None) -> Check:
    """Two options in a tuple or list, each with its check."""

    def check(name: str, x: Any) -> tuple[Any, Any]:
        if not isinstance(x, list | tuple) or len(x) != 2:
            raise ModelError(f"{name} must be two numbers, got {x!r}")
        return first(name, x[0]), (second or first)(name, x[1])

    return check


def optional(check: Check) -> Check:
    """None, or what the other check lets through."""
    return lambda name, x: None if x is None else check(name, x)


Real = Annotated[float, real]
NotNegative = Annotated[float, not_negative]
Positive = Annotated[float, positive]
Fraction = Annotated[float, fraction]
Fractions = Annotated[tuple[float, float], pair(fraction)]
Bounds = Annotated[tuple[float, float], pair(not_negative)]
Count = Annotated[int, at_least(1)]
CountFromZero = Annotated[int, at_least(0)]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Options:
    """A subclass is a frozen dataclass by itself: its fields are its options, and those whose
    annotations say what they may be (`Fraction`, `Count`, `bool`, ...) are checked.

    A call with an unknown option is a `ModelError` that says what the options are called.
    """

    _checks: ClassVar[dict[str, Check]] = {}
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls, *, eq: bool = True) -> None:
        super().__init_subclass__()
        # Generated methods are compiled one by one, for each class at its import: all share these.
        dataclass(frozen=True, eq=False, repr=False)(cls)
        if not eq:
            cls.__eq__, cls.__hash__ = object.__eq__, object.__hash__  # type: ignore[method-assign]  # by identity
        cls.__init__ = suggests_names(cls.__init__, cls.__name__)  # type: ignore[method-assign]  # of this class only
        annotations = inspect.get_annotations(cls)
        checks = {name: _check_of(_resolved(cls, hint)) for name, hint in annotations.items()}
        cls._checks = cls._checks | {name: check for name, check in checks.items() if check}

    def __post_init__(self) -> None:
        for name, check in self._checks.items():
            self._set(name, check(name, getattr(self, name)))

    def _set(self, name: str, x: Any) -> None:
        object.__setattr__(self, name, x)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Options) or type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        """The first option and those that are not at their defaults."""
        shown = [
            name
            for i, (name, field) in enumerate(self.__dataclass_fields__.items())
            if field.repr and (not i or repr(getattr(self, name)) != repr(field.default))
        ]
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({options})"


def _resolved(cls: type, hint: Any) -> Any:
    """What an annotation stands for; None where it names what the module of the class lacks."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, vars(sys.modules[cls.__module__]))
    except NameError:
        return None


def _check_of(hint: Any) -> Check | None:
    if hint is bool:
        return flag
    if get_origin(hint) is Annotated:
        return next((x for x in hint.__metadata__ if callable(x)), None)
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        checks = [_check_of(x) for x in get_args(hint) if x is not NoneType]
        return optional(checks[0]) if len(checks) == 1 and checks[0] else None
    return None


def taking(
    options: type[Options], without: Sequence[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the function, whose last parameter is `**options`, takes those of that class by
    name, but for the ones that it has itself, or that are named; and tells wrong ones, as they do.
    """

    def declare(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        *fixed, _ = signature.parameters.values()
        excluded = {p.name for p in fixed}.union(without)
        added = [
            p.replace(kind=p.KEYWORD_ONLY)
            for p in inspect.signature(options).parameters.values()
            if p.name not in excluded
        ]
        signature = signature.replace(parameters=[*fixed, *added])

        @functools.wraps(function)
        @message_name(function.__name__)
        def wrapper(*args: P.args, **keywords: P.kwargs) -> R:
            signature.bind(*args, **keywords)
            return function(*args, **keywords)

        wrapper.__signature__ = signature  # type: ignore[attr-defined]  # which inspect reads
        return suggests_names(wrapper)

    return declare
