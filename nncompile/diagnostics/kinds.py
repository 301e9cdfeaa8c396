"""Which argument of a call is of a wrong kind, by the annotations of the function.

They are read only when a call failed, so that a call that works pays nothing.

>>> def halved(x: float, axis: int | None = None) -> float: ...
>>> wrong_kind(halved, (1.0,), {"axis": "last"})
('axis', 'must be a whole number or None, got "last"', None)
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np

from nncompile.diagnostics.errors import did_you_mean

_SHOWN = 60  # characters of an argument that a message shows


def wrong_kind(
    function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[str, str, str | None] | None:
    """The name of the first argument that is not what its annotation says, what is wrong with it,
    and a hint; None where all are, or are not annotated with what can be asked of an object."""
    signature = inspect.signature(function)
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for name, x in signature.bind(*args, **options).arguments.items():
        parameter = signature.parameters[name]
        hint = _resolved(parameter.annotation, names)
        given: Iterable[tuple[str, Any]] = [(name, x)]
        if parameter.kind is parameter.VAR_POSITIONAL:
            given = [(name, item) for item in x]
        elif parameter.kind is parameter.VAR_KEYWORD:
            continue
        for label, item in given:
            if item is not parameter.default and not _fits(item, hint):
                close = None
                if get_origin(hint) is Literal and isinstance(item, str):
                    close = did_you_mean(item, get_args(hint))
                return label, f"must be {_words(hint)}, got {shown(item)}", close
    return None


def unfit(function: Callable[..., Any], *args: Any) -> str | None:
    """Why a function of the user's cannot be called with these arguments; None where it can."""
    try:
        inspect.signature(function).bind(*args)
    except TypeError as error:
        return str(error)
    except ValueError:  # a function in C, of which nothing is known
        return None
    return None


def shown(x: object) -> str:
    """The argument as a message writes it: itself, or what it is where that is long."""
    if isinstance(x, np.ndarray):
        return f"an array of {x.dtype} of shape {list(x.shape)}"
    text = f'"{x}"' if isinstance(x, str) else repr(x)
    plain = len(text) <= _SHOWN and "\n" not in text and " object at 0x" not in text
    return text if plain else f"an object of the class {type(x).__name__}"


def _resolved(hint: Any, names: Mapping[str, Any]) -> Any:
    """What an annotation stands for; Any where it names what the module imports only to check."""
    if hint is inspect.Parameter.empty:
        return Any
    if isinstance(hint, str):
        try:
            return _resolved(eval(hint, dict(names)), names)
        except (NameError, AttributeError):
            return Any
    if hasattr(hint, "__value__"):  # `type Name = ...`
        return _resolved(hint.__value__, names)
    return hint


def _fits(x: Any, hint: Any) -> bool:
    """Whether the object may be what the annotation says; True where that cannot be asked."""
    if hint in (None, NoneType):
        return x is None
    if hint in _CHECKS:
        return _CHECKS[hint](x)
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(x, part) for part in parts)
    if origin is Annotated:
        return _fits(x, parts[0])
    if origin is Literal:
        return any(type(x) is type(part) and x == part for part in parts)
    kind = origin or hint
    if not isinstance(kind, type) or kind is object:
        return True
    try:
        if not isinstance(x, kind):
            return kind is tuple and isinstance(x, list) and _items_fit(x, parts)
    except TypeError:  # a protocol that is not one of run time
        return True
    return _items_fit(x, parts)


def _items_fit(x: Any, parts: tuple[Any, ...]) -> bool:
    if not parts or not isinstance(x, list | tuple | str | Mapping):
        return True
    if isinstance(x, Mapping):
        pairs = x.items()
        return len(parts) != 2 or all(all(map(_fits, pair, parts)) for pair in pairs)
    if len(parts) == 1 or parts[-1] is Ellipsis:
        return all(_fits(item, parts[0]) for item in x)
    return len(x) == len(parts) and all(map(_fits, x, parts))


def _is_whole(x: Any) -> bool:
    try:
        operator.index(x)
    except TypeError:
        return False
    return True


def _is_number(x: Any) -> bool:
    return isinstance(x, Real) or (isinstance(x, np.ndarray | np.generic) and x.ndim == 0)


_CHECKS: dict[Any, Callable[[Any], bool]] = {
    Any: lambda x: True,
    int: _is_whole,
    float: _is_number,
    bool: lambda x: isinstance(x, bool | np.bool_),
}

_WORDS: dict[Any, str] = {
    bool: "True or False",
    float: "a number",
    int: "a whole number",
    str: "a text",
    None: "None",
    NoneType: "None",
    Any: "anything",
}

# By the name of a class, what its objects are called.
_NOUNS = {
    "DType": "an element type such as f32",
    "Graph": "a graph",
    "History": "the history that fit returned",
    "Model": "a model, which @model makes",
    "Monitor": "a Monitor",
    "PathLike": "a path",
    "Recipe": "a recipe, which training(...) makes",
    "Step": "a step, which compose(recipe) makes",
    "Trainer": "a trainer",
    "Type": 'a type such as f32["batch", 3]',
    "Value": "a value of a graph",
    "Callable": "a function",
    "Mapping": "a dict",
    "dict": "a dict",
}


def _words(hint: Any) -> str:
    """What the annotation says, in words."""
    if hint in _WORDS:
        return _WORDS[hint]
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        words = list(dict.fromkeys(_words(part) for part in parts))
        return _joined(words)
    if origin is Annotated:
        return _words(parts[0])
    if origin is Literal:
        return _joined([f'"{part}"' if isinstance(part, str) else repr(part) for part in parts])
    kind = origin or hint
    name = getattr(kind, "__name__", str(kind))
    if name in _NOUNS:
        return _NOUNS[name]
    if isinstance(kind, type) and issubclass(kind, Collection | Iterable):
        return _several(parts)
    article = "an" if name[:1] in "AEIOU" else "a"
    return f"{article} {name}"


def _several(parts: tuple[Any, ...]) -> str:
    if len(parts) > 1 and parts[-1] is not Ellipsis:
        return f"a tuple of {len(parts)}: {', '.join(_words(part) for part in parts)}"
    one = _words(parts[0]) if parts else "anything"
    plural = {"a whole number": "whole numbers", "a number": "numbers", "a text": "texts"}
    plural |= {"a value of a graph": "values of a graph", "anything": "things"}
    return f"a list or tuple of {plural[one]}" if one in plural else f"a list or tuple, each {one}"


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
