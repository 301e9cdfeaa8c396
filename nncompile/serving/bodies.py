"""The bodies of requests, read within limits."""

from __future__ import annotations

import asyncio
import contextlib
import json

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nncompile.serving.problems import (
    BAD_ENCODING,
    BODY_TIMEOUT,
    TOO_LARGE,
    RequestError,
    status_of,
    text_of,
)

_PATIENCE = 10.0  # seconds for a client to send what nobody reads


class Body:
    """The body of a request, of which at most so many bytes are taken, in so many seconds."""

    def __init__(self, request: Request, most: int, timeout: float) -> None:
        self._request, self._most, self._timeout = request, most, timeout
        self._has_more = True

    async def read(self) -> bytes:
        """All of it. Raises `RequestError` where it is larger, which a body that says its length is
        told before it is read; where it takes longer; and where it is packed. Raises
        `ClientDisconnect`."""
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
            return await asyncio.wait_for(self._within(), self._timeout)
        except TimeoutError:
            raise RequestError(
                f"the request took more than {self._timeout:g} s to come", BODY_TIMEOUT
            ) from None

    async def drain(self) -> None:
        """Reads what is left and throws it away, for some seconds, or until the server ends."""
        with contextlib.suppress(TimeoutError, ClientDisconnect, asyncio.CancelledError):
            await asyncio.wait_for(self._thrown_away(), _PATIENCE)

    async def _within(self) -> bytes:
        body = bytearray()
        while self._has_more:
            body += await self._part()
            if len(body) > self._most:
                raise self._too_large("more bytes")
        return bytes(body)

    async def _thrown_away(self) -> None:
        while self._has_more:
            await self._part()

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
