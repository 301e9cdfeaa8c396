"""The page of ONNX operators says what is found by running, and a gradient that is wrong shows."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.frontends.onnx.registry import ENTRIES
from nncompile.ir.op import Value
from nncompile.ops.reduction.softmax import Softmax
from tests.onnx_cases.forms import by_onnxruntime, by_reference
from tests.onnx_cases.imported import in_onnxruntime, resolved
from tests.onnx_cases.light import LIGHT, distance
from tests.onnx_cases.own_samples import own_samples
from tests.onnx_cases.page import (
    PAGE,
    TITLES,
    Cells,
    headline,
    lines_of_page,
    versions,
)
from tests.onnx_cases.running import cases, cases_of, difference, outcome
from tests.onnx_cases.samples import Sample, sample
from tests.onnx_cases.table import CROSS, TICK, Examined, examined, row

WAY = "python -m tests.onnx_cases --page writes it anew"
# Operators whose cases lie in a file of onnx's of their own, by its name.
AGAIN = {
    "compress": "Compress",
    "conv": "Conv",
    "deformconv": "DeformConv",
    "einsum": "Einsum",
    "hardmax": "Hardmax",
    "layernormalization": "LayerNormalization",
    "pow": "Pow",
    "reducel2": "ReduceL2",
    "roialign": "RoiAlign",
    "scatternd": "ScatterND",
    "softmax": "Softmax",
    "topk": "TopK",
    "trilu": "Trilu",
}
UNCOMPARED = {"ZipMap", "Gradient"}  # onnxruntime makes dictionaries; it has none of the latter


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """onnx computes some of the cases as it makes them, and divides by 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def found(name: str, module: str) -> Examined:
    return examined(cases_of([module]))["", name]


def test_the_page_has_the_operators_that_there_are() -> None:
    if versions() not in PAGE.read_text("utf-8"):
        pytest.skip("the page is of other versions of onnx and onnxruntime")
    known = examined([])
    names = [o[1] for domain in TITLES for o in known if o[0] == domain]
    assert len(names) == len(known), "a domain has no section"
    shown = [Cells.of(line).operator.split("`")[1] for line in lines_of_page()]
    assert shown == names, WAY


def test_the_page_counts_its_rows_and_has_none_that_is_wrong() -> None:
    text = PAGE.read_text("utf-8")
    rows = [Cells.of(line) for line in lines_of_page()]
    assert headline(rows) in text
    assert CROSS not in text
    imported = {r.operator.split("`")[1] for r in rows if r.imported == TICK}
    assert {op for _, op in ENTRIES} <= imported, WAY
    asked = [r for r in rows if r.is_differentiable]
    assert len(asked) > 110
    assert not [r.operator for r in asked if TICK not in r.gradient and r.operator != "`Hardmax`"]


@pytest.mark.choosing
@pytest.mark.parametrize(
    "module", [pytest.param(m, marks=[pytest.mark.slow] * (m != "compress")) for m in AGAIN]
)
def test_a_row_is_what_is_found(module: str) -> None:
    line = row(found(AGAIN[module], module))
    assert CROSS not in line
    if versions() in PAGE.read_text("utf-8"):
        assert line in lines_of_page(), WAY


@pytest.mark.parametrize("given", own_samples(), ids=lambda s: s.name)
def test_a_sample_is_computed_as_by_others(given: Sample) -> None:
    if UNCOMPARED & {name for _, name in given.operators} or given.opset < 7:
        return
    wanted = by_onnxruntime(given) or by_reference(given)  # DeformConv came with 1.24
    assert wanted is not None
    case = resolved(given.model, dict(given.inputs), set())
    got = in_onnxruntime(case)
    if case.draws:
        got, wanted = [*map(np.zeros_like, got)], [*map(np.zeros_like, wanted)]
    assert not difference(got, wanted, 1e-5, 1e-5)


def test_a_gradient_that_is_wrong_is_a_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Softmax, backward: Any, g: Value, y: Value) -> list[Value]:
        return [y * g]

    monkeypatch.setattr(Softmax, "pullback_by", careless)
    operator = found("Softmax", "softmax")
    operator.samples = operator.samples[:1]
    operator.cases = []
    assert f"| {CROSS} test_softmax" in row(operator)


def test_an_input_without_a_gradient_is_a_cross() -> None:
    operator = found("Conv", "conv")
    operator.samples = [s for s in operator.samples if "bias" not in s.name][:1]
    operator.cases = []
    assert f"{CROSS} at B" in row(operator)


def test_a_kink_is_walked_around() -> None:
    """Of Relu, all inputs of which lie at its kink."""
    (relu,) = (s for s in found("Relu", "relu").samples if s.name == "test_relu")
    at_kink = dataclasses.replace(relu, inputs={"x": np.zeros((4, 5), np.float32)})
    operator = Examined(("", "Relu"), [], [at_kink])
    assert not operator.problems
    assert operator.slopes["test_relu"].is_sloped


DRAWS = [
    ("RandomNormal", [], {"mean": 3.0, "scale": 2.0, "shape": [5000]}, 3, 2),
    ("RandomUniform", [], {"low": -1.0, "high": 2.0, "shape": [5000]}, 0.5, 3 / 12**0.5),
    ("Bernoulli", [np.full(5000, 0.3, np.float32)], {}, 0.3, 0.21**0.5),
    ("Multinomial", [np.log([[0.2, 0.3, 0.5]]).astype("f")], {"sample_size": 5000}, 1.3, 0.61**0.5),
]


@pytest.mark.parametrize(("op", "inputs", "attributes", "mean", "deviation"), DRAWS)
def test_random_numbers_have_the_distribution(
    op: str, inputs: list[Any], attributes: dict[str, Any], mean: float, deviation: float
) -> None:
    drawn = sample(op, inputs, **attributes)
    case = resolved(drawn.model, dict(drawn.inputs), set())
    (first,) = in_onnxruntime(case)
    (later,) = in_onnxruntime(dataclasses.replace(case, feeds=case.feeds | {"step": np.array(1)}))
    for found in (first, later):
        assert found.mean() == pytest.approx(mean, abs=5 * deviation / 5000**0.5)
        assert found.std() == pytest.approx(deviation, rel=0.05)
    assert (first != later).any()


@pytest.mark.parametrize(
    ("kind", "passing"), [("pytorch-operator", 35), ("pytorch-converted", 82), ("simple", 17)]
)
def test_the_models_that_onnx_carries(kind: str, passing: int) -> None:
    outcomes = [outcome(case) for case in cases(kind)]
    assert sum(o.result == "passed" for o in outcomes) >= passing, _told(outcomes)
    assert not [o for o in outcomes if o.result == "wrong"]


def test_a_network_with_random_weights(tmp_path: Path) -> None:
    apart, count = distance(LIGHT / "light_squeezenet.onnx", tmp_path)
    assert count == 1_235_496
    assert apart < 1e-5


def _told(outcomes: Sequence[object]) -> list[object]:
    return [o for o in outcomes if o.result != "passed"]  # type: ignore[attr-defined]
