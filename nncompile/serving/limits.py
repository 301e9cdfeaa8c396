"""How much a server takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How much of everything a server takes: requests at a time, bytes of a body, rows of a batch,
    and seconds: for a batch to fill, and for a request to come in and to be computed."""

    requests: int = 128
    body: int = 64 * 2**20
    rows: int = 64
    delay: float = 0.0
    timeout: float = 60.0
