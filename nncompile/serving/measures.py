"""What Prometheus reads of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: str = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_ROWS = tuple(2.0**i for i in range(11))


class Measures:
    """The metrics of one server, and of no other in the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels, where = ["model"], {"registry": self._registry}
        self._requests = Counter(
            "nncompile_requests",
            "Requests by the status they ended with",
            [*labels, "status"],
            **where,
        )
        self._seconds = Histogram(
            "nncompile_request_seconds",
            "From the first byte of a request to its answer",
            labels,
            buckets=_SECONDS,
            **where,
        )
        self._rows = Histogram(
            "nncompile_batch_rows",
            "Rows that were computed at once",
            labels,
            buckets=_ROWS,
            **where,
        )
        self._open = Gauge("nncompile_open_requests", "Requests that are being answered", **where)

    def begun(self) -> None:
        """A request has come."""
        self._open.inc()

    def ended(self, model: str, status: int, seconds: float) -> None:
        """It is answered."""
        self._open.dec()
        self._requests.labels(model, str(status)).inc()
        self._seconds.labels(model).observe(seconds)

    def batch(self, model: str, rows: int) -> None:
        """So many rows are computed at once."""
        self._rows.labels(model).observe(rows)

    def text(self) -> bytes:
        """All of them in Prometheus's format."""
        return bytes(generate_latest(self._registry))
