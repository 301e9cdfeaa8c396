"""Tables in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.extras import extra

INSTALL = "pip install 'nncompile[tables]'"
KINDS = (".csv", ".tsv", ".parquet", ".feather")
UNREADABLE = (ValueError, OSError, NotImplementedError, TypeError, LookupError, MemoryError)
"""What arrow and pandas raise for a file that they cannot read."""


def read_table(path: str | os.PathLike[str]) -> Any:
    """The table in a file of comma- or tab-separated values, with a first line of names, or of
    parquet or feather. Raises `FileError` for another file, one that is missing or damaged, and
    where pandas (for text) or pyarrow is not installed."""
    file = Path(path)
    if file.suffix not in KINDS:
        raise FileError(
            f"{file} is not a table",
            rows=[("tables", ", ".join(KINDS))],
            hint="pass arrays: np.load(path)" if file.suffix in (".npy", ".npz") else None,
        )
    if not file.is_file():
        near = sorted(p.name for p in file.parent.glob(f"*{file.suffix}"))
        hint = f"{file.parent} has {', '.join(near[:8])}" if near else None
        raise FileError(f"there is no file {file}", hint=hint)
    user = f"reading {file.suffix} files"
    if file.suffix in (".csv", ".tsv"):
        pandas = extra("pandas", "pandas", user, INSTALL, FileError)
        separator = "\t" if file.suffix == ".tsv" else ","
        try:
            table = pandas.read_csv(file, sep=separator)
        except UNREADABLE as error:
            raise unreadable_table(file, error) from None
    else:
        name = "parquet" if file.suffix == ".parquet" else "feather"
        extra("pyarrow", "pyarrow", user, INSTALL, FileError)
        module = extra(f"pyarrow.{name}", "pyarrow", user, INSTALL, FileError)
        try:
            table = module.read_table(file)
        except UNREADABLE as error:
            raise unreadable_table(file, error) from None
    if not len(table):
        raise FileError(f"{file} has no rows")
    return table


def unreadable_table(file: Path, error: Exception) -> FileError:
    """The error for what arrow or pandas cannot read, in the first line of what they say."""
    text = str(error).strip().splitlines()
    return FileError(f"cannot read {file}: {text[0] if text else type(error).__name__}")
