"""Batches that a thread makes ahead of the step that takes them."""

from __future__ import annotations

import contextvars
import queue
import threading
import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from nncompile.train.sources.notes import DataNote

_PATIENCE = 5.0  # seconds that the end of a training waits for a batch that is being made


@dataclass(frozen=True)
class _End:
    """The end of the batches, or the error that making one raised."""

    error: BaseException | None = None


def prefetched(batches: Iterator[Any], depth: int) -> Generator[Any]:
    """The same batches in the same order, of which a thread makes up to `depth` ahead.

    What making a batch raises is raised where that batch would come. The thread ends with the
    batches, and when this iterator is closed.
    """
    waiting: queue.Queue[Any] = queue.Queue(depth)
    stopping = threading.Event()
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run,
        args=(_produce, batches, waiting, stopping),
        name="nncompile-prefetch",
        daemon=True,  # a batch that never comes must not keep the process from ending
    )
    thread.start()
    try:
        while True:
            batch = waiting.get()
            if isinstance(batch, _End):
                if batch.error is not None:
                    raise batch.error
                return
            yield batch
    finally:
        stopping.set()
        while not waiting.empty():  # makes room for what the thread is about to put
            waiting.get_nowait()
        thread.join(_PATIENCE)
        if thread.is_alive():
            warnings.warn(
                "a batch is still being made; the thread that makes it ends with it",
                DataNote,
                stacklevel=2,
            )


def _produce(batches: Iterator[Any], waiting: queue.Queue[Any], stopping: threading.Event) -> None:
    end = _End()
    try:
        for batch in batches:
            if not _put(batch, waiting, stopping):
                break
    except BaseException as error:  # it is raised where the batches are taken
        end = _End(error)
    _put(end, waiting, stopping)


def _put(item: Any, waiting: queue.Queue[Any], stopping: threading.Event) -> bool:
    """Waits for a place, and puts the item there; False where nobody takes it any more."""
    while not stopping.is_set():
        try:
            waiting.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
