"""Small tensors are updated together where that is faster, and apart again for native kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nncompile.compiler.compile import compile_step
from nncompile.elementwise import exp, sqrt, tanh
from nncompile.elementwise.formula import formula
from nncompile.elementwise.map import Map
from nncompile.ir.graph import Graph, Item
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.shape.joining import Concat, Split, concatenate, sections
from nncompile.ops.shape.slicing import Slice
from nncompile.optim import adam, rmsprop, rprop
from nncompile.passes import optimize, same_outputs
from nncompile.passes.horizontal_fission import unpack
from nncompile.passes.horizontal_fusion import SMALL, pack, pack_early
from nncompile.program.recipe import training
from nncompile.program.updates import ema
from tests.leaves import leaf
from tests.pass_checks import random_feeds
from tests.small_models import deep

S = leaf("s", f32[()])
SIZES = (3, 5, 1, 4)


def vectors(name: str, sizes: tuple[int, ...] = SIZES) -> list[Value]:
    return [leaf(f"{name}{i}", f32[n]) for i, n in enumerate(sizes)]


@formula
def decayed(x, y):
    return 0.9 * x + y


@formula
def squared(x, y):
    return 0.99 * x + y * y


@formula
def moved(w, m, v, s):
    return w - s * m / (sqrt(v) + 0.1)


def updates(sizes: tuple[int, ...] = SIZES) -> Graph:
    """What Adam does to each of several vectors."""
    outputs: dict[str, Value] = {}
    columns = (vectors(name, sizes) for name in "wgmv")
    for i, (w, g, m, v) in enumerate(zip(*columns, strict=True)):
        outputs[f"m{i}.next"] = m_next = decayed(m, g)
        outputs[f"v{i}.next"] = v_next = squared(v, g)
        outputs[f"w{i}.next"] = moved(w, m_next, v_next, S)
    return Graph("updates", outputs)


def count(graph: Graph, op_type: type) -> int:
    return sum(isinstance(v.op, op_type) for v in graph.nodes)


def same_numbers(before: Graph, after: Graph) -> None:
    feeds = random_feeds(before.outputs.values())
    expected, found = evaluate(before, feeds), evaluate(after, feeds)
    for name, array in expected.items():
        assert after.outputs[name].type == before.outputs[name].type
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_an_optimizer_is_applied_to_all_small_vectors_at_once() -> None:
    graph = updates()
    packed = pack(graph)
    same_numbers(graph, packed)
    assert (count(packed, Concat), count(packed, Map), count(packed, Split)) == (4, 3, 3)
    assert all(isinstance(v.op, Item) for v in packed.outputs.values())
    assert pack(packed).outputs == packed.outputs


def test_members_line_up_whatever_the_order_of_their_arguments() -> None:
    """Arguments of a Map are sorted, so that equal ops have them in different orders."""
    for trial in range(20):
        graph = updates(tuple(int(n) for n in np.random.default_rng(trial).integers(1, 9, 3)))
        packed = pack(graph)
        same_numbers(graph, packed)
        assert (count(packed, Concat), count(packed, Map)) == (4, 3)


def alone() -> Graph:
    return updates((3,))


def few_operations() -> Graph:
    """Joining and splitting would take more nodes than the sums."""
    return Graph(
        "sums", {f"y{i}": a + b for i, (a, b) in enumerate(zip(*map(vectors, "ab"), strict=True))}
    )


def large() -> Graph:
    return updates((SMALL + 1, SMALL + 1, SMALL + 1))


def needed_elsewhere() -> Graph:
    """Sums and products need the vectors: joining them could make a circle."""
    chained = leaf("a", f32[4])
    for _ in range(6):
        chained = tanh(exp(chained) + exp(-chained) * chained.sum())
    return Graph("chained", {"y": chained.sum()})


def of_unknown_size() -> Graph:
    xs = [leaf(f"x{i}", f32["n"]) for i in range(6)]
    return Graph("open", {f"y{i}": tanh(exp(x) + x * x) for i, x in enumerate(xs)})


@pytest.mark.parametrize("build", [alone, few_operations, large, needed_elsewhere, of_unknown_size])
def test_others_stay_apart(build: object) -> None:
    graph = build()  # type: ignore[operator]
    assert pack(graph).outputs == graph.outputs


def test_vectors_that_need_each_other_are_not_joined() -> None:
    """Equal ops in a row, of which each needs the one before."""
    x = leaf("x", f32[3])
    outputs: dict[str, Value] = {}
    for i in range(8):
        x = tanh(exp(x) + x * x)
        outputs[f"y{i}"] = x
    graph = Graph("row", outputs)
    packed = pack(graph)
    same_numbers(graph, packed)


def matrices(*shapes: tuple[int, ...]) -> Graph:
    """What Adam does to each of several tensors."""
    outputs: dict[str, Value] = {}
    for i, shape in enumerate(shapes):
        w, g, m, v = (leaf(f"{name}{i}", f32[shape]) for name in "wgmv")
        outputs[f"m{i}.next"] = m_next = decayed(m, g)
        outputs[f"v{i}.next"] = v_next = squared(v, g)
        outputs[f"w{i}.next"] = moved(w, m_next, v_next, S)
    return Graph("updates", outputs)


def test_tensors_of_one_width_are_joined_along_their_first_axis() -> None:
    graph = matrices((3, 4), (5, 4), (1, 4), (2, 4, 2), (3, 4, 2), (4, 4, 2), (4, 3))
    packed = pack(graph)
    same_numbers(graph, packed)
    assert (count(packed, Concat), count(packed, Split)) == (8, 6)
    assert count(packed, Map) == 3 + 3 + 3  # those of one width, and the last one by itself
    assert same_outputs(unpack(packed), graph)


def test_tensors_that_take_longer_to_copy_than_nodes_take_stay_apart() -> None:
    assert count(pack(matrices(*[(SMALL // 8, 8)] * 8)), Split) == 3
    assert count(pack(matrices(*[(SMALL // 8 + 1, 8)] * 8)), Split) == 0
    one_map = [decayed(leaf(f"x{i}", f32[SMALL]), leaf(f"g{i}", f32[SMALL])) for i in range(8)]
    graph = Graph("sums", {f"{i}": y for i, y in enumerate(one_map)})
    assert pack(graph).outputs == graph.outputs


def products(decay: float) -> Graph:
    """Steps of momentum with products for gradients."""
    outputs: dict[str, Value] = {}
    for i in range(8):
        x, g, v = (leaf(f"{name}{i}", f32[4, 4]) for name in "xgv")
        outputs[f"{i}"] = decay * v - S * (x @ g)
    return Graph("products", outputs)


def test_what_products_take_along_is_left_to_them() -> None:
    graph = products(0.9)
    assert count(pack(graph), Split) == 1
    assert pack_early(graph).outputs == graph.outputs
    assert count(optimize(graph), Gemm) == 8
    assert count(pack_early(updates()), Split) == 3


def test_a_packed_update_is_reported_where_the_optimizer_is() -> None:
    graph = updates()
    places = {graph.locations.location(v) for v in graph.outputs.values()}
    packed = pack(graph)
    joined = [v for v in packed.nodes if isinstance(v.op, Concat | Map | Split)]
    assert {packed.locations.location(v) for v in joined} == places


def test_apart_again_is_the_graph_that_was_packed() -> None:
    for sizes in (SIZES, (7, 7, 7), (1, 2, 3, 4, 5, 6)):
        graph = updates(sizes)
        packed = pack(graph)
        assert not same_outputs(packed, graph)
        assert same_outputs(unpack(packed), graph)
        assert unpack(graph) is graph


def read_whole(packed: Value) -> Value:
    return packed


def read_in_other_parts(packed: Value) -> Value:
    return sections(packed, [4, 2], 0)[0]


@pytest.mark.parametrize("read", [read_whole, read_in_other_parts])
def test_what_is_read_otherwise_stays_joined(read: Callable[[Value], Value]) -> None:
    a, b = (concatenate([leaf(f"{name}{i}", f32[3]) for i in range(2)], 0) for name in "ab")
    first = decayed(a, b)
    second = squared(first, b)
    parts = sections(second, [3, 3], 0)
    graph = Graph("read", {"0": parts[0], "1": parts[1], "read": read(first)})
    assert unpack(graph) is graph
    assert unpack(graph.with_outputs({"0": parts[0], "1": parts[1]})) is not graph


def joined_in_other_parts(a: Value, b: Value) -> Value:
    return decayed(concatenate([a[:1], a[1:]], 0), concatenate([b[:2], b[2:]], 0))


def joined_along_columns(a: Value, b: Value) -> Value:
    return decayed(*(concatenate([x[:, :2], x[:, 2:]], 1) for x in (a, b)))


def joined_columns_of_rows(a: Value, b: Value) -> Value:
    """The second tensor is a row, whose parts are columns of the first one."""
    return decayed(concatenate([a[:2], a[2:]], 0), concatenate([b[0, :2], b[0, 2:]], 0))


@pytest.mark.parametrize(
    "join", [joined_in_other_parts, joined_along_columns, joined_columns_of_rows]
)
def test_what_is_joined_otherwise_stays_joined(join: Callable[[Value, Value], Value]) -> None:
    result = join(leaf("a", f32[4, 4]), leaf("b", f32[4, 4]))
    for sizes in ([1, 3], [2, 2]):
        parts = sections(result, sizes, 0)
        graph = Graph("joined", {"0": parts[0], "1": parts[1]})
        assert unpack(graph) is graph


def test_one_update_after_another_comes_apart() -> None:
    """What the second one joins is computed of what the first one splits."""
    first = pack(updates((3, 3, 3)))
    w = [first.outputs[f"w{i}.next"] for i in range(3)]
    outputs = {f"{i}": bounded(decayed(x.sum() * x, x)) for i, x in enumerate(w)}
    graph = Graph("both", {**first.outputs, **outputs})
    packed = pack(graph)
    assert count(packed, Split) > count(first, Split)
    apart = unpack(packed)
    assert count(apart, Split) == count(apart, Concat) == 0
    same_numbers(graph, apart)


@pytest.mark.parametrize("axis", [1, 2])
def test_parts_of_another_axis_are_no_whole(axis: int) -> None:
    """What is split along columns is joined along the first axis."""
    shape = [4, 4, 4]
    shape[axis] = 24
    parts = sections(leaf("x", f32[tuple(shape)]), [4] * 6, axis)
    graph = Graph("columns", {f"{i}": bounded(part) for i, part in enumerate(parts)})
    packed = pack(graph)
    assert count(packed, Concat) == 1
    same_numbers(graph, packed)
    square = sections(leaf("x", f32[1, 6]), [1] * 6, 1)
    graph = Graph("numbers", {f"{i}": bounded(part) for i, part in enumerate(square)})
    same_numbers(graph, pack(graph))


OPTIONS: dict[str, dict[str, Any]] = {
    "slots in another order": {"optimizer": adam(1e-2, amsgrad=True)},
    "averages": {"optimizer": adam(1e-2), "average": ema(0.9)},
    "accumulated": {"optimizer": adam(1e-2), "accumulate": 2},
    "signs": {"optimizer": rprop(1e-2)},
    "clipped": {"optimizer": rmsprop(1e-2, momentum=0.9), "clip_value": 0.5},
    "bounded": {"optimizer": adam(1e-2), "max_norm": 1.0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_steps_for_native_kernels_copy_nothing(name: str) -> None:
    step = compile_step(training(deep(), minimize="loss", **OPTIONS[name])).step
    assert count(step, Concat)
    assert not count(unpack(step), Concat) | count(unpack(step), Split)


def test_packing_is_the_last_pass_and_can_be_left_out() -> None:
    graph = updates()
    assert count(optimize(graph), Split) == 3
    assert count(optimize(graph, without=["pack"]), Split) == 0


def test_what_uses_parts_keeps_its_canonical_form() -> None:
    """Sums of parts have them in the order in which they would be written now: packed once more,
    or rewritten by any other pass, the graph stays as it is."""
    for trial in range(20):
        a, b, c, d = (leaf(f"{name}{trial}", f32[4]) for name in "abcd")
        graph = Graph("sums", {"y": decayed(exp(tanh(a)), b) + decayed(exp(tanh(c)), d)})
        done = optimize(graph)
        assert count(done, Split)
        assert same_outputs(optimize(done), done)


@formula
def bounded(x):
    return x / sqrt(x * x + 1) + 0.1 * x


@formula
def doubled(x):
    return 2 * x / sqrt(x * x + 2) - 0.2 * x


def test_parts_of_two_joined_vectors_are_no_whole() -> None:
    """Part 0 of the one and part 1 of the other, and so on, are what a later op is made of."""
    xs, gs = vectors("x", (3,) * 6), vectors("g", (3,) * 6)
    one = [decayed(x, g) for x, g in zip(xs, gs, strict=True)]
    other = [squared(x, g) for x, g in zip(xs, gs, strict=True)]
    outputs = {}
    for i, (a, b) in enumerate(zip(one, other, strict=True)):
        a, b = (a, b) if i % 2 else (b, a)
        outputs |= {f"a{i}": bounded(a), f"b{i}": doubled(b)}
    graph = Graph("crossed", outputs)
    packed = pack(graph)
    assert count(packed, Split) >= 2
    same_numbers(graph, packed)


def test_a_section_that_nobody_uses_is_not_made() -> None:
    """Of the two that are decayed together, one alone is a result; the other goes on packed."""
    (x0, x1), (g0, g1) = vectors("x", (3, 3)), vectors("g", (3, 3))
    first = decayed(x0, g0)
    outputs = {"first": first, "y0": bounded(first), "y1": bounded(decayed(x1, g1))}
    graph = Graph("one of two", outputs)
    packed = optimize(graph)
    assert (count(packed, Split), count(packed, Slice)) == (1, 1)
    assert same_outputs(optimize(packed), packed)
    same_numbers(graph, packed)
