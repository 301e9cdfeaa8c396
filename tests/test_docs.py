"""What the documentation shows is true: its code runs, its commands and pages exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

import dsl
from nncompile import elementwise
from nncompile.cli.app import app
from nncompile.diagnostics.errors import CompileError, ModelError, ShapeError
from nncompile.ir.basic import const
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Op, Value
from nncompile.program.composition import compose
from nncompile.program.initialization import initial_values
from nncompile.program.recipe import training
from tests import op_checks, op_types
from tests.leaves import leaf
from tests.small_models import data, perceptron
from tests.test_rowwise import check_rows, claims

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def run_as_module(name: str, source: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def contributed(part: str) -> ModuleType:
    """The code of the contributing guide that has this part, as a module."""
    (source,) = (b for b in blocks(ROOT / "CONTRIBUTING.md", "python") if part in b)
    return run_as_module("contributed", source)


def test_the_parts_of_an_error_are_those_of_the_page() -> None:
    error = CompileError("wrong")
    parts = re.findall(r"\berror\.(\w+)", (ROOT / "docs" / "errors.md").read_text("utf-8"))
    assert parts and all(hasattr(error, part) for part in parts), parts


def test_the_op_of_the_contributing_guide_passes_every_check_of_an_op() -> None:
    module = contributed("class Outer(Op)")
    op_type: type[Op] = module.Outer
    try:
        cases = op_types.cases_of(op_type)
        op_checks.check_samples(op_type)
        for case in cases:
            op_checks.check_type(case)
            op_checks.check_interned(case)
            op_checks.check_onnx(case)
            op_checks.check_gradients(case)
            op_checks.check_gradient_onnx(case)
            for places, axis in claims(case):
                check_rows(case, places, axis)
        assert len(cases) >= 2
        with pytest.raises(ModelError, match="outer: got an unexpected"):
            module.outer(axis=0)
    finally:
        del Op.registry[op_type.__module__, op_type.__qualname__]
        del sys.modules["contributed"]


def test_the_formula_and_the_layer_of_the_contributing_guide_compute() -> None:
    assert contributed("def swish").swish(0.0) == 0
    layer = contributed("class Scale(Layer)").Scale(2.0)
    net = dsl.model(lambda x=dsl.f32["batch", 3]: x >> layer)
    x = np.float32([[1, -2, 3]])
    (y,) = evaluate(net.graph, {**initial_values(net, 0), "x": x}).values()
    np.testing.assert_array_equal(y, 2 * x)
    with pytest.raises(ShapeError, match="Scale needs features"):
        dsl.model(lambda x=dsl.f32[()]: x >> layer)


def test_the_loss_of_the_contributing_guide_has_all_options() -> None:
    charbonnier = contributed("def charbonnier").charbonnier
    p, t = np.array([3.0, -1.0]), np.array([0.0, -1.0])
    found = evaluate(charbonnier(const(p), t, eps=4.0, reduction="none"), {})
    np.testing.assert_allclose(found, [5, 4])
    assert float(evaluate(charbonnier(const(p), t, eps=4.0, mask=p > 0), {})) == 5


def test_the_optimizer_of_the_contributing_guide_steps() -> None:
    optimizer = contributed("class signum(Optimizer)").signum(0.125)
    step = compose(training(perceptron(), optimizer=optimizer))
    state = step.initial(0)
    after = evaluate(step.step, {**state, **data(4, 0)})
    for path in step.parameters:
        moved = np.abs(after[step.state_map[path]] - state[path])
        np.testing.assert_allclose(moved[moved != 0], 0.125, 1e-5)
        assert moved.any()


def test_the_rule_of_the_contributing_guide_applies_where_it_may() -> None:
    rule = contributed("def add_into_gemm").add_into_gemm
    a, b, c = (leaf(name, type_) for name, type_ in zip("abc", rule.examples, strict=True))
    assert rule(a @ b + c) is dsl.gemm(a, b, c)
    for outputs in rule.refusals():
        assert rule(outputs[0]) is None


def test_formulas_of_the_guide_run() -> None:
    imports, *rest = blocks(ROOT / "docs" / "formulas.md", "python")
    source = "\n".join([imports, "from nncompile.elementwise import round", *rest])
    module = run_as_module("guide", source)
    assert module.swish(0.0) == 0
    assert module.huber(3.0) == 2.5
    assert module.rounded(2.6) == 3


def test_every_function_that_the_guide_names_exists() -> None:
    text = (ROOT / "docs" / "formulas.md").read_text("utf-8")
    text = text.partition("| kind | functions |")[2].partition("\n\n")[0]
    table = [row.split("|")[2] for row in text.splitlines() if row.startswith("| ")]
    names = [name for cell in table for name in cell.replace("`", "").split()]
    assert len(names) > 80
    for name in names:
        assert callable(getattr(elementwise, name))


def test_the_model_of_the_first_page_is_one() -> None:
    module = run_as_module("front", blocks(ROOT / "docs" / "index.md", "python")[0])
    value: Value = module.digits.outputs["logits"]
    assert str(value.type) == "f32[batch, 10]"


def test_commands_and_options_exist() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    shown = re.findall(r"^nncompile (\w+) (.*)$", text, re.M)
    assert {command for command, _ in shown} >= {"train", "compile", "run", "show", "check"}
    for command, rest in shown:
        help_text = CliRunner().invoke(app, [command, "--help"]).stdout
        for option in re.findall(r"(?<!\w)--?[a-z][a-z-]*", rest.partition("#")[0]):
            assert re.search(rf"{option}\b", help_text), f"{command} has no {option}"


def test_each_decision_has_a_number_of_its_own() -> None:
    notes = [page.name for page in PAGES if page.parent.name == "decisions"]
    numbers = [name.partition("-")[0] for name in notes]
    assert len(notes) > 30 and len(set(numbers)) == len(numbers)


def test_pages_of_the_navigation_exist() -> None:
    pages = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert pages
    for page in pages:
        assert (ROOT / "docs" / page).is_file()


def test_the_page_of_arrays_names_what_there_is() -> None:
    page = ROOT / "docs" / "arrays.md"
    table = page.read_text("utf-8").partition("| what | functions |")[2].partition("\n\n")[0]
    names = re.findall(r"`(\w+)`", table)
    assert len(names) > 40
    for name in names:
        assert callable(getattr(dsl, name))
