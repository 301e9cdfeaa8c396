"""A server of models in this process."""

from __future__ import annotations

import errno
import logging
import math
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import uvicorn

from nncompile.diagnostics.errors import FileError
from nncompile.diagnostics.reading import reason_of
from nncompile.serving.application import application
from nncompile.serving.connections import Connection
from nncompile.serving.limits import Limits
from nncompile.serving.models import Served


def serve(
    models: Sequence[Served],
    host: str,
    port: int,
    limits: Limits,
    started: Callable[[str], None],
) -> None:
    """Serves the models until the process is told to end (SIGINT, as by Ctrl-C, or SIGTERM): what
    is being computed is answered, for `limits.timeout` seconds at most, and the models are closed.
    What clients still send or take has `limits.grace` seconds for it. `started` is called with the
    address as soon as requests are taken. Raises `FileError` where the port cannot be had, and
    where the state of a step cannot be written."""
    with listening(host, port) as (listener, url):
        server = Server(models, limits, lambda: started(url))
        with _ended_by_signals(server):
            server.run(sockets=[listener])
    for served in models:
        served.close()


@contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that takes connections, and its address; port 0 is any that is free. Raises
    `FileError` where there is none to be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = "it is in use" if in_use else reason_of(error).partition(" (while")[0]
        raise FileError(
            f"cannot listen on port {port} of {host}: {reason}",
            hint="--port 0 takes one that is free" if in_use else None,
        ) from None
    with listener:
        # A response is written in two parts: without this the second waits for the client to say
        # that it has the first, 40 ms later. Connections have what the listener has.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        place = f"[{host}]" if ":" in host else host
        yield listener, f"http://{place}:{listener.getsockname()[1]}"


class Server(uvicorn.Server):
    """A server of models. Says when it takes requests, and tells the application when it ends."""

    def __init__(
        self, models: Sequence[Served], limits: Limits, started: Callable[[], None]
    ) -> None:
        app = application(models, limits)
        super().__init__(
            uvicorn.Config(
                app,
                http=type("Connection", (Connection,), {"limits": limits}),
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=math.ceil(limits.timeout) + 1,
            )
        )
        self._told, self._ending = started, app.state.end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts."""
        await super().startup(sockets)
        self._told()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends."""
        self._ending()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends; a second Ctrl-C at once, and says nothing of where each request was."""
        if self.should_exit and sig == signal.SIGINT:
            logging.getLogger("uvicorn.error").disabled = True
        super().handle_exit(sig, frame)


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """Where the block runs, a signal to end is the normal end of the server, and no error: uvicorn
    raises it once more when it is done."""

    def end(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, end) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
