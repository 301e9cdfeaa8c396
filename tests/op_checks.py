"""The checks that every op gets for its samples. Each raises AssertionError, or the error of a
tool, where the op is wrong."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import GradientError
from nncompile.ir.dims import substitute
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Type, bf16, dtype_of, is_real
from nncompile.runtime.buffers import array_of, buffer_of
from tests.op_types import Case, Feeds, Sizes, draw, parts
from tests.tolerances import SLOPE, STEP, assert_close


def check_type(case: Case) -> None:
    """The inferred type is that of numpy's result."""
    for sizes in case.bindings:
        for declared, result in zip(
            parts(case.value.type), case.numpy(case.feeds(sizes), sizes), strict=True
        ):
            made = {d: n for d, n in zip(declared.shape, result.shape, strict=True)
                    if d in case.sample.op.makes}  # fmt: skip
            expected = tuple(substitute(d, {**made, **sizes}) for d in declared.shape)
            assert result.shape == expected, f"{sizes}: inferred {declared}, got {result.shape}"
            assert result.dtype == declared.dtype.numpy, f"inferred {declared}, got {result.dtype}"


def check_interned(case: Case) -> None:
    """Built twice, pickled or copied, it is the same node."""
    op = case.sample.op
    again = type(op)(**copy.deepcopy(op.attributes))
    assert apply(again, *case.leaves) is case.value
    assert copy.deepcopy(case.value) is case.value
    assert pickle.loads(pickle.dumps(case.value)) is case.value


def check_onnx(case: Case) -> None:
    """onnxruntime computes in f32 what numpy computes in double."""
    _check_runtime(case, case.graph(case.results), case.bindings, {}, in_double)


def check_gradient_onnx(case: Case) -> None:
    """The gradients as well. Those of 16 bits are rounded at every node, by numpy too."""
    sizes = case.bindings[0]
    gradients, extra = case.first_order
    graph = Graph(
        "gradients", {f"s{i}": s for i, s in enumerate(gradients)}, (*case.inputs, *extra)
    )
    half = any(x.dtype.is_half for x in case.real)
    _check_runtime(case, graph, [sizes], extra, evaluate if half else in_double)


def _check_runtime(
    case: Case,
    graph: Graph,
    bindings: list[Sizes],
    extra: Mapping[Value, Any],
    reference: Callable[[Graph, Feeds], Feeds],
) -> None:
    model = valid_model(graph)
    run = session(model)
    for sizes in bindings:
        feeds = case.feeds(sizes) | _drawn(case, extra, sizes)
        expected = reference(graph, feeds)
        actual = run(feeds, {n: a.shape for n, a in expected.items()})
        for name, y in graph.outputs.items():
            assert actual[name].dtype == y.dtype.numpy
            assert_close(actual[name], expected[name], y.dtype.name, f"{name} at {sizes}")


