"""The cross-entropy of classes and its gradient as one call of a native kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from dsl import Dense, Value, boolean, cross_entropy, f32, i64, model, sgd, training
from nncompile.backends.onnx import check, to_model
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import BackendError
from tests.test_native import needs_library, run
from tests.test_native_products import threaded

BATCH, TIME, FEATURES = 6, 5, 4
CASES: dict[str, Mapping[str, Any]] = {
    "mean": {},
    "mask": {"masked": True},
    "ignored": {"ignore_index": 1},
    "sum": {"reduction": "sum"},
}


def compiled(classes: int, masked: bool = False, **options: Any) -> Any:
    @model
    def net(
        x: Value = f32["batch", TIME, FEATURES],
        label: Value = i64["batch", TIME],
        there: Value = boolean["batch", TIME],
    ) -> dict[str, Value]:
        logits = x >> Dense(classes, name="head")
        mask = {"mask": there} if masked else {}
        # LINE is that of the loss.
        return {"loss": cross_entropy(logits, label, **mask, **options)}

    return compile_step(training(net, minimize="loss", optimizer=sgd(0.1), batch_size=BATCH))


LINE = compiled.__code__.co_firstlineno + 10


def feeds_of(step: Any, classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.standard_normal((BATCH, TIME, FEATURES), np.float32),
        "label": rng.integers(0, classes, (BATCH, TIME)),
        "there": rng.random((BATCH, TIME)) < 0.7,
    }
    return {**step.source.initial(), **batch}


@pytest.mark.parametrize("case", CASES)
def test_a_loss_and_its_gradient_are_a_call(case: str) -> None:
    step = compiled(9, **CASES[case])
    plain, native = (to_model(step.step, kernels=kernels) for kernels in (False, True))
    check(native)
    assert [n.op_type for n in native.graph.node if n.op_type == "CrossEntropy"] != []
    feeds = feeds_of(step, 9)
    expected, found = run(plain, feeds), run(native, feeds)
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-6, atol=1e-7, err_msg=name)


def test_a_loss_with_other_uses_of_its_softmax_is_none() -> None:
    step = compiled(9, label_smoothing=0.1)
    native = to_model(step.step, kernels=True)
    assert "CrossEntropy" not in {n.op_type for n in native.graph.node}


@needs_library
@pytest.mark.parametrize("classes", [2, 16, 1100])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_computes_the_loss(case: str, classes: int) -> None:
    step = compiled(classes, **CASES[case])
    native = to_model(step.step, kernels=True)
    for scale in (1, 1e3):
        feeds = feeds_of(step, classes)
        feeds["x"] *= np.float32(scale)
        expected, found = run(native, feeds), run(native, feeds, with_library=True)
        for name, x in expected.items():
            np.testing.assert_allclose(
                found[name], x, rtol=1e-5, atol=1e-5 * scale**0.5, err_msg=name
            )
    one, three = (threaded(native, feeds_of(step, classes), n) for n in (1, 3))
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_library
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite(wrong: float) -> None:
    step = compiled(9)
    native, feeds = to_model(step.step, kernels=True), feeds_of(step, 9)
    feeds["head.bias"] = feeds["head.bias"].copy()
    feeds["head.bias"][3] = wrong
    feeds["label"][feeds["label"] == 3] = 4
    expected, found = run(native, feeds), run(native, feeds, with_library=True)
    for name, x in expected.items():
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(x), err_msg=name)


@needs_library
def test_a_class_below_0_is_counted_from_the_end() -> None:
    step = compiled(9)
    native, feeds = to_model(step.step, kernels=True), feeds_of(step, 9)
    expected = threaded(native, feeds, 1)
    feeds["label"] = feeds["label"] - 9 * (feeds["label"] > 4)
    for a, b in zip(threaded(native, feeds, 1), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@needs_library
def test_a_class_that_is_not_there() -> None:
    step = compiled(9)
    native, feeds = to_model(step.step, kernels=True), feeds_of(step, 9)
    feeds["label"][0, 0] = 9
    with pytest.raises(Exception, match="CrossEntropy: an index out of range"):
        threaded(native, feeds, 1)


@needs_library
@pytest.mark.parametrize("native", [False, True])
def test_a_failing_call_names_the_line_of_the_loss(native: bool) -> None:
    """With the kernel, and with the function in its place."""
    step = compiled(9)
    runner = step.runner(step.source.initial(), native=native)
    feeds = feeds_of(step, 9) | {"label": np.full((BATCH, TIME), 9)}
    with pytest.raises(BackendError, match=r"(out of range|out of data bounds)") as raised:
        runner.step({n: feeds[n] for n in ("x", "label", "there")})
    _, operator, line = raised.value.rows[0]
    assert operator == ("CrossEntropy" if native else "ScatterElements")
    assert re.fullmatch(rf"at test_native_losses\.py:{LINE}", line)
