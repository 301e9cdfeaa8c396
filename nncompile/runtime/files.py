"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from nncompile.diagnostics.errors import FileError
from nncompile.ir.types import Array

Content = bytes | Callable[[Path], None]


def write_atomically(path: str | os.PathLike[str], content: Content) -> Path:
    """Writes bytes, or what `content(path)` writes to the path it is given, to `path`.

    It is written beside the target and renamed when it is complete and on disk, so that the target
    always holds the old content or the new. Parent directories are made. Raises `FileError`, which
    names the directory or file, where that cannot be done; the target is then as it was.
    """
    target = Path(path)
    _check_file(target)
    make_directory(target.parent)
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise _unwritable(target.parent, error) from None
    os.close(descriptor)
    beside = Path(name)
    try:
        if isinstance(content, bytes):
            beside.write_bytes(content)
        else:
            content(beside)
        # mkstemp makes files that only their owner may read.
        beside.chmod(_mode(target))
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, target)
    except OSError as error:
        raise FileError(f"cannot write {target}: {_reason(error)}") from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
    return target


@contextlib.contextmanager
def written_together(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Files that belong together: what the block writes into the directory that it is given is
    moved into `directory` when the block is done, and only then.

    A full disk, an error or an interrupt in the block leaves all files there as they were. Raises
    `FileError` where `directory` cannot be written, or a directory has the name of a file.
    """
    target = make_directory(directory)
    try:
        beside = Path(tempfile.mkdtemp(dir=target, prefix=".writing-"))
    except OSError as error:
        raise _unwritable(target, error) from None
    try:
        yield beside
        moves = [(file, target / file.name) for file in sorted(beside.iterdir())]
        for _, destination in moves:
            _check_file(destination)
        for file, destination in moves:
            if destination.exists():
                file.chmod(_mode(destination))
            os.replace(file, destination)
    except FileError:
        raise  # it says more
    except OSError as error:
        raise FileError(f"cannot write to {target}: {_reason(error)}") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def make_directory(path: str | os.PathLike[str]) -> Path:
    """The directory, made with its parents where it is missing. Raises `FileError`."""
    directory = Path(path)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from None
    return directory


def check_writable(directory: str | os.PathLike[str]) -> Path:
    """Raises `FileError` where no file can be made in `directory`: before hours of training rather
    than after them."""
    target = make_directory(directory)
    try:
        with tempfile.NamedTemporaryFile(dir=target):
            return target
    except OSError as error:
        raise _unwritable(target, error) from None


def read_array(path: str | os.PathLike[str]) -> Array:
    """The array of a .npy file. Raises `FileError` where it is not a readable one."""
    try:
        with open(path, "rb") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except OSError as error:
        raise FileError(f"cannot read {os.fspath(path)}: {_reason(error)}") from None
    except (ValueError, EOFError):
        raise FileError(
            f"{os.fspath(path)} is not a complete .npy file of numbers",
            hint="np.save(path, array) writes one",
        ) from None


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> list[Path]:
    """Writes one .npz file where `path` is called so, else a .npy file for each array into the
    directory `path`; each whole or not at all. Raises `FileError`."""
    target = Path(path)
    if target.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]  # numpy's stubs take a name for allow_pickle
        return [write_atomically(target, buffer.getvalue())]
    paths = []
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        file = target / f"{name.replace('/', '_')}.npy"
        paths.append(write_atomically(file, buffer.getvalue()))
    return paths


def _check_file(target: Path) -> None:
    if target.is_dir():
        raise FileError(f"cannot write {target}: it is a directory", hint="name a file in it")


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, or those of a new file."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _unwritable(directory: Path, error: OSError) -> FileError:
    return FileError(
        f"cannot write to directory {directory}: {_reason(error)}",
        hint="choose a directory that you may write to",
    )


def _reason(error: OSError) -> str:
    return error.strerror.lower() if error.strerror else str(error)
