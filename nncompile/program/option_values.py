"""The values of a model file's options: their types and bounds, and how a text means them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nncompile.diagnostics.errors import ModelError, did_you_mean

Scalar = bool | int | float | str

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class FileOption:
    """An option of a model file, and its value in this loading of it."""

    name: str
    default: Any
    value: Any
    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    help: str = ""

    @property
    def allowed(self) -> str:
        """What it may be, in words: `a whole number of at least 1`."""
        if self.choices is not None:
            return " or ".join(map(written, self.choices))
        if self.high is None and self.low is not None:
            return f"{kind_of(self.default)} of at least {written(self.low)}"
        low = "" if self.low is None else f" from {written(self.low)}"
        high = "" if self.high is None else f" to {written(self.high)}"
        return kind_of(self.default) + low + high

    def parse(self, text: str) -> Any:
        """The value that a text means. Raises `ModelError` for one that it must not be."""
        return self.checked(_parsed(self.name, text, self.default))

    def checked(self, x: Any) -> Any:
        """The value in the type of the default. Raises `ModelError` for one that it must not be."""
        x = typed(self.name, x, self.default)
        if self.choices is not None and x not in self.choices:
            close = did_you_mean(written(x), map(written, self.choices), otherwise=" ")
            raise ModelError(
                f"{self.name} must be {self.allowed}, got {written(x)}",
                hint=close if close and close.strip() else None,
            )
        for number in x if isinstance(x, tuple) else (x,):
            below = self.low is not None and number < self.low
            above = self.high is not None and number > self.high
            if below or above:
                raise ModelError(f"{self.name} must be {self.allowed}, got {written(x)}")
        return x


def option_rows(options: Mapping[str, FileOption]) -> list[tuple[str, ...]]:
    """A row for each option: its name, its value, what it may be, and its help."""
    return [(o.name, f"= {written(o.value)}", o.allowed, o.help) for o in options.values()]


def unknown_option(
    file: str, name: str, options: Mapping[str, FileOption], value: str
) -> ModelError:
    """The error for an option that the file does not have; `value` is one that it might have."""
    if not options:
        return ModelError(
            f"{file} has no option {name!r}, nor any other",
            hint=f"declare it in the file: {name} = option({value})",
        )
    return ModelError(
        f"{file} has no option {name!r}",
        rows=[*option_rows(options)],
        hint=did_you_mean(name, options),
    )


def written(x: Any) -> str:
    """A value as `--set` takes it."""
    if isinstance(x, bool):
        return str(x).lower()
    if isinstance(x, tuple | list):
        return "(" + ",".join(map(written, x)) + ("," if len(x) == 1 else "") + ")"
    if isinstance(x, float):
        short = f"{x:.12g}"
        return short if float(short) == x else repr(x)
    return str(x)


def kind_of(default: Any) -> str:
    """What values an option with this default has, in words."""
    if isinstance(default, tuple):
        return f"several, each {kind_of(default[0])}"
    return KINDS[type(default)]


def separated(text: str) -> list[str]:
    """The parts between the commas that are in no brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in (*parts, text[start:])]


def assignments(texts: Sequence[str], label: str) -> dict[str, str]:
    """`["width=128", "lr=0.01"]` as a dict. Raises `ModelError` for another form, and for a name
    that is given twice; `label` says in messages where they stand."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise ModelError(f"{label} {text!r} is not NAME=VALUE", hint=f"{label} width=128")
        if name in values:
            raise ModelError(f"{label} gives {name!r} twice: {values[name]!r} and {value!r}")
        values[name] = value.strip()
    return values


def typed(name: str, x: Any, default: Any) -> Any:
    """`x` in the type of the default."""
    if isinstance(default, tuple):
        if not isinstance(x, tuple | list):
            raise ModelError(f"{name} must be {kind_of(default)}, got {x!r}")
        return tuple(typed(name, element, default[0]) for element in x)
    kind = type(default)
    number = kind is float and isinstance(x, int | float) and not isinstance(x, bool)
    if not number and type(x) is not kind:
        raise ModelError(f"{name} must be {kind_of(default)}, got {x!r}")
    if number and not math.isfinite(x):
        raise ModelError(f"{name} must be a finite number, got {x!r}")
    return float(x) if number else x


def _parsed(name: str, text: str, default: Any) -> Any:
    if isinstance(default, tuple):
        inner = re.fullmatch(r"[(\[](.*)[)\]]", text.strip())
        parts = separated(inner[1] if inner else text)
        return tuple(_parsed(name, part, default[0]) for part in parts if part)
    try:
        return _READERS[type(default)](text.strip())
    except ValueError:
        raise ModelError(f"{name} must be {kind_of(default)}, got {text!r}") from None


def _whole(text: str) -> int:
    number = float(text) if re.search(r"[.eE]", text) else int(text)
    if number != int(number):
        raise ValueError
    return int(number)


def _truth(text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError
    return text.lower() in _TRUE


_READERS: dict[type, Callable[[str], Any]] = {int: _whole, float: float, bool: _truth, str: str}
