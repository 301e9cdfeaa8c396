"""No client holds a server: not by what it sends, not by what it does not, and not by what it asks
to be computed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from dsl import f32, model
from nncompile.compiler.export import export
from nncompile.runtime import Session
from nncompile.serving.limits import Limits

pytest.importorskip("uvicorn", reason="the extra serve is not installed")
server = pytest.importorskip("nncompile.serving.server")
models = pytest.importorskip("nncompile.serving.models")

SHORT = 0.15
FOR_EVER = 3 * 10**7  # turns of a loop: 15 s


def looping() -> bytes:
    """x + turns, added up one by one: y of f32[n] and turns of i64."""
    truth = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    body = helper.make_graph(
        [
            helper.make_node("Add", ["before", "one"], ["after"]),
            helper.make_node("Identity", ["goes_on"], ["and_on"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["n"]),
        ],
        [
            helper.make_tensor_value_info("and_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, ["n"]),
        ],
        [truth],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)],
        "looping",
        [
            helper.make_tensor_value_info("turns", TensorProto.INT64, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = made.SerializeToString()
    return data


Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """A client that speaks HTTP by hand, and need not do so to the end."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address

    async def sent(self, text: str, **options: Any) -> Talk:
        reader, writer = await asyncio.open_connection(*self.address, **options)
        writer.write(text.encode())
        await writer.drain()
        return reader, writer

    async def asked(self, feeds: dict[str, Any], name: str = "looping") -> Talk:
        kinds = {np.dtype("float32"): "FP32", np.dtype("int64"): "INT64"}
        arrays = {n: np.asarray(x) for n, x in feeds.items()}
        inputs = [
            {"name": n, "shape": x.shape, "datatype": kinds[x.dtype], "data": x.ravel().tolist()}
            for n, x in arrays.items()
        ]
        body = json.dumps({"inputs": inputs})
        return await self.sent(f"{post(len(body), name)}{body}")


def post(length: int, name: str = "looping") -> str:
    return f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"


async def all_of(talk: Talk) -> str:
    """What came until the server closed the connection."""
    reader, writer = talk
    text = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    return text


async def answer_of(talk: Talk) -> tuple[int, Any]:
    """Status and body of an answer to a connection that is kept."""
    reader, writer = talk
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    length = int(head.lower().partition("content-length: ")[2].partition("\r")[0])
    body = await asyncio.wait_for(reader.readexactly(length), 10)
    writer.close()
    return int(head.split()[1]), json.loads(body)


def served(use: Callable[[Client, Any], Awaitable[None]], limits: Limits, *more: Any) -> float:
    """Uses a server, and tells it to end: the seconds until it has ended."""

    async def main() -> float:
        all_models = [models.ServedModel("looping", Session(looping(), threads=1)), *more]
        begun = asyncio.Event()
        with server.listening("127.0.0.1", 0) as (listener, _):
            made = server.Server(all_models, limits, begun.set)
            running = asyncio.create_task(made.serve(sockets=[listener]))
            await begun.wait()
            try:
                async with asyncio.timeout(20):
                    await use(Client(listener.getsockname()), made)
            finally:  # or its signal handlers stay
                begin = time.perf_counter()
                made.should_exit = True
                await running
        return time.perf_counter() - begin

    return asyncio.run(main())


def x(turns: int) -> dict[str, Any]:
    return {"turns": np.int64(turns), "x": np.zeros(1, "float32")}


def test_a_run_that_takes_too_long_makes_place_for_the_next() -> None:
    async def use(client: Client, _: Any) -> None:
        begin = time.perf_counter()
        first, second = await client.asked(x(FOR_EVER)), await client.asked(x(3))
        status, told = await answer_of(first)
        assert (status, told["error"]) == (
            504,
            f"looping took more than {SHORT} s\n  hint: send fewer rows at a time",
        )
        assert (await answer_of(second))[0] in (200, 504)
        assert (await answer_of(await client.asked(x(3))))[1]["outputs"][0]["data"] == [3.0]
        assert time.perf_counter() - begin < 5

    served(use, Limits(timeout=SHORT))


