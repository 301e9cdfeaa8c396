"""The checks that every op gets on its samples. Each raises AssertionError, or the error of a tool,
where the op is wrong."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from nncompile.diagnostics.errors import GradientError
from nncompile.ir.dims import substitute
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Type
from tests.backends import script_of, session, valid_model
from tests.differences import check_difference
from tests.op_types import Case, Feeds, Sizes, draw, parts
from tests.placement_checks import spelled_for_cuda
from tests.tolerances import assert_close


def check_type(case: Case) -> None:
    """The inferred type is that of numpy's result."""
    for sizes in case.bindings:
        for declared, result in zip(
            parts(case.value.type), case.numpy(case.feeds(sizes), sizes), strict=True
        ):
            made = {d: n for d, n in zip(declared.shape, result.shape, strict=True)
                    if d in case.sample.op.makes}  # fmt: skip
            expected = tuple(substitute(d, {**made, **sizes}) for d in declared.shape)
            said = f"infer says {declared}, numpy gives"
            assert result.shape == expected, f"{said} {result.shape} at {sizes}"
            assert result.dtype == declared.dtype.numpy, f"{said} {result.dtype}"


def check_interned(case: Case) -> None:
    """Built twice, pickled or copied, it is the same node."""
    op = case.sample.op
    again = type(op)(**copy.deepcopy(op.attributes))
    assert apply(again, *case.leaves) is case.value
    assert copy.deepcopy(case.value) is case.value
    assert pickle.loads(pickle.dumps(case.value)) is case.value


def check_onnx(case: Case) -> None:
    """onnxruntime computes in f32 what numpy computes in double; so it does as the model is spelled
    for CUDA, which has kernels for all of it."""
    _check_runtime(case.graph(case.results), _references(case))


def check_gradient_onnx(case: Case) -> None:
    """The gradients as well. Those of 16 bits are rounded at every node, by numpy too."""
    graph, feeds = gradients_of(case)
    half = any(x.dtype.is_half for x in case.real)
    expected = (evaluate if half else in_double)(graph, feeds)
    _check_runtime(graph, [(case.bindings[0], feeds, expected)])


def gradients_of(case: Case) -> tuple[Graph, Feeds]:
    """The graph of the gradients at the first sizes, and data for it."""
    sizes = case.bindings[0]
    gradients, extra = case.first_order
    graph = Graph(
        "gradients", {f"g{i}": g for i, g in enumerate(gradients)}, (*case.inputs, *extra)
    )
    return graph, case.feeds(sizes) | _drawn(case, extra, sizes)


def _check_runtime(graph: Graph, references: list[tuple[Sizes, Feeds, Feeds]]) -> None:
    model = valid_model(graph)
    for version in filter(None, (model, spelled_for_cuda(model))):
        run = session(version)
        for sizes, feeds, expected in references:
            actual = run(feeds, expected)
            for name, y in graph.outputs.items():
                assert actual[name].dtype == y.dtype.numpy
                assert_close(actual[name], expected[name], y.dtype.name, f"{name} at {sizes}")


@lru_cache(maxsize=1)
def _references(case: Case) -> list[tuple[Sizes, Feeds, Feeds]]:
    """For each of its sizes, data and what numpy computes of them in double."""
    drawn = [(sizes, case.feeds(sizes)) for sizes in case.bindings]
    graph = case.graph(case.results)
    return [(sizes, feeds, in_double(graph, feeds)) for sizes, feeds in drawn]


def in_double(graph: Graph, feeds: Feeds) -> Feeds:
    """The outputs computed in float64."""
    return evaluate(graph, feeds, precision=np.float64)  # type: ignore[no-any-return]


def check_torch(case: Case) -> None:
    """TorchScript computes in f32 what numpy computes in double."""
    graph = case.graph(case.results)
    script = script_of(graph)
    for sizes, feeds, expected in _references(case):
        results = script(feeds)
        for name, y in graph.outputs.items():
            actual = results[name]
            said = f"infer says {y.type}, TorchScript gives {actual.dtype}"
            assert actual.dtype == y.dtype.numpy, said
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
    orders = [([y for y in case.results if y.dtype.is_float], gradients, weights)]
    if case.sample.order >= 2:
        orders.append((gradients, *case.second_order))
    sizes = case.bindings[0]
    for order, (values, derivatives, by) in enumerate(orders, 1):
        leaves = by | weights if order == 2 else by
        feeds = case.feeds(sizes) | _drawn(case, leaves, sizes)
        weighted = [feeds[w.op.name] for w in by]  # type: ignore[attr-defined]
        rng, label = case.rng("direction"), f"order {order}"
        inputs = (*case.inputs, *leaves)
        check_difference(values, derivatives, weighted, case.real, feeds, rng, label, inputs)


def _check_declared(case: Case) -> None:
    """An op without a true gradient refuses clearly, or gives the gradient that it declares."""
    try:
        gradients, _ = case.first_order
    except GradientError as error:
        assert case.sample.op.label in str(error)
        return
    assert [g.type for g in gradients] == [x.type for x in case.real]


def _drawn(case: Case, leaves: Mapping[Value, Type], sizes: Sizes) -> Feeds:
    """Weights and directions."""
    rng = case.rng("weights")
    plain = Sample(case.sample.op, ())
    return {v.op.name: draw(rng, plain, t, sizes) for v, t in leaves.items()}  # type: ignore[attr-defined]


def check_samples(op_type: type[Op]) -> None:
    """There is something to test."""
    assert list(op_type.samples()), f"the op {op_type.__name__} has no samples"
