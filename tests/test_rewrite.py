"""The rule engine: matching, guards, locations, termination."""

from __future__ import annotations

import pytest

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import Location, LocationTable, located, recording_locations
from nncompile.elementwise import exp, log, relu, sigmoid
from nncompile.elementwise.map import Map
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import f32, f64
from nncompile.ops import concatenate, gemm, softmax, transpose
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.shape.joining import Concat
from nncompile.ops.shape.reshape import Transpose
from nncompile.passes.gemm import add_into_product
from nncompile.passes.rewriter import Steps, on, present, rewrite, rule, same_type, uses
from tests.counting import calls
from tests.leaves import leaf


def rewritten(value: Value, *changes: object) -> Value:
    graph = Graph("test", {"y": value})
    return rewrite(graph, changes).outputs["y"]  # type: ignore[arg-type]


@rule(f32[2, 3], f32[3, 4], f32[4])
def add_into_gemm(a: Value, b: Value, c: Value) -> Steps:
    yield a @ b + c
    if a.rank != 2 or b.rank != 2:
        return "a gemm multiplies matrices"
    yield gemm(a, b, c)


@rule(f32[2, 3, 4], (0, 2, 1), (1, 0, 2))
def transposed_twice(x: Value, first: tuple[int, ...], then: tuple[int, ...]) -> Steps:
    yield Transpose(then)(Transpose(first)(x))
    yield transpose(x, [first[i] for i in then])


A, B, C = leaf("a", f32["n", 5]), leaf("b", f32[5, 6]), leaf("c", f32[6])


def test_a_rule_matches_values_of_other_sizes() -> None:
    assert rewritten(A @ B + C, add_into_gemm) is gemm(A, B, C)


def test_the_order_of_symmetric_arguments_does_not_matter() -> None:
    assert C + A @ B is A @ B + C
    # Arguments are sorted by what they are: in one of many pairs the sum stands first.
    for i in range(8):
        c = leaf(f"c{i}", f32[6])
        assert rewritten(A @ B + c, add_into_gemm) is gemm(A, B, c)


def test_one_value_may_stand_in_several_places() -> None:
    square = leaf("square", f32[3, 3])
    assert rewritten(square @ square + square, add_into_gemm) is gemm(square, square, square)


def test_a_refused_match_says_why() -> None:
    stack = leaf("stack", f32["n", 4, 5])
    match = add_into_gemm.match(stack @ B + C)
    assert match.after is None
    assert match.reason == "a gemm multiplies matrices"
    assert add_into_gemm.match(relu(A)).reason == "does not match add_into_gemm"


def test_attributes_are_bound() -> None:
    x = leaf("x", f32["n", 2, 3, 4])
    value = transpose(transpose(x, (3, 0, 1, 2)), (0, 2, 3, 1))
    result = rewritten(value, transposed_twice)
    assert result is transpose(x, (3, 1, 2, 0))
    assert result.shape == value.shape


def test_attributes_that_are_no_holes_must_be_equal() -> None:
    @rule(f32[2, 3])
    def of_the_last_axis(x: Value) -> Steps:
        yield log(softmax(x, 1))
        yield x

    wide = leaf("wide", f32["n", 7])
    assert rewritten(log(softmax(wide, 1)), of_the_last_axis) is wide
    assert of_the_last_axis.match(log(softmax(wide, 0))).after is None


def test_numbers_of_formulas_are_bound() -> None:
    @rule(f32[2], f32[2], 0.12345)
    def step(w: Value, g: Value, rate: float) -> Steps:
        yield w - rate * g
        yield exp(w) if rate == 0.5 else w + g * (2 * rate)

    w, g = leaf("w", f32["n"]), leaf("g", f32["n"])
    assert rewritten(w - 0.5 * g, step) is exp(w)
    assert rewritten(w - 0.25 * g, step) is w + g * 0.5
    assert rewritten(w - g * -0.75, step) is w + g * -1.5
    assert step.match(w - exp(g)).after is None


