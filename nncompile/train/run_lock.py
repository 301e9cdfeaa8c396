"""The lock of a run directory, for one process at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.reading import reason_of

try:
    import fcntl
except ModuleNotFoundError:  # Windows: a second process is not refused there
    fcntl = None  # type: ignore[assignment]  # the module is not there

_FILE = ".lock"


class Lock:
    """The lock of a run directory, which the process that holds it loses with its life."""

    def __init__(self, directory: Path) -> None:
        """Takes the lock. Raises `FileError`, which names the process that has it."""
        self._descriptor = -1
        file = directory / _FILE
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise FileError(f"cannot write to {directory}: {reason_of(error)}") from None
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").split()
            os.close(descriptor)
            process = f"process {holder[0]}" if holder else "another process"
            host = f" on {holder[1]}" if holder[1:] and holder[1] != socket.gethostname() else ""
            raise FileError(
                f"the run {directory} is in use: {process}{host} trains in it",
                hint="wait for it, or train into another run: --name NAME",
            ) from None
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # a full disk; the lock holds without a name in it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Gives the lock back; again, nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
