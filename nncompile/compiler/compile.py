"""From a model or a recipe to ONNX: composition, passes and lowering, with what each cost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import sympy as sp

from nncompile.backends.onnx import OPSET, from_bytes
from nncompile.compiler.cache_files import Entry
from nncompile.compiler.sized import SizedFile, SizedFiles, fits_cache
from nncompile.compiler.stages import Report, Stages, Target
from nncompile.compiler.stored_sizes import as_json, from_json
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.dims import Dim, product
from nncompile.ir.graph import Graph
from nncompile.passes import Observer, check_passes
from nncompile.program.accumulation_halves import AccumulationHalves, accumulation_halves
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.precision import HALVES
from nncompile.program.recipe import Recipe, assign
from nncompile.program.reductions import METADATA_KEY as REDUCE
from nncompile.program.repeated import repeated
from nncompile.program.shape_check import SizeCheck, trained
from nncompile.program.step import Step
from nncompile.runtime.ahead import AheadStepRunner
from nncompile.runtime.feeds import ports_of
from nncompile.runtime.half_kernels import check_precision
from nncompile.runtime.halves import LARGE, HalvesRunner
from nncompile.runtime.native import native_library
from nncompile.runtime.origin import RECIPE
from nncompile.runtime.providers import Provider
from nncompile.runtime.runner import Shapes, StepRunner
from nncompile.runtime.step_sources import METADATA_KEY

# To which nothing is left to be reduced.
_WHOLE = ("step", "steps", "gradient_of_batch", "following", "following_of_sums")
_SIZELESS = ("update", "following", "following_of_sums", "apply")  # which no batch is in
_APART = ("accumulate", "apply")  # whose graphs are not those of the step
_GIVE = ("gradient", "accumulate")  # whose outputs are reduced, and become inputs of the others


@dataclass
class CompiledStep(Stages):
    """The graphs of a training step after the passes, and the `onnx.ModelProto`s of them.
    `variants` are the steps that were made of it, such as one whose learning rate can be set."""

    source: Step = field(kw_only=True)
    variants: dict[tuple[str, ...], CompiledStep] = field(default_factory=dict, repr=False)
    kernels: bool = field(default=True, kw_only=True)
    # With calls of native kernels, and without them.
    _files: dict[tuple[str, bool, int], SizedFiles] = field(
        init=False, default_factory=dict, repr=False
    )

    @cached_property
    def gradient(self) -> Graph:
        """The optimized graph of the metrics and gradients, of some rows of a batch."""
        return self.optimized(
            "gradient", self._source("gradient"), losses=self.source.recipe.losses
        )

    @cached_property
    def gradient_of_batch(self) -> Graph:
        """The same of all rows of a batch."""
        return self.optimized(
            "gradient_of_batch", self.source.gradient, losses=self.source.recipe.losses
        )

    @cached_property
    def update(self) -> Graph:
        """The optimized graph from gradients and state to the next state."""
        return self.optimized("update", self.source.update)

    @cached_property
    def step(self) -> Graph:
        """The optimized graph of the whole training step."""
        return self.optimized("step", self.source.step, losses=self.source.recipe.losses)

    @cached_property
    def steps(self) -> Graph:
        """The graph of several steps in one run, each of which is the optimized one."""
        return repeated(self.step, self.source.state_map)

    @cached_property
    def evaluate(self) -> Graph:
        """The optimized graph of the metrics in inference mode."""
        return self.optimized("evaluate", self.source.evaluate)

    @cached_property
    def gradient_model(self) -> Any:
        """`gradient` as an ONNX model."""
        return from_bytes(self.content("gradient"))

    @cached_property
    def update_model(self) -> Any:
        """`update` as an ONNX model."""
        return from_bytes(self.content("update"))

    @cached_property
    def step_model(self) -> Any:
        """`step` as an ONNX model."""
        return from_bytes(self.content("step"))

    @cached_property
    def evaluate_model(self) -> Any:
        """`evaluate` as an ONNX model."""
        return from_bytes(self.content("evaluate"))

    @cached_property
    def following(self) -> Graph:
        """The optimized graph from what several processes reduced to the next state."""
        return self.optimized("following", self.source.following)

    @cached_property
    def following_of_sums(self) -> Graph:
        """The optimized graph of the same, from what each gradient is over a window of batches."""
        return self.optimized("following_of_sums", self.source.following_of_sums)

    @cached_property
    def accumulate(self) -> Graph:
        """The optimized graph that adds what a batch gives to sums in the state."""
        return self.optimized(
            "accumulate", self._accumulation.accumulate, losses=self.source.recipe.losses
        )

    @cached_property
    def apply(self) -> Graph:
        """The optimized graph from these sums and the state to the next state."""
        return self.optimized("apply", self._accumulation.apply)

    @cached_property
    def _accumulation(self) -> AccumulationHalves:
        return accumulation_halves(self.source.recipe)

    def content(self, name: str) -> bytes:
        """The bytes of an ONNX file: of "step", "steps", "gradient", "update", "following",
        "following_of_sums", "accumulate", "apply" or "evaluate"."""
        if name == "evaluate":
            return self._entry(name).content
        sizes = {} if name in _SIZELESS else self._batch_sizes
        metadata = self.metadata if name in _WHOLE else self._metadata_of_half(name)
        how: dict[str, Any] = {"metadata": metadata, "sizes": sizes, "kernels": self.kernels}
        return self._entry(name, **how).content

    @property
    def _batch_sizes(self) -> dict[sp.Symbol, int]:
        """The sizes that a file is for: it sums as is right for the batch size of the recipe, and
        does not choose when it runs. Larger batches are computed, too, with the rounding of longer
        sums."""
        size = int(self.source.recipe.batch_size)
        first = (x.shape[0] for x in self.source.model.inputs.values() if x.shape)
        return {n: size for n in first if isinstance(n, sp.Symbol)}

    def files(self, name: str, kernels: bool, threads: int = 0) -> SizedFiles:
        """The files of that graph, "step" or "gradient_of_batch", for batches of the recipe and of
        other sizes; with calls of native kernels or without, and for so many `threads` of a
        processor or for any device."""
        key = name, kernels, threads
        if key not in self._files:
            how: dict[str, Any] = {"kernels": kernels, "threads": threads}
            how["metadata"] = self.metadata
            whole = partial(self._content, name, **how)
            made = partial(self._made_for, name, **how)
            self._files[key] = SizedFiles(made, whole, self._batch_sizes)
        return self._files[key]

    def _content(self, name: str, **how: Any) -> bytes:
        return self._entry(name, **how).content

    def _made_for(self, name: str, sizes: Mapping[sp.Symbol, int], **how: Any) -> SizedFile:
        batch_size = int(self.source.recipe.batch_size)

        def about(graph: Graph, bounds: Mapping[Dim, int]) -> dict[str, Any]:
            pairs = [(as_json(size), bound) for size, bound in bounds.items()]
            return {"bounds": pairs, "fits": fits_cache(graph, batch_size)}

        options: dict[str, Any] = {"about": about, "is_bounded": True}
        entry = self._entry(name, size=batch_size, sizes=sizes, **how, **options)
        bounds = {from_json(size): bound for size, bound in entry.about["bounds"]}
        return SizedFile(entry.content, bounds, entry.about["fits"])

    def _source(self, name: str) -> Graph:
        """The graph of that name before the passes."""
        if name == "gradient":
            return self.source.gradient_of_rows
        if name == "gradient_of_batch":
            return self.source.gradient
        if name == "steps":
            return repeated(self.source.step, self.source.state_map)
        graph: Graph = getattr(self._accumulation if name in _APART else self.source, name)
        return graph

    def _entry(self, name: str, *, size: int = 0, **options: Any) -> Entry:
        source = self.source
        depends = [source.digest, source.state_map, dict(source.model.metadata), size]
        return self.made(
            Target(name, self._source(name), lambda: getattr(self, name), depends, **options)
        )

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
        in_place: bool = False,
        ahead: int = 1,
    ) -> StepRunner:
        """The step in onnxruntime, starting from `state`, by default the first one of the recipe's
        seed; see `StepRunner`. On the CPU it calls native kernels where they are installed, unless
        `native` is False. More than one step `ahead` of what is read is made by an
        `nncompile.runtime.ahead.AheadStepRunner`, those of a large state by an
        `nncompile.runtime.halves.HalvesRunner`."""
        check_precision(self.source.recipe, providers)
        state = self.source.initial() if state is None else state
        on_cpu = providers == "cpu"
        kernels = on_cpu and native_library(native) is not None
        used = (threads or os.cpu_count() or 1) if on_cpu and not kernels else 0
        is_whole = in_place or ahead > 1 or profile is not None or not on_cpu
        in_halves = not is_whole and self._pays_in_halves()
        files = self.files("gradient_of_batch" if in_halves else "step", kernels, used)

        def suited(shapes: Shapes) -> bytes:
            return files.of(self.sizes(shapes))

        content = files.first.content
        options: dict[str, Any] = {
            "providers": providers,
            "threads": threads,
            "reuse": not files.first.fits,
            "check": self.sizes,
            "instead": suited,
            "after": after,
            "native": native,
        }
        if in_halves:
            update = self._content("following", metadata=self.metadata, kernels=kernels)
            ports, results = ports_of(self.source.recipe.trained_model.inputs), self.source.results
            return HalvesRunner(content, update, ports, results, state, **options)
        options |= {"profile": profile, "in_place": in_place}
        if ahead > 1:
            return AheadStepRunner(content, state, **options, ahead=ahead)
        return StepRunner(content, state, **options, metrics_on_host=True)

    def _pays_in_halves(self) -> bool:
        """Whether the state is so large that it is held once, which takes two runs to a step. They
        cannot be told apart where an update sees what an earlier one makes of the batch."""
        source = self.source
        types = [source.state[path] for path in source.state_map]
        size = sum(int(product(t.shape)) * t.dtype.numpy.itemsize for t in types)
        return size >= LARGE and bool(source.gradient.outputs) and not source.reductions.later

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

    def _metadata_of_half(self, name: str) -> Callable[[Graph], dict[str, str]]:
        """The metadata, and how the tensors of a half are reduced."""
        apart = name in _APART
        reductions = self._accumulation.reductions if apart else self.source.reductions

        def metadata(graph: Graph) -> dict[str, str]:
            shared = graph.outputs if name in _GIVE else graph.leaves
            described = reductions.described(shared)
            return {**self.metadata(graph), REDUCE: json.dumps(described)}

        return metadata


@dataclass
class CompiledModel(Stages):
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
        return from_bytes(self.content)

    @cached_property
    def content(self) -> bytes:
        """The bytes of an ONNX file of `graph`."""
        metadata = dict(self.source.metadata)
        source = self.source.inference()
        target = Target(
            self.source.name, source, lambda: self.graph, metadata, lambda graph: metadata
        )
        return self.made(target).content

    @cached_property
    def sizes(self) -> SizeCheck:
        """Whether the model can be computed of data of given shapes."""
        return SizeCheck(self.source.inference(), self.source.inputs)


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
    halves = recipe.precision in HALVES and not recipe.emulate
    options: dict[str, Any] = {"source": step, "kernels": kernels, "halves": halves}
    return CompiledStep(tuple(without), opset, observe, report, **options)


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
