"""Model files: what is found in them, and the messages for wrong ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nncompile.diagnostics.errors import CompileError, FileError, ModelError, ShapeError
from nncompile.program.model_file import load

MODEL = """
import numpy as np
from dsl import Dense, f32, mean_squared_error, model, training

@model
def net(x=f32["batch", 3], y=f32["batch", 1]):
    prediction = x >> Dense(1)
    return {"prediction": prediction, "loss": mean_squared_error(prediction, y)}
"""


def write(directory: Path, text: str, name: str = "net.py") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_model_a_recipe_and_data_are_found(tmp_path: Path) -> None:
    declared = load(
        write(
            tmp_path,
            MODEL
            + """
again = net
recipe = training(net, minimize="loss")
data = {"x": np.ones((4, 3), np.float32), "y": [[1.0], [2.0], [3.0], [4.0]]}
""",
        )
    )
    assert list(declared.models) == ["net"]
    assert declared.model is declared.recipe.model
    assert declared.data is not None
    assert declared.data.train["y"] == [[1.0], [2.0], [3.0], [4.0]]  # as it was given
    assert declared.data.validation is None


def test_data_may_be_a_pair_and_a_function(tmp_path: Path) -> None:
    pair = "({'x': np.zeros(3)}, {'x': np.ones(2)})"
    for text in (f"data = {pair}", f"def data():\n    return {pair}"):
        data = load(write(tmp_path, MODEL + text)).data
        assert data is not None and data.validation is not None
        np.testing.assert_array_equal(data.validation["x"], np.ones(2))


def test_a_file_without_data_or_recipe(tmp_path: Path) -> None:
    declared = load(write(tmp_path, MODEL))
    assert declared.data is None
    with pytest.raises(ModelError, match="declares no recipe"):
        _ = declared.recipe


def test_files_beside_it_can_be_imported_and_the_path_is_left_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, "WIDTH = 5", "settings_of_this_test.py")
    before = list(sys.path)
    text = MODEL.replace("Dense(1)", "Dense(WIDTH) >> Dense(1)")
    path = write(tmp_path, "from settings_of_this_test import WIDTH\n" + text)
    assert load(path).model.parameters["dense.weight"].shape == (3, 5)
    assert sys.path == before


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = load(write(tmp_path / "a", MODEL))
    second = load(write(tmp_path / "b", MODEL.replace("Dense(1)", "Dense(1, bias=False)")))
    assert first.module is not second.module
    assert "dense.bias" in first.model.parameters
    assert "dense.bias" not in second.model.parameters


def test_a_file_called_as_this_package_is_still_the_users(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL.replace("Dense(1)", "Dense(1, name='a.b')"), "dsl.py")
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.location is not None
    assert caught.value.location.file == str(path)


SEVERAL = (
    MODEL
    + """
@model
def other(x=f32["batch", 3]):
    return x * 2
"""
)


def test_several_models_need_a_choice(tmp_path: Path) -> None:
    path = write(tmp_path, SEVERAL)
    with pytest.raises(ModelError, match="several models: net, other") as caught:
        _ = load(path).model
    assert caught.value.hint == "choose one: --model net"
    assert load(path, model="other").model.name == "other"
    with pytest.raises(ModelError, match="declares no model 'third'"):
        _ = load(path, model="third").model


def test_the_only_recipe_chooses_the_model(tmp_path: Path) -> None:
    path = write(tmp_path, SEVERAL + 'recipe = training(net, minimize="loss")')
    assert load(path).model.name == "net"
    assert load(path, model="net").recipe.model.name == "net"
    with pytest.raises(ModelError, match="no recipe"):
        _ = load(path, model="other").recipe


def test_recipes_are_chosen_by_name(tmp_path: Path) -> None:
    two = "slow = training(net, batch_size=1)\nfast = training(net, batch_size=64)"
    path = write(tmp_path, MODEL + two)
    with pytest.raises(ModelError, match="several recipes: slow, fast"):
        _ = load(path).recipe
    assert load(path, model="fast").recipe.batch_size == 64
    assert load(path, model="fast").model.name == "net"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("x = 1\ny = 1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f():\n    raise KeyError('who')\n\nf()\n", 2, "KeyError: 'who'"),
        ("def net(:\n    pass\n", 1, "not Python: invalid syntax"),
        ("import no_such_module_anywhere\n", 1, "No module named 'no_such_module_anywhere'"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
        ("assert False\n", 1, "AssertionError"),
    ],
)
def test_what_a_file_raises_is_told_at_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert message in str(caught.value)
    assert caught.value.location is not None
    assert (caught.value.location.file, caught.value.location.line) == (str(path), line)


def test_a_mistake_in_the_model_keeps_its_own_message(tmp_path: Path) -> None:
    path = write(tmp_path, MODEL.replace("Dense(1)", "(lambda x: x @ np.ones((4, 2), np.float32))"))
    with pytest.raises(ShapeError) as caught:
        load(path)
    assert caught.value.location is not None
    assert (caught.value.location.file, caught.value.location.line) == (str(path), 7)


def test_data_that_raises_is_told_at_its_line(tmp_path: Path) -> None:
    declared = load(write(tmp_path, MODEL + "def data():\n    return open('nowhere.npz')\n"))
    with pytest.raises(ModelError, match="FileNotFoundError") as caught:
        _ = declared.data
    assert caught.value.location is not None
    assert caught.value.location.line == 10


@pytest.mark.parametrize("value", ["3", "[1, 2]", "({}, {}, {})", "({}, 5)", "lambda: 5"])
def test_data_of_another_kind_is_refused(tmp_path: Path, value: str) -> None:
    declared = load(write(tmp_path, f"{MODEL}data = {value}\n"))
    with pytest.raises(ModelError, match=r"`data` of net\.py is"):
        _ = declared.data


def test_files_that_are_no_model_files(tmp_path: Path) -> None:
    write(tmp_path, MODEL, "near.py")
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\x00\xff\xfe\x01")
    exported = tmp_path / "model.onnx"
    exported.write_bytes(b"\x08\x0a")
    for path, message in [
        (tmp_path / "missing.py", "no such file"),
        (tmp_path / "nowhere" / "missing.py", "no such file"),
        (tmp_path, "not a Python file"),
        (binary, "not Python source text"),
        (exported, "not a Python file"),
    ]:
        with pytest.raises(FileError, match=message):
            load(path)


def test_a_file_that_declares_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"empty.py declares no model"):
        load(write(tmp_path, "x = 3\n", "empty.py"))


def test_every_error_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        load(write(tmp_path, "raise ValueError('first\\nsecond')\n"))
    assert "net.py:1" in str(caught.value)
