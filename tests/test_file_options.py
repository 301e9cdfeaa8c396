"""Options of model files: their types and bounds, what `--set` gives them, and mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nncompile.cli.settings import spread
from nncompile.diagnostics.errors import ModelError
from nncompile.program.file_options import option
from nncompile.program.model_file import load
from nncompile.program.option_values import separated
from tests.command_line import GOOD, fails, succeeds, written
from tests.test_docs import ROOT, blocks

OPTIONS = """\
from dsl import option
width = option(8, low=1, high=64, help="features of the stem")
lr: float = option(3e-2, low=1e-4, high=1.0, log=True)
kind, noisy = option("tanh", choices=["tanh", "relu"]), option(False)
sizes = option((3, 4), name="layer_sizes")
"""
SOURCE = OPTIONS + GOOD.replace("Dense(8, tanh", "Dense(width, tanh").replace("3e-2)", "lr)")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({}, "width", 8),
        ({"width": "32"}, "width", 32),
        ({"width": "1e1"}, "width", 10),
        ({"width": 16}, "width", 16),
        ({"lr": "1"}, "lr", 1.0),
        ({"lr": 1}, "lr", 1.0),
        ({"kind": "relu"}, "kind", "relu"),
        ({"noisy": "Yes"}, "noisy", True),
        ({"noisy": "0"}, "noisy", False),
        ({"layer_sizes": "5"}, "layer_sizes", (5,)),
        ({"layer_sizes": "(5, 6)"}, "layer_sizes", (5, 6)),
        ({"layer_sizes": [7, 8]}, "layer_sizes", (7, 8)),
    ],
)
def test_a_setting_has_the_type_of_the_default(
    file: Path, settings: dict[str, object], name: str, value: object
) -> None:
    found = load(file, settings=settings).settings
    assert list(found) == ["width", "lr", "kind", "noisy", "layer_sizes"]
    assert found[name] == value
    assert type(found[name]) is type(value)


def test_what_is_set_is_what_the_file_computes_with(file: Path) -> None:
    declared = load(file, settings={"width": "12", "lr": "0.5"})
    assert str(declared.model.parameters["stem.weight"].type) == "f32[4, 12]"
    assert load(file).model.parameters["stem.weight"].shape == (4, 8)
    assert "0.5" in str(declared.recipe.updates[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": "many"}, "width must be a whole number, got 'many'"),
        ({"width": "1.5"}, "width must be a whole number, got '1.5'"),
        ({"width": 1.5}, "width must be a whole number, got 1.5"),
        ({"width": True}, "width must be a whole number, got True"),
        ({"width": "0"}, "width must be a whole number from 1 to 64, got 0"),
        ({"width": "65"}, "from 1 to 64, got 65"),
        ({"lr": "nan"}, "lr must be a finite number"),
        ({"lr": "fast"}, "lr must be a number, got 'fast'"),
        ({"kind": "rel"}, "kind must be tanh or relu, got rel(.|\n)*did you mean 'relu'"),
        ({"noisy": "maybe"}, "noisy must be true or false, got 'maybe'"),
        ({"layer_sizes": "3,b"}, "layer_sizes must be a whole number, got 'b'"),
        ({"layer_sizes": 3}, "layer_sizes must be several, each a whole number, got 3"),
        ({"widht": "3"}, "net.py has no option 'widht'(.|\n)*width (.|\n)*did you mean 'width'"),
        ({"sizes": "3"}, "net.py has no option 'sizes'"),
    ],
)
def test_a_wrong_setting_is_refused(file: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(file, settings=settings)


def test_the_message_names_the_line_of_the_option(file: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load(file, settings={"lr": "7"})
    assert caught.value.location is not None
    assert caught.value.location.place == "net.py:3"


def test_a_file_without_options_says_how_one_is_declared(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nor any other(.|\n)*width = option\(3\)"):
        load(written(tmp_path, GOOD), settings={"width": "3"})


def test_an_imported_file_keeps_its_defaults(file: Path) -> None:
    source = "from net import net, width\nfrom dsl import option\nn = option(1)"
    declared = load(written(file.parent, source, "other.py"), settings={"n": "2"})
    try:
        assert declared.settings == {"n": 2}
        assert declared.module.width == 8
    finally:
        sys.modules.pop("net", None)


def test_a_file_with_options_is_a_program(file: Path) -> None:
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['width'])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "8\n", done.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print(option(3))", r"named by the variable(.|\n)*option\(64, name="),
        ("x = y = option(3)", "named by the variable"),
        ("x = max(option(3), 2)", "named by the variable"),
        ("x = option(3)\ny = option(4, name='x')", "two options 'x'"),
        ("def f():\n    x = option(3)\nf()", "top level of a file"),
        ("x = option([3])", "the default gives the type"),
        ("x = option(())", "the default gives the type"),
        ("x = option(None)", "the default gives the type"),
        ("x = option(3, low=4)", "must be a whole number of at least 4, got 3"),
        ("x = option(3, choices=[4, 5])", "must be 4 or 5, got 3"),
        ("x = option(3, choices=[])", "at least one choice"),
        ("x = option(3, choices=[3, 'a'])", "a choice must be a whole number, got 'a'"),
        ("x = option(3, choices=[3], low=1)", "not both"),
        ("x = option('a', low=1)", "bounds of numbers"),
        ("x = option(3, low=4, high=1)", "low must not be above high"),
        ("x = option(3, low=0, high=9, log=True)", "log needs low and high, both above 0"),
        ("x = option(3, name='a b')", "like that of a variable"),
        ("x = option(3, minimum=2)", "unexpected keyword argument 'minimum'"),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(written(tmp_path, GOOD + "from dsl import option\n" + source))


def test_outside_a_model_file_it_is_its_default() -> None:
    names: dict[str, object] = {"option": option}
    exec("x = option(0.5, low=0)", names)
    assert names["x"] == 0.5


def test_one_option_of_the_command_line_takes_several_values() -> None:
    assert spread(["--set", "a=1", "b=2", "f.py", "c=3"]) == [
        *("--set", "a=1", "--set", "b=2", "f.py", "c=3"),
    ]
    assert spread(["--set=a=1", "b=2"]) == ["--set=a=1", "--set", "b=2"]
    assert spread(["run", "-i", "x=1"]) == ["run", "-i", "x=1"]
    assert separated("(1,2),3, [4,5]") == ["(1,2)", "3", "[4,5]"]


def test_commands_take_settings(file: Path) -> None:
    printed = succeeds("show", file, "--options", "--set", "width=3", "kind=relu")
    assert [line.split()[:3] for line in printed.splitlines()][:3] == [
        ["width", "=", "3"],
        ["lr", "=", "0.03"],
        ["kind", "=", "relu"],
    ]
    assert "features of the stem" in printed
    assert "f32[4, 3]" in succeeds("show", "--set", "width=3", file)
    assert "did you mean 'width'?" in fails("compile", file, "--set", "widht=3")
    assert "is not NAME=VALUE" in fails("show", file, "--set", "width")
    assert "twice" in fails("show", file, "--set", "width=3", "width=4")


def test_the_file_of_the_page_has_the_options_that_it_shows(tmp_path: Path) -> None:
    (source,) = blocks(ROOT / "docs" / "command-line.md", "python")
    page = written(tmp_path, source)
    declared = load(page, settings={"width": "128", "rate": "1e-2"})
    assert declared.settings == {"width": 128, "rate": 0.01, "kind": "relu"}
    assert declared.recipe.model.parameters["dense.weight"].shape == (64, 128)


def test_a_file_without_options_is_told(good: Path) -> None:
    assert "net.py has no options" in succeeds("show", good, "--options")
