"""How much a server takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much of everything a server takes: requests at a time, bytes of a body, rows of a batch,
    and seconds: for a batch to fill; for a request to come in, to be computed, and its answer to be
    taken; for the head of a request; and for clients to be done when the server is to end."""

    requests: int = 128
    body: int = 64 * 2**20
    rows: int = 64
    delay: float = 0.0
    timeout: float = 60.0
    head: float = 10.0
    grace: float = 5.0
