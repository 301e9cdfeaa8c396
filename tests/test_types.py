"""What type checkers see: of this project, and of a user's model file."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dsl
import nncompile.ops  # noqa: F401 (registers all that methods call)
from nncompile.ir.array_methods import ArrayMethods
from nncompile.ir.dispatch import TABLE
from tests.rooms import tree

ROOT = Path(__file__).parent.parent
REASONED = re.compile(r"# type: ignore\[[a-z, -]+\]  # \S+")
UNDER_OTHER_NAMES = {"astype": "cast"}
MODEL = """
from dsl import (
    Dense, Dropout, Layer, Value, adamw, cosine, cross_entropy, exp, f32, formula, i64, maximum,
    model, relu, scan, sigmoid, training, where,
)
from nncompile import Event, Trainer


@formula
def swish(x: Value, beta: float = 1.0) -> Value:
    return x * sigmoid(beta * x)


class Residual(Layer):
    drop: float = 0.1

    def __call__(self, x: Value) -> Value:
        width = x.shape[-1]
        return x + (x >> Dense(width, swish) >> Dropout(self.drop) >> Dense(width))


@model(predict="logits")
def net(image: Value = f32["batch", 8], label: Value = i64["batch"]) -> dict[str, Value]:
    logits = image / 16 >> Dense(32, relu) >> Residual(drop=0.2) >> Dense(10)
    total, _ = scan(lambda state, x: (0.5 * state + x, x), logits[0] * 0, logits)
    size: Value = where(total > 0, exp(-total), 2 * maximum(total, 0.0)).sum(axis=-1)
    return {"logits": logits, "loss": cross_entropy(logits, label) + 1e-3 * size.mean()}


recipe = training(net, optimizer=adamw(cosine(3e-3, warmup=10, steps=100)), batch_size=64)


def watch(event: Event) -> None:
    print(event.step, event.metrics["loss"])
    if event.step > 3:
        event.trainer.stop()


def main() -> None:
    history = Trainer(recipe).fit({"image": [[0.0] * 8], "label": [1]}, callbacks=watch)
    print(history["loss"][-1])
"""
# Each is one that the checker has to find.
FAULTS = {
    "x: int = exp(net(image=None)['logits'])": "assignment",
    "y: str = relu": "assignment",
    "def first(x: Value) -> float:\n    return x + 1": "return-value",
    "def second(x: Value) -> str:\n    return x.reshape(2, 3)": "return-value",
    "def third(x: Value) -> Value:\n    return x.sum(axes=1)": "call-arg",
    "Residual(dropped=0.2)": "call-arg",
}


def ignores() -> list[tuple[str, str]]:
    """The lines that keep the type checker from saying something, and their places."""
    files = (path for package in ("nncompile", "dsl") for path in (ROOT / package).rglob("*.py"))
    return [
        (f"{path.relative_to(ROOT)}:{number}", line)
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "type: ignore" in line
    ]


def test_the_checker_is_silenced_with_a_reason() -> None:
    silent = [f"{place}: {line.strip()}" for place, line in ignores() if not REASONED.search(line)]
    assert not silent, "no reason in the line:\n" + "\n".join(silent)


def test_a_reason_is_told() -> None:
    assert REASONED.search("x = f()  # type: ignore[operator]  # all are numbers")
    assert not REASONED.search("x = f()  # type: ignore[operator]")
    assert not REASONED.search("x = f()  # type: ignore  # all are numbers")


@pytest.mark.parametrize("name", [n for n in vars(ArrayMethods) if not n.startswith("_")])
def test_a_method_has_the_options_of_its_function(name: str) -> None:
    method = inspect.getattr_static(ArrayMethods, name)
    if isinstance(method, property):
        return
    _, *options = inspect.signature(method).parameters.values()
    _, *own = inspect.signature(TABLE[UNDER_OTHER_NAMES.get(name, name)]).parameters.values()
    assert [(p.name, p.kind, p.default) for p in options] == [
        (p.name, p.kind, p.default) for p in own
    ]


NAMES = "".join(f"{name}\n" for name in dsl.__all__)
GREATEST = "x: int = max(1, 2)\n"
FILES = {
    "model_file.py": MODEL,
    "faulty_file.py": MODEL + "\n\n".join(["", *FAULTS]),
    "all_names.py": f"from dsl import *\n{NAMES}{GREATEST}",
    "own.py": f"from dsl import {', '.join(dsl.BUILTINS)}\n{GREATEST}",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What mypy's strict mode says to each of the files."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed; make lint runs it")
    directory = tmp_path_factory.mktemp("checked")
    for name, text in FILES.items():
        (directory / name).write_text(text, encoding="utf-8")
    options = ["--strict", "--follow-imports=silent", "--hide-error-context", "--no-pretty"]
    options += ["--cache-dir", str(directory / "cache")]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *(directory / name for name in FILES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = run.stdout.splitlines()
    assert lines and f"(checked {len(FILES)} source files)" in lines[-1], run.stdout + run.stderr
    return {name: "\n".join(x for x in lines if f"{name}:" in x) for name in FILES}


@pytest.mark.thorough  # `make lint` runs it, too
def test_a_model_file_passes_the_strict_checker(said: dict[str, str]) -> None:
    assert said["model_file.py"] == ""
    found = re.findall(r"\[([a-z-]+)\]", said["faulty_file.py"])
    assert found == list(FAULTS.values()), said["faulty_file.py"]


@pytest.mark.thorough
def test_the_checker_sees_every_name_of_the_language(said: dict[str, str]) -> None:
    assert said["all_names.py"] == ""
    assert re.findall(r"\[([a-z-]+)\]", said["own.py"]) == ["assignment"], said["own.py"]


def test_the_language_leaves_out_no_name_of_its_files() -> None:
    whole = [
        statement.module
        for statement in tree("dsl").body
        if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"
    ]
    assert len(whole) > 20
    files = (importlib.import_module(m.name) for m in pkgutil.walk_packages(dsl.__path__, "dsl."))
    assert {m.__name__ for m in files if hasattr(m, "__all__")} <= {*whole}, "dsl/__init__.py"
    for module in map(importlib.import_module, map(str, whole)):
        assert set(module.__all__) <= {*dsl.__all__, *dsl.BUILTINS}, module.__name__
    assert len(set(dsl.__all__)) == len(dsl.__all__)
