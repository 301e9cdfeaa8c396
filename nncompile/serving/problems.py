"""What a request is answered with that cannot be met."""

from __future__ import annotations

from nncompile.diagnostics.errors import CompileError, FeedError

BAD_REQUEST, NOT_FOUND, BODY_TIMEOUT, TOO_LARGE, BAD_ENCODING = 400, 404, 408, 413, 415
FAILED, BUSY, RUN_TIMEOUT = 500, 503, 504


class RequestError(CompileError):
    """A request that cannot be met; `status` is that of HTTP."""

    def __init__(self, message: str, status: int = BAD_REQUEST, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


def status_of(error: CompileError) -> int:
    """The status of HTTP: data that do not fit are the client's mistake."""
    if isinstance(error, RequestError):
        return error.status
    return BAD_REQUEST if isinstance(error, FeedError) else FAILED


def text_of(error: CompileError) -> str:
    """The message as a client reads it: the line of a program says nothing to it."""
    error.location = None
    return error.render()
