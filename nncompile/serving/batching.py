"""Requests of a model, one after the other, and together where they wait for each other."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nncompile.diagnostics.errors import BackendError, CompileError
from nncompile.ir.types import Array
from nncompile.runtime.feeds import check_feeds
from nncompile.runtime.stopping import Stop
from nncompile.serving.limits import Limits
from nncompile.serving.measures import Measures
from nncompile.serving.models import Served
from nncompile.serving.problems import BUSY, RUN_TIMEOUT, RequestError

Arrays = dict[str, Array]


@dataclass(frozen=True, eq=False)
class _Waiting:
    feeds: Arrays
    rows: int
    kind: tuple[object, ...]  # what requests agree in that may be computed together
    answer: asyncio.Future[Arrays] = field(compare=False)


class _Run(NamedTuple):
    """What is computed together, and how it is ended."""

    group: Sequence[_Waiting]
    stop: Stop

    def given_up(self, waiting: _Waiting) -> bool:
        """Nobody waits for that request any more. A run that nobody waits for ends; False where it
        is done already, and its answer is about to come."""
        others = [x for x in self.group if x is not waiting and not x.answer.done()]
        return bool(others) or waiting not in self.group or self.stop.ask()


class Batcher:
    """Runs a model in a thread of its own. Whatever waits when a run ends makes the next one: up to
    `limits.rows` rows, of requests next to each other whose other sizes agree. Nobody waits for
    others to come, but for `limits.delay` seconds where that is asked for."""

    def __init__(self, served: Served, limits: Limits, measures: Measures) -> None:
        self.served, self._limits, self._measures = served, limits, measures
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, f"run of {served.name}")
        self._run = _Run((), Stop())
        self._task = asyncio.create_task(self._work())

    async def run(self, feeds: Arrays) -> Arrays:
        """The outputs for one request. Raises `FeedError` for data that do not fit, `RequestError`
        where too many wait or it takes too long, `BackendError` where the model fails. What nobody
        waits for any more is not computed, or no further."""
        feeds = check_feeds(self.served.inputs, feeds)
        if len(self._waiting) >= self._limits.requests:
            raise RequestError(
                f"{len(self._waiting)} requests wait for {self.served.name}", BUSY, "try again"
            )
        kind = tuple((x.dtype, x.shape[1:]) for x in feeds.values()) if self.served.rows else ()
        first = next(iter(feeds.values()), np.zeros(()))
        rows = len(first) if first.ndim else 1
        waiting = _Waiting(feeds, rows, kind, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._arrived.set()
        is_late = False
        try:
            await asyncio.wait({waiting.answer}, timeout=self._limits.timeout)
        finally:  # also where the request is cancelled
            if not waiting.answer.done() and self._run.given_up(waiting):
                is_late = waiting.answer.cancel()
        if is_late:
            raise RequestError(
                f"{self.served.name} took more than {self._limits.timeout:g} s",
                RUN_TIMEOUT,
                "send fewer rows at a time",
            )
        return await waiting.answer

    async def close(self) -> None:
        """Ends the thread; a run that it is at is stopped."""
        self._run.stop.ask()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._limits.delay and self.served.rows:
                await asyncio.sleep(self._limits.delay)
            group = self._group()
            if not group:
                self._arrived.clear()
                continue
            self._measures.batch(self.served.name, sum(x.rows for x in group))
            self._run = _Run(group, stop := Stop())
            try:
                answers = await loop.run_in_executor(self._pool, self._answers, group, stop)
            except Exception as error:  # such as of memory; the next ones may find enough
                answers = [_failure(error)] * len(group)
            for waiting, answer in zip(group, answers, strict=True):
                if waiting.answer.done():  # it took too long
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)

    def _group(self) -> list[_Waiting]:
        """The next requests to be computed together; none where none waits."""
        group: list[_Waiting] = []
        while self._waiting:
            following = self._waiting[0]
            if following.answer.done():
                self._waiting.popleft()
                continue
            rows = sum(x.rows for x in group) + following.rows
            joins = following.kind and following.kind == group[0].kind if group else True
            if not joins or (group and rows > self._limits.rows):
                break
            group.append(self._waiting.popleft())
        return group

    def _answers(self, group: Sequence[_Waiting], stop: Stop) -> list[Arrays | Exception]:
        """What each request is answered, in the thread of the model. What a row alone makes fail is
        no reason for the others to."""
        if len(group) == 1:
            return [self._answer(group[0].feeds, stop)]
        joined = {n: np.concatenate([x.feeds[n] for x in group]) for n in group[0].feeds}
        together = self._answer(joined, stop)
        count = sum(x.rows for x in group)
        if isinstance(together, Exception) or any(len(x) != count for x in together.values()):
            return [self._answer(waiting.feeds, stop) for waiting in group]
        ends = np.cumsum([x.rows for x in group])[:-1]
        parts = {name: np.split(array, ends) for name, array in together.items()}
        return [{name: arrays[i] for name, arrays in parts.items()} for i in range(len(group))]

    def _answer(self, feeds: Mapping[str, Array], stop: Stop) -> Arrays | Exception:
        try:
            return self.served.run(feeds, stop)
        except CompileError as error:
            return error
        except Exception as error:  # a server outlives what nobody thought of
            return _failure(error)


def _failure(error: Exception) -> BackendError:
    return BackendError(f"{type(error).__name__}: {error}")
