"""Values in the types of JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np


def json_value(x: Any) -> Any:
    """`x` in the types of JSON: arrays and sequences as lists, the value of an enumeration, None
    for a number that is not finite, which JSON does not have, and any other object as text."""
    if isinstance(x, Mapping):
        return {str(name): json_value(value) for name, value in x.items()}
    if isinstance(x, np.ndarray | np.generic):
        x = x.tolist()
    if isinstance(x, Enum):
        return json_value(x.value)
    if isinstance(x, Sequence) and not isinstance(x, str | bytes):
        return [json_value(value) for value in x]
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return x if x is None or isinstance(x, bool | int | float | str) else str(x)
