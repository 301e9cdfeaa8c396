"""Files of examples, in blocks: tables and arrays of numpy, which may be larger than memory."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CompileError, FeedError, FileError
from nncompile.diagnostics.extras import extra
from nncompile.program.category_codes import CategoryCodes
from nncompile.runtime import Port, read_array, read_arrays
from nncompile.train.sources.files import INSTALL, KINDS, UNREADABLE, read_table, unreadable_table
from nncompile.train.sources.words import encoded

ARRAYS = (".npy", ".npz")


def blocks_of(file: Path, size: int) -> Generator[Any]:
    """The examples of a file, `size` at a time: tables, or dicts of arrays. Text, parquet and one
    array (`.npy`, whose name is empty) are read block by block. Raises `FileError` for another
    file, and for one that cannot be read."""
    if file.suffix not in (*KINDS, *ARRAYS):
        kinds = ", ".join((*KINDS, *ARRAYS))
        raise FileError(f"cannot read examples from {file}: its suffix is none of {kinds}")
    if file.suffix in (".csv", ".tsv", ".parquet"):
        if not file.is_file():
            read_table(file)  # which raises, and says what is there
        yield from _streamed(file, size)
        return
    if file.suffix in ARRAYS:
        arrays = _arrays(file)
        for start in range(0, max(map(len, arrays.values()), default=0), size):
            yield {name: x[start : start + size] for name, x in arrays.items()}
    else:
        table: Any = read_table(file).to_pandas()
        for start in range(0, len(table), size):
            yield table.iloc[start : start + size]


def whole(file: Path) -> Any:
    """All examples of a file: a table, or a dict of arrays by name. Raises `FileError`."""
    if file.suffix in ARRAYS:
        arrays = _arrays(file)
        if "" in arrays:
            raise FileError(
                f"{file} is one array without a name", hint="np.savez(path, x=..., y=...)"
            )
        return arrays
    return read_table(file)


def named(block: Any, ports: Sequence[Port], codes: Mapping[str, CategoryCodes]) -> dict[str, Any]:
    """The arrays of a block by the names of inputs. Raises `FeedError` for one array where there
    are several inputs."""
    if "" in block:
        if len(ports) != 1:
            listed = ", ".join(port.name for port in ports)
            raise FeedError(
                f"one array is given for {len(ports)} inputs", hint=f"a .npz of {listed}"
            )
        block = {ports[0].name: block[""]}
    return {name: encoded(x, codes.get(name)) for name, x in block.items()}


def _arrays(file: Path) -> dict[str, Any]:
    """The arrays of a `.npz` file, or that of a `.npy` file as one that stays in the file."""
    if file.suffix == ".npz":
        arrays: dict[str, Any] = read_arrays(file)
    else:
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError):
            array = read_array(file)  # which says what is wrong
        arrays = {"": array}
    scalar = next((name for name, x in arrays.items() if not np.ndim(x)), None)
    if scalar is not None:
        raise FileError(f"{file} holds a number {scalar!r}, not one for each example")
    if len({len(x) for x in arrays.values()}) > 1:
        rows = [("array", name, f"{len(x):,} examples") for name, x in arrays.items()]
        raise FileError(f"{file} holds arrays of several lengths", rows=rows)
    return arrays


def _streamed(file: Path, size: int) -> Generator[Any]:
    user = f"reading {file.suffix} files"
    pandas = extra("pandas", "pandas", user, INSTALL, FileError)
    try:
        if file.suffix == ".parquet":
            parquet = extra("pyarrow.parquet", "pyarrow", user, INSTALL, FileError)
            with parquet.ParquetFile(file) as opened:
                for batch in opened.iter_batches(batch_size=size):
                    yield batch.to_pandas()
        else:
            separator = "\t" if file.suffix == ".tsv" else ","
            with pandas.read_csv(file, sep=separator, chunksize=size) as opened:
                yield from (block for block in opened if len(block))
    except CompileError:
        raise
    except UNREADABLE as error:
        raise unreadable_table(file, error) from None
