"""Words in the data of inputs that have a vocabulary: their codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.program.category_codes import CategoryCodes
from nncompile.train.sources.arrays import is_stored
from nncompile.train.sources.tables import column_names


def encoded(x: Any, codes: CategoryCodes | None) -> Any:
    """The codes of a column or an array that holds text; what holds numbers has codes already, and
    is returned as it is. Raises `FeedError` for words that such `codes` refuse."""
    return codes.encode(x) if codes is not None and _holds_text(x) else x


def with_codes(table: Any, codes: Mapping[str, CategoryCodes]) -> Any:
    """A pandas table with codes in the place of the words of those inputs."""
    names = [name for name in column_names(table) if name in codes]
    changed = {name: encoded(table[name], codes[name]) for name in names}
    return table.assign(**changed) if changed else table


def _holds_text(x: Any) -> bool:
    if is_stored(x):
        return False
    try:
        array = np.asarray(x)
    except (ValueError, TypeError, RuntimeError):  # what is no array is told where it is read
        return False
    if array.dtype.kind == "O":
        return any(isinstance(value, str) for value in array.flat)
    return array.dtype.kind in "UT"