def test_new_nodes_stand_where_the_old_ones_did() -> None:
    with recording_locations(LocationTable()) as locations:
        with located(Location("model.py", 7, "stem")):
            product = A @ B
        with located(Location("model.py", 8, "stem")):
            value = relu(product + C)
    graph = Graph("test", {"y": value}, locations=locations)
    result = rewrite(graph, [add_into_gemm]).outputs["y"]
    (made,) = result.args
    assert isinstance(made.op, Gemm)
    assert locations.location(made) == Location("model.py", 8, "stem")
    assert locations.location(result) == Location("model.py", 8, "stem")
    assert locations.all_locations(product) == (Location("model.py", 7, "stem"),)


def test_looking_for_a_form_leaves_no_sites() -> None:
    with recording_locations(LocationTable()) as locations:
        product = A @ B
        value = log(product)
        before = locations.all_locations(product)
        rewrite(Graph("test", {"y": value}, locations=locations), [add_into_gemm])
        assert locations.all_locations(product) == before


def test_rewriting_goes_on_until_nothing_applies() -> None:
    x = leaf("x", f32[2, 3, 4])
    value = x
    for _ in range(5):
        value = transpose(value, (1, 2, 0))
    assert rewritten(value, transposed_twice) is transpose(x, (2, 0, 1))
    assert rewritten(transpose(value, (1, 2, 0)), transposed_twice) is x


def test_rules_that_do_not_end_are_named() -> None:
    @on(Transpose)
    def growing(value: Value) -> Value:
        return transpose(relu(value.args[0]), (1, 0))

    with pytest.raises(CompileError, match="the last rule applied was growing"):
        rewritten(transpose(A, (1, 0)), growing)


def test_rules_that_undo_each_other_are_named() -> None:
    @on(MatMul)
    def there(value: Value) -> Value:
        return gemm(*value.args)

    @on(Gemm)
    def back(value: Value) -> Value:
        a, b = value.args
        return a @ b

    with pytest.raises(CompileError, match="the last rule applied was back"):
        rewritten(relu(A @ B), there, back)


def test_a_rule_that_changes_the_type_is_named() -> None:
    @rule(f32[2, 3], f32[3, 4])
    def wrong(a: Value, b: Value) -> Steps:
        yield a @ b
        yield a

    with pytest.raises(CompileError, match="the rule wrong turns"):
        rewritten(A @ B, wrong)


def test_uses_are_those_of_the_graph() -> None:
    counted: dict[Value, int] = {}

    @on(MatMul)
    def count(value: Value) -> None:
        counted[value] = uses(value)

    product = A @ B
    outputs = {"y": product + C, "z": relu(product), "p": product}
    rewrite(Graph("test", outputs), [count])
    assert counted == {product: 3}
    assert uses(product) == 1  # outside of rewriting nothing is known


def test_uses_are_kept_by_what_is_rebuilt() -> None:
    counted: list[int] = []

    @on(MatMul)
    def count(value: Value) -> None:
        counted.append(uses(value))

    product = transpose(transpose(A, (1, 0)), (1, 0)) @ B
    rewrite(Graph("test", {"y": relu(product), "z": exp(product)}), [transposed_twice, count])
    assert counted == [2]


def test_deep_graphs_take_linear_work_and_do_not_recurse() -> None:
    def work(depth: int) -> int:
        h = leaf("h", f32["n", 4])
        w, c = leaf("w", f32[4, 4]), leaf("c", f32[4])
        for _ in range(depth):
            h = relu(h @ w + c)
        results: list[Value] = []
        count = calls(lambda: results.append(rewritten(h, add_into_gemm)))
        assert isinstance(results[0].args[0].op, Gemm)
        return count

    work(10)
    assert work(3200) < 1.1 * 8 * work(400)


def test_same_type() -> None:
    assert same_type(f32["n", "2*m"], f32["n", "m + m"])
    assert not same_type(f32["n"], f64["n"])
    assert not same_type(f32["n"], f32["m"])


CUT = leaf("cut", f32["n", 6])
looked_at: list[Value] = []


