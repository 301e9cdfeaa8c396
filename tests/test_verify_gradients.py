"""`verify` compares gradients with central differences: it finds wrong ones, and reports those that
are declared or not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, adam, f32, softmax, training
from nncompile.ir.op import Value
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.program.recipe import Recipe
from nncompile.verify import verify
from tests import verify_checks
from tests.source_lines import line_of
from tests.verify_checks import Numpy, differences, first

classifier = pytest.fixture(verify_checks.classifier)


def test_a_wrong_pullback_is_found(classifier: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LogSoftmax.pullback_by
    monkeypatch.setattr(LogSoftmax, "pullback_by", lambda *a: [1.001 * right(*a)[0]])
    report = verify(classifier, backends=[Numpy()], rounds=1)
    fault = first(report)
    assert fault.backends == ["differences"]
    assert "log_softmax(" in fault.place.node
    assert "the gradient of loss at" in fault.message
    assert "central difference" in fault.place.remark
    cells = report.rows["numpy backend"]
    assert all(cells[c].ratio <= 1 for c in cells)  # what all backends share, none shows


def test_a_wrong_pullback_beside_declared_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    @dsl.custom_gradient(lambda g, y, x: 3 * g)
    def clipped(x: Value) -> Value:
        return x

    @dsl.model
    def net(x=f32["batch", 4]):
        y = dsl.stop_gradient(x.sum()) + (x >> Dense(3))
        return {"loss": (softmax(y) ** 2 + clipped(y)).mean()}

    recipe = training(net, optimizer=adam(1e-2))
    assert verify(recipe, backends=[Numpy()], quick=True).agrees
    right = Softmax.pullback_by
    monkeypatch.setattr(Softmax, "pullback_by", lambda *a: [2 * right(*a)[0]])
    fault = first(verify(recipe, backends=[Numpy()], quick=True))
    assert "softmax(" in fault.place.node


def test_a_loss_that_is_not_finite_is_not_a_mismatch() -> None:
    @dsl.model
    def net(x=f32["batch", 4]):
        p = x >> Dense(3)
        return {"loss": dsl.log(dsl.relu(p)).mean()}

    report = verify(training(net, optimizer=adam(1e-2)), backends=[], quick=True)  # and no warning
    assert report.agrees
    assert differences(report) == "–"
    (said,) = (text for text in report.skipped if text.startswith("differences of loss"))
    assert "on 9 of 9 random inputs: the loss is not finite: log(" in said
    place = line_of(__file__, 'return {"loss": dsl.log(dsl.relu(p)).mean()}')
    assert f"{place}, in net" in said
    assert f"skipped: {said}" in report.text()


def test_a_gradient_that_is_not_finite_is_told() -> None:
    @dsl.model
    def net(x=f32["batch", 4]):
        return {"loss": dsl.sqrt(((x >> Dense(3, bias=False)) ** 2).sum())}

    recipe = training(net, optimizer=adam(1e-2))
    report = verify(recipe, {"x": np.zeros((9, 4), np.float32)}, backends=[], quick=True)
    assert report.agrees, report
    (said,) = (text for text in report.skipped if text.startswith("differences of loss"))
    assert "9 of 9 random inputs: the gradient for dense.weight is not finite: " in said
    assert "in net" in said


def sometimes_infinite() -> Recipe:
    @dsl.model
    def net(x=f32["batch", 4]):
        return {"loss": dsl.log(dsl.relu((softmax(x >> Dense(4)) * x).sum()))}

    return training(net, optimizer=adam(1e-2))


def test_inputs_are_drawn_again_where_a_loss_is_not_finite() -> None:
    drawn_again = 0
    for seed in range(6):
        report = verify(sometimes_infinite(), backends=[], quick=True, seed=seed)
        assert report.agrees, report
        assert differences(report).endswith("ok")
        drawn_again += any("the loss is not finite: log(" in text for text in report.skipped)
    assert 0 < drawn_again < 6


def test_a_wrong_pullback_is_found_on_inputs_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Softmax.pullback_by
    monkeypatch.setattr(Softmax, "pullback_by", lambda *a: [2 * right(*a)[0]])
    for seed in range(6):
        report = verify(sometimes_infinite(), backends=[], quick=True, seed=seed)
        assert "softmax(" in first(report).place.node
        assert differences(report).endswith("  MISMATCH")


def test_a_wrong_pullback_within_a_loss_that_is_never_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @dsl.model
    def net(x=f32["batch", 4]):
        p = x >> Dense(3)
        return {"loss": (softmax(p) ** 2).mean() + dsl.log(dsl.relu(p)).mean()}

    right = Softmax.pullback_by
    monkeypatch.setattr(Softmax, "pullback_by", lambda *a: [2 * right(*a)[0]])
    fault = first(verify(training(net, optimizer=adam(1e-2)), backends=[], quick=True))
    assert "softmax(" in fault.place.node


def test_a_declared_gradient_is_not_said_to_be_right() -> None:
    @dsl.custom_gradient(lambda g, y, x: g * 2 * x * x)  # it is 3x²
    def cube(x: Value) -> Value:
        return x**3

    @dsl.model
    def net(x=f32["batch", 4]):
        return {"loss": (cube(x >> Dense(3)) + cube(x >> Dense(3))).mean()}

    report = verify(training(net, optimizer=adam(1e-2)), backends=[], quick=True)
    assert differences(report) == "declared –"
    place = line_of(__file__, "# it is 3x²")
    assert report.text().count(f"not checked: the gradient declared at {place}\n") == 1


def test_a_declared_gradient_that_is_the_derivative_is_compared() -> None:
    @dsl.model
    def net(x=f32["batch", 4], y=f32["batch", 3]):
        return {"loss": dsl.binary_cross_entropy_with_logits(x >> Dense(3), dsl.sigmoid(y))}

    report = verify(training(net, optimizer=adam(1e-2)), backends=[], quick=True)
    assert differences(report).endswith("ok") and not report.unchecked


def test_the_gradient_of_a_formula_is_named_by_its_use() -> None:
    @dsl.formula(derivative=lambda x: 2 * x * x)
    def cubed(x: Any) -> Any:
        return x**3

    @dsl.model
    def net(x=f32["batch", 4]):
        return {"loss": cubed(x >> Dense(3)).mean()}

    report = verify(training(net, optimizer=adam(1e-2)), backends=[], quick=True)
    assert differences(report) == "declared –"
    place = line_of(__file__, "cubed(x >> Dense(3))")
    assert report.unchecked == [f"the gradient declared at {place}"]
