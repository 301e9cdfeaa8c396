"""The bodies of requests, read within limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nncompile.serving.limits import Limits
from nncompile.serving.problems import (
    BAD_ENCODING,
    BODY_TIMEOUT,
    BUSY,
    TOO_LARGE,
    RequestError,
    status_of,
    text_of,
)

_PATIENCE = 10.0  # seconds for a client to send what nobody reads


class Deadlines:
    """The times by which bodies must have come; they come nearer when the server is to end."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: set[asyncio.Timeout] = set()
        self.has_ended = False

    @asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[None]:
        """Raises `TimeoutError` where the block takes longer."""
        seconds = min(seconds, self.limits.grace) if self.has_ended else seconds
        async with asyncio.timeout(seconds) as deadline:
            self._open.add(deadline)
            try:
                yield
            finally:
                self._open.discard(deadline)

    def end(self) -> None:
        """The server is to end: `limits.grace` seconds are left."""
        self.has_ended = True
        latest = asyncio.get_running_loop().time() + self.limits.grace
        for deadline in self._open:
            deadline.reschedule(min(latest, deadline.when() or latest))


class Body:
    """The body of a request, of which at most so many bytes are taken, in so many seconds."""

    def __init__(self, request: Request, deadlines: Deadlines) -> None:
        self._request, self._deadlines = request, deadlines
        self._most, self._timeout = deadlines.limits.body, deadlines.limits.timeout
        self._has_more = True

    async def read(self) -> bytes:
        """All of it. Raises `RequestError` where it is larger, which a body that says its length is
        told before it is read; where it takes longer, or the server ends; and where it is packed.
        Raises `ClientDisconnect`."""
        headers = self._request.headers
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise RequestError(
                f"bodies are not unpacked, and this one is {encoding!r:.40}", BAD_ENCODING
            )
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most:
            raise self._too_large(f"{int(length):,} bytes, more")
        try:
            async with self._deadlines.within(self._timeout):
                return await self._within()
        except TimeoutError:
            if self._deadlines.has_ended:
                raise RequestError("the server ends, and the request has not come", BUSY) from None
            raise RequestError(
                f"the request took more than {self._timeout:g} s to come", BODY_TIMEOUT
            ) from None

    async def drain(self) -> None:
        """Reads what is left and throws it away, for some seconds, or until the server ends."""
        with suppress(TimeoutError, ClientDisconnect, asyncio.CancelledError):
            async with self._deadlines.within(_PATIENCE):
                while self._has_more:
                    await self._part()

    async def _within(self) -> bytes:
        body = bytearray()
        while self._has_more:
            body += await self._part()
            if len(body) > self._most:
                raise self._too_large("more bytes")
        return bytes(body)

    async def _part(self) -> bytes:
        message = await self._request.receive()
        if message["type"] == "http.disconnect":
            self._has_more = False
            raise ClientDisconnect
        self._has_more = message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    def _too_large(self, size: str) -> RequestError:
        return RequestError(
            f"the request has {size} than the limit of {self._most:,}",
            TOO_LARGE,
            "send fewer rows at a time; the server's --max-body sets the limit",
        )


class Refusal(Response):
    """The answer to a request that is not read to its end. The rest of its body is read after the
    answer: a connection that is closed before would take the answer with it."""

    def __init__(self, error: RequestError, body: Body) -> None:
        super().__init__(
            json.dumps({"error": text_of(error)}),
            status_of(error),
            {"connection": "close"},
            "application/json",
        )
        self._rest = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await self._rest.drain()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
