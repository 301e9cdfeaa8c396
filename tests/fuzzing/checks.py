"""What is compared of a program. Each check raises `Mismatch`, or the error of a tool, where
something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument

from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.ir import precision
from nncompile.ir.dims import substitute
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import TupleType, f64
from nncompile.passes import inference, optimize, same_outputs
from nncompile.runtime.buffers import run_bound
from nncompile.runtime.native import names_of, native_library, register
from tests.differences import dot
from tests.fuzzing.arithmetic import DOUBLE, SINGLE, Computation
from tests.fuzzing.comparison import GraphFeeds, Mismatch, Reference
from tests.fuzzing.program import Program
from tests.op_types import Feeds

STEPS = (1e-4, 1e-5, 1e-3)  # of a central difference of fourth order
GRADIENT = 1e-6  # of a gradient, relative to the largest part of it


@dataclass
class Derived:
    """A program with its gradients: everything that is compared, as one graph."""

    program: Program
    graph: Graph
    weights: list[Value] = field(default_factory=list)
    directions: list[Value] = field(default_factory=list)
    real: list[Value] = field(default_factory=list)
    bindings: GraphFeeds = field(default_factory=list)

    @property
    def ys(self) -> list[Value]:
        return [y for y in self.program.outputs if y.dtype.is_float]


def derived(program: Program, order: int) -> Derived:
    """The program's results, and the gradients at its real leaves: of order 1 of Σ weight·result,
    of order 2 of Σ direction·gradient."""
    real = [x for x in program.inputs if x.dtype.is_float]
    ys = [y for y in program.outputs if y.dtype.is_float]
    outputs = dict(program.graph.outputs)
    weights: list[Value] = []
    directions: list[Value] = []
    order = min(order, program.order) if real and ys else 0
    if order >= 1:
        weights = [apply(Input(f"w{i}", y.type)) for i, y in enumerate(ys)]
        gradients = vjp(ys, real, weights)
        outputs |= {f"gradient{i}": s for i, s in enumerate(gradients)}
        if order >= 2:
            directions = [apply(Input(f"d{i}", s.type)) for i, s in enumerate(gradients)]
            seconds = vjp(gradients, real, directions)
            outputs |= {f"second{i}": s for i, s in enumerate(seconds)}
    graph = Graph("program", outputs, (*program.inputs, *weights, *directions))
    made = Derived(program, graph, weights, directions, real)
    for i, (sizes, feeds) in enumerate(zip(program.sizes, program.feeds, strict=True)):
        rng = program.rng(i)
        extra = {
            v.op.name: rng.uniform(-1, 1, [int(substitute(d, sizes)) for d in v.shape]).astype(  # type: ignore[attr-defined]
                v.dtype.numpy
            )
            for v in (*weights, *directions)
        }
        made.bindings.append((sizes, feeds | extra))
    return made


def check_interned(graph: Graph) -> None:
    """Built again, it is the same nodes."""
    made: dict[Value, Value] = {}
    for v in graph.nodes:
        args = [made[a] for a in v.args]
        made[v] = apply(type(v.op)(**v.op.attributes), *args)
        if made[v] is not v:
            raise Mismatch("interned", f"{v.op} built twice is two nodes")


def check_types(reference: Reference) -> None:
    """Computed in the declared element types, every output has its declared type."""
    graph = reference.graph
    for i, (sizes, feeds) in enumerate(reference.bindings):
        arrays = evaluate(graph, feeds)
        for name, v in graph.outputs.items():
            shape = tuple(int(substitute(d, sizes)) for d in v.shape)
            array = arrays[name]
            if array.shape != shape or array.dtype != v.dtype.numpy:
                raise Mismatch(
                    "type", f"{name} is inferred {v.type}, got {array.dtype}{list(array.shape)}"
                )
        reference.compare("numpy in single precision", i, arrays, SINGLE)


def check_passes(
    reference: Reference, done: Graph, without: Sequence[str] = (), twice: bool = False
) -> None:
    """The optimized graph has the same types and the same numbers, but for its constants, which
    are in single precision; `twice` it is the same graph."""
    graph = reference.graph
    for name, v in graph.outputs.items():
        if done.outputs[name].type != v.type:
            raise Mismatch("passes", f"{name} becomes {done.outputs[name].type}, was {v.type}")
    for i, (sizes, feeds) in enumerate(reference.bindings):
        reference.compare("passes", i, Computation(done, sizes)(feeds), SINGLE)
    if twice and not same_outputs(optimize(done, without=without), done):
        raise Mismatch("passes twice", "optimized again, the graph changes")


def check_double(reference: Reference, without: Sequence[str]) -> None:
    """The graph with f64 in place of f32, optimized, gives the same numbers to double precision."""
    done = optimize(precision.graph_in_types(reference.graph, precision.DOUBLE), without=without)
    for i, (sizes, feeds) in enumerate(reference.bindings):
        reference.compare("passes in double", i, Computation(done, sizes)(feeds), DOUBLE)


def check_inference(program: Program) -> None:
    """The inference pass keeps the types, and what it gives is optimized like anything else."""
    graph = inference(program.graph)
    for name, v in program.graph.outputs.items():
        if graph.outputs[name].type != v.type:
            raise Mismatch("inference", f"{name} becomes {graph.outputs[name].type}")
    bindings = list(zip(program.sizes, program.feeds, strict=True))
    check_passes(Reference(graph, bindings), optimize(graph))


def check_gradients(made: Derived) -> None:
    """The gradients are central differences of what they are gradients of."""
    program = made.program
    if not program.smooth or not made.weights:
        return
    sizes, feeds = made.bindings[0]
    rng = program.rng(99)
    real = [x.op.name for x in made.real]  # type: ignore[attr-defined]
    direction = [rng.uniform(-1, 1, feeds[name].shape) for name in real]
    outputs = made.graph.outputs
    gradients = [outputs[f"gradient{i}"] for i in range(len(real))]
    orders = [("gradient", made.ys, gradients, made.weights)]
    if made.directions:
        seconds = [outputs[f"second{i}"] for i in range(len(real))]
        orders.append(("gradient of the gradient", gradients, seconds, made.directions))
    for kind, values, gradients, weights in orders:
        by = [feeds[w.op.name].astype(np.float64) for w in weights]  # type: ignore[attr-defined]
        function = Computation(_graph(values), sizes)
        found = list(Computation(_graph(gradients), sizes)(feeds).values())
        if not all(np.isfinite(g).all() for g in found):
            continue
        _check_difference(kind, function, found, feeds, real, direction, by)


def _graph(values: Sequence[Value]) -> Graph:
    return Graph("values", {str(i): v for i, v in enumerate(values)})


def _check_difference(
    kind: str,
    function: Computation,
    found: list[np.ndarray],
    feeds: Feeds,
    real: list[str],
    direction: list[np.ndarray],
    weights: list[np.ndarray],
) -> None:
    def at(step: float) -> float:
        moved = {n: feeds[n] + step * d for n, d in zip(real, direction, strict=True)}
        return dot(weights, list(function(feeds | moved).values()))

    exact = dot(found, direction)
    scale = sum(float(np.abs(g * d).sum()) for g, d in zip(found, direction, strict=True))
    seen: list[float] = []
    for h in STEPS:
        numeric = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        bound = GRADIENT * max(scale, 1e-2, abs(numeric)) + 1e-14 * abs(at(0)) / h
        if abs(exact - numeric) <= bound:
            return
        seen.append(numeric)
    # On a kink the differences are those of no gradient, and depend on the step.
    if not np.isfinite(seen).all() or np.ptp(seen) > 0.05 * max(abs(exact - x) for x in seen):
        return
    raise Mismatch(kind, f"{exact} along a direction, the central difference is {seen[0]}")


def check_onnx(reference: Reference, graph: Graph, level: str) -> None:
    """onnxruntime at an optimization level, or with native kernels, gives what numpy gives in
    double."""
    model = to_model(graph, kernels=level in CALLING)
    onnx.checker.check_model(model)
    run = loaded(model, level)
    for i, (sizes, feeds) in enumerate(reference.bindings):
        try:
            actual = run(feeds)
        except (Fail, InvalidArgument, RuntimeError) as error:
            if 0 in sizes.values() and any(text in str(error) for text in REFUSED):
                continue
            raise
        check_dtypes(f"onnxruntime {level}", graph, actual)
        reference.compare(f"onnxruntime {level}", i, actual, SINGLE)


# What onnxruntime does not do for tensors without elements; the ops say so.
REFUSED = ("operand cannot broadcast on dim", "Size of X.shape[axis:] must be at least 1")

LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
# With calls of native kernels: put in place by the runtime, or computed by the library.
CALLING = ("functions", "native kernels")


def loaded(model: onnx.ModelProto, level: str) -> Callable[[Feeds], Feeds]:
    """Runs a model in onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = LEVELS.get(level, LEVELS["all"])
    library = native_library() if level == "native kernels" else None
    names = names_of(model)
    if library is not None and names:
        register(library, options, names, 1)
    made = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    inputs = [i.name for i in made.get_inputs()]
    outputs = [o.name for o in made.get_outputs()]

    def run(feeds: Feeds) -> Feeds:
        given = {name: feeds[name] for name in inputs}
        return dict(zip(outputs, run_bound(made, given, outputs), strict=True))

    return run


def check_dtypes(kind: str, graph: Graph, actual: Mapping[str, np.ndarray]) -> None:
    for name, v in graph.outputs.items():
        if actual[name].dtype != v.dtype.numpy:
            raise Mismatch(kind, f"{name} is {actual[name].dtype}, declared {v.type}")


def has_double(graph: Graph) -> bool:
    """Whether anything in it is of f64, for which runtimes lack kernels."""
    return any(
        t.dtype is f64
        for v in graph.nodes
        for t in (v.type.items if isinstance(v.type, TupleType) else (v.type,))
    )
