"""What a sweep tries for the options of a model file: values, or numbers between bounds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ModelError
from nncompile.program.option_values import FileOption, separated, unknown_option, written

Settings = dict[str, Any]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included, whole ones where these are; `log`: by ratio."""

    low: int | float
    high: int | float
    log: bool = False

    def draw(self, random: np.random.Generator) -> int | float:
        """One of them at random."""
        if isinstance(self.low, int) and not self.log:
            return int(random.integers(self.low, int(self.high) + 1))
        if not self.log:
            return self.rounded(random.uniform(self.low, self.high))
        return self.rounded(math.exp(random.uniform(math.log(self.low), math.log(self.high))))

    def rounded(self, x: float) -> int | float:
        """The number in four digits, which is as good and can be read; a whole one where the bounds
        are."""
        short = round(x) if isinstance(self.low, int) else float(f"{x:.4g}")
        return min(max(short, self.low), self.high)


Space = tuple[Any, ...] | Range


def parsed(option: FileOption, text: str) -> Space:
    """`32,64` as values of the option, `1..9` or `log:1e-4..1e-1` as a range. Raises `ModelError`
    for what the option must not be, and for another form."""
    log = text.startswith("log:")
    body = text.removeprefix("log:")
    low, dots, high = body.partition("..")
    if not dots:
        if log:
            raise ModelError(
                f"{option.name}={text} is no range", hint=f"{option.name}=log:1e-4..1e-1"
            )
        values = tuple(option.parse(part) for part in separated(body) if part)
        if not values:
            raise ModelError(f"{option.name} has no values", hint=f"{option.name}=V1,V2,...")
        twice = next((x for i, x in enumerate(values) if x in values[:i]), None)
        if twice is not None:
            raise ModelError(f"{option.name} has the value {written(twice)} twice")
        return values
    if type(option.default) not in (int, float):
        raise ModelError(
            f"{option.name} has no range: it is {option.allowed}", hint=f"{option.name}=V1,V2,..."
        )
    first, last = option.parse(low), option.parse(high)
    if not first < last:
        raise ModelError(f"{option.name}={text} is empty: {low} is not below {high}")
    if log and first <= 0:
        raise ModelError(f"{option.name}={text} by ratio needs bounds above 0")
    return Range(first, last, log)


def spaces(
    options: Mapping[str, FileOption], given: Mapping[str, str], file: str
) -> dict[str, Space]:
    """The space of each option that is given. Without any, those that the file declares: `choices`,
    or `low` and `high`. Raises `ModelError` for an option that the file does not have, and where
    there are none."""
    for name in given:
        if name not in options:
            raise unknown_option(file, name, options, "...")
    if given:
        return {name: parsed(options[name], text) for name, text in given.items()}
    declared: dict[str, Space] = {}
    for name, option in options.items():
        if option.choices is not None:
            declared[name] = option.choices
        elif option.low is not None and option.high is not None:
            kind = type(option.default)
            if kind in (int, float):
                declared[name] = Range(kind(option.low), kind(option.high), option.log)
    if not declared:
        raise ModelError(
            f"{file} declares no option with choices, or with low and high",
            hint="say what to try: lr=log:1e-4..1e-1 width=32,64",
        )
    return declared


def grid(space: Mapping[str, Space]) -> list[Settings]:
    """Every combination of the values. Raises `ModelError` for a range, which has no end."""
    values: list[tuple[Any, ...]] = []
    for name, tried in space.items():
        if isinstance(tried, Range):
            raise ModelError(
                f"a grid has values, {name} is a range",
                hint=f"--random N {name}=..., or {name}=V1,V2",
            )
        values.append(tried)
    return [dict(zip(space, chosen, strict=True)) for chosen in itertools.product(*values)]


def draws(space: Mapping[str, Space], seed: int) -> Iterator[Settings]:
    """Combinations at random, all different; the same for a seed, however many are taken. They end
    where no new one was found in a thousand attempts."""
    random = np.random.default_rng(seed)
    seen: set[str] = set()
    attempts = 0
    while attempts < 1000:
        drawn = {name: _draw(values, random) for name, values in space.items()}
        if label(drawn) in seen:
            attempts += 1
            continue
        seen.add(label(drawn))
        attempts = 0
        yield drawn


def _draw(values: Space, random: np.random.Generator) -> Any:
    return (
        values.draw(random) if isinstance(values, Range) else values[random.integers(len(values))]
    )


def label(settings: Mapping[str, Any]) -> str:
    """`width=32 lr=0.01`, as `--set` takes it."""
    return " ".join(assigned(settings))


def assigned(settings: Mapping[str, Any]) -> list[str]:
    """Each as `NAME=VALUE`."""
    return [f"{name}={written(x)}" for name, x in settings.items()]
