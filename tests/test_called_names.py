"""Messages name what the user called, whatever it is composed of."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import dsl
from dsl import boolean, f32, i64, model
from dsl.building import building
from nncompile.diagnostics.errors import CompileError, ShapeError
from nncompile.diagnostics.locations import Location, call_label, user_location
from nncompile.ir.graph import Input
from nncompile.ir.op import Value

GIVEN: dict[str, Any] = {
    "real": Input("real", f32["n", 3])(),
    "other": Input("other", f32["n", 4])(),
    "ints": Input("ints", i64[3, 3])(),
    "bools": Input("bools", boolean["n"])(),
    "scalar": Input("scalar", f32[()])(),
    "cube": Input("cube", f32[2, 3, 4, 5, 6])(),
    "far": 9,
    "text": "?",
}
VALUES = ("real", "other", "ints", "bools", "scalar", "cube")
FUNCTIONS = {
    name: f
    for name, f in sorted(vars(dsl).items())
    if callable(f) and not inspect.isclass(f) and not name.startswith("_")
}


def calls(function: Callable[..., Any]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Calls of which most are mistakes: of wrong types, ranks and sizes, and of wrong options."""
    parameters = inspect.signature(function).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in places)
    count = max(needed, min(1, len(places)))
    options = [*places[count:], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)]
    for first, then in itertools.product(GIVEN, repeat=2):
        yield [GIVEN[first], *[GIVEN[then]] * (count - 1)][:count], {}
    for first, option in itertools.product(VALUES, options):
        for wrong in ("far", "text", "real"):
            yield [GIVEN[first]] * count, {option.name: GIVEN[wrong]}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_message_names_the_function(name: str) -> None:
    function = FUNCTIONS[name]
    names = {n for n, f in FUNCTIONS.items() if f is function}
    names.add(getattr(function, "__name__", name))
    words = re.compile("|".join(rf"(?<!\w){re.escape(n)}(?!\w)" for n in names), re.IGNORECASE)
    for args, options in calls(function):
        try:
            function(*args, **options)
        except CompileError as error:
            assert words.search(error.message), error.message
            assert error.location is not None
            assert error.location.file == __file__
        except (TypeError, ValueError, AttributeError):
            pass  # Python's own, about what is of no type that the function takes


LAYERS = {
    name: layer
    for name, layer in sorted(vars(dsl).items())
    if inspect.isclass(layer) and issubclass(layer, dsl.Layer) and layer is not dsl.Layer
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_message_names_the_layer(name: str) -> None:
    """Where it is made and where it is called; the line may be within a layer that holds it."""
    layer = LAYERS[name]
    words = re.compile(rf"(?<!\w){layer.__name__}(?!\w)")
    seen = 0
    for options in ((), (2,), (9,), ("?",), (2, 2), (0.5,), (2, 2, 2)):
        for given in VALUES:
            try:
                with building():
                    GIVEN[given] >> layer(*options)
            except CompileError as error:
                seen += 1
                assert words.search(error.message), error.message
            except (TypeError, ValueError, AttributeError):
                pass
    assert seen


def message(mistake: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(CompileError) as caught:
        mistake(*args)
    return caught.value.message


def test_a_function_is_named_beside_the_op() -> None:
    real, other, ints = (GIVEN[name] for name in ("real", "other", "ints"))
    assert message(dsl.kthvalue, real, 5).startswith("kthvalue (top_k): k = 5")
    assert message(dsl.inv, ints).startswith("inv: elements must be f32 or f64")
    assert message(lambda: real[:, 7]).startswith("indexing: index 7")
    assert message(real.sum, 4).startswith("sum: axis 4")
    assert message(lambda: real + other).startswith("add: sizes 3 ≠ 4")
    assert message(lambda: real @ other).startswith("matmul: ")
    assert message(dsl.adadelta, "?").startswith("adadelta: a learning rate must be a number")


def test_a_layer_is_named_beside_the_op() -> None:
    def net(image=f32["batch", 1, 3, 3]):  # type: ignore[no-untyped-def]
        return image >> dsl.Conv2d(2, 5)

    assert message(model, net).startswith("Conv2d: a kernel that spans 5")


def test_what_is_in_the_middle_is_not_named() -> None:
    x: Value = GIVEN["real"]
    half = dsl.cast(x, dsl.f16)
    assert message(dsl.median, half, 7).startswith("median: axis 7")  # wrapped twice
    with pytest.raises(ShapeError, match=r"^sum: axis 7"):
        [dsl.sum(a, 7) for a in (x,)]


def test_a_function_of_the_users_own_is_where_the_line_is() -> None:
    def mine(x: Value) -> Value:
        return dsl.flip(x, 9)

    assert message(mine, GIVEN["real"]).startswith("flip: axis 9")
    location = user_location()
    assert location is None or location.call == ""


@pytest.mark.parametrize(
    ("call", "label", "expected"),
    [
        ("flip", "slice", "flip (slice)"),
        ("inv", "inverse", "inv"),
        ("concatenate", "concat", "concatenate"),
        ("Twice", "twice", "Twice"),
        ("MaxPool2d", "max_pool", "MaxPool2d"),
        ("", "slice", "slice"),
    ],
)
def test_names_that_say_the_same_are_one(call: str, label: str, expected: str) -> None:
    assert call_label(Location("net.py", 1, "", call), label) == expected
    assert call_label(None, label) == label