@on(MatMul)
def never(value: Value) -> None:
    looked_at.append(value)


@on(MatMul)
def cut_where_it_is_used_once(value: Value) -> Value | None:
    return CUT if uses(value) == 1 else None


def test_what_no_change_applies_to_is_looked_at_once() -> None:
    looked_at.clear()
    product = A @ leaf("once", f32[5, 6])
    for wrap in (relu, exp, log):  # three graphs that share the node
        rewritten(wrap(product), never)
    assert looked_at == [product]


def test_what_depends_on_the_graph_is_looked_at_in_each() -> None:
    product = A @ leaf("twice", f32[5, 6])
    both = Graph("both", {"y": exp(product), "z": log(product)})
    assert rewrite(both, [cut_where_it_is_used_once]) is both
    assert rewritten(exp(product), cut_where_it_is_used_once) is exp(CUT)


asked: list[Value] = []


@on(MatMul)
def cut_beside_its_sigmoid(value: Value) -> Value | None:
    return CUT if present(sigmoid(value)) else None


@on(MatMul)
def asks_for_uses(value: Value) -> Value | None:
    asked.append(value)
    return CUT if uses(value) == 1 else None


PLAIN, TWICE = leaf("plain", f32["n", 6]), leaf("both", f32["2*n", 6])


@on(Concat)
def of_equal(value: Value) -> Value | None:
    return TWICE if value.args[0] is value.args[1] else None


@on(Map)
def two_above_the_cut(value: Value) -> Value | None:
    asked.append(value)
    inner = value.args[0]
    return PLAIN if inner.args and inner.args[0] is CUT else None


def test_what_else_the_graph_has_is_asked_in_each() -> None:
    product = A @ leaf("thrice", f32[5, 6])
    alone = Graph("alone", {"y": exp(product)})
    assert rewrite(alone, [cut_beside_its_sigmoid]) is alone
    beside = Graph("beside", {"y": exp(product), "z": sigmoid(product)})
    assert rewrite(beside, [cut_beside_its_sigmoid]).outputs["y"] is exp(CUT)


def test_what_is_used_as_often_is_looked_at_once() -> None:
    asked.clear()
    product = A @ leaf("often", f32[5, 6])
    for wrap in (relu, exp):
        both = Graph("both", {"y": wrap(product), "z": log(product)})
        assert rewrite(both, [asks_for_uses]) is both
    assert asked == [product]


def test_what_is_close_to_a_change_is_looked_at_again() -> None:
    changes = [cut_where_it_is_used_once, two_above_the_cut]
    product = A @ leaf("close", f32[5, 6])
    chain, expected = exp(product), exp(PLAIN)
    for _ in range(20):
        chain = exp(log(chain))
    for _ in range(19):
        expected = exp(log(expected))
    both = Graph("both", {"y": chain, "z": log(product)})
    assert rewrite(both, changes) is both
    asked.clear()
    assert rewritten(chain, *changes) is expected
    assert 2 < len(asked) < 20  # of forty


def test_two_nodes_that_become_one_are_not_as_they_were() -> None:
    first, second = A @ leaf("p", f32[5, 6]), A @ leaf("q", f32[5, 6])
    a, b = first, second
    for _ in range(10):
        a, b = log(exp(a)), log(exp(b))
    joined = concatenate([a, b], 0)
    graph = Graph("graph", {"y": joined, "a": relu(first), "b": relu(second)})
    assert rewrite(graph, [cut_where_it_is_used_once, of_equal]) is graph
    assert rewritten(joined, cut_where_it_is_used_once, of_equal) is TWICE


def test_a_graph_without_what_the_rules_look_for_is_left_alone() -> None:
    x = leaf("x", f32["n", 3])
    graph = Graph("g", {"y": x.sum()})
    assert rewrite(graph, [add_into_product]) is graph
    wanted = Graph("g", {"y": x @ leaf("w", f32[3, 2]) + leaf("b", f32[2])})
    assert rewrite(wanted, [add_into_product]) is not wanted
