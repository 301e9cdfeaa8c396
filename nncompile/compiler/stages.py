"""The stages from a graph to a file, what each cost, and what is kept for the next time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sympy as sp

from nncompile.backends.onnx import OPSET, to_model
from nncompile.compiler.cache_files import CompileCache, Entry
from nncompile.compiler.cache_keys import key_of
from nncompile.compiler.cache_place import active_cache
from nncompile.ir.dims import Dim
from nncompile.ir.graph import Graph
from nncompile.passes import Observer, optimize


@dataclass
class Report:
    """What a compilation did: seconds of each stage, and the nodes before and after it. What the
    compile cache had has neither passes nor a lowering, but the stage `cache`."""

    seconds: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @property
    def total(self) -> float:
        """The seconds of all stages."""
        return sum(self.seconds.values())

    @property
    def is_cached(self) -> bool:
        """Whether all came from the compile cache."""
        return "cache" in self.seconds and "passes" not in self.seconds


@dataclass(frozen=True)
class Target:
    """A file to be made of a graph: of `source`, which the passes turn into what `optimized` gives.

    `metadata` gives that of the file by the optimized graph, and `depends` is all that it and
    `about` depend on beside the source. `about` gives what else is to be known of the optimized
    graph and the bounds of its sizes, as JSON has it. `is_bounded` is for sizes up to bounds alone;
    `sizes` are expected ones, with `kernels` there are calls of native kernels, and with `threads`
    it is for so many of a processor. Those of `weights` that are needed are in the file, without
    elements. See `to_model`.
    """

    name: str
    source: Graph
    optimized: Callable[[], Graph]
    depends: Any = None
    metadata: Callable[[Graph], Mapping[str, str]] | None = None
    about: Callable[[Graph, Mapping[Dim, int]], Mapping[str, Any]] | None = None
    sizes: Mapping[sp.Symbol, int] = field(default_factory=dict)
    is_bounded: bool = False
    kernels: bool = False
    threads: int = 0
    weights: tuple[str, ...] = ()


@dataclass
class Stages:
    """Optimizes graphs and lowers them; with `halves`, sums of products of 16 bits to operators of
    16 bits."""

    without: tuple[str, ...] = ()
    opset: int = OPSET
    observe: Observer | None = None
    report: Report = field(default_factory=Report)
    halves: bool = field(default=False, kw_only=True)

    def optimized(
        self, name: str, graph: Graph, without: Collection[str] = (), losses: Collection[str] = ()
    ) -> Graph:
        """The graph after the passes; `losses` are outputs whose gradients are taken in it."""
        self.report.nodes[f"{name}, before passes"] = len(graph.nodes)
        with self.report.stage("passes"):
            graph = optimize(graph, (*self.without, *without), self.observe, losses)
        self.report.nodes[f"{name}, after passes"] = len(graph.nodes)
        return graph

    def lowered(
        self,
        name: str,
        graph: Graph,
        metadata: Mapping[str, str] | None = None,
        bounds: dict[Dim, int] | None = None,
        sizes: Mapping[sp.Symbol, int] | None = None,
        kernels: bool = False,
        threads: int = 0,
        weights: Collection[str] = (),
    ) -> Any:
        """The `onnx.ModelProto` of an optimized graph."""
        types = {name: graph.leaves[name].type for name in weights if name in graph.leaves}
        with self.report.stage("lowering"):
            options = bounds, sizes, kernels, self.halves, threads
            model = to_model(graph, self.opset, types, metadata, *options)
        self.report.nodes[f"{name}, ONNX"] = len(model.graph.node)
        return model

    def made(self, target: Target) -> Entry:
        """The file of a target, from the cache where that has it. Who observes passes sees them
        run."""
        cache = active_cache() if self.observe is None else None
        if cache is None:
            return self._made(target)
        with self.report.stage("cache"):
            key = key_of(target.source, self._options(target))
            entry = None if key is None else cache.get(key)
        if entry is not None:
            self.report.nodes |= entry.about["nodes"]
            return entry
        return self._kept(target, cache, key)

    def _kept(self, target: Target, cache: CompileCache, key: str | None) -> Entry:
        entry = self._made(target)
        if key is not None:
            with self.report.stage("cache"):
                cache.put(key, entry)
        return entry

    def _made(self, target: Target) -> Entry:
        graph = target.optimized()
        bounds: dict[Dim, int] = {}
        metadata = target.metadata and target.metadata(graph)
        options = (
            bounds if target.is_bounded else None,
            target.sizes,
            target.kernels,
            target.threads,
            target.weights,
        )
        model = self.lowered(target.name, graph, metadata, *options)
        begins = f"{target.name}, "
        nodes = {n: count for n, count in self.report.nodes.items() if n.startswith(begins)}
        about = target.about(graph, bounds) if target.about else {}
        return Entry(model.SerializeToString(), {**about, "nodes": nodes})

    def _options(self, target: Target) -> dict[str, Any]:
        return {
            "name": target.name,
            "without": self.without,
            "opset": self.opset,
            "halves": self.halves,
            "sizes": {str(name): size for name, size in target.sizes.items()},
            "bounded": target.is_bounded,
            "kernels": target.kernels,
            "threads": target.threads,
            "weights": target.weights,
            "depends": target.depends,
        }
