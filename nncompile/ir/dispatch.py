"""What operators and methods of a value call: functions looked up by name in a table that the
formulas and ops fill, so that the graph needs to know none of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from nncompile.diagnostics.locations import message_name

F = TypeVar("F", bound=Callable[..., Any])
TABLE: dict[str, Callable[..., Any]] = {}


def register(name: str, function: Callable[..., Any]) -> None:
    """Makes `function` what operator or method `name` of a value calls."""
    TABLE[name] = function


def method(name: str) -> Callable[[F], F]:
    """A decorator: the method is a call of the function registered under that name, which takes
    and checks its arguments; the definition is its signature."""

    def call(self: Any, *args: Any, **options: Any) -> Any:
        return TABLE[name](self, *args, **options)

    return _of_signature(call)


def operator(name: str) -> Callable[[F], F]:
    """The same for an operator of two operands."""

    def forward(self: Any, other: Any) -> Any:
        return TABLE[name](self, other)

    return _of_signature(forward)


def reflected(name: str) -> Callable[[F], F]:
    """The same for an operator whose left operand is no value."""

    def backward(self: Any, other: Any) -> Any:
        return TABLE[name](other, self)

    return _of_signature(backward)


def _of_signature(call: Callable[..., Any]) -> Callable[[F], F]:
    def decorate(signature: F) -> F:
        return cast(F, functools.update_wrapper(message_name()(call), signature))

    return decorate
