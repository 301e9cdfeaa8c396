"""Files that are written whole or not at all, also where the process is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.reading import problem_of, reason_of

try:
    import fcntl
except ModuleNotFoundError:  # Windows has no such locks, and nothing is swept
    fcntl = None  # type: ignore[assignment]  # the module is not there

Content = bytes | Callable[[Path], None]

# What is being written lies beside its target under such a name, and is locked by who writes it:
# the lock ends with the process, however that ends.
_WRITING, _MOVING = "nncompile-writing", "nncompile-moving"
_UNFINISHED = re.compile(rf"\.(?:.*\.)?[0-9a-f]{{16}}\.({_WRITING}|{_MOVING})", re.DOTALL)


def write_atomically(path: str | os.PathLike[str], content: Content) -> Path:
    """Writes bytes, or what `content(path)` writes into the file that it is given, to `path`.

    It is written beside the target and renamed when it is complete and on disk, so that the target
    always holds the old content or the new; when this returns, it is the new one even if the power
    fails. Parent directories are made. Raises `FileError`, which names the directory or file, where
    that cannot be done; the target is then as it was.
    """
    target = Path(path)
    _check_file(target)
    make_directory(target.parent)
    sweep(target.parent)
    mode = _mode(target)
    with _beside(target.parent, target.name, 0o666 if mode is None else mode) as beside:
        try:
            if isinstance(content, bytes):
                beside.write_bytes(content)
            else:
                content(beside)
            sync(beside)
            if mode is not None:
                beside.chmod(mode)  # it was made without what the umask takes
            os.replace(beside, target)
            sync(target.parent)
        except FileError:  # of another file, such as the one that the content is read from
            raise
        except OSError as error:
            raise FileError(f"cannot write {target}: {reason_of(error)}") from None
    return target


@contextlib.contextmanager
def written_together(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """Files that belong together: what the block writes into the directory that it is given is
    moved into `directory` when the block is done and all is on disk, and only then.

    A full disk, an error or an interrupt in the block leaves all files there as they were. Where
    there is no `directory`, it appears with all that is in it, by one rename. Where there is one,
    the files are replaced one after the other; if the process is killed among them, the next
    `sweep` of the directory, as by the next that writes there, moves the others. Raises `FileError`
    where `directory` cannot be written, or a directory has the name of a file.
    """
    target = Path(directory)
    is_new = not os.path.lexists(target)
    # Its own parent is of the same file system, as a rename needs.
    folder = make_directory(target.parent if is_new else target)
    sweep(folder)
    with _beside(folder, target.name if is_new else "", 0o777, is_directory=True) as beside:
        try:
            yield beside
            _prepare(beside, target)
            if not (is_new and _renamed(beside, target)):
                _move(beside, target)
        except FileError as error:  # it says more
            raise _naming(error, beside, target) from None
        except OSError as error:
            raise FileError(f"cannot write to {target}: {reason_of(error)}") from None


@contextlib.contextmanager
def new_directory(folder: str | os.PathLike[str], name: str = "") -> Iterator[Path]:
    """A new directory in `folder` for what will be `name`, which the block fills and renames:
    where it leaves it there, or the process is killed, it is removed. Raises `FileError`."""
    target = make_directory(folder)
    sweep(target)
    with _beside(target, name, 0o777, is_directory=True) as beside:
        try:
            yield beside
        except FileError as error:
            raise _naming(error, beside, target / name) from None


def _naming(error: FileError, beside: Path, target: Path) -> FileError:
    """The error with the place of a file instead of that where it is made, which nobody knows."""
    for name in ("problem", "message"):
        setattr(error, name, getattr(error, name).replace(f"{beside}", f"{target}"))
    return error


def remove_directory(directory: Path) -> None:
    """Removes a directory by one rename: it is there as a whole, or not at all. Raises
    `FileError`."""
    aside = directory.parent / f".{secrets.token_hex(8)}.{_WRITING}"
    try:
        os.rename(directory, aside)
        sync(directory.parent)
    except OSError as error:
        raise FileError(f"cannot remove {directory}: {reason_of(error)}") from None
    _remove(aside)


def sweep(directory: str | os.PathLike[str]) -> list[Path]:
    """Ends what killed processes left unfinished in `directory`: what they were writing is
    removed, and what they had written together, and were moving, is moved. Gives what was ended.

    What another process, or another thread, is writing at the moment stays. Directories within
    are not looked at. A file system without locks is not swept.
    """
    target, ended = Path(directory), []
    try:
        with os.scandir(target) as entries:
            names = sorted(e.name for e in entries if _UNFINISHED.fullmatch(e.name))
    except OSError:
        return []
    for name in names:
        path = target / name
        # What cannot be ended, as another user's, is left to who can.
        with contextlib.suppress(OSError), _locked(path) as is_ours:
            if not is_ours:
                continue
            if name.endswith(_MOVING):
                _move_files(path, target)
            _remove(path)
            ended.append(path)
    return ended


def sync(path: str | os.PathLike[str]) -> None:
    """Returns when the file, or the names in the directory, are on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        if not os.path.isdir(path):
            raise
        return  # Windows opens no directories, nor does who may only write there
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # it cannot be synced
            raise
    finally:
        os.close(descriptor)


