"""Every public function answers a misspelt option and arguments of a wrong kind with an error of
ours, which names the argument; Python's own never reaches the user."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dsl
import nncompile
import nncompile.train
from dsl import boolean, f32, i64
from dsl.building import building
from nncompile.diagnostics.errors import CompileError, ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.kinds import wrong_kind
from nncompile.elementwise.formula import Formula
from nncompile.ir.graph import Input
from nncompile.ir.op import Value


class Thing:
    """Nothing that any function takes."""


NONSENSE = {"text": "?", "None": None, "object": Thing(), "negative": -7, "empty": []}
REAL = Input("real", f32["n", 3])()
GIVEN = {
    "real": REAL,
    "square": Input("square", f32[3, 3])(),
    "ints": Input("ints", i64[3, 3])(),
    "bools": Input("bools", boolean["n"])(),
}

# What nobody calls: results, which the project makes, and what others derive from. A new class that
# users make is decorated with `suggests_options`, a new result is added here.
NOT_CALLED = {
    "CompiledModel",
    "CompiledStep",
    "Data",  # any
    "DType",  # f32 and its like are all that there are
    "Event",  # one a step
    "History",
    "Input",  # an op
    "Layer",
    "LineTime",
    "Measurement",
    "NonFinite",
    "Op",
    "Overfit",
    "Profile",
    "RateSearch",
    "Reducing",  # a type
    "Report",
    "Sample",
    "Step",
    "Type",  # f32["batch", 3]; the compiler makes thousands of them
    "Value",
}


def _public() -> Iterator[tuple[str, Callable[..., Any]]]:
    seen: set[int] = set()
    for module in (dsl, nncompile, nncompile.train):
        names = [*module.__all__, *(dsl.BUILTINS if module is dsl else ())]
        for name in names:
            function = getattr(module, name)
            is_error = inspect.isclass(function) and issubclass(function, Exception | Warning)
            is_result = inspect.isclass(function) and issubclass(function, tuple)
            if (
                function is Any
                or not callable(function)
                or is_error
                or is_result
                or name in NOT_CALLED
            ):
                continue
            if id(function) not in seen:
                seen.add(id(function))
                yield name, function


PUBLIC = dict(_public())


def test_what_is_not_called_is_there() -> None:
    assert all(
        any(name in module.__all__ for module in (dsl, nncompile, nncompile.train))
        for name in NOT_CALLED
    )
    assert len(PUBLIC) > 350


def check_a_misspelt_option(function: Callable[..., Any]) -> None:
    """No option is called so. A formula looks first at what it is applied to."""
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    args = [REAL] * len(needed) if isinstance(function, Formula) else []
    with pytest.raises(CompileError, match=r"(no_such_option_|takes no options)(.|\n)*hint: "):
        function(*args, no_such_option_=1)


def _calls(
    function: Callable[..., Any], value: Value
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Calls with one argument that is nonsense, and `value` for the others that must be given."""
    parameters = list(inspect.signature(function).parameters.values())
    needed = [p for p in parameters if p.kind < p.VAR_POSITIONAL and p.default is p.empty]
    keywords = {
        p.name: value for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    }
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        for wrong in NONSENSE.values():
            args, options = [value] * len(needed), dict(keywords)
            if parameter in needed:
                args[needed.index(parameter)] = wrong
            elif parameter.kind is not parameter.POSITIONAL_ONLY:
                options[parameter.name] = wrong
            yield args, options


@pytest.mark.parametrize("name", PUBLIC)
def test_misspelt_options_and_nonsense(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is not refused is taken."""
    monkeypatch.chdir(tmp_path)  # "?" is a path, too
    function = PUBLIC[name]
    check_a_misspelt_option(function)
    is_layer = inspect.isclass(function) and issubclass(function, dsl.Layer)
    raw = []
    for label, value in GIVEN.items():
        for args, options in _calls(function, value):
            try:
                with building():
                    made = function(*args, **options)
                    if is_layer:
                        made(value)
            except CompileError:
                pass
            except Exception as error:
                raw.append(f"{name}(*{args}, **{options}) of {label}: {error!r}")
    assert not raw, "\n".join(raw[:20])


def _built(layer: dsl.Layer, x: Value) -> Any:
    with building():
        return layer(x)


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        (
            lambda: dsl.stack([REAL, REAL], axs=1),
            "stack: got an unexpected keyword argument 'axs'",
            "did you mean 'axis'?",
        ),
        (
            lambda: REAL.sum(dim=0),
            "sum: got an unexpected keyword argument 'dim'",
            "it is called 'axis' here: axis=...",
        ),
        (lambda: dsl.diff(REAL, n="2"), 'diff: n must be a whole number, got "2"', None),
        (
            lambda: dsl.histogram(REAL, range=(1, 2, 3)),
            "histogram: range must be a tuple of 2: a number, a number or None, got (1, 2, 3)",
            None,
        ),
        (
            lambda: nncompile.evaluate([REAL], 3),  # type: ignore[arg-type]  # the mistake
            "evaluate: feeds must be a dict, got 3",
            None,
        ),
        (
            lambda: _built(dsl.MaskTokens(0, vocabulary="many"), GIVEN["ints"]),
            'MaskTokens: vocabulary must be a whole number or None, got "many"',
            None,
        ),
        (lambda: dsl.prelu(None, REAL), "prelu: x must be a value, an array or a number", None),
    ],
)
def test_messages(call: Callable[[], Any], message: str, hint: str | None) -> None:
    with pytest.raises(CompileError) as caught:
        call()
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint or hint is None
    assert caught.value.location is not None and caught.value.location.file == __file__


def test_an_error_from_within_stays() -> None:
    """Arguments that are what they should be are not blamed, and neither are those of which
    nothing is said."""

    @suggests_names
    def divided(x: float, by: Any = 0) -> float:
        return x / by

    with pytest.raises(ZeroDivisionError):
        divided(1.0)
    with pytest.raises(TypeError, match="unsupported operand"):
        divided(1.0, "2")
    with pytest.raises(ModelError, match=r'divided: x must be a number, got "1"'):
        divided("1")  # type: ignore[arg-type]  # the mistake


def test_what_annotations_say() -> None:
    def function(
        x: int | None = None,
        names: tuple[str, ...] = (),
        table: dict[str, int] | None = None,
        unknown: NotImported = 1,  # type: ignore[name-defined]  # noqa: F821
    ) -> None: ...

    assert wrong_kind(function, (1, ["a"]), {"table": {"a": 1}, "unknown": "?"}) is None
    assert wrong_kind(function, (1.5,), {}) == (
        "x",
        "must be a whole number or None, got 1.5",
        None,
    )
    assert wrong_kind(function, (), {"names": (1,)}) == (
        "names",
        "must be a list or tuple of texts, got (1,)",
        None,
    )
    assert wrong_kind(function, (), {"table": {"a": "b"}}) == (
        "table",
        "must be a dict or None, got {'a': 'b'}",
        None,
    )
