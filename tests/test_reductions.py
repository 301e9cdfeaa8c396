"""Several processes with a part of the batch each make the step of one with the whole batch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest

from dsl import (
    BatchNorm,
    Dense,
    Dropout,
    cast,
    exp,
    f32,
    f64,
    maximum,
    model,
    mse,
    parameter,
    ratio,
    relu,
    scan,
    tanh,
)
from dsl import total as total_of
from nncompile import CompileError, compile_step, compose, training
from nncompile.ir.graph import input_of
from nncompile.ir.interpreter import evaluate
from nncompile.optim import adam, cosine, sgd
from nncompile.optim.plateau import plateau
from nncompile.program.accumulation_halves import accumulation_halves
from nncompile.program.first_row import FIRST_ROW, unnumbered
from nncompile.program.recipe import assign
from nncompile.program.reductions import METADATA_KEY
from tests.reduced_steps import parts_of, reduced, step_of_several
from tests.step_checks import state_after

SHARES = [(6, 7), (1, 0, 9, 3), (13, 0)]


def data(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(count, 4)), "target": rng.normal(size=(count, 2))}


def hidden(x: Any) -> Any:
    return x >> Dense(5, relu, name="hidden")


def mean(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    return {"loss": mse(hidden(x) >> Dense(2, name="out"), target)}


def masked(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    return {"loss": mse(hidden(x) >> Dense(2, name="out"), target, mask=x[:, 0] > 0.3)}


def total(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    error = (hidden(x) >> Dense(2, name="out")) - target
    return {"loss": (error * error).sum()}


def dropped(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    y = hidden(x) >> Dropout(0.4) >> Dense(2, name="out")
    return {"loss": mse(y, target)}


def dropped_in_a_loop(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    cell, dropout = Dense(5, relu, name="cell"), Dropout(0.4)
    last = scan(lambda h: dropout(cell(h)) + h, hidden(x), length=3)
    return {"loss": mse(last >> Dense(2, name="out"), target)}


def dropped_across(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    return {"loss": mse((x.T >> Dropout(0.4)).T >> Dense(2, name="out"), target)}


def normalized(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    return {"loss": mse(x >> BatchNorm(name="norm") >> Dense(2, name="out"), target)}


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mean": (mean, {}),
    "masked": (masked, {}),
    "sum": (total, {}),
    "clipped": (mean, {"clip_norm": 0.05}),
    "accumulated": (masked, {"accumulate": 2}),
    "plateau": (masked, {"optimizer": sgd(plateau(0.1, patience=1, every=1, threshold=0.9))}),
    "plateau, accumulated": (
        masked,
        {"optimizer": sgd(plateau(0.1, patience=0, every=1, threshold=0.9)), "accumulate": 2},
    ),
    "dropout": (dropped, {}),
    "dropout in a loop": (dropped_in_a_loop, {}),
}


@pytest.mark.parametrize("sizes", SHARES)
@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_are_the_batch(case: str, sizes: tuple[int, ...]) -> None:
    """Four steps in float64, where only the order of the sums differs."""
    function, options = CASES[case]
    step = compose(training(model(function), **{"optimizer": sgd(0.1, 0.9), **options}))
    one = other = start = step.initial(0)
    for i in range(4):
        batch = data(sum(sizes), i)
        one = state_after(step, one, {**batch})
        other = step_of_several(step, other, batch, sizes)
    for path, x in one.items():
        np.testing.assert_allclose(other[path], x, 1e-12, 1e-14, err_msg=path)
    moved = [path for path in step.parameters if not np.array_equal(one[path], start[path])]
    assert moved == list(step.parameters)
    if "plateau" in case:
        assert one["training.plateau.factor"] < 1


def test_what_a_wrong_weight_gives_is_far_from_the_batch() -> None:
    step = compose(training(model(masked), optimizer=sgd(0.1)))
    state, batch = step.initial(0), data(13)
    plain = dict.fromkeys(step.reductions.by_name, "mean")
    results = [evaluate(step.gradient, {**state, **part}) for part in parts_of(batch, (2, 11))]
    wrong = {n: np.mean([r[n] for r in results], axis=0) for n in plain}
    right = reduced(step.reductions.by_name, results, state)
    name = "out.weight.grad"
    assert np.abs(wrong[name] - right[name]).max() > 0.1 * np.abs(right[name]).max()


def test_running_statistics_are_means_by_the_examples() -> None:
    step = compose(training(model(normalized), optimizer=sgd(0.1)))
    state, batch = step.initial(0), data(13)
    several = step_of_several(step, state, batch, (9, 4))
    one = state_after(step, state, batch)
    np.testing.assert_allclose(several["norm.running_mean"], one["norm.running_mean"], 1e-12)
    # The variance is that within the parts: see BatchNorm.
    assert not np.allclose(several["norm.running_var"], one["norm.running_var"], 1e-3)


def rules(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
    w = parameter("w", (4, 2), dtype=f64)
    return {"error": target - x @ w, "loss": mse(x @ w, target)}


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        (lambda v: v["w"] + 0.1 * v["error"].mean(0), "mean"),
        (lambda v: v["w"] + 0.1 * v["error"].sum(0), "change"),
        (lambda v: v["w"] + 0.01 * (v["x"].T @ v["error"]), "change"),
        (lambda v: v["w"] * (v["x"].T @ v["error"]), "sum"),
        (lambda v: 0.9 * v["w"] + 0.1 * v["error"].mean(0), "mean"),
    ],
)
def test_a_rule_is_reduced_as_what_it_is(rule: Any, kind: str) -> None:
    step = compose(training(model(rules), updates=assign("w", rule)))
    assert step.reductions.by_name["w.assigned"].kind == kind
    state, batch = step.initial(0), data(13)
    several = step_of_several(step, state, batch, (4, 9))
    np.testing.assert_allclose(several["w"], state_after(step, state, batch)["w"], 1e-12)


def test_what_cannot_be_reduced_is_named() -> None:
    root = assign("w", lambda v: tanh(v["x"].T @ v["error"]))
    step = compose(training(model(rules), updates=root))
    assert "neither a mean nor a sum" in step.reductions.irreducible["w"]
    decayed = assign("w", lambda v: 0.9 * v["w"] + v["x"].T @ v["error"])
    step = compose(training(model(rules), updates=decayed))
    assert "to something else" in step.reductions.irreducible["w"]


LOSSES: dict[str, tuple[Any, bool]] = {
    "of a scaled sum": (lambda e, m, w: exp(-w) * (e * m).sum(), True),
    "of a sum in another type": (lambda e, m, w: cast(e.sum(), f32), True),
    "of a mean and a penalty": (lambda e, m, w: e.mean() + w * w, True),
    "of a ratio": (lambda e, m, w: ratio((e * m).sum(), m.sum()), True),
    "of a sum and a penalty": (lambda e, m, w: e.sum() + w * w, False),
    "of a mean and a sum": (lambda e, m, w: e.mean() + 0.1 * (e * m).sum(), False),
    "of means that weigh differently": (lambda e, m, w: e.mean() + ratio(e.sum(), m.sum()), False),
    "of a quotient": (lambda e, m, w: (e * m).sum() / m.sum(), False),
    "of a bounded quotient": (lambda e, m, w: (e * m).sum() / maximum(m.sum(), 1.0), False),
}


@pytest.mark.parametrize("case", LOSSES)
def test_losses_that_parts_do_not_make_are_irreducible(case: str) -> None:
    function, is_reducible = LOSSES[case]

    def net(x: Any = f64["batch", 4], target: Any = f64["batch", 2]) -> Any:
        error = (hidden(x) >> Dense(1, name="out"))[:, 0] - target[:, 0]
        mask = cast(x[:, 0] > 0.3, f64)
        return {"loss": function(error * error, mask, parameter("w", (), dtype=f64))}

    step = compose(training(model(net), optimizer=sgd(0.1)))
    state, batch = step.initial(0), data(13)
    several = step_of_several(step, state, batch, (4, 9))
    one = state_after(step, state, batch)
    far = max(np.abs(several[path] - one[path]).max() for path in step.parameters)
    assert (far < 1e-6) == is_reducible
    assert ("loss" not in step.reductions.irreducible) == is_reducible


def test_a_total_of_a_batch_that_is_not_cut_is_that_of_each_process() -> None:
    def net(x: Any = f64[3, 4]) -> Any:
        return {"loss": total_of((x >> Dense(1, name="out")).sum())}

    step = compose(training(model(net), optimizer=sgd(0.1)))
    kinds = {step.reductions.by_name[name].kind for name in ("loss", "out.weight.grad")}
    assert kinds == {"mean"}


def test_random_numbers_across_rows_are_found() -> None:
    for function, count in ((dropped, 0), (dropped_in_a_loop, 0), (dropped_across, 1)):
        step = compose(training(model(function)))
        assert len(unnumbered(step.gradient, step.model.examples)) == count
        assert FIRST_ROW in step.gradient_of_rows.leaves
    step = compose(training(model(mean)))
    assert FIRST_ROW not in step.gradient_of_rows.leaves


def test_accumulated_then_applied_is_the_step() -> None:
    """Also of a recipe that accumulates one batch, with noise and a rate that follows the steps."""
    for function, count in ((masked, 2), (total, 2), (normalized, 1), (dropped, 3)):
        options: dict[str, Any] = {"optimizer": adam(cosine(0.1, steps=9)), "clip_norm": 0.5}
        recipe = training(model(function), accumulate=count, noise=0.01, **options)
        step, halves = compose(recipe), accumulation_halves(recipe)
        one = step.initial(0)
        other = {n: np.zeros(v.shape, v.dtype.numpy) for n, v in halves.accumulate.leaves.items()
                 if n.endswith(".accumulated")} | one  # fmt: skip
        for i in range(2 * count):
            batch = data(7 + i, i) | {FIRST_ROW: 0}
            one = state_after(step, one, batch)
            other = _followed(evaluate(halves.accumulate, {**other, **batch}), other)
            if i % count == count - 1:
                other = _followed(evaluate(halves.apply, other), other)
        for path, x in one.items():
            np.testing.assert_allclose(other[path], x, 1e-12, 1e-14, err_msg=path)


def _followed(results: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    following = {n.removesuffix(".next"): x for n, x in results.items() if n.endswith(".next")}
    return state | following


def test_the_files_say_how_they_are_reduced() -> None:
    compiled = compile_step(training(model(dropped), optimizer=adam(), accumulate=2))
    tensors = {}
    for name in ("gradient", "update", "accumulate", "apply"):
        proto = onnx.load_from_string(compiled.content(name))
        (text,) = [x.value for x in proto.metadata_props if x.key == METADATA_KEY]
        tensors[name] = json.loads(text)["tensors"]
        shared = proto.graph.output if name in ("gradient", "accumulate") else proto.graph.input
        assert tensors[name].keys() <= {x.name for x in shared}
        inputs = {x.name: x.type.tensor_type.elem_type for x in proto.graph.input}
        draws = name in ("gradient", "accumulate")
        assert inputs.get(FIRST_ROW) == (onnx.TensorProto.INT64 if draws else None)
    weighted = {"reduce": "mean", "weight": "loss.batch_weight"}
    assert (
        tensors["gradient"]["out.weight.grad"] == tensors["update"]["out.weight.grad"] == weighted
    )
    assert tensors["gradient"]["loss.batch_weight"] == {"reduce": "sum"}
    assert tensors["accumulate"]["out.weight.accumulated.next"] == {"reduce": "sum"}
    assert tensors["apply"]["out.weight.accumulated"] == {"reduce": "sum"}
    assert METADATA_KEY not in {x.key for x in compiled.step_model.metadata_props}


@pytest.mark.parametrize("case", CASES)
def test_all_that_is_handed_over_has_a_rule(case: str) -> None:
    function, options = CASES[case]
    step = compose(training(model(function), **{"optimizer": adam(), **options}))
    handed = {n for n, v in step.update.leaves.items() if input_of(v).kind == "input"}
    assert handed and handed <= step.reductions.by_name.keys()


def test_rules_are_not_accumulated_apart() -> None:
    recipe = training(model(rules), updates=assign("w", lambda v: v["w"] * 0.5))
    with pytest.raises(CompileError, match="the rule for 'w' is made at every step"):
        compile_step(recipe).content("accumulate")
