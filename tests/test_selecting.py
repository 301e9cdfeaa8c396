"""What a condition selects: values, gradients and sizes that depend on data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile import ops
from nncompile.autodiff.checkpointing import recompute
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError
from nncompile.elementwise import where
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import DTYPES, DType, boolean, f32, f64, i64
from nncompile.passes import optimize
from nncompile.train import Trainer
from tests.array_checks import Everywhere, check_numpy, integers
from tests.backends import session, valid_model
from tests.gradient_checks import check_gradient, gradient_at
from tests.leaves import leaf

NAMES = f64["n", "m"]


drawn = partial(integers, low=-2, high=3)


CASES = [(drawn(shape),) for shape in [(4, 5), (1, 1), (0, 3), (3, 0), (2, 7)]]
NOTHING = [(np.full((3, 2), -1.0),)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_places_of_what_is_not_zero(dtype: DType) -> None:
    cases = [(drawn(s, dtype),) for s in [(4, 5), (1, 1), (0, 3)]]
    check_numpy(lambda x: x.nonzero(), np.nonzero, (dtype["n", "m"],), *cases)
    check_numpy(ops.argwhere, np.argwhere, (dtype["n", "m"],), *cases)
    check_numpy(ops.flatnonzero, np.flatnonzero, (dtype["n", "m"],), *cases)


def test_nan_is_not_zero() -> None:
    x = np.array([np.nan, 0.0, -0.0, np.inf, 5e-324])
    check_numpy(ops.flatnonzero, np.flatnonzero, (f64["n"],), (x,))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked_elements(dtype: DType) -> None:
    mask = drawn((4, 5), boolean)
    check_numpy(
        lambda x, m: (x.masked_select(m), x[m]),
        lambda x, m: (x[m], x[m]),
        (dtype["n", "m"], boolean["n", "m"]),
        (drawn((4, 5), dtype), mask),
        (drawn((4, 5), dtype), mask & False),
        (drawn((0, 5), dtype), mask[:0]),
    )


def test_masks_as_parts_of_keys() -> None:
    x = drawn((3, 4, 5))
    keys: list[Callable[[Any], Any]] = [
        lambda x: x[x[:, 0, 0] > 0],
        lambda x: x[:, x[0, :, 0] > 0],
        lambda x: x[..., x[0, 0] > 0],
        lambda x: x[x[:, :, 0] > 0],
        lambda x: x[:, x[0] > 0],
        lambda x: x[1:, x[0] > 0],
        lambda x: x[None, x > 0],
        lambda x: x[2, x[2] > 0],
    ]
    for key in keys:
        check_numpy(key, key, (f64["a", "b", "c"],), (x,), (-abs(x) - 1,))
    rows = np.array([True, False, True])
    check_numpy(lambda x: x[rows], lambda x: x[rows], (f64[3, "b"],), (x[0, :3],))


def test_a_mask_broadcasts() -> None:
    x, mask = drawn((4, 5)), np.array([True, False, True, True, False])
    selected = Everywhere(ops.masked_select, NAMES, boolean["m"])
    np.testing.assert_array_equal(selected(x, mask), x[:, mask].ravel())


AFTERWARDS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda np, x: np.sum(x[x > 0]),
    "sum of rows": lambda np, x: np.sum(x[np.sum(x, 1) > -2], 0),
    "mean": lambda np, x: np.mean(x[x > 0]),
    "std": lambda np, x: np.std(x[x > 0]),
    "product": lambda np, x: np.prod(x[x > 0]),
    "running sum": lambda np, x: np.cumsum(x[x > 0]),
    "running product": lambda np, x: np.cumprod(x[x > 0]),
    "sorted": lambda np, x: np.sort(x[x > -2]),
    "joined": lambda np, x: np.concatenate([x[x > 0], x[x < 0] * 2]),
    "with itself": lambda np, x: x[x > 0] * x[x > 0] + 1,
    "outer product": lambda np, x: x[x > 0].reshape(-1, 1) @ x[x > 0].reshape(1, -1),
    "selected again": lambda np, x: x[x > 0][x[x > 0] > 1],
    "as many from the front": lambda np, x: np.ravel(x)[: x[x > 1].shape[0]],
    "reversed": lambda np, x: np.flip(x[x > 0], 0),
    "how many": lambda np, x: np.ones_like(x[x > 0]).sum(),
}


@pytest.mark.filterwarnings("ignore:Mean of empty", "ignore:Degrees of freedom")
@pytest.mark.parametrize("name", AFTERWARDS)
def test_what_is_computed_of_a_selection(name: str) -> None:
    function = AFTERWARDS[name]
    check_numpy(lambda x: function(ops, x), lambda x: function(np, x), (NAMES,), *CASES, *NOTHING)


def test_extremes_of_a_selection() -> None:
    x = drawn((4, 5))
    check_numpy(lambda x: ops.max(x[x > 0]), lambda x: np.max(x[x > 0]), (NAMES,), (x,))
    check_numpy(lambda x: ops.median(x[x > -2]), lambda x: np.median(x[x > -2]), (NAMES,), (x,))


def test_how_many_are_selected_is_a_value() -> None:
    def counts(x: Value) -> tuple[Value, ...]:
        count = x[x > 0].shape[0]  # of what nothing else needs
        return ops.size_value(count), ops.size_value(2 * count + 1, f32), ops.iota(count)

    everywhere = Everywhere(counts, NAMES)
    for (x,) in (*CASES, *NOTHING):
        number, odd, places = everywhere(x)
        assert number == (x > 0).sum()
        assert odd == 2 * number + 1
        np.testing.assert_array_equal(places, np.arange(number))


def test_places_up_to_a_number_that_is_a_value() -> None:
    counted = Everywhere(lambda k: ops.iota(k, f32), i64[()])
    for k in (-1, 0, 1, 5):
        np.testing.assert_array_equal(counted(k), np.arange(max(k, 0)))


def test_gradients_flow_to_what_was_selected() -> None:
    x = drawn((4, 5)) + 0.1
    check_gradient(lambda x: ops.sum(x[x > 0] ** 3), x)
    check_gradient(lambda x: ops.mean(x[x > 0]) ** 2 * ops.sum(x[x[:, 1] > 0]), x)
    check_gradient(lambda x: ops.logsumexp(x[x > 0]), x)
    check_gradient(lambda x: ops.sum(ops.cumprod(x[x > 0])), x)
    np.testing.assert_array_equal(gradient_at(lambda x: x[x > 9], x), 0)
    gradients = gradient_at(lambda x: ops.ravel(x)[: x[x > 1].shape[0]], x)
    assert gradients.sum() == (x > 1).sum()


@pytest.mark.parametrize("name", ["sum", "mean", "joined", "as many from the front"])
def test_gradients_in_every_backend(name: str) -> None:
    def gradient(x: Value) -> Value:
        return grad(ops.sum(AFTERWARDS[name](ops, x) ** 2), x)  # type: ignore[no-any-return]

    everywhere = Everywhere(gradient, NAMES)
    for (x,) in (CASES[0], CASES[-1], *NOTHING):
        everywhere(x + 0.1)


@pytest.mark.parametrize("name", AFTERWARDS)
def test_passes_change_nothing(name: str) -> None:
    x = leaf("x", NAMES)
    y = AFTERWARDS[name](ops, x)
    graph = Graph("selected", {"y": y, "dx": grad(ops.sum(y * y), x)}, (x,))
    new = optimize(graph)
    for (data,) in (CASES[0], CASES[4]):
        feeds = {"x": data + 0.1}
        expected = evaluate(graph, feeds)
        for label, array in evaluate(new, feeds).items():
            np.testing.assert_allclose(array, expected[label])
    assert optimize(new).outputs["y"] is new.outputs["y"]


def test_equal_conditions_have_one_size_and_others_do_not() -> None:
    x = leaf("x", f32["n"])
    assert x[x > 0].shape == (2 * x)[x > 0].shape
    with pytest.raises(CompileError, match="cannot tell whether"):
        x[x > 0] + x[x > 1]


def test_each_application_of_a_model_has_sizes_of_its_own() -> None:
    @dsl.model
    def positive(a: Value = f64["k"]) -> dict[str, Value]:
        chosen = a[a > 0]
        return {"y": chosen, "places": ops.iota(chosen.shape[0])}

    def both(x: Value) -> tuple[Value, ...]:
        one, other = positive(a=x), positive(a=-x)
        return one["y"], one["places"], other["y"], other["places"]

    x = np.array([1.0, -2.0, 3.0, 4.0])
    found = Everywhere(both, f64["n"])(x)
    for got, expected in zip(found, [[1, 3, 4], [0, 1, 2], [2], [0]], strict=True):
        np.testing.assert_array_equal(got, expected)
    values = positive.outputs["y"], positive.outputs["places"]
    (y, places) = replace(values, {positive.inputs["a"]: leaf("b", f64["k"])})
    assert y.shape == places.shape != values[0].shape


def test_what_dropout_decides_in_training_does_not_tell_a_size_in_inference() -> None:
    @dsl.model
    def net(x: Value = f32["batch", 50]) -> dict[str, Value]:
        kept = dsl.Dropout(0.5)(x)
        chosen = kept[kept > 0]
        return {"y": ops.ravel(x)[: chosen.shape[0]], "loss": ops.mean(chosen)}

    graph = optimize(net.inference(["y"]))
    x = np.ones((2, 50), np.float32)
    assert evaluate(graph, {"x": x})["y"].shape == (100,)
    run = session(valid_model(graph))
    np.testing.assert_array_equal(run({"x": x}, {"y": (100,)})["y"], 1)


def test_a_selection_outside_of_a_loop_and_one_within() -> None:
    def outside(x: Value) -> Value:
        chosen = x[0][x[0] > 0]
        return ops.scan(lambda c, row: (c * 2 + ops.sum(row),), ops.zeros_like(chosen), x)[0]  # type: ignore[no-any-return]

    x = drawn((4, 5))
    expected = sum(2.0 ** (3 - i) * row.sum() for i, row in enumerate(x))
    np.testing.assert_allclose(Everywhere(outside, NAMES)(x), [expected] * (x[0] > 0).sum())
    with pytest.raises(CompileError, match="differs from one iteration") as error:
        ops.scan(lambda c, row: (c + ops.sum(row[row > 0]),), 0.0, leaf("x", f32["n", "m"]))
    assert "where(mask, x, 0)" in str(error.value)


def test_a_selection_is_computed_again() -> None:
    def loss(x: Value) -> Value:
        return recompute(lambda v: ops.sum(v[v > 0] ** 3))(x)  # type: ignore[no-any-return]

    x = leaf("x", f64["n"])
    graph = Graph("again", {"dx": grad(loss(x), x)}, (x,))
    data = np.array([1.0, -2.0, 3.0])
    expected = 3 * np.maximum(data, 0) ** 2
    for each in (graph, optimize(graph)):
        np.testing.assert_allclose(evaluate(each, {"x": data})["dx"], expected)
        run = session(valid_model(each))
        np.testing.assert_allclose(run({"x": data}, {"dx": (3,)})["dx"], expected)


def test_a_loss_of_the_examples_that_have_a_label() -> None:
    @dsl.model
    def net(x: Value = f32["batch", 4], label: Value = i64["batch"]) -> dict[str, Value]:
        known = label >= 0
        logits = (x >> dsl.Dense(8, dsl.tanh) >> dsl.Dense(3))[known]
        return {"loss": dsl.cross_entropy(logits, label[known])}

    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype(np.float32)
    label = np.where(rng.random(64) < 0.7, x[:, :3].argmax(1), -1)
    trainer = Trainer(dsl.training(net, optimizer=dsl.adam(0.05), batch_size=16))
    losses = [epoch["loss"] for epoch in trainer.fit({"x": x, "label": label}, epochs=20).epochs]
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("to", ["torchscript", "pt2"])
def test_selections_in_files_of_torch(to: str, tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    from nncompile import export

    @dsl.model
    def net(x: Value = f32["n", 3]) -> dict[str, Value]:
        return {"y": x[x > 0] * 2}

    file = tmp_path / ("net.pt" if to == "torchscript" else "net.pt2")
    export(net, file, to=to)
    loaded = torch.jit.load(file) if to == "torchscript" else torch.export.load(file).module()
    for n in (2, 7):
        x = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
        np.testing.assert_array_equal(loaded(torch.tensor(x))["y"].numpy(), x[x > 0] * 2)


X = leaf("x", f32["n", 4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: X[X], "an index must be an integer"),
        (lambda: X[X[0] > 0], "does not fit the axes"),
        (lambda: X[leaf("m", boolean["m"])], "does not fit the axes"),
        (lambda: X[X[0, 0] > 0], "does not fit the axes"),
        (lambda: ops.masked_select(X, X), "a mask must be boolean"),
        (lambda: ops.nonzero(X[0, 0]), "a scalar has no positions"),
        (lambda: ops.iota(X[0, 0] > 0, i64) + ops.iota(X > 0), "a size must be one integer"),
    ],
)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        call()


def test_a_branch_that_is_not_taken_selects_nothing() -> None:
    x = leaf("x", f64["n"])
    y = where(ops.any(x > 0), ops.sum(x[x > 0]), -1.0)
    assert evaluate(y, {"x": np.array([-1.0, -2.0])}) == -1