def make_directory(path: str | os.PathLike[str]) -> Path:
    """The directory, made with its parents where it is missing. Raises `FileError`."""
    directory = Path(path)
    missing = [p for p in (directory, *directory.parents) if not p.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            sync(made.parent)
    except OSError as error:
        raise _unwritable(directory, error) from None
    return directory


def check_writable(directory: str | os.PathLike[str]) -> Path:
    """Raises `FileError` where no file can be made in `directory`: before hours of training rather
    than after them."""
    target = make_directory(directory)
    with _beside(target, "", 0o666):
        return target


@contextlib.contextmanager
def _beside(folder: Path, name: str, mode: int, is_directory: bool = False) -> Iterator[Path]:
    """A new file or directory in `folder`, locked, for what will be `name`; it is removed where
    the block leaves it there."""
    while True:
        unfinished = f"{secrets.token_hex(8)}.{_WRITING}"
        # Some file systems take no name of more than 255 bytes.
        beside = folder / (f".{name[:40]}.{unfinished}" if name else f".{unfinished}")
        try:
            if is_directory:
                beside.mkdir(mode)
            else:
                os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode | 0o600))
        except OSError as error:
            raise _unwritable(folder, error) from None
        with contextlib.ExitStack() as stack:
            stack.callback(_remove, beside)
            # Who sweeps may have locked it before, and removes it then: make another.
            if stack.enter_context(_locked(beside, otherwise=True)) and beside.exists():
                yield beside
                return


@contextlib.contextmanager
def _locked(path: Path, otherwise: bool = False) -> Iterator[bool]:
    """Whether nobody else holds the lock of `path`, which is held during the block; `otherwise`
    where there are no such locks."""
    if fcntl is None:
        yield otherwise
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        is_ours = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_ours = False
        except OSError:
            is_ours = otherwise
        yield is_ours
    finally:
        os.close(descriptor)


def _prepare(beside: Path, target: Path) -> None:
    """All in `beside` gets on disk, with the permissions of what it replaces."""
    for file in sorted(beside.iterdir()):
        destination = target / file.name
        _check_file(destination)
        mode = _mode(destination)
        if mode is not None:
            file.chmod(mode)
    for path in (*beside.rglob("*"), beside):
        sync(path)


def _renamed(beside: Path, target: Path) -> bool:
    """Whether `beside` is now `target`; not where another made one with files meanwhile."""
    try:
        os.rename(beside, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    sync(target.parent)
    return True


def _move(beside: Path, target: Path) -> None:
    """All files of `beside` into `target`. From its renaming on, they will be there: an interrupt
    waits, and where the process ends, `sweep` goes on with it."""
    moving = target / beside.name[-len(f".{'0' * 16}.{_WRITING}") :].replace(_WRITING, _MOVING)
    os.rename(beside, moving)
    try:
        sync(target)
        _move_files(moving, target)
    except OSError:
        raise
    except BaseException:
        _move_files(moving, target)
        raise
    finally:
        _remove(moving)


def _move_files(moving: Path, target: Path) -> None:
    for file in sorted(moving.iterdir()):
        os.replace(file, target / file.name)
    sync(target)


def _remove(path: Path) -> None:
    """Removes the file or directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _check_file(target: Path) -> None:
    """Raises `FileError` where something other than a file has that name: a device would become
    a file."""
    if "\0" in str(target):
        raise FileError(f"cannot write {str(target)!r}: no file has such a name")
    problem = problem_of(target)
    if problem is not None:
        hint = "name a file in it" if target.is_dir() else "name a file"
        raise FileError(f"cannot write {target}: {problem}", hint=hint)


def _mode(target: Path) -> int | None:
    """The permissions of the file that is replaced; None where there is none."""
    try:
        return target.stat().st_mode & 0o777
    except OSError:  # writing it tells what is wrong
        return None


def _unwritable(directory: Path, error: OSError) -> FileError:
    return FileError(
        f"cannot write to directory {directory}: {reason_of(error)}",
        hint="choose a directory that you may write to",
    )
