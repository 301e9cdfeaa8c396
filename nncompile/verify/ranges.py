"""Which integers a model takes: found by trying, for nothing in a type says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nncompile.ir.types import Array

MOST = 2**20  # beyond, integers have no end that the model knows of

Accepts = Callable[[Mapping[str, int]], bool]


def integer_ranges(
    names: Sequence[str], data: Mapping[str, Array], longest: int, accepts: Accepts
) -> dict[str, tuple[int, int]] | None:
    """The least and the largest number that each of the inputs takes; None where there are none.

    `accepts` says whether the model can be computed with inputs that are filled with one number
    each. Where there are `data`, their least and largest numbers are the ends, as far as
    they are accepted; otherwise 0, and the last that is. What takes any number may be a length:
    it goes to `longest`.
    """
    low = {n: int(data[n].min()) if n in data else 0 for n in names}
    high = {n: int(data[n].max()) if n in data else MOST for n in names}
    if names and not accepts(low):
        low = {n: min(1, high[n]) for n in names}  # lengths and counts of nothing
        if not accepts(low):
            return None
    ranges = {}
    for name in names:
        top = _highest(lambda x, n=name: accepts({**low, n: x}), low[name], high[name])  # type: ignore[misc]  # n is not an argument
        endless = name not in data and top == MOST
        ranges[name] = low[name], low[name] + longest if endless else top
    return ranges


def _highest(accepts: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number from `low` to `high` that is accepted, where `low` is."""
    if low >= high or accepts(high):
        return high
    step = 1
    while low + step < high and accepts(low + step):
        low, step = low + step, 2 * step
    high = min(high, low + step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if accepts(middle) else (low, middle)
    return low
