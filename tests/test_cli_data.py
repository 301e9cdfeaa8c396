"""Model files whose data are dicts of what people have beside arrays of numpy."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from nncompile.program.model_file import load
from nncompile.runtime.checkpoint import load_state
from tests.command_line import fails, run, succeeds

FILE = """
import numpy as np
from dsl import Dense, cross_entropy, f32, i64, model, sgd, training

@model
def net(x=f32["batch", 4], y=i64["batch"]):
    out = x >> Dense(3)
    return {"out": out, "loss": cross_entropy(out, y)}

recipe = training(net, optimizer=sgd(0.1), epochs=2, batch_size=8)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, 4)).astype(np.float32), rng.integers(0, 3, 64)
"""
STORED = """
class Stored:  # as a dataset of h5py or zarr
    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
    def __len__(self):
        return len(self.array)
    def __getitem__(self, rows):
        assert not isinstance(rows, int), "read row by row"
        return self.array[rows]

data = {"x": Stored(x), "y": y}, {"x": Stored(x[:16]), "y": y[:16]}
"""


def _file(tmp_path: Path, data: str) -> Path:
    path = tmp_path / "net.py"
    path.write_text(FILE + textwrap.dedent(data))
    return path


def test_arrays_in_files_stay_there(tmp_path: Path) -> None:
    """Their rows are read by commands that train, never one by one."""
    file = _file(tmp_path, STORED)
    data = load(file).data
    assert data is not None and type(data.train["x"]).__name__ == "Stored"
    assert "trained 16 steps" in succeeds("train", file, "--output", tmp_path / "run")
    weights = tmp_path / "run/checkpoint.safetensors"
    assert "net on the held-out data" in succeeds("evaluate", file, "--params", weights)
    assert "loss" in succeeds("lr-find", file, "--steps", "20")


def test_they_are_the_same_numbers(tmp_path: Path) -> None:
    """As those of arrays in memory, to the bit. Commands that look at all of them read them."""
    states = []
    for name, text in (
        ("plain", 'data = {"x": x, "y": y}, {"x": x[:16], "y": y[:16]}'),
        ("stored", STORED),
    ):
        file = _file(tmp_path, text)
        succeeds("train", file, "--output", tmp_path / name)
        states.append(load_state(tmp_path / name / "checkpoint.safetensors")[0])
    for path, x in states[0].items():
        np.testing.assert_array_equal(states[1][path], x, err_msg=path)
    assert "learns one batch" in succeeds("check", file)
    assert "all agree" in succeeds("verify", file, "--quick")
    quantized = tmp_path / "q.onnx"
    succeeds("compile", file, "--precision", "int8", "--initial", "-o", quantized)
    assert quantized.is_file()


@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("np.ma.masked_where(x > 2, x)", "input 'x' is a masked array: 4 elements are masked"),
        ("[*x.tolist()[:-1], [1.0]]", "padded(lists) makes an array and lengths of lists"),
        ("x.tolist()[0][0]", "input 'x' has rank 0, not 2"),
    ],
)
def test_what_is_no_array_is_refused_as_fit_refuses_it(
    data: str, message: str, tmp_path: Path
) -> None:
    """A mask is not dropped, and no error is numpy's own."""
    said = fails(
        "train", _file(tmp_path, f'data = {{"x": {data}, "y": y}}'), "--output", tmp_path / "run"
    )
    assert message in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
@pytest.mark.parametrize("data", ["x.tolist()", "x.astype(object)"])
def test_lists_and_objects_are_arrays(data: str, tmp_path: Path) -> None:
    file = _file(tmp_path, f'data = {{"x": {data}, "y": y.tolist()}}')
    result = run("train", file, "--output", tmp_path / "run")
    assert "trained 16 steps" in result.stdout, result.output


@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_parts_may_be_of_two_kinds(tmp_path: Path) -> None:
    """Each is taken as it would be alone."""
    pytest.importorskip("pandas")
    table = """
        import pandas
        held_out = pandas.DataFrame({**{f"c{i}": x[:16, i] for i in range(4)}, "y": y[:16]})
        data = {"x": TRAIN, "y": y}, held_out
    """
    stored = STORED[: STORED.index("data =")]
    file = _file(tmp_path, stored + textwrap.dedent(table).replace("TRAIN", "Stored(x)"))
    assert "held out" in run("train", file, "--output", tmp_path / "run").output
    masked = textwrap.dedent(table).replace("TRAIN", "np.ma.masked_where(x > 2, x)")
    assert "is a masked array" in fails(
        "train", _file(tmp_path, masked), "--output", tmp_path / "b"
    )


def test_what_is_stored_may_be_one_number(tmp_path: Path) -> None:
    stored = STORED.replace('"x": Stored(x), "y": y}', '"x": Stored(x), "y": Stored(y[0])}')
    assert "'y'" in fails("check", _file(tmp_path, stored))
