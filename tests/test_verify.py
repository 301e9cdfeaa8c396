"""`verify`: it agrees where backends agree, and finds what is planted, at the right node."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, Dropout, adam, cross_entropy, f32, f64, i64, softmax, tanh, training
from nncompile.diagnostics.errors import BackendError, FeedError, ModelError
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.printer import node_text
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.core.assertions import limited
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.passes import PASSES
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.runtime import Session
from nncompile.verify import OnnxRuntime, Report, all_backends, assert_backends_agree, verify
from nncompile.verify.backends import Lowered
from nncompile.verify.error_bound import Reference
from nncompile.verify.inputs import Inputs
from nncompile.verify.rounding import ROUNDINGS
from tests.command_line import GOOD, fails, line, run, succeeds, written

ORT = OnnxRuntime("all", 1)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Numpy:
    """numpy in f32 as a backend, with a fault at the nodes whose text holds `at`; with `joined`,
    only where few results are to be shown, as in a runtime that joins nodes."""

    at: str = "nothing"
    factor: float = 1.001
    joined: int | None = None
    name: str = "numpy backend"

    def load(self, lowered: Lowered) -> Callable[[Mapping[str, np.ndarray]], Arrays]:
        graph = lowered.graph
        sound = self.joined is not None and len(graph.outputs) > self.joined

        def change(v: Value, x: Any) -> Any:
            wrong = not sound and v.args and self.at in node_text(graph, v)
            return (x * self.factor).astype(x.dtype) if wrong else x

        return lambda feeds: evaluate(graph, feeds, None, change)  # type: ignore[no-any-return]


@pytest.fixture
def classifier() -> Recipe:
    @dsl.model(predict=("probabilities",))
    def net(x=f32["batch", 4], label=i64["batch"]):
        hidden = x >> Dense(8, tanh, name="stem") >> Dropout(0.3)
        logits = hidden >> Dense(3, name="head")
        loss = cross_entropy(logits, label)
        return {"probabilities": softmax(logits), "kept": hidden > 0, "loss": loss}

    return training(net, optimizer=adam(1e-2))


def first(report: Report) -> Any:
    assert not report.agrees
    return report.faults[0]


@pytest.mark.slow
def test_all_backends_agree(classifier: Recipe) -> None:
    report = verify(classifier)
    assert report.agrees, report
    text = report.text("net.py")
    assert text.endswith("all agree")
    for level in ("none", "basic", "extended", "all"):
        for threads in ("1 thread", "2 threads"):
            cells = report.rows[f"onnxruntime {level}, {threads}"]
            assert all(cells[c].count and 0 < cells[c].units < 1e4 for c in cells)
            assert list(cells) == ["forward", "gradients", "ten steps"]
    assert report.undecided <= report.compared / 10
    kinds = [case.partition(",")[0] for case in report.cases]
    assert {"random", "zeros", "ones", "large"} <= set(kinds)
    assert {"random, batch=0, seed 0", "random, batch=1, seed 0"} <= set(report.cases)


@pytest.mark.slow
def test_torchscript_is_a_row(classifier: Recipe, torchscript: Any) -> None:
    report = verify(classifier, quick=True)
    assert set(report.rows["torchscript"]) == {"forward", "gradients", "ten steps"}


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", missing)
    found, skipped = all_backends()
    assert all(isinstance(backend, OnnxRuntime) for backend in found)
    assert any("torch, which is not installed; pip install" in text for text in skipped)


def test_a_python_without_torchscript(monkeypatch: pytest.MonkeyPatch, torchscript: Any) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    found, skipped = all_backends()
    assert all(isinstance(backend, OnnxRuntime) for backend in found)
    assert any("no TorchScript for Python 3.14; --to pt2" in text for text in skipped)


@pytest.mark.slow
def test_a_wrong_onnx_lowering_is_found(
    classifier: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: LogSoftmax, o: Any, x: str) -> Any:
        return o.LogSoftmax(o.Mul(x, o.scalar(1.001, f32)), axis=self.axis)

    monkeypatch.setattr(LogSoftmax, "onnx", wrong)
    fault = first(verify(classifier, backends=[Numpy(), ORT], rounds=1))
    assert fault.backends == [ORT.name]
    assert "log_softmax(" in fault.place.node
    assert fault.place.location.file == __file__
    assert fault.place.location.text == "loss = cross_entropy(logits, label)"
    shown = "\n".join(fault.lines())
    assert "first at  %" in shown
    assert "expected" in shown
    assert "batch=5, seed 0" in shown


@pytest.mark.slow
def test_a_wrong_torch_lowering_is_found(
    classifier: Recipe, torchscript: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Gemm.torch

    def wrong(self: Gemm, t: Any, a: str, b: str, *c: str) -> str:
        return t.mul(right(self, t, a, b, *c), 1.0001)

    monkeypatch.setattr(Gemm, "torch", wrong)
    fault = first(verify(classifier, quick=True))
    assert fault.backends == ["torchscript"]
    assert "gemm(x, stem.weight" in fault.place.node
    assert fault.place.location.scope.endswith("stem")


def test_a_wrong_pullback_is_found(classifier: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    right = LogSoftmax.pullback

    def wrong(self: LogSoftmax, g: Value, y: Value, x: Value) -> Any:
        return (1.001 * right(self, g, y, x)[0],)

    monkeypatch.setattr(LogSoftmax, "pullback", wrong)
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
    right = Softmax.pullback
    monkeypatch.setattr(Softmax, "pullback", lambda *a: (2 * right(*a)[0],))
    fault = first(verify(recipe, backends=[Numpy()], quick=True))
    assert "softmax(" in fault.place.node


def differences(report: Report) -> str:
    return report.rows["differences"]["gradients"].note


def test_a_loss_that_is_not_finite_is_no_departure() -> None:
    @dsl.model
    def net(x=f32["batch", 4]):
        p = x >> Dense(3)
        return {"loss": dsl.log(dsl.relu(p)).mean()}

    report = verify(training(net, optimizer=adam(1e-2)), backends=[], quick=True)  # and no warning
    assert report.agrees
    assert differences(report) == "–"
    (said,) = (text for text in report.skipped if text.startswith("differences of loss"))
    assert "on 9 of 9 random inputs: the loss is not finite: log(" in said
    written_at = next(
        number
        for number, text in enumerate(Path(__file__).read_text().splitlines(), 1)
        if "dsl.log(dsl.relu(p)).mean()" in text
    )
    assert f"test_verify.py:{written_at}, in net" in said
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


@pytest.mark.slow
def test_inputs_are_drawn_again_where_a_loss_is_not_finite() -> None:
    drawn_again = 0
    for seed in range(6):
        report = verify(sometimes_infinite(), backends=[], quick=True, seed=seed)
        assert report.agrees, report
        assert differences(report).endswith("ok")
        drawn_again += any("the loss is not finite: log(" in text for text in report.skipped)
    assert 0 < drawn_again < 6


@pytest.mark.slow
def test_a_wrong_pullback_is_found_on_inputs_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Softmax.pullback
    monkeypatch.setattr(Softmax, "pullback", lambda *a: (2 * right(*a)[0],))
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

    right = Softmax.pullback
    monkeypatch.setattr(Softmax, "pullback", lambda *a: (2 * right(*a)[0],))
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
    source = Path(__file__).read_text().splitlines()
    declared_at = next(n for n, text in enumerate(source, 1) if "# it is 3x²" in text)
    said = f"not checked: the gradient declared at test_verify.py:{declared_at}\n"
    assert report.text().count(said) == 1


def test_the_gradient_of_a_formula_is_named_by_its_use() -> None:
    @dsl.formula(derivative=lambda x: 2 * x * x)
    def cubed(x: Any) -> Any:
        return x**3

    @dsl.model
    def net(x=f32["batch", 4]):
        return {"loss": cubed(x >> Dense(3)).mean()}

    report = verify(training(net, optimizer=adam(1e-2)), backends=[], quick=True)
    assert differences(report) == "declared –"
    source = Path(__file__).read_text().splitlines()
    used_at = next(n for n, text in enumerate(source, 1) if "cubed(x >> Dense(3))" in text)
    assert report.unchecked == [f"the gradient declared at test_verify.py:{used_at}"]


@pytest.mark.slow
def test_a_wrong_pass_is_found(classifier: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Graph) -> Graph:
        """Spoils results. And more."""
        names = [n for n in graph.outputs if n in ("probabilities", "loss")]
        return graph.with_outputs({**graph.outputs, **{n: graph.outputs[n] * 1.001 for n in names}})

    monkeypatch.setitem(PASSES, "pack", wrong)
    fault = first(verify(classifier, backends=[Numpy()], rounds=1))
    assert fault.backends == ["numpy float64, after the passes"]
    assert fault.place.remark == "the pass 'pack' changes it: Spoils results"
    assert fault.place.node == f"output {fault.difference.output}"


def test_what_shows_only_where_nodes_are_joined(classifier: Recipe) -> None:
    backend = Numpy(at="tanh(", joined=3)
    fault = first(verify(classifier, backends=[backend], quick=True))
    assert "tanh(" in fault.place.node
    assert "only when" in fault.place.remark


@pytest.mark.slow
def test_a_fault_of_the_optimizer_shows_in_ten_steps(classifier: Recipe) -> None:
    report = verify(classifier, backends=[Numpy(at="sqrt(", factor=1.01)], quick=True)
    fault = first(report)
    assert fault.column == "ten steps"
    assert "sqrt(" in fault.place.node
    cells = report.rows["numpy backend"]
    assert cells["forward"].ratio <= 1 >= cells["gradients"].ratio
    assert {"x", "label", "stem.weight"} <= set(fault.feeds)  # to reproduce it with


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0 + 2e-5, 1.0 - 2e-5])
def test_small_faults_are_found(classifier: Recipe, factor: float) -> None:
    backend = Numpy(at="gemm(x, stem.weight", factor=factor)
    assert "stem.weight" in first(verify(classifier, backends=[backend], rounds=1)).place.node


@pytest.mark.slow
def test_another_dropout_mask_is_found(classifier: Recipe) -> None:
    @dataclass(frozen=True)
    class Reseeded(Numpy):
        name: str = "reseeded"

        def load(self, lowered: Lowered) -> Callable[[Mapping[str, np.ndarray]], Arrays]:
            function = super().load(lowered)
            return lambda feeds: function({**feeds, "seed": feeds["seed"] + 1} | {})

    report = verify(classifier, backends=[Reseeded()], quick=True)
    assert not report.agrees
    assert report.rows["reseeded"]["forward"].ratio > 1


@pytest.mark.slow
def test_kinks_and_ties_are_no_departures() -> None:
    @dsl.model
    def kinked(image=f32["batch", 1, 6, 6], label=i64["batch"]):
        x = dsl.relu(image >> dsl.Conv2d(3, 3, padding=1)) >> dsl.MaxPool2d(2) >> dsl.flatten
        scores = x >> Dense(4)
        return {
            "scores": scores,
            "best": scores.argmax(-1),
            "places": dsl.round(x * 4),
            "positive": image >= 0,
            "loss": cross_entropy(dsl.abs(scores), label),
            "accuracy": dsl.accuracy(scores, label),
        }

    recipe = training(kinked, optimizer=adam(1e-2))
    ties = {"image": np.tile(np.float32([0, 0.5, 1]), (8, 1, 6, 2)), "label": np.arange(8) % 4}
    report = assert_backends_agree(recipe, ties, backends=[ORT, Numpy()])
    assert report.undecided < report.compared / 4


def test_a_model_without_a_recipe(classifier: Recipe) -> None:
    report = assert_backends_agree(classifier.model, backends=[Numpy()], quick=True)
    assert report.rows["numpy backend"]["forward"].count
    assert "gradients" not in report.rows["numpy backend"]
    assert "–" in report.text()


@pytest.mark.slow
def test_float64_models_are_held_to_float64() -> None:
    @dsl.model
    def double(x=f64["batch", 3]):
        y = tanh(x >> Dense(4)) >> Dense(1)
        return {"y": y, "loss": (y * y).mean()}

    recipe = training(double, optimizer=adam(1e-2))
    assert assert_backends_agree(recipe, backends=[ORT], quick=True)
    fault = first(verify(recipe, backends=[Numpy(at="tanh(", factor=1 + 1e-12)], quick=True))
    assert "tanh(" in fault.place.node


@pytest.mark.slow
def test_the_helper_raises_with_the_table(classifier: Recipe) -> None:
    with pytest.raises(AssertionError) as raised:
        assert_backends_agree(classifier, backends=[Numpy(at="tanh(")], quick=True)
    text = str(raised.value)
    assert "numpy backend" in text
    assert "MISMATCH" in text
    assert "first at" in text
    assert "--seed 0 --quick" in text


# What a model is run on.


def inputs_of(model: Model, data: Mapping[str, Any] | None = None) -> Inputs:
    return Inputs(model, data, 0)


def test_labels_cover_what_the_model_takes(classifier: Recipe) -> None:
    inputs = inputs_of(classifier.model)
    base = inputs.base({})
    drawn = {int(x) for case in inputs.cases(base, 3) for x in case.feeds["label"]}
    assert drawn == {0, 1, 2}
    ends = {c.kind: set(c.feeds["label"].tolist()) for c in inputs.cases(base, 1)}
    assert ends["zeros"] == {0}
    assert ends["ones"] == {2}


def test_tokens_of_data_stay_within_them(classifier: Recipe) -> None:
    x = np.full((9, 4), 7, np.float32)
    inputs = inputs_of(classifier.model, {"x": x, "label": np.ones(9, np.int64)})
    case = next(c for c in inputs.cases(inputs.base({}), 1) if c.kind == "random")
    assert set(case.feeds["label"].tolist()) == {1}
    assert set(case.feeds["x"].ravel().tolist()) == {7.0}


def test_numbers_stay_in_the_range_that_the_model_claims() -> None:
    @dsl.model
    def net(x=f32["batch", "time", 2], lengths=i64["batch"], target=f32["batch"]):
        last = dsl.LSTM(3)(x, lengths=lengths).mean(1)
        return {"loss": dsl.binary_cross_entropy(dsl.sigmoid(last), target)}

    inputs = inputs_of(net)
    cases = [case for case in inputs.cases(inputs.base({}), 4) if 0 not in case.sizes.values()]
    assert {case.kind for case in cases} == {"random", "zeros", "ones"}
    for case in cases:
        assert 0 <= case.feeds["lengths"].min() <= case.feeds["lengths"].max()
        assert case.feeds["lengths"].max() <= case.sizes["time"]
        assert 0 <= case.feeds["target"].min() <= case.feeds["target"].max() <= 1


@pytest.mark.parametrize(
    ("x", "label", "message"),
    [
        (np.zeros((9, 4), np.float32), np.full(9, 7), "input 'label' holds 7: index 7"),
        (np.zeros((9, 4)), np.zeros(9, np.int64), "input 'x' has the wrong element type"),
        (np.zeros((9, 5), np.float32), np.zeros(9, np.int64), "the data do not fit"),
    ],
)
def test_data_that_the_model_does_not_take(
    classifier: Recipe, x: np.ndarray, label: np.ndarray, message: str
) -> None:
    with pytest.raises(FeedError, match=message):
        verify(classifier, {"x": x, "label": label}, quick=True, backends=[])


def test_sizes_of_the_data_where_small_ones_are_not_accepted() -> None:
    @dsl.model
    def net(x=f32["batch", "time", 2]):
        wide = limited(x, x.shape[1], 20, "{size} are more than {limit}")
        return {"y": (wide.transpose(0, 2, 1) >> dsl.Conv1d(3, 17)).mean((1, 2))}

    with pytest.raises(FeedError, match=r"accepts no inputs: .* are more than 20"):
        inputs_of(net).base({})
    base = inputs_of(net, {"x": np.zeros((9, 18, 2), np.float32)}).base({})
    assert {str(s): n for s, n in base.items()} == {"batch": 5, "time": 18}


def test_sizes_grow_to_what_the_model_accepts() -> None:
    @dsl.model
    def wide(x=f32["batch", "time", 2]):
        y = x.transpose(0, 2, 1) >> dsl.Conv1d(3, 15)
        return {"y": y.mean((1, 2))}

    inputs = inputs_of(wide)
    base = inputs.base({})
    assert {str(s): n for s, n in base.items()} == {"batch": 5, "time": 28}
    sizes = [c.sizes for c in inputs.cases(base, 1)]
    assert {"batch": 5, "time": 57} in sizes
    assert not any(s["time"] < 15 for s in sizes)


@pytest.mark.parametrize(
    ("sizes", "message"), [({"bach": 3}, "no size 'bach'"), ({"batch": -1}, "accepts no inputs")]
)
def test_sizes_that_do_not_fit(classifier: Recipe, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        verify(classifier, sizes=sizes, backends=[])


def test_verify_takes_models() -> None:
    with pytest.raises(ModelError, match="a model or a recipe, got int"):
        verify(3)  # type: ignore[arg-type]


def test_a_backend_that_cannot_load(classifier: Recipe) -> None:
    class Refusing:
        name = "refusing"

        def load(self, lowered: Lowered) -> Any:
            raise BackendError("this is too much for me")

    report = verify(classifier, backends=[Refusing()], quick=True)
    assert first(report).message == "this is too much for me"
    assert report.rows["refusing"]["forward"].note == "FAILS"


# What is allowed.


def bound(outputs: Mapping[str, Value], feeds: Arrays, probes: int = 40) -> Reference:
    graph = Graph("outputs", outputs)

    def compute(double: bool, change: Any = None) -> Arrays:
        return evaluate(graph, feeds, np.float64 if double else None, change)  # type: ignore[no-any-return]

    return Reference(compute, (0,), probes=probes)


def leaf(name: str, type_: Any, kind: str = "parameter") -> Value:
    return Input(name, type_, kind)()


def test_cancellation_widens_the_bound() -> None:
    a, b = leaf("a", f32[4]), leaf("b", f32[4])
    feeds = {"a": np.float32([1.1, 2.3, 3.7, 4.9])}
    feeds["b"] = feeds["a"] * np.float32(1.001)
    found = bound({"sum": a + b, "difference": dsl.tanh(a) * 100 - dsl.tanh(b) * 100}, feeds)
    plain, cancelled = (found.differences({n: found.plain[n]})[0] for n in ("sum", "difference"))
    assert ROUNDINGS <= plain.allowed < 4 * ROUNDINGS
    assert cancelled.allowed > 100 * ROUNDINGS
    assert cancelled.is_decided


def test_a_comparison_beside_its_border_may_fall_either_way() -> None:
    x = leaf("x", f32[3])
    edge = float(np.tanh(np.float64(np.float32(0.4))))
    feeds = {"x": np.float32([0.4, 0.1, 0.9])}
    near, far = tanh(x) > edge, tanh(x) > 0.5
    found = bound({"near": near, "far": far}, feeds)
    flipped = {n: ~found.plain[n] for n in ("near", "far")}
    flipped["near"][1:] ^= True  # those that are not beside it
    near_by, far_off = found.differences(flipped)
    assert not near_by.mismatches
    assert far_off.mismatches


def test_what_is_copied_is_not_moved() -> None:
    x = leaf("x", f32[6])
    feeds = {"x": np.float32([0.3, 0.7, 0.1, 0.6, -2.5, 0.2])}
    y = tanh(x)
    top = y.max()
    found = bound({"is_top": y.reshape(2, 3) == top, "count": (y >= top).sum()}, feeds)
    assert found.bound == {"is_top": 0.0, "count": 0.0}


def test_data_and_whole_numbers_are_not_moved() -> None:
    x, n = leaf("x", f32[3], "input"), leaf("n", f32[3])
    feeds = {"x": np.float32([0.1, 0.2, 0.3]), "n": np.float32([1, 2, 3])}
    found = bound({"x": dsl.sign(x - 0.1), "n": n * 2 == n + n}, feeds)
    assert found.bound["n"] == 0


def test_sums_of_many_terms_may_be_off_by_more() -> None:
    x = leaf("x", f32[90_000])
    feeds = {"x": np.random.default_rng(0).uniform(0.5, 1, 90_000).astype(np.float32)}
    found = bound({"sum": x.sum(), "some": x[:9].sum()}, feeds)
    total, some = (found.differences({n: found.plain[n]})[0] for n in ("sum", "some"))
    assert 150 < total.allowed <= 310  # √90,000 roundings
    assert some.allowed < 40


def test_saturated_functions_are_exact_to_a_rounding_of_one() -> None:
    x = leaf("x", f32[3], "input")
    found = bound({"y": dsl.sigmoid(x), "gradient": dsl.sigmoid(x) - dsl.sigmoid(x) ** 2},
                  {"x": np.float32([-60, -50, 40])})  # fmt: skip
    flushed = {"gradient": np.zeros(3, np.float32)}  # as runtimes have it, and not exp(-40)
    assert not found.differences(flushed)[0].mismatches


def test_overflow_of_float32_is_left_out() -> None:
    x = leaf("x", f32[2], "input")
    found = bound({"y": x * x * x * x}, {"x": np.float32([2, 1e10])})
    assert not found.differences({"y": np.float32([16, np.inf])})[0].mismatches
    assert found.differences({"y": np.float32([np.inf, np.inf])})[0].mismatches
    assert found.differences({"y": np.float32([np.nan, np.inf])})[0].mismatches


def test_levels_of_optimization() -> None:
    with pytest.raises(BackendError, match="no optimization level 'most'"):
        Session(b"", optimization="most")


# The command.


def test_the_command(good: Path) -> None:
    text = succeeds("verify", good, "--quick")
    assert text.startswith("net: largest error against numpy in float64")
    assert "rows of the data" not in text
    assert text.rstrip().endswith("all agree")


def test_the_command_fails_where_a_backend_departs(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Softmax.onnx
    monkeypatch.setattr(Softmax, "onnx", lambda self, o, x: right(self, o, o.Neg(x)))
    result = run("verify", good, "--quick", "--seed", 3)
    assert result.exit_code == 1, result.output
    assert "onnxruntime none, 1 thread and 1 more: forward mismatches" in result.stdout
    assert "softmax(" in result.stdout
    assert line("softmax(logits)") in result.stdout
    assert f"nncompile verify {good} --seed 3 --quick" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "batch"], "is not NAME=N,NAME=N"),
        (["--sizes", "batch=x"], "is not NAME=N,NAME=N"),
        (["--sizes", "time=3"], "has no size 'time'"),
    ],
)
def test_mistakes_of_the_command(good: Path, options: list[str], message: str) -> None:
    assert message in fails("verify", good, *options)


def test_the_command_takes_a_model_alone(tmp_path: Path) -> None:
    source = GOOD.partition("recipe = ")[0]
    assert "all agree" in succeeds("verify", written(tmp_path, source), "--quick")


def test_a_model_file_is_not_run_but_compiled(good: Path, tmp_path: Path) -> None:
    message = fails("run", good)
    assert f"{good} is a model file in Python: compile it first" in message
    assert f"hint: nncompile compile {good}" in message
    assert "no such file" in fails("run", tmp_path / "missing.py")
