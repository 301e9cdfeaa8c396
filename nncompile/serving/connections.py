"""Connections that end, whatever their clients do not do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from nncompile.serving.limits import Limits


class Connection(H11Protocol):
    """A connection of uvicorn's, whose client has so many seconds for the head of a request and for
    taking an answer; what it may take for the body is a matter of the application. It is the one
    written in Python, also where another is installed, for it bounds the size of heads."""

    limits: Limits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has come, and is to say what it wants."""
        super().connection_made(transport)
        self._begin(self._without_head, self.limits.head)

    def data_received(self, data: bytes) -> None:
        """Some of a request has come. What comes while no request is open is of the next one, or of
        one that was answered before it had come."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._begin(self._without_head, self.limits.head)
        else:
            self._end(self._without_head)

    def pause_writing(self) -> None:
        """The client does not take what it is answered."""
        super().pause_writing()
        limits = self.limits
        self._begin(self._cut, limits.grace if self._is_ending else limits.timeout)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        self._end(self._cut)

    def on_response_complete(self) -> None:
        """The answer is written; a connection that is closed with it waits for it to be taken."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._begin(self._cut, self.limits.grace if self._is_ending else self.limits.timeout)

    def timeout_keep_alive_handler(self) -> None:
        """The client has nothing more to ask."""
        super().timeout_keep_alive_handler()
        self._begin(self._cut, self.limits.grace)

    def shutdown(self) -> None:
        """The server is to end."""
        super().shutdown()
        self._is_ending = True
        if self.transport.is_closing() or self.flow.write_paused:
            self._end(self._cut)
            self._begin(self._cut, self.limits.grace)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        super().connection_lost(exc)
        for what in list(self._timers):
            self._end(what)

    def _begin(self, what: Callable[[], None], seconds: float) -> None:
        if what not in self._timers:
            self._timers[what] = self.loop.call_later(seconds, what)

    def _end(self, what: Callable[[], None]) -> None:
        if what in self._timers:
            self._timers.pop(what).cancel()

    def _without_head(self) -> None:
        if self.conn.trailing_data[0] and not self.transport.is_closing():
            text = f"the head of the request took more than {self.limits.head:g} s to come"
            body = json.dumps({"error": text})
            self.transport.write(
                "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
        self.transport.close()
        self._begin(self._cut, self.limits.grace)

    def _cut(self) -> None:
        self.transport.abort()
