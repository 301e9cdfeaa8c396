"""From a model or a recipe to ONNX: composition, passes and lowering, with what each cost."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sympy as sp

from nncompile.backends.onnx import OPSET, to_model
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.dims import Dim, product, substitute, symbols
from nncompile.ir.graph import Graph
from nncompile.ir.types import component_types
from nncompile.passes import Observer, check_passes, optimize
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe, assign
from nncompile.program.shape_check import SizeCheck, trained
from nncompile.program.step import Step
from nncompile.runtime.native import native_library
from nncompile.runtime.origin import RECIPE
from nncompile.runtime.providers import Provider
from nncompile.runtime.runner import Shapes, StepRunner
from nncompile.runtime.step_sources import METADATA_KEY

CACHE = 2**20  # bytes: the second-level cache of today's processors, or half of it


@dataclass
class Report:
    """What a compilation did: seconds of each stage, and the nodes before and after it."""

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


@dataclass
class _Compiled:
    """Graphs that are optimized and lowered on first use."""

    without: tuple[str, ...] = ()
    opset: int = OPSET
    observe: Observer | None = None
    report: Report = field(default_factory=Report)

    def optimized(self, name: str, graph: Graph, without: Collection[str] = ()) -> Graph:
        self.report.nodes[f"{name}, before passes"] = len(graph.nodes)
        with self.report.stage("passes"):
            graph = optimize(graph, without=(*self.without, *without), observe=self.observe)
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
    ) -> Any:
        with self.report.stage("lowering"):
            model = to_model(graph, self.opset, None, metadata, bounds, sizes, kernels)
        self.report.nodes[f"{name}, ONNX"] = len(model.graph.node)
        return model


@dataclass
class CompiledStep(_Compiled):
    """The graphs of a training step after the passes, and the `onnx.ModelProto`s of them.
    `variants` are the steps that were made of it, such as one whose learning rate can be set."""

    source: Step = field(kw_only=True)
    variants: dict[tuple[str, ...], CompiledStep] = field(default_factory=dict, repr=False)
    kernels: bool = field(default=True, kw_only=True)
    # With calls of native kernels, and without them.
    _general_steps: dict[bool, Any] = field(init=False, default_factory=dict, repr=False)
    _small_steps: dict[bool, tuple[Any, dict[Dim, int]]] = field(
        init=False, default_factory=dict, repr=False
    )

    @cached_property
    def gradient(self) -> Graph:
        """The optimized graph of the metrics and gradients."""
        return self.optimized("gradient", self.source.gradient)

    @cached_property
    def update(self) -> Graph:
        """The optimized graph from gradients and state to the next state."""
        return self.optimized("update", self.source.update)

    @cached_property
    def step(self) -> Graph:
        """The optimized graph of the whole training step."""
        return self.optimized("step", self.source.step)

    @cached_property
    def evaluate(self) -> Graph:
        """The optimized graph of the metrics in inference mode."""
        return self.optimized("evaluate", self.source.evaluate)

    @cached_property
    def gradient_model(self) -> Any:
        """`gradient` as an ONNX model."""
        return self._for_the_batch("gradient", self.gradient)

    @cached_property
    def update_model(self) -> Any:
        """`update` as an ONNX model."""
        about = self.metadata(self.update)
        return self.lowered("update", self.update, about, kernels=self.kernels)

    @cached_property
    def step_model(self) -> Any:
        """`step` as an ONNX model."""
        return self._for_the_batch("step", self.step)

    def _for_the_batch(self, name: str, graph: Graph) -> Any:
        """A model of a file: it sums as is right for the batch size of the recipe, and does not
        choose when it runs. Larger batches are computed, too, with the rounding of longer sums."""
        size = int(self.source.recipe.batch_size)
        first = (x.shape[0] for x in self.source.model.inputs.values() if x.shape)
        sizes = {n: size for n in first if isinstance(n, sp.Symbol)}
        return self.lowered(name, graph, self.metadata(graph), sizes=sizes, kernels=self.kernels)

    def _general_step(self, kernels: bool) -> Any:
        """The step for batches of any size, which chooses when it runs."""
        if kernels not in self._general_steps:
            about = self.metadata(self.step)
            model = self.lowered("step", self.step, about, kernels=kernels)
            self._general_steps[kernels] = model
        return self._general_steps[kernels]

    def _small_step(self, kernels: bool) -> tuple[Any, dict[Dim, int]]:
        """The step for small batches, which chooses no ways of summing at run time, and the sizes
        up to which it is right."""
        if kernels not in self._small_steps:
            bounds: dict[Dim, int] = {}
            about = self.metadata(self.step)
            model = self.lowered("step", self.step, about, bounds, kernels=kernels)
            self._small_steps[kernels] = model, bounds
        return self._small_steps[kernels]

    @cached_property
    def evaluate_model(self) -> Any:
        """`evaluate` as an ONNX model."""
        return self.lowered("evaluate", self.evaluate)

    @cached_property
    def sizes(self) -> SizeCheck:
        """Whether a batch of given shapes can be trained on."""
        recipe = self.source.recipe
        model = recipe.trained_model
        outputs = {**model.metrics, **model.updates}
        outputs |= {u.path: u.resolved(model) for u in recipe.updates if isinstance(u, assign)}
        return SizeCheck(trained(model.graph.with_outputs(outputs)), model.inputs)

    @cached_property
    def evaluation_sizes(self) -> SizeCheck:
        """Whether a batch of given shapes can be evaluated."""
        return SizeCheck(self.source.evaluate, self.source.model.inputs)

    def runner(
        self,
        state: Mapping[str, Any] | None = None,
        providers: Provider | Sequence[Provider] = "cpu",
        threads: int | None = None,
        profile: str | None = None,
        after: StepRunner | None = None,
        native: bool | None = None,
    ) -> StepRunner:
        """The step in onnxruntime, starting from `state`, by default the first one of the recipe's
        seed; see `StepRunner`. On the CPU it calls native kernels where they are installed, unless
        `native` is False."""
        state = self.source.initial() if state is None else state
        reuse = not _fits_cache(self.step, int(self.source.recipe.batch_size))
        kernels = providers == "cpu" and native_library(native) is not None
        model, bounds = self._small_step(kernels)

        def general(shapes: Shapes) -> Any:
            sizes = self.sizes(shapes)
            bounded = [(substitute(d, sizes), bound) for d, bound in bounds.items()]
            is_small = all(isinstance(n, int) and n <= bound for n, bound in bounded)
            return None if is_small else self._general_step(kernels)

        options = (reuse, self.sizes, general, profile, after, native)
        return StepRunner(model, state, providers, threads, *options)

    def metadata(self, graph: Graph) -> dict[str, str]:
        """The metadata: what maps each state input to the output with its next value, and what
        tells of which recipe the step is."""
        pairs = {
            path: following
            for path, following in self.source.state_map.items()
            if path in graph.leaves and following in graph.outputs
        }
        return {
            METADATA_KEY: json.dumps(pairs),
            RECIPE: self.source.digest,
            **self.source.model.metadata,
        }


@dataclass
class CompiledModel(_Compiled):
    """The inference graph of a model after the passes, and the `onnx.ModelProto` of it, whose
    inputs are the data, parameters and state."""

    source: Model = field(kw_only=True)

    @cached_property
    def graph(self) -> Graph:
        """The optimized inference graph."""
        return self.optimized(self.source.name, self.source.inference())

    @cached_property
    def model(self) -> Any:
        """`graph` as an ONNX model."""
        return self.lowered(self.source.name, self.graph, self.source.metadata)

    @cached_property
    def sizes(self) -> SizeCheck:
        """Whether the model can be computed of data of given shapes."""
        return SizeCheck(self.source.inference(), self.source.inputs)


def _fits_cache(graph: Graph, size: int) -> bool:
    """Whether all tensors that the graph computes fit together, every unknown size being `size`."""
    total = 0
    for node in graph.nodes:
        for t in component_types(node.type):
            elements = substitute(product(t.shape), dict.fromkeys(symbols(t.shape), size))
            total += int(elements) * t.dtype.numpy.itemsize if node.args else 0
        if total > CACHE:
            return False
    return True


@suggests_names
def compile_step(
    recipe: Recipe,
    without: Collection[str] = (),
    opset: int = OPSET,
    observe: Observer | None = None,
    report: Report | None = None,
    kernels: bool = True,
) -> CompiledStep:
    """The training step of a recipe, without the passes that are named in `without`; `observe`
    is called with the name of each pass and the graphs before and after it, `report` gets what
    the stages cost. With `kernels` its ONNX models have calls of native kernels, each with a
    function of standard operators for runtimes that have no such kernel."""
    check_passes(without)
    report = report or Report()
    with report.stage("gradients"):
        step = compose(recipe)
    return CompiledStep(tuple(without), opset, observe, report, source=step, kernels=kernels)


def compiled_step(recipe: Recipe | CompiledStep, without: Collection[str] = ()) -> CompiledStep:
    """The step of a recipe, which may be one that is compiled. Raises `ModelError` where it was
    compiled without other passes than are named."""
    if not isinstance(recipe, CompiledStep):
        return compile_step(recipe, without)
    if without and {*without} != {*recipe.without}:
        left_out = f"without {', '.join(recipe.without)}" if recipe.without else "with all passes"
        raise ModelError(
            f"the step is compiled already, {left_out}",
            hint=f"compile_step(recipe, without={[*without]!r}) leaves passes out",
        )
    return recipe


@suggests_names
def compile_model(
    model: Model,
    without: Collection[str] = (),
    opset: int = OPSET,
    observe: Observer | None = None,
    report: Report | None = None,
) -> CompiledModel:
    """The inference graph of a model; see `compile_step` for the options. Raises `ModelError` for
    anything but a model."""
    if not isinstance(model, Model):
        raise ModelError(
            f"compile_model takes a model, got {type(model).__name__}",
            hint="recipe.model is the model of a recipe; compile_step compiles the recipe",
        )
    check_passes(without)
    return CompiledModel(tuple(without), opset, observe, report or Report(), source=model)
