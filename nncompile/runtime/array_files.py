"""Arrays in `.npy` and `.npz` files. What a file says of itself is not believed: it is compared
with the size of the file, and with the memory there is, before any is taken."""

from __future__ import annotations

import ast
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.files import write_atomically
from nncompile.diagnostics.reading import Path_, open_file, unreadable
from nncompile.ir.names import unused_name
from nncompile.ir.types import Array

# What a broken header or archive raises, in numpy, in Python's parser and in zipfile.
_BROKEN = (
    ValueError,
    EOFError,
    SyntaxError,
    TypeError,
    RecursionError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
)
_HEADER = 10_000  # bytes: that of an array of numbers has some hundred
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file knows


def read_array(path: Path_) -> Array:
    """The array of a `.npy` file. Raises `FileError` where it is not a complete one, holds
    anything but numbers or text, or does not fit in memory."""
    with open_file(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            dtype, shape, is_fortran, needed = _header(file)
            if needed != size - file.tell():
                raise ValueError(f"{size - file.tell():,} bytes of data, {needed:,} are declared")
            _check_memory(path, needed)
            flat = np.fromfile(file, dtype, needed // dtype.itemsize)
            return _shaped(flat, shape, is_fortran)
        except OSError as error:
            raise unreadable(path, error) from None
        except MemoryError:
            raise _too_large(path, needed) from None
        except _BROKEN as error:
            raise FileError(
                f"{os.fspath(path)} is not a complete .npy file of numbers: {_sentence(error)}",
                hint="np.save(path, array) writes one",
            ) from None


def read_arrays(path: Path_) -> dict[str, Array]:
    """The arrays of a `.npz` file by name. Raises `FileError` as `read_array` does, and for a name
    that is there twice."""
    with open_file(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _members(path, archive)
        except FileError:
            raise
        except OSError as error:
            raise unreadable(path, error) from None
        except MemoryError:
            raise _too_large(path) from None
        except _BROKEN as error:
            raise FileError(
                f"{os.fspath(path)} is not a complete .npz file of numbers: {_sentence(error)}",
                hint="np.savez(path, name=array) writes one",
            ) from None


def write_arrays(path: Path_, arrays: Mapping[str, Array]) -> list[Path]:
    """Writes one `.npz` file where `path` is called so, else a `.npy` file for each array into the
    directory `path`; each whole or not at all. Raises `FileError`.

    What cannot be in the name of a file becomes `_`, and two arrays never get one name.
    """
    target = Path(path)
    if target.suffix == ".npz":
        return [write_atomically(target, _archive(arrays))]
    files = file_names(arrays)
    return [
        write_atomically(target / f"{files[name]}.npy", _content(x)) for name, x in arrays.items()
    ]


def file_names(names: Iterable[str], allowed: str = "") -> dict[str, str]:
    """A name for the file of each of the names, different for all of them: also where the system
    takes capitals and small letters as one. Those that may be in a name as they are, are first.

    >>> file_names(["a/b", "a_b", "../x", "A_b"])
    {'a/b': 'a_b.3', 'a_b': 'a_b', '../x': '_x', 'A_b': 'A_b.2'}
    """
    wanted = {name: _file_name(name, allowed) for name in names}
    found: dict[str, str] = {}
    used: set[str] = set()
    for name in sorted(wanted, key=lambda n: wanted[n] != n):
        found[name] = unused_name(wanted[name], _Folded(used))
        used.add(found[name].casefold())
    return {name: found[name] for name in wanted}


class _Folded(Collection[str]):
    """Names, whatever their capitals."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def __contains__(self, name: object) -> bool:
        return str(name).casefold() in self.names

    def __iter__(self) -> Any:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _file_name(name: str, allowed: str) -> str:
    """The name without what has a meaning in paths, and not too long."""
    parts = name.split("/") if "/" in allowed else [name]
    plain = [re.sub(r"[^\w.+-]", "_", part)[:100].lstrip(".") for part in parts]
    return "/".join(part or "_" for part in plain)


def _archive(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    names = file_names(arrays, allowed="/")
    with zipfile.ZipFile(buffer, "w", allowZip64=True) as archive:
        for name, x in arrays.items():
            # np.savez takes no array called "file".
            archive.writestr(zipfile.ZipInfo(f"{names[name]}.npy", _EPOCH), _content(x))
    return buffer.getvalue()


def _content(x: Array) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(x), allow_pickle=False)
    return buffer.getvalue()


def _header(file: Any) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """The element type, shape and order that the array has, and how many bytes. The file then
    stands at the data."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"its format is {version[0]}.{version[1]}, which is unknown")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(_exactly(file, width), "little")
    if length > _HEADER:
        raise ValueError(f"its header has {length:,} bytes")
    text = _exactly(file, length).decode("utf-8" if version == (3, 0) else "latin1")
    try:
        header = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("its header is broken") from None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header is broken")
    shape, is_fortran = header["shape"], header["fortran_order"]
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"its shape is {shape!r}")
    if not isinstance(is_fortran, bool) or not isinstance(header["descr"], str):
        raise ValueError("it holds records, not numbers")
    dtype = np.dtype(header["descr"])
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which may run any program when they are read")
    if not dtype.itemsize:
        raise ValueError(f"its element type is {dtype}")
    count = 1
    for n in shape:
        count *= n
    return dtype, shape, is_fortran, count * dtype.itemsize


def _exactly(file: Any, count: int) -> bytes:
    content: bytes = file.read(count)
    if len(content) < count:
        raise ValueError("it is truncated")
    return content


def _shaped(flat: Array, shape: tuple[int, ...], is_fortran: bool) -> Array:
    shaped: Array = flat.reshape(shape[::-1]).T if is_fortran else flat.reshape(shape)
    return shaped


def _members(path: Path_, archive: zipfile.ZipFile) -> dict[str, Array]:
    entries = archive.infolist()
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is in it twice")
    # What is declared is all that is read: zipfile stops there.
    _check_memory(path, sum(entry.file_size for entry in entries))
    return {n: _member(archive, entry) for n, entry in zip(names, entries, strict=True)}


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    with archive.open(entry) as file:
        assert isinstance(file, zipfile.ZipExtFile)  # as it is opened to be read
        counted = _Counted(file)
        dtype, shape, is_fortran, needed = _header(counted)
        if needed != entry.file_size - counted.count:
            raise ValueError(f"{entry.filename!r} is not as long as its header says")
        flat = np.empty(needed // dtype.itemsize, dtype)
        view, filled = flat.view(np.uint8).data, 0
        while filled < needed:
            read = file.readinto(view[filled : filled + 2**20])
            if not read:
                raise ValueError(f"{entry.filename!r} is truncated")
            filled += read
        file.read(1)  # the end, where its checksum is compared
    return _shaped(flat, shape, is_fortran)


class _Counted:
    """A file that counts what was read of it."""

    def __init__(self, file: Any) -> None:
        self.file, self.count = file, 0

    def read(self, count: int) -> bytes:
        content: bytes = self.file.read(count)
        self.count += len(content)
        return content


def _check_memory(path: Path_, needed: int) -> None:
    """Raises `FileError` for more bytes than this machine has memory: the system might give them,
    and end the process when they are written."""
    if needed > memory():
        raise _too_large(path, needed)


def memory() -> int:
    """The bytes of memory that this machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # a system that does not say
        return 2**48


def _too_large(path: Path_, needed: int | None = None) -> FileError:
    size = "" if needed is None else f": {needed:,} bytes"
    return FileError(f"the data of {os.fspath(path)} do not fit in memory{size}")


def _sentence(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "it is broken"
