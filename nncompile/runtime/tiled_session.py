"""A session of an update, parts of which run tile by tile: a tile stays in the cache."""

from __future__ import annotations

import operator
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from nncompile.runtime.buffers import buffer_like
from nncompile.runtime.feeds import Port
from nncompile.runtime.providers import Provider
from nncompile.runtime.session import Model, Session
from nncompile.runtime.step_session import for_device, step_session
from nncompile.runtime.stopping import Stop
from nncompile.runtime.tiling import Part, Tiling, tiling_of

TILE = 2**17
"""Elements of a tile, for each thread: six tensors of so many take 3 MB, and a run of ten operators
on them a hundred times as long as what begins it."""


class TiledSession(Session):
    """The session of an update, which runs what it binds, a `TiledBinding`: the rest, then tiles of
    its parts, each in one of the `sessions`. See `Session` for the options."""

    def __init__(
        self,
        tiling: Tiling,
        sessions: Mapping[bytes, Session],
        tile: int,
        providers: Provider | Sequence[Provider] = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(for_device(tiling.rest, providers), providers, **options)
        self.written = tiling.states
        self.metadata = dict(tiling.metadata)
        self.parts, self.types = tiling.parts, tiling.types
        self.sessions, self.tile = sessions, tile
        self.results = {name for part in self.parts for name in part.results.values()}
        self.rest_inputs = {port.name for port in self.inputs}
        taken = {name for part in self.parts for name in part.numbers.values()}
        self.numbers = [port for port in self.outputs if port.name in taken]
        ports = {name: Port(name, *type_) for name, type_ in self.types.items()}
        ports |= {port.name: port for port in (*self.inputs, *self.outputs)}
        self.inputs = tuple(ports[name] for name in tiling.inputs)
        self.outputs = tuple(ports[name] for name in tiling.outputs)

    def io_binding(self) -> Any:
        return TiledBinding(self)

    def run_first(self, binding: Any, stop: Stop | None = None) -> None:
        run_all(binding.runs(self._first_options(None if stop is None else stop.options)))

    def run_until(self, binding: Any, stop: Stop) -> None:
        run_all(binding.runs(stop.options))

    def runner(self, binding: Any, waits: bool = True) -> Callable[[], None]:
        return lambda: run_all(binding.runs(ort.RunOptions()))


class TiledBinding:
    """What an update reads and writes, as an `onnxruntime.IOBinding` knows it of a model."""

    def __init__(self, session: TiledSession) -> None:
        self._session = session
        self._rest = session.onnxruntime.io_binding()
        self._tensors: dict[str, ort.OrtValue] = {}
        self._numbers = {p.name: buffer_like(np.empty((), p.dtype)) for p in session.numbers}
        for name, buffer in self._numbers.items():
            self._rest.bind_ortvalue_output(name, buffer)
        self._takes_rest = bool(self._numbers)  # whether any result of it is wanted
        self._tiles: list[Callable[[], object]] | None = None

    def bind_ortvalue_input(self, name: str, buffer: ort.OrtValue) -> None:
        """Has the update read that input there."""
        if name in self._session.rest_inputs:
            self._rest.bind_ortvalue_input(name, buffer)
        if name in self._session.types:
            self._tensors[name], self._tiles = buffer, None

    def bind_ortvalue_output(self, name: str, buffer: ort.OrtValue) -> None:
        """Has the update write that output there."""
        if name in self._session.results:
            self._tensors[name], self._tiles = buffer, None
        else:
            self._rest.bind_ortvalue_output(name, buffer)
            self._takes_rest = True

    def runs(self, options: ort.RunOptions) -> list[Callable[[], object]]:
        """What is run, in order: the rest, with these options, and the tiles."""
        if self._tiles is None:
            parts = self._session.parts
            self._tiles = [run for part in parts for run in self._runs_of(part)]
        first = [self._session.run_of(self._rest, options)] if self._takes_rest else []
        return [*first, *self._tiles]

    def _runs_of(self, part: Part) -> Iterator[Callable[[], object]]:
        """The tiles of a part, of those of its results that are bound."""
        tensors, types = self._tensors, self._session.types
        results = {x: name for x, name in part.results.items() if name in tensors}
        session, options = self._session.sessions[part.model], ort.RunOptions()
        count = -(-part.size // self._session.tile) if results else 0
        for i in range(count):
            start, stop = i * part.size // count, (i + 1) * part.size // count
            binding = session.io_binding()
            for x, name in part.numbers.items():
                binding.bind_ortvalue_input(x, self._numbers[name])
            for bind, names in (
                (binding.bind_input, part.tensors),
                (binding.bind_output, results),
            ):
                for x, name in names.items():
                    dtype, _ = types[name]
                    place = tensors[name].data_ptr() + start * dtype.itemsize
                    bind(x, "cpu", 0, dtype, [stop - start], place)
            yield session.run_of(binding, options)


def tile_of(threads: int | None) -> int:
    """The elements of a tile."""
    return TILE * (threads or os.cpu_count() or 1)


def run_all(runs: Iterable[Callable[[], object]]) -> None:
    """Runs all of these. Nothing of Python itself is between two of them, so no interrupt comes
    there: all is written, or nothing."""
    deque(map(operator.call, runs), maxlen=0)


def update_session(update: Model, threads: int | None = None, **options: Any) -> Session:
    """The session of an update, tile by tile where that is of use and can be all or nothing."""
    parsed = onnx.load_model_from_string(update) if isinstance(update, bytes) else update
    options |= {"threads": threads, "takes_turns": True}
    sessions: dict[bytes, Session] = {}
    as_run: dict[bytes, onnx.ModelProto] = {}

    def run(model: bytes) -> onnx.ModelProto:
        if model not in sessions:
            with tempfile.TemporaryDirectory() as directory:
                file = os.path.join(directory, "tile.onnx")
                sessions[model] = step_session(model, **{**options, "optimized": file})
                as_run[model] = onnx.load(file)
        return as_run[model]

    tile = tile_of(threads)
    tiling = tiling_of(parsed, tile, run) if isinstance(parsed, onnx.ModelProto) else None
    if tiling is None or not all(session.runs_at_once for session in sessions.values()):
        return step_session(update, **options)
    return TiledSession(tiling, sessions, tile, **options)
