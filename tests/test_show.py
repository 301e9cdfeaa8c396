"""Print-outs of graphs, and messages of mistakes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import Location, LocationTable, located, recording_locations
from nncompile.elementwise import exp, tanh, where
from nncompile.ir.graph import Graph, items
from nncompile.ir.printer import text
from nncompile.ir.types import f32
from nncompile.ops import const, reshape, size_value, top_k, transpose
from nncompile.passes import optimize
from nncompile.program.recipe import Recipe
from tests.leaves import leaf
from tests.shown_mistakes import MISTAKES
from tests.shown_models import classifier_recipe, digits, digits_recipe, line_recipe, step_of
from tests.snapshots import assert_snapshot


def body(graph: Graph) -> list[str]:
    """The lines of the nodes, without their places: a value that another test made first, and that
    is not collected yet, has that one's."""
    lines = text(graph).split("\n\n")[1].splitlines()
    return [re.sub(r"  \S+\.py:\d+.*", "", line).rstrip() for line in lines]


X = leaf("x", f32["n", 3])


def test_a_line_has_name_expression_type_place_and_layer() -> None:
    with recording_locations(LocationTable()) as locations:
        with located(Location("/models/digits.py", 22, "digits/stem")):
            y = reshape(X, (-1,))
        with located(Location("/models/digits.py", 9, "digits/stem/act")):
            z = tanh(y)
    shown = text(Graph("digits", {"probabilities": z, "y": y}, locations=locations))
    assert shown == (
        "digits\n"
        "  inputs  x : f32[n, 3]\n"
        "\n"
        "%1 = reshape(x)  : f32[3*n]  digits.py:22  stem\n"
        "%2 = tanh(%1)    : f32[3*n]  digits.py:9   stem/act\n"
        "\n"
        "  probabilities  %2\n"
        "  y              %1\n"
    )


def test_elementwise_ops_are_mathematics() -> None:
    y = leaf("y", f32["n", 3])
    assert body(Graph("g", {"z": tanh(2 * exp(y) - 1)})) == [
        "%1 = exp(y)    : f32[n, 3]",
        "%2 = 2*%1      : f32[n, 3]",
        "%3 = %2 - 1    : f32[n, 3]",
        "%4 = tanh(%3)  : f32[n, 3]",
    ]


def test_numbers_and_sizes_stand_where_they_are_used() -> None:
    value = where(X > 0, X, const(2.5)) / size_value(X.shape[0], f32)
    assert body(Graph("g", {"y": value})) == [
        "%1 = x > 0              : bool[n, 3]",
        "%2 = where(%1, x, 2.5)  : f32[n, 3]",
        "%3 = %2/n               : f32[n, 3]",
    ]


def test_results_of_an_op_with_several_are_numbered() -> None:
    largest, places = items(top_k(X, 2)[0].args[0])
    shown = text(Graph("g", {"largest": largest, "places": places, "first": largest + 1}))
    assert "(f32[n, 2], i64[n, 2])" in shown
    assert "  largest  %1.0\n  places   %1.1\n  first    %2\n" in shown
    assert "%2 = %1.0 + 1" in shown


def test_only_attributes_that_say_something_are_shown() -> None:
    assert body(Graph("g", {"y": transpose(X)})) == ["%1 = transpose(x, axes=(1, 0))  : f32[3, n]"]
    assert body(Graph("g", {"y": X.sum(0)})) == ["%1 = sum(x, axes=(0,))  : f32[3]"]
    kept = body(Graph("g", {"y": X.sum(0, keepdims=True)}))
    assert kept == ["%1 = sum(x, axes=(0,), keepdims=True)  : f32[1, 3]"]


def test_large_constants_are_cut() -> None:
    small, large = const([1.0, 2.0]), const(np.arange(100.0, dtype=np.float32))
    assert body(Graph("g", {"small": small, "large": large})) == [
        "%1 = constant([1., 2.])                  : f32[2]",
        "%2 = constant([ 0., 1., ..., 98., 99.])  : f32[100]",
    ]


def test_many_parameters_are_counted() -> None:
    few = [leaf(f"w{i}", f32[10, 100], "parameter") for i in range(4)]
    shown = text(Graph("g", {"y": few[0] + few[1] + few[2] + few[3]}, tuple(few)))
    assert "  parameters  w0 : f32[10, 100]\n              w1 : f32[10, 100]\n" in shown
    many = [leaf(f"w{i}", f32[10, 100], "parameter") for i in range(5)]
    shown = text(Graph("g", {f"y{i}": w + 1 for i, w in enumerate(many)}))
    assert "  parameters  5 tensors, 5,000 elements\n" in shown


def test_a_long_expression_does_not_widen_the_others() -> None:
    value = X
    for i in range(40):
        value = value + leaf(f"a_rather_long_name_{i}", f32["n", 3])
    total = Graph("g", {"y": exp(optimize(Graph("h", {"y": value})).outputs["y"])})
    assert max(map(len, body(total))) < 200


def test_a_deep_graph_is_printed() -> None:
    value = X
    for _ in range(3000):
        value = tanh(value)
    assert text(Graph("deep", {"y": value})).count("\n") > 3000


@pytest.mark.parametrize(
    "recipe", [digits_recipe, classifier_recipe, line_recipe], ids=lambda r: r.model.name
)
def test_print_out_of_a_training_step(recipe: Recipe) -> None:
    assert_snapshot(f"{recipe.model.name}_step", text(step_of(recipe)))


def test_print_out_of_a_model() -> None:
    assert_snapshot("digits_model", text(digits.graph))
    assert_snapshot("digits_inference", text(optimize(digits.inference())))


def test_messages_of_mistakes() -> None:
    """The messages as they are shown, with the user's line."""
    messages = []
    for mistake in MISTAKES:
        with pytest.raises(CompileError) as caught:
            mistake()
        messages.append(f"{type(caught.value).__name__}: {caught.value}\n")
    assert_snapshot("mistakes", "\n".join(messages))


def test_sizes_that_are_sums_or_products_stand_in_parentheses() -> None:
    x = leaf("x", f32["batch", "time"])
    printed = text(Graph("sizes", {"a": x[:, 1:].mean(), "b": x.mean(0)}))
    assert "/(batch*(time - Min(1, time)))" in printed and "/batch " in printed
