"""The data of a model file as arrays by input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.runtime.feeds import Port
from nncompile.train.sources.casting import cast_to
from nncompile.train.sources.files import read_table
from nncompile.train.sources.naming import Naming
from nncompile.train.sources.notes import Notes
from nncompile.train.sources.tables import is_table


def arrays_of(model: Model, *parts: Any) -> list[dict[str, Array] | None]:
    """Each of the parts (for training and for validation) as arrays by the names of inputs: a dict
    as it is, a table or the file of one by its columns, in the declared element types. None stays
    None. Raises `FeedError` for a table that does not fit, `FileError` for a file that does not."""
    notes = Notes()
    naming = Naming(model, notes)
    ports = [
        Port(n, v.dtype.numpy, tuple(d if isinstance(d, int) else str(d) for d in v.shape))
        for n, v in model.inputs.items()
    ]
    return [None if part is None else _arrays(part, naming, ports, notes) for part in parts]


def _arrays(data: Any, naming: Naming, ports: list[Port], notes: Notes) -> dict[str, Array]:
    if isinstance(data, Mapping):
        return {n: np.asarray(x) for n, x in naming.feeds(data, None, ports).items()}
    table = read_table(data) if isinstance(data, str | os.PathLike) else data
    assert is_table(table)  # which the model file checks
    feeds = naming.feeds(table, None, ports)
    arrays = {}
    for port in ports:
        rows = feeds[port.name]
        # Numbers in a file of text have no type of their own.
        convert = cast_to(port, rows, notes, literal=True)
        arrays[port.name] = rows if convert is None else convert(rows, 0)
    return arrays
