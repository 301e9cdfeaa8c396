"""The sweep of special values: every op and formula on NaN, infinities, signed zeros, denormals and
the ends of the range, in onnxruntime and TorchScript against numpy.

`python -m tests.special_values` prints what is swept, what differs, and why that is allowed.
"""

from __future__ import annotations

import itertools
from functools import cache

from tests.special_comparison import Found, backends, swept
from tests.special_differences import ALLOWED
from tests.special_formulas import elementwise_sweeps
from tests.special_ops import op_sweeps


@cache
def everything() -> Found:
    """All sweeps together."""
    total = Found()
    for sweep in itertools.chain(elementwise_sweeps(), op_sweeps()):
        found = swept(sweep)
        total.names |= found.names
        total.values += found.values
        total.differences += found.differences
    return total


def main() -> None:
    """Prints the counts, and what is allowed to differ."""
    found = everything()
    print(f"{found.programs} programs, {found.values:,} values compared with numpy's")
    for backend in backends():
        count = sum(d.backend == backend for d in found.differences)
        print(f"  {backend}: {count} outputs of a program and kind of data differ")
    for allowed in ALLOWED:
        count = sum(allowed.covers(d) for d in found.differences)
        print(f"{count:4} {allowed}")
    for difference in found.differences:
        if not any(a.covers(difference) for a in ALLOWED):
            print("NOT ALLOWED", difference)


if __name__ == "__main__":
    main()
