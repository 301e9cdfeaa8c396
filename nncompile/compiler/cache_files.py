"""A directory of what was compiled before: files by key, of which the oldest used are removed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from nncompile.diagnostics.errors import warn

LIMIT = 2**29
"""Bytes that the files of a cache take at most."""

MEMORY = 2**27
"""Bytes of entries that a process keeps beside their files."""

_MAGIC = b"nncompile compile cache 1\n"
_SUFFIX = ".compiled"
_WRITING = ".writing"
_CHECKSUM = 32  # bytes
_LENGTH = 8  # bytes of the number of bytes of the JSON
_ABANDONED = 3600.0  # seconds after which a file that is being written belongs to nobody
_PART = 8  # of what is free, a process writes one in so many bytes before it looks again


class CacheWarning(UserWarning):
    """An entry of the compile cache was damaged and is made anew, or none can be written."""


@dataclass(frozen=True)
class Entry:
    """The bytes of an ONNX model, and what else its compilation gave, as JSON has it."""

    content: bytes
    about: dict[str, Any]


class CompileCache:
    """Entries by key in the files of a directory, which processes may share: a file is written
    beside its place and renamed, and what is read is checked.

    Beyond `limit` bytes those that were not used for the longest time are removed; a process looks
    for that when it has written an eighth of what was free. What cannot be written is not kept, as
    one warning says: a cache is never the reason that something fails.
    """

    def __init__(self, directory: Path, limit: int = LIMIT) -> None:
        self.directory, self.limit = directory, limit
        self._memory: OrderedDict[str, Entry] = OrderedDict()
        self._remembered = 0  # bytes
        self._unseen = -1  # bytes to be written before the directory is looked through again
        self._can_write = True
        self._lock = Lock()

    def get(self, key: str) -> Entry | None:
        """The entry of that key; None where there is none. A warning says that one was damaged."""
        with self._lock:
            entry = self._memory.get(key)
            if entry is not None:
                self._memory.move_to_end(key)
                return entry
        file = self._file(key)
        try:
            data = file.read_bytes()
        except OSError:
            return None
        entry = _decoded(key, data)
        if entry is None:
            warn(f"{file} is damaged: what it held is compiled again", CacheWarning)
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):  # another user's, or one that was just removed
            os.utime(file)
        self._remember(key, entry)
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keeps an entry, if it can be written."""
        self._remember(key, entry)
        data = _encoded(key, entry)
        if len(data) > self.limit:
            return
        beside = self.directory / f"{secrets.token_hex(8)}{_WRITING}"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.write_bytes(data)
            os.replace(beside, self._file(key))
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            if self._can_write:
                self._can_write = False  # and said once
                reason = f"the compile cache {self.directory} cannot be written ({error.strerror})"
                warn(f"{reason}: NNCOMPILE_CACHE names another directory, or is off", CacheWarning)
            return
        self._unseen -= len(data)  # threads that lose a count look a little later
        if self._unseen < 0:
            self._unseen = self._shrink() // _PART

    @property
    def usage(self) -> tuple[int, int]:
        """How many entries the directory has, and their bytes."""
        sizes = [size for _, size, path in self._files() if path.endswith(_SUFFIX)]
        return len(sizes), sum(sizes)

    def _file(self, key: str) -> Path:
        return self.directory / f"{key}{_SUFFIX}"

    def _files(self) -> list[tuple[float, int, str]]:
        """When each file was last used, its bytes and its path, oldest first."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self.directory) as files:
            for file in files:
                if file.name.endswith((_SUFFIX, _WRITING)):
                    with contextlib.suppress(OSError):  # another process may have removed it
                        status = file.stat()
                        found.append((status.st_mtime, status.st_size, file.path))
        return sorted(found)

    def _shrink(self) -> int:
        """Removes what killed processes were writing and, beyond the limit, the oldest files, until
        there is some room. Returns the bytes that are free."""
        files = self._files()
        total = sum(size for _, size, _ in files)
        most = self.limit if total <= self.limit else self.limit - self.limit // _PART
        abandoned = time.time() - _ABANDONED
        for used, size, path in files:
            is_entry = path.endswith(_SUFFIX)
            if total > most if is_entry else used < abandoned:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size
        return self.limit - total

    def _remember(self, key: str, entry: Entry) -> None:
        with self._lock:
            if key in self._memory or len(entry.content) > MEMORY:
                return
            self._memory[key] = entry
            self._remembered += len(entry.content)
            while self._remembered > MEMORY:
                _, oldest = self._memory.popitem(last=False)
                self._remembered -= len(oldest.content)


def _encoded(key: str, entry: Entry) -> bytes:
    text = json.dumps(entry.about).encode()
    body = len(text).to_bytes(_LENGTH, "little") + text + entry.content
    return _MAGIC + _checksum(key, body) + body


def _decoded(key: str, data: bytes) -> Entry | None:
    """The entry of that key which the bytes of a file are; None where they are not."""
    start = len(_MAGIC) + _CHECKSUM
    checksum, body = data[len(_MAGIC) : start], data[start:]
    if data[: len(_MAGIC)] != _MAGIC or checksum != _checksum(key, body):
        return None
    first = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
    return Entry(body[first:], json.loads(body[_LENGTH:first]))


def _checksum(key: str, body: bytes) -> bytes:
    return hashlib.blake2b(body, key=key.encode()[:64], digest_size=_CHECKSUM).digest()
