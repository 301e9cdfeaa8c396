"""The data of a model file as arrays by input."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.runtime.feeds import Port, check_names, check_sizes, ports_of
from nncompile.train.sources.arrays import rows_of
from nncompile.train.sources.casting import cast_to
from nncompile.train.sources.files import read_table
from nncompile.train.sources.naming import Naming
from nncompile.train.sources.notes import Notes
from nncompile.train.sources.tables import is_table
from nncompile.train.sources.whole import WholeData, fitted

SAMPLE = 2**22
"""The bytes that a sample of data has at most, unless one example has more."""


def arrays_of(model: Model, *parts: Any) -> list[dict[str, Array] | None]:
    """Each of the parts (for training and for validation) as arrays by the names of inputs: a dict
    as it is, a table or the file of one by its columns, in the declared element types. None stays
    None. Raises `FeedError` for a table that does not fit, `FileError` for a file that does not."""
    notes = Notes()
    naming = Naming(model, notes)
    ports = ports_of(model.inputs)
    return [None if part is None else _arrays(part, naming, ports, notes) for part in parts]


def sample_of(model: Model, data: Mapping[str, Any], seed: int = 0) -> dict[str, Array]:
    """Examples of arrays by the names of inputs, in the declared element types: all of them, or as
    many as `SAMPLE` has room for, drawn by `seed`. Raises `FeedError` for data that do not fit."""
    ports = ports_of(model.inputs)
    check_names(ports, data)
    rows = {port.name: fitted(port, rows_of(port.name, data[port.name])) for port in ports}
    casts = {port.name: cast_to(port, rows[port.name], Notes(), literal=True) for port in ports}
    check_sizes(ports, rows)
    cut = {*model.cut}
    whole = WholeData(rows, cut, casts, 1)
    size = sum(x.nbytes for name, x in whole.taken(slice(0, 1)).items() if name in cut)
    drawn = np.random.default_rng(seed).permutation(whole.count)
    return whole.taken(np.sort(drawn[: max(1, SAMPLE // max(1, size))]))


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
