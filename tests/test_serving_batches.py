"""Requests that wait for a model are computed together, and no other's mistake is one's own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import BackendError, FeedError
from nncompile.runtime import Port
from nncompile.serving.limits import Limits
from nncompile.serving.problems import RequestError

pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
Batcher = pytest.importorskip("nncompile.serving.batching").Batcher
Measures = pytest.importorskip("nncompile.serving.measures").Measures

F32 = np.dtype("float32")
Arrays = dict[str, np.ndarray]


class Doubling:
    """A model that is 2x where no row is 13. It waits before each run until it is let go on."""

    name = "doubling"
    inputs = (Port("x", F32, ("n", None)),)
    outputs = (Port("y", F32, ("n", None)),)

    def __init__(self, rows: str | None = "n", most: int | None = None) -> None:
        self.rows, self.most = rows, most
        self.sizes: list[int] = []
        self.go_on = threading.Event()

    def run(self, feeds: Mapping[str, np.ndarray], stop: Any) -> Arrays:
        assert self.go_on.wait(20)
        self.sizes.append(len(feeds["x"]))
        if (feeds["x"] == 13).any():
            raise BackendError("13 is refused")
        if (feeds["x"] == 14).any():
            raise ZeroDivisionError("of a library")
        return {"y": 2 * feeds["x"][: self.most]}

    def close(self) -> None:
        raise AssertionError("the server closes it")


def answered(
    served: Doubling, use: Callable[[Any], Awaitable[Any]], limits: Limits | None = None
) -> Any:
    """What `use` makes of a batcher of the model."""

    async def main() -> Any:
        batcher = Batcher(served, limits or Limits(rows=8, timeout=20), Measures())
        try:
            return await use(batcher)
        finally:
            served.go_on.set()
            await batcher.close()

    return asyncio.run(main())


def together(served: Doubling, *requests: np.ndarray, limits: Limits | None = None) -> list[Any]:
    """The answers to requests that come while the model runs another one of a row."""

    async def use(batcher: Any) -> list[Any]:
        first = asyncio.create_task(batcher.run({"x": rows(0)}))
        await asyncio.sleep(0.02)
        tasks = [asyncio.create_task(batcher.run({"x": x})) for x in requests]
        await asyncio.sleep(0)
        served.go_on.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    found: list[Any] = answered(served, use, limits)
    return found


def rows(*numbers: float, width: int = 2) -> np.ndarray:
    return np.repeat(np.array(numbers, F32)[:, None], width, 1)


def test_what_waits_is_computed_together_up_to_so_many_rows() -> None:
    served = Doubling()
    requests = [rows(1), rows(2, 3), rows(4, 5, 6), rows(7, 8, 9), rows(*[20] * 20), rows(1)]
    for x, answer in zip(requests, together(served, *requests), strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * x)
    assert served.sizes == [1, 6, 3, 20, 1]


def test_only_requests_of_the_same_sizes_are_computed_together() -> None:
    served = Doubling()
    requests = [rows(1), rows(2), rows(3, width=3), rows(4, width=3), rows(5)]
    for x, answer in zip(requests, together(served, *requests), strict=True):
        np.testing.assert_array_equal(answer["y"], 2 * x)
    assert served.sizes == [1, 2, 2, 1]


def test_rows_that_depend_on_each_other_are_computed_by_request() -> None:
    served = Doubling(rows=None)
    together(served, rows(1), rows(2))
    assert served.sizes == [1, 1, 1]


def test_outputs_without_a_row_for_each_example_are_computed_by_request() -> None:
    """A file may say of its rows what is not so."""
    one, other = together(Doubling(most=1), rows(1), rows(2, 3))
    np.testing.assert_array_equal([*one["y"], *other["y"]], rows(2, 4))


def test_a_request_that_fails_fails_alone() -> None:
    served = Doubling()
    one, bad, other = together(served, rows(1), rows(13), rows(2))
    assert isinstance(bad, BackendError)
    np.testing.assert_array_equal([*one["y"], *other["y"]], rows(2, 4))
    (answer,) = together(Doubling(), rows(14))
    assert isinstance(answer, BackendError) and "ZeroDivisionError" in str(answer)


def test_data_that_do_not_fit_are_refused_at_once() -> None:
    served = Doubling()

    async def use(batcher: Any) -> None:
        with pytest.raises(FeedError, match="rank 1"):
            await batcher.run({"x": np.zeros(3, F32)})

    answered(served, use)
    assert served.sizes == []


def test_who_waits_too_long_is_told_and_forgotten() -> None:
    served = Doubling()

    async def use(batcher: Any) -> None:
        runs = [batcher.run({"x": rows(i)}) for i in range(2)]
        for answer in await asyncio.gather(*runs, return_exceptions=True):
            assert (answer.status, "0.05 s" in answer.message) == (504, True)
        served.go_on.set()
        assert (await batcher.run({"x": rows(3)}))["y"][0, 0] == 6

    answered(served, use, Limits(timeout=0.05))
    assert served.sizes[-1] == 1 and len(served.sizes) <= 3


def test_a_run_goes_on_for_whoever_still_waits_for_it() -> None:
    """It is stopped when nobody does."""
    stops: list[Any] = []
    asked = []

    class Slow(Doubling):
        def run(self, feeds: Mapping[str, np.ndarray], stop: Any) -> Arrays:
            stops.append(stop)
            if len(stops) == 1:
                return super().run(feeds, stop)
            while not stop.asked and (feeds["x"] == 1).all():
                time.sleep(0.005)
            time.sleep(0.12 if len(stops) == 2 else 0)
            return super().run(feeds, stop)

    served = Slow()

    async def use(batcher: Any) -> None:
        async def late(seconds: float, number: float) -> Any:
            await asyncio.sleep(seconds)
            return await batcher.run({"x": rows(number)})

        tasks = [asyncio.create_task(late(*x)) for x in ((0, 0), (0.01, 2), (0.08, 3))]
        await asyncio.sleep(0.09)
        served.go_on.set()  # the first one ends, and the others are computed together
        first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert first["y"][0, 0] == 0 and second.status == 504 and third["y"][0, 0] == 6
        asked.extend(stop.asked for stop in stops)
        with pytest.raises(RequestError, match="took more than"):
            await batcher.run({"x": rows(1)})

    answered(served, use, Limits(timeout=0.15))
    assert served.sizes == [1, 2, 1] and asked == [False, False] and stops[2].asked


def test_more_than_so_many_do_not_wait() -> None:
    served = Doubling()
    limits = Limits(requests=2, timeout=20)
    *some, last = together(served, rows(1), rows(2), rows(3), limits=limits)
    assert [set(answer) for answer in some] == [{"y"}] * 2
    assert (last.status, "2 requests wait" in last.message) == (503, True)


def test_a_delay_lets_a_batch_fill() -> None:
    served = Doubling()
    served.go_on.set()

    async def use(batcher: Any) -> None:
        tasks = []
        for i in range(3):
            tasks.append(asyncio.create_task(batcher.run({"x": rows(i)})))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)

    answered(served, use, Limits(delay=0.1))
    assert served.sizes == [3]
