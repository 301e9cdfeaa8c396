"""`verify` agrees where backends agree, and finds planted faults at the right node."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, adam, cross_entropy, f32, f64, i64, tanh, training
from nncompile.diagnostics.errors import BackendError, ModelError
from nncompile.ir.graph import Graph
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.reduction.softmax import LogSoftmax
from nncompile.passes import PASSES
from nncompile.program.recipe import Recipe
from nncompile.verify import OnnxRuntime, all_backends, assert_backends_agree, verify
from nncompile.verify.backends import Lowered, Native
from tests import verify_checks
from tests.verify_checks import ORT, Arrays, Numpy, first

classifier = pytest.fixture(verify_checks.classifier)


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


def test_torchscript_is_a_row(classifier: Recipe, torchscript: Any) -> None:
    report = verify(classifier, quick=True)
    assert set(report.rows["torchscript"]) == {"forward", "gradients", "ten steps"}


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        gone = "nncompile_kernels" if name == "nncompile_kernels" else "torch"
        raise ModuleNotFoundError(f"No module named {gone!r}", name=gone)

    monkeypatch.setattr(importlib, "import_module", missing)
    found, skipped = all_backends()
    assert all(isinstance(backend, OnnxRuntime | Native) for backend in found)
    assert any("torch, which is not installed; pip install" in text for text in skipped)


def test_a_python_without_torchscript(monkeypatch: pytest.MonkeyPatch, torchscript: Any) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    found, skipped = all_backends()
    assert all(isinstance(backend, OnnxRuntime | Native) for backend in found)
    assert any("no TorchScript for Python 3.14; --to pt2" in text for text in skipped)


def test_a_wrong_onnx_lowering_is_found(
    classifier: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(self: LogSoftmax, o: Any, x: str) -> Any:
        return o.LogSoftmax(o.Mul(x, o.scalar(1.001, f32)), axis=self.axis)

    monkeypatch.setattr(LogSoftmax, "onnx", wrong)
    fault = first(verify(classifier, backends=[Numpy(), ORT], rounds=1))
    assert fault.backends == [ORT.name]
    assert "log_softmax(" in fault.place.node
    assert fault.place.location.file == verify_checks.__file__
    assert fault.place.location.text == "loss = cross_entropy(logits, label)"
    shown = "\n".join(fault.lines())
    assert "first at  %" in shown
    assert "expected" in shown
    assert "batch=5, seed 0" in shown


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


def test_a_fault_of_the_optimizer_shows_in_ten_steps(classifier: Recipe) -> None:
    report = verify(classifier, backends=[Numpy(at="sqrt(", factor=1.01)], quick=True)
    fault = first(report)
    assert fault.column == "ten steps"
    assert "sqrt(" in fault.place.node
    cells = report.rows["numpy backend"]
    assert cells["forward"].ratio <= 1 >= cells["gradients"].ratio
    assert {"x", "label", "stem.weight"} <= set(fault.feeds)  # to reproduce it with


@pytest.mark.parametrize("factor", [1.0 + 2e-5, 1.0 - 2e-5])
def test_small_faults_are_found(classifier: Recipe, factor: float) -> None:
    backend = Numpy(at="gemm(x, stem.weight", factor=factor)
    assert "stem.weight" in first(verify(classifier, backends=[backend], rounds=1)).place.node


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


def test_kinks_and_ties_are_not_mismatches() -> None:
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


def test_float64_models_are_held_to_float64() -> None:
    @dsl.model
    def double(x=f64["batch", 3]):
        y = tanh(x >> Dense(4)) >> Dense(1)
        return {"y": y, "loss": (y * y).mean()}

    recipe = training(double, optimizer=adam(1e-2))
    assert assert_backends_agree(recipe, backends=[ORT], quick=True)
    fault = first(verify(recipe, backends=[Numpy(at="tanh(", factor=1 + 1e-12)], quick=True))
    assert "tanh(" in fault.place.node


def test_the_helper_raises_with_the_table(classifier: Recipe) -> None:
    with pytest.raises(AssertionError) as raised:
        assert_backends_agree(classifier, backends=[Numpy(at="tanh(")], quick=True)
    text = str(raised.value)
    assert "numpy backend" in text
    assert "MISMATCH" in text
    assert "first at" in text
    assert "--seed 0 --quick" in text


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