def test_a_client_that_does_not_say_what_it_wants_is_let_go() -> None:
    """Nor does it stay by saying a little now and then."""

    async def use(client: Client, _: Any) -> None:
        silent = await client.sent("")
        slow = await client.sent("POST /v2")
        answered = await client.sent(f"{post(99).replace('/infer', '/other')}")  # 404
        # Read as it comes: what is written to a connection that is closed by then loses the rest.
        talks = (silent, slow, answered)
        nothing, refused, unknown = (asyncio.create_task(all_of(talk)) for talk in talks)
        for letter in "/mo":
            await asyncio.sleep(SHORT / 4)
            for _, writer in (slow, answered):
                writer.write(letter.encode())
        assert await nothing == ""
        head, _, body = (await refused).partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 408 ") and "Connection: close" in head
        assert json.loads(body) == {
            "error": f"the head of the request took more than {SHORT} s to come"
        }
        assert "404 Not Found" in await unknown
        large = await client.sent("GET /v2 HTTP/1.1\r\nX: " + "x" * 17_000)
        assert "400 Bad Request" in await all_of(large)

    served(use, Limits(head=SHORT))


def test_a_connection_that_is_kept_waits_for_its_next_request() -> None:
    async def use(client: Client, _: Any) -> None:
        reader, writer = await client.sent("GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"}")
        await asyncio.sleep(1.5 * SHORT)
        writer.write(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer_of((reader, writer)))[0] == 200

    served(use, Limits(head=SHORT))


def test_a_server_that_ends_does_not_wait_for_what_does_not_come() -> None:
    told: list[Awaitable[str]] = []

    async def use(client: Client, made: Any) -> None:
        stalled = await client.sent(f"{post(9)}{{")
        refused = await client.sent(f"{post(2**40)}{{")  # is told at once, and sends no more
        begun = await client.sent("GET /v2")
        assert "413 " in (await refused[0].readline()).decode()
        told.extend(asyncio.create_task(all_of(talk)) for talk in (stalled, refused, begun))
        # Ends by itself, so that what is told then is read in time.
        made.should_exit = True
        stalled_told = await told[0]
        assert "503 " in stalled_told
        assert '"the server ends, and the request has not come"' in stalled_told
        assert (await told[2]) == ""
        await told[1]

    assert served(use, Limits(grace=SHORT)) < 3


@pytest.mark.parametrize("ends", [False, True], ids=["of a server", "of one that ends"])
def test_a_client_that_does_not_take_its_answer_is_cut_off(tmp_path: Path, ends: bool) -> None:
    row = np.zeros((1, 2**20), "float32")

    @model
    def zeros(n=f32["n"]):
        return {"y": n.reshape(-1, 1) + row}

    more = models.ServedModel("zeros", Session(export(zeros, tmp_path / "z.onnx", seed=0)[0]))
    asked = {
        "inputs": [{"name": "n", "shape": [3], "datatype": "FP32", "data": [0] * 3}],
        "parameters": {"binary_data_output": True},
    }
    body = json.dumps(asked)

    async def use(client: Client, made: Any) -> None:
        reader, writer = await client.sent(f"{post(len(body), 'zeros')}{body}", limit=2**10)
        assert "200 OK" in (await asyncio.wait_for(reader.readline(), 10)).decode()
        if ends:
            made.should_exit = True
        while made.server_state.connections:
            await asyncio.sleep(SHORT / 5)
        with pytest.raises(OSError):
            while await asyncio.wait_for(reader.read(2**20), 10):
                pass
            raise ConnectionResetError("it ended before all had come")
        writer.close()

    seconds = {"timeout": 60, "grace": SHORT} if ends else {"timeout": SHORT, "grace": 60}
    assert served(use, Limits(**seconds), more) < 3  # type: ignore[arg-type]  # both are seconds
