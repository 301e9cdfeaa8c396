"""The paths of the Open Inference Protocol over HTTP, and of Prometheus."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from nncompile.diagnostics.errors import CompileError, closest
from nncompile.diagnostics.version import VERSION
from nncompile.runtime.open_inference import described
from nncompile.serving.batching import Batcher
from nncompile.serving.bodies import Body, Deadlines, Refusal
from nncompile.serving.limits import Limits
from nncompile.serving.measures import CONTENT_TYPE, Measures
from nncompile.serving.messages import HEADER_LENGTH, parsed, response
from nncompile.serving.models import Served, chosen
from nncompile.serving.problems import BUSY, NOT_FOUND, RequestError, status_of, text_of

_GONE = 499  # the client went before it had an answer; no one reads it


def application(models: Sequence[Served], limits: Limits) -> FastAPI:
    """An application (ASGI) that serves the models by their names. Its `state.end` is called as
    soon as the server is to end."""
    serving = _Serving({served.name: served for served in models}, limits)
    # No pages of documentation, which load scripts from elsewhere.
    app = FastAPI(
        lifespan=serving.lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    for path, answer in {
        "/v2": serving.server,
        "/v2/health/live": serving.live,
        "/v2/health/ready": serving.ready,
        "/v2/models/{name}": serving.model,
        "/v2/models/{name}/ready": serving.model_ready,
        "/metrics": serving.metrics,
    }.items():
        app.add_api_route(path, answer, methods=["GET"])
    app.add_api_route("/v2/models/{name}/infer", serving.infer, methods=["POST"])
    app.add_exception_handler(HTTPException, _of_path)
    app.add_exception_handler(CompileError, _of_model)
    app.state.end = serving.deadlines.end
    return app


class _Serving:
    """What the paths answer."""

    def __init__(self, models: Mapping[str, Served], limits: Limits) -> None:
        self._models, self._limits = models, limits
        self.deadlines = Deadlines(limits)
        self._measures = Measures()
        self._batchers: dict[str, Batcher] = {}
        self._open = 0

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        for name, served in self._models.items():
            self._batchers[name] = Batcher(served, self._limits, self._measures)
        yield
        batchers, self._batchers = self._batchers, {}
        await asyncio.gather(*(batcher.close() for batcher in batchers.values()))

    async def server(self) -> Response:
        about = {"name": "nncompile", "version": VERSION, "extensions": ["binary_tensor_data"]}
        return _json(about)

    async def live(self) -> Response:
        return _json({"live": True})

    async def ready(self) -> Response:
        return _json({"live": True, "ready": True})

    async def model(self, name: str) -> Response:
        served = self._served(name)
        ports = {"inputs": described(served.inputs), "outputs": described(served.outputs)}
        return _json({"name": name, "platform": "onnxruntime_onnx", **ports})

    async def model_ready(self, name: str) -> Response:
        return _json({"name": self._served(name).name, "ready": True})

    async def metrics(self) -> Response:
        return Response(self._measures.text(), media_type=CONTENT_TYPE)

    async def infer(self, name: str, request: Request) -> Response:
        begin, status = time.perf_counter(), _GONE
        label = name if name in self._models else ""  # names of clients make no new metrics
        self._measures.begun()
        self._open += 1
        try:
            answer = await self._inferred(name, request)
            status = answer.status_code
            return answer
        finally:
            self._open -= 1
            self._measures.ended(label, status, time.perf_counter() - begin)

    async def _inferred(self, name: str, request: Request) -> Response:
        incoming = Body(request, self.deadlines)
        try:
            served = self._served(name)
            if self._open > self._limits.requests:
                raise RequestError(f"{self._limits.requests} requests are open", BUSY, "try again")
            body = await incoming.read()
        except RequestError as error:
            return Refusal(error, incoming)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        try:
            asked = parsed(body, request.headers.get(HEADER_LENGTH))
            names = chosen(served, None if asked.outputs is None else list(asked.outputs))
            results = await self._batchers[name].run(asked.feeds)
        except CompileError as error:
            return _of_error(error)
        content, length = response(name, asked, {output: results[output] for output in names})
        if length == len(content):
            return Response(content, media_type="application/json")
        headers = {HEADER_LENGTH: str(length)}
        return Response(content, headers=headers, media_type="application/octet-stream")

    def _served(self, name: str) -> Served:
        if name in self._models:
            return self._models[name]
        close = closest(name, self._models)
        hint = f"did you mean {close!r}?" if close else f"it serves {', '.join(self._models)}"
        raise RequestError(f"there is no model {name!r:.80}", NOT_FOUND, hint)


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")


def _of_error(error: CompileError) -> Response:
    return _json({"error": text_of(error)}, status_of(error))


async def _of_model(_: Request, error: Exception) -> Response:
    assert isinstance(error, CompileError)
    return _of_error(error)


async def _of_path(request: Request, error: Exception) -> Response:
    """The answer where there is no such path, or not for that method."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path}"
    return _json({"error": f"{what:.200}: {error.detail.lower()}"}, error.status_code)
