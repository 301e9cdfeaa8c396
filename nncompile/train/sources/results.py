"""Predictions written to a file, block by block."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.extras import extra
from nncompile.diagnostics.files import write_atomically
from nncompile.ir.types import Array
from nncompile.runtime import write_arrays
from nncompile.train.sources.files import INSTALL

Block = Mapping[str, Array]

KINDS = (".csv", ".tsv", ".parquet", ".npy", ".npz")


def check_kind(path: Path) -> None:
    """Raises `FileError` for a file of another kind than can be written."""
    if path.suffix not in KINDS:
        raise FileError(
            f"cannot write predictions to {path}: its suffix is none of {', '.join(KINDS)}"
        )
    if path.suffix == ".parquet":
        extra("pyarrow", "pyarrow", "writing .parquet files", INSTALL, FileError)


def write_blocks(path: Path, blocks: Iterator[Block]) -> None:
    """Writes the blocks one below the other, whole or not at all. Tables take them one by one: an
    output of a number for each example is a column of its name, one of a row of n numbers is n
    columns `NAME_0`, ... Arrays are put together first. Raises `FileError`."""
    if path.suffix in (".npy", ".npz"):
        parts = list(blocks)
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if path.suffix == ".npz":
            write_arrays(path, arrays)
            return
        if len(arrays) != 1:
            raise FileError(
                f"{path} holds one array, the model has {len(arrays)} outputs",
                hint=f"{path.with_suffix('.npz')} holds {', '.join(arrays)}",
            )
        (array,) = arrays.values()
        write_atomically(path, lambda beside: _save(beside, array))
    elif path.suffix == ".parquet":
        write_atomically(path, lambda beside: _write_parquet(beside, blocks))
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        write_atomically(path, lambda beside: _write_lines(beside, blocks, separator))


def columns_of(block: Block) -> dict[str, Array]:
    """The columns of a table. Raises `FileError` for an output of more axes than two."""
    columns: dict[str, Array] = {}
    for name, x in block.items():
        if x.ndim > 2:
            raise FileError(
                f"a table cannot hold output {name!r}: each example has an array "
                f"{list(x.shape[1:])}",
                hint="write a .npz file",
            )
        parts = {name: x} if x.ndim == 1 else {f"{name}_{i}": x[:, i] for i in range(x.shape[1])}
        if x.ndim == 2 and x.shape[1] == 1:
            parts = {name: x[:, 0]}
        columns |= parts
    return columns


def _save(path: Path, array: Array) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _write_lines(path: Path, blocks: Iterator[Block], separator: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        for number, block in enumerate(blocks):
            columns = columns_of(block)
            if not number:
                writer.writerow(columns)
            # By the shortest text that gives the same number in its own type.
            texts = [[str(value) for value in x] for x in columns.values()]
            writer.writerows(zip(*texts, strict=True))


def _write_parquet(path: Path, blocks: Iterator[Block]) -> None:
    arrow: Any = extra("pyarrow", "pyarrow", "writing .parquet files", INSTALL, FileError)
    parquet: Any = extra("pyarrow.parquet", "pyarrow", "writing .parquet files", INSTALL, FileError)
    writer = None
    try:
        for block in blocks:
            table = arrow.table(columns_of(block))
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
