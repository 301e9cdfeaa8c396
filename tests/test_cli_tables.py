"""Model files whose data are a table in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nncompile.diagnostics.errors import FileError, ModelError
from nncompile.program.model_file import load
from nncompile.train.sources.files import read_table
from tests.command_line import fails, succeeds

FILE = """
from dsl import Dense, accuracy, cross_entropy, f32, i64, isnan, model, training, where

@model
def net(x=f32["batch", 3].may_be_nan(), y=i64["batch"]):
    out = where(isnan(x), 0.0, x) >> Dense(2)
    return {"out": out, "loss": cross_entropy(out, y), "accuracy": accuracy(out, y)}

recipe = training(net, epochs=2, batch_size=8)
data = "train.csv", "held_out.csv"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    for name, count in (("train.csv", 40), ("held_out.csv", 16)):
        rows = [",".join(f"{x:.3f}" for x in rng.normal(size=3)) for _ in range(count)]
        rows = [f"{row},Rome,{i % 2}" for i, row in enumerate(rows)]
        rows[3] = ",,0.5,Rome,1"
        (tmp_path / name).write_text("a,b,c,city,y\n" + "\n".join(rows) + "\n")
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_a_model_is_trained_on_a_table_beside_its_file(file: Path) -> None:
    printed = succeeds("train", file, "--output", file.parent / "run")
    assert "held out" in printed and "trained 10 steps" in printed
    assert "learns one batch" in succeeds("check", file)


@pytest.mark.filterwarnings("ignore::nncompile.train.DataNote")
def test_a_table_that_does_not_fit_is_told(file: Path) -> None:
    table = file.parent / "train.csv"
    table.write_text(table.read_text().replace("a,b,c,city,y", "a,b,c,city,label"))
    said = fails("train", file, "--output", file.parent / "run")
    assert "FeedError: the table has no column 'y'" in said
    table.unlink()
    said = fails("train", file, "--output", file.parent / "run")
    assert "FileError: there is no file" in said and "held_out.csv" in said
    file.write_text(FILE.replace('"train.csv", "held_out.csv"', "3"))
    with pytest.raises(ModelError, match=r"`data` of net\.py is int"):
        _ = load(file).data


def test_a_kind_of_number_that_arrow_does_not_have_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged header of a feather file may declare one."""
    arrow = pytest.importorskip("pyarrow")
    feather = pytest.importorskip("pyarrow.feather")

    def unknown(_: object) -> object:
        raise arrow.lib.ArrowNotImplementedError("Integers with less than 8 bits not implemented")

    monkeypatch.setattr(feather, "read_table", unknown)
    (tmp_path / "table.feather").write_bytes(b"ARROW1")
    with pytest.raises(FileError, match=r"cannot read .*less than 8 bits"):
        read_table(tmp_path / "table.feather")
