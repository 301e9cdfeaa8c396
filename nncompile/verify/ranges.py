"""Which integers a model takes: found by trying, for nothing in a type says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nncompile.ir.types import Array

MOST = 2**20  # beyond, integers have no end that the model knows of

Accepts = Callable[[Mapping[str, int]], bool]


def integer_ranges(
    names: Sequence[str], known: Mapping[str, Array], longest: int, accepts: Accepts
) -> dict[str, tuple[int, int]] | None:
    """The least and the largest number that each of the inputs takes; None where there are none.

    `accepts` says whether the model can be computed with inputs that are filled with one number
    each. Where there are data (`known`), their least and largest numbers are the ends, as far as
    they are accepted; otherwise 0, and the last that is. What takes any number may be a length:
    it goes to `longest`.
    """
    low = {n: int(known[n].min()) if n in known else 0 for n in names}
    high = {n: int(known[n].max()) if n in known else MOST for n in names}
    if names and not accepts(low):
        low = {n: min(1, high[n]) for n in names}  # lengths and counts of nothing
        if not accepts(low):
            return None
    found = {}
    for name in names:
        top = _highest(lambda x, n=name: accepts({**low, n: x}), low[name], high[name])  # type: ignore[misc]  # n is no argument
        endless = name not in known and top == MOST
        found[name] = low[name], low[name] + longest if endless else top
    return found


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