def valid_model(graph: Graph) -> onnx.ModelProto:
    """The ONNX model, after the checker and the strict inference of shapes."""
    model = to_model(graph)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def session(model: onnx.ModelProto) -> Callable[[Feeds, Mapping[str, tuple[int, ...]]], Feeds]:
    """Runs a model on its own copies of the feeds, into buffers that hold garbage before."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    loaded = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    types = {o.name: o.type for o in loaded.get_outputs()}

    def run(feeds: Feeds, shapes: Mapping[str, tuple[int, ...]]) -> Feeds:
        binding = loaded.io_binding()
        fresh = {i.name: np.array(feeds[i.name], order="C") for i in loaded.get_inputs()}
        for name, array in fresh.items():
            if array.dtype == bf16.numpy:  # whose arrays onnxruntime does not take as they are
                binding.bind_ortvalue_input(name, buffer_of(array))
            else:
                binding.bind_cpu_input(name, array)
        buffers = {name: poisoned(shapes[name], types[name]) for name in types}
        for name, buffer in buffers.items():
            binding.bind_ortvalue_output(name, buffer)
        loaded.run_with_iobinding(binding)
        for name, array in fresh.items():
            assert array.tobytes() == feeds[name].tobytes(), f"the run wrote over {name}"
        return {name: array_of(buffer) for name, buffer in buffers.items()}

    return run


def poisoned(shape: tuple[int, ...], runtime_type: str) -> ort.OrtValue:
    """A buffer for an output: NaN, or bits that no result is made of."""
    name = re.sub(r"tensor\((\w+)\)", r"\1", runtime_type)
    dtype = dtype_of({"float": "float32", "double": "float64"}.get(name, name))
    filling = np.nan if dtype.is_float else 1 if dtype.is_bool else 0x5A
    return buffer_of(np.full(shape, filling, dtype.numpy))


def in_double(graph: Graph, feeds: Feeds) -> Feeds:
    """The outputs computed in float64."""
    return evaluate(graph, feeds, precision=np.float64)  # type: ignore[no-any-return]


def check_torch(case: Case, to_script: Callable[..., Any], torch: Any) -> None:
    """TorchScript computes in f32 what numpy computes in double."""
    from nncompile.backends.torchscript import arrays

    graph = case.graph(case.results)
    script = to_script(graph, {})
    for sizes in case.bindings:
        feeds = case.feeds(sizes)
        expected = in_double(graph, feeds)
        tensors = [arrays.tensor_of(feeds[n]) for n in graph.leaves]
        with torch.no_grad():
            results = script(*tensors)
        for name, y in graph.outputs.items():
            actual = arrays.array_of(results[name])
            assert actual.dtype == y.dtype.numpy, f"{actual.dtype}, not {y.dtype}"
            assert_close(actual, expected[name], y.dtype.name, f"{name} at {sizes}")


def has_gradients(case: Case) -> bool:
    """Whether there is anything to differentiate."""
    return bool(case.real) and any(y.dtype.is_float for y in case.results)


def is_differentiable(case: Case) -> bool:
    """Whether its gradient is one that a backend computes."""
    return has_gradients(case) and type(case.sample.op).differentiable


def check_gradients(case: Case) -> None:
    """The pullback is the derivative, and differentiates again as often as the sample says."""
    if not type(case.sample.op).differentiable:
        _check_declared(case)
        return
    if case.sample.order < 1:
        return
    gradients, weights = case.first_order
    ys = [y for y in case.results if y.dtype.is_float]
    _check_difference(case, "order 1", ys, gradients, weights, {})
    if case.sample.order >= 2:
        seconds, directions = case.second_order
        _check_difference(case, "order 2", gradients, seconds, directions, weights)


def _check_declared(case: Case) -> None:
    """A op without a true gradient refuses clearly, or gives the gradient that it declares."""
    try:
        gradients, _ = case.first_order
    except GradientError as error:
        assert case.sample.op.label in str(error)
        return
    assert [s.type for s in gradients] == [x.type for x in case.real]


def _drawn(case: Case, leaves: Mapping[Value, Type], sizes: Sizes) -> Feeds:
    """Weights and directions."""
    rng = case.rng("weights")
    plain = Sample(case.sample.op, ())
    return {v.op.name: draw(rng, plain, t, sizes) for v, t in leaves.items()}  # type: ignore[attr-defined]


def _check_difference(
    case: Case,
    label: str,
    outputs: list[Value],
    gradients: list[Value],
    weights: Mapping[Value, Type],
    others: Mapping[Value, Type],
) -> None:
    """⟨gradients, d⟩ is the central difference of Σ weight·output along a random direction d."""
    sizes = case.bindings[0]
    drawn = case.feeds(sizes) | _drawn(case, {**weights, **others}, sizes)
    feeds = {n: a.astype(np.float64) if is_real(a.dtype) else a for n, a in drawn.items()}
    inputs = (*case.inputs, *weights, *others)
    rng = case.rng("direction")
    direction = [rng.uniform(-1, 1, feeds[x.op.name].shape) for x in case.real]  # type: ignore[attr-defined]

    def computed(values: list[Value], step: float) -> list[np.ndarray]:
        moved = {
            x.op.name: feeds[x.op.name] + step * d  # type: ignore[attr-defined]
            for x, d in zip(case.real, direction, strict=True)
        }
        graph = Graph("gradients", {str(i): v for i, v in enumerate(values)}, inputs)
        return list(in_double(graph, feeds | moved).values())

    def total(step: float) -> float:
        results = computed(outputs, step)
        return dot([feeds[w.op.name] for w in weights], results)  # type: ignore[attr-defined]

    numeric = (total(STEP) - total(-STEP)) / (2 * STEP)
    at = computed(gradients, 0.0)
    exact = dot(at, direction)
    scale = max(1.0, abs(total(0.0)), *(float(np.abs(s).max(initial=0.0)) for s in at))
    relative, absolute = SLOPE
    assert np.isclose(exact, numeric, relative, absolute * scale), (
        f"{label}: gradient {exact}, central difference {numeric}"
    )


def dot(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The inner product of two lists of arrays."""
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def check_samples(op_type: type[Op]) -> None:
    """There is something to test."""
    assert list(op_type.samples()), f"the op {op_type.__name__} has no samples"
