"""Files of users, opened: what is none, or may not be read, is an error that says so."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from nncompile.diagnostics.errors import CompileError, FileError, Row

Path_ = str | os.PathLike[str]

_KINDS = {
    stat.S_IFDIR: "it is a directory",
    stat.S_IFIFO: "it is a pipe",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a device",
    stat.S_IFBLK: "it is a device",
}


def problem_of(path: Path_) -> str | None:
    """What is there in place of a file: a directory, a pipe or a device; None for a file, and
    where there is nothing."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):
        return None


def open_file(path: Path_, what: str = "") -> BinaryIO:
    """The file, opened to read bytes; `what` it should be is named in the error.

    Raises `FileError` where there is none, where it may not be read, and for a directory, a pipe or
    a device, which are not waited for.
    """
    try:
        # A pipe would be waited for, unless it is opened so.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except OSError as error:
        raise unreadable(path, error, what) from None
    except ValueError:  # of a NUL in the name
        raise FileError(f"cannot read {what} {str(path)!r}: no file has such a name") from None
    problem = _KINDS.get(stat.S_IFMT(os.fstat(descriptor).st_mode))
    if problem is not None:
        os.close(descriptor)
        raise FileError(f"{_cannot_read(path, what)}: {problem}")
    return os.fdopen(descriptor, "rb")


def read_file(
    path: Path_, what: str = "", limit: int | None = None, error: type[CompileError] = FileError
) -> bytes:
    """The bytes of the file. Raises as `open_file` does, and the `error` for more than `limit`
    bytes: what is so large is another kind of file."""
    with open_file(path, what) as file:
        _check_size(file, path, what, limit, error)
        try:
            return file.read()
        except OSError as problem:
            raise unreadable(path, problem, what) from None


@contextlib.contextmanager
def mapped_file(
    path: Path_, what: str = "", limit: int | None = None, error: type[CompileError] = FileError
) -> Iterator[memoryview]:
    """The bytes of the file as they lie on disk, for as long as the block takes: they are no
    memory of the process. Raises as `read_file` does."""
    with open_file(path, what) as file:
        if not _check_size(file, path, what, limit, error):  # no map is empty
            yield memoryview(b"")
            return
        try:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as problem:
            raise unreadable(path, problem, what) from None
        with memoryview(content) as view:
            yield view  # the map ends with the last view of it


def unload(view: memoryview) -> None:
    """Takes a mapped file out of the memory of the process, where the system can: what of it is
    looked at again is read again."""
    if isinstance(view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        view.obj.madvise(mmap.MADV_DONTNEED)


def _check_size(
    file: BinaryIO, path: Path_, what: str, limit: int | None, error: type[CompileError]
) -> int:
    """The bytes that the file has. Raises the `error` for more than `limit`."""
    size = os.fstat(file.fileno()).st_size
    if limit is not None and size > limit:
        rows: list[Row] = [("size", f"{size:,} bytes, at most {limit:,} expected")]
        raise error(f"{_cannot_read(path, what)}: it is too large", rows=rows)
    return size


def unreadable(path: Path_, error: OSError, what: str = "") -> FileError:
    """The error for a file that the system does not let us read."""
    return FileError(f"{_cannot_read(path, what)}: {reason_of(error)}")


def reason_of(error: OSError) -> str:
    """What the system says, within a sentence."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a directory"
    return error.strerror.lower() if error.strerror else str(error)


def _cannot_read(path: Path_, what: str) -> str:
    return f"cannot read {what} {os.fspath(path)}" if what else f"cannot read {os.fspath(path)}"


_BINARY = getattr(os, "O_BINARY", 0)  # Windows would change line ends
