"""`evaluate` and `predict`: files of examples in, metrics or files of outputs out."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from nncompile.cli.init import NEXT
from nncompile.program.model_file import load
from nncompile.runtime import Session, read_array, read_arrays
from nncompile.train import Trainer
from tests.command_line import fails, run, succeeds
from tests.hand_made import build
from tests.test_cli_json import found

HAS_TABLES = bool(find_spec("pandas") and find_spec("pyarrow"))
pytestmark = [
    pytest.mark.skipif(not HAS_TABLES, reason="needs pandas and pyarrow"),
    pytest.mark.filterwarnings("always::nncompile.train.DataNote"),
]

NEW = ("--data", "PLACE/new.feather", "--output", "PLACE/out.csv")
LEAVES = ("--data", "PLACE/held.csv", "--target", "leaves")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trained tabular project, with the held-out rows as files of all kinds."""
    import pandas as pd

    assert "tabular" in NEXT
    place = tmp_path_factory.mktemp("tabular")
    succeeds("init", "tabular", place)
    args = ("--output", place / "run", "--steps", 20, "--set", "width=8", "--quiet")
    assert run("train", place / "tabular.py", *args).exit_code == 0
    module: Any = load(place / "tabular.py").module
    table = pd.DataFrame(module.held_out).iloc[:130]
    table["leaves"] = table["leaves"].astype(float)
    table.to_csv(place / "held.csv", index=False)
    table.to_csv(place / "held.tsv", index=False, sep="\t")
    table.to_parquet(place / "held.parquet")
    table.drop(columns="leaves").to_feather(place / "new.feather")
    part = {name: column[:130] for name, column in module.held_out.items()}
    arrays = {"numbers": module.numbers_of(part), "plan": module.plans.encode(part["plan"])}
    np.savez(place / "held.npz", leaves=part["leaves"].astype(np.float32), **arrays)
    np.savez(place / "words.npz", numbers=arrays["numbers"], plan=np.array(part["plan"]))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def expected(project: Path) -> np.ndarray:
    arrays = read_arrays(project / "held.npz")
    del arrays["leaves"]
    return Session(project / "run" / "model.onnx", threads=1).run(arrays)["probability"]


def metrics(*args: object) -> dict[str, float]:
    return found("evaluate", *args)["metrics"]


def test_a_run_is_evaluated_with_its_options(project: Path) -> None:
    declared = load(project / "tabular.py", settings={"width": "8"})
    assert declared.data is not None and declared.data.validation is not None
    trainer = Trainer(declared.recipe, threads=1)
    trainer.load(project / "run" / "checkpoint.safetensors")
    known = trainer.evaluate(declared.data.validation)
    for args in ((project / "run",), (project / "run", "--best")):
        assert metrics(*args, "--threads", 1) == pytest.approx(known, rel=1e-6)
    initial = metrics(project / "tabular.py", "--set", "width=8")
    assert initial["loss"] > known["loss"] + 1e-3
    args = (project / "tabular.py", "--set", "width=8", "--params", project / "run")
    assert metrics(*args) == pytest.approx(known, rel=1e-5)


def test_every_kind_of_file_has_the_same_metrics(project: Path) -> None:
    known = metrics(project / "run", "--data", project / "held.npz")
    assert known != metrics(project / "run")
    for name in ("held.csv", "held.tsv", "held.parquet"):
        assert metrics(project / "run", "--data", project / name) == pytest.approx(known, rel=1e-5)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("held.csv", "out.csv"),
        ("held.tsv", "out.parquet"),
        ("held.parquet", "out.npy"),
        ("new.feather", "out.npz"),
        ("held.npz", "out.tsv"),
        ("words.npz", "out.npy"),
    ],
)
def test_predictions_of_every_kind_of_file(
    project: Path, expected: np.ndarray, source: str, output: str
) -> None:
    import pandas as pd

    path = project / output
    described = found(
        *("predict", project / "run", "-i", project / source, "-o", path, "--batch-size", 50),
        *(("--drop", "leaves") if source == "held.npz" else ()),
    )
    assert described["examples"] == 130
    assert described["files"] == [{"path": str(path), "bytes": path.stat().st_size}]
    if path.suffix == ".npy":
        got = read_array(path)
    elif path.suffix == ".npz":
        got = read_arrays(path)["probability"]
    elif path.suffix == ".parquet":
        got = pd.read_parquet(path)["probability"].to_numpy()
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        got = pd.read_csv(path, sep=separator)["probability"].to_numpy()
    assert got.shape == (130,)
    np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_an_onnx_file_needs_to_be_told_of_a_target(project: Path, expected: np.ndarray) -> None:
    model, path = project / "run" / "model.onnx", project / "o.npy"
    args = ("predict", model, "-i", project / "held.csv", "-o", path)
    assert "--drop COLUMN leaves a column out" in fails(*args)
    assert not path.exists()
    assert run(*args, "--drop", "leaves").exit_code == 0
    np.testing.assert_allclose(read_array(path), expected, rtol=2e-6)
    assert "no column 'leave' to drop" in fails(*args, "--drop", "leave")


def test_an_onnx_file_is_compared_with_a_column(project: Path) -> None:
    known = metrics(project / "run", "--data", project / "held.csv")
    for name in ("held.csv", "held.npz"):
        args = (project / "run" / "model.onnx", "--data", project / name, "--target")
        found = metrics(*args, "leaves=probability")
        assert found == metrics(*args, "leaves")
        assert list(found) == ["accuracy", "cross_entropy", "roc_auc"]
        assert list(found.values()) == pytest.approx(
            [known["accuracy"], known["loss"], known["auc"]], rel=1e-4
        )


def test_rows_of_numbers_are_columns_and_images_are_not(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from dsl import Dense, f32, model\n"
        "@model(predict=('two', 'square', 'total'))\n"
        "def net(x=f32['batch', 3]):\n"
        "    y = x >> Dense(2)\n"
        "    return {'two': y, 'square': y.reshape(x.shape[0], 2, 1) * 1.0, 'total': y.sum()}\n"
    )
    model, x = tmp_path / "net.onnx", np.random.default_rng(0).normal(size=(7, 3))
    np.save(tmp_path / "x.npy", x)
    succeeds("compile", tmp_path / "net.py", "-o", model, "--initial")
    args = ("predict", model, "-i", tmp_path / "x.npy", "-o")
    assert "output 'total' has no row for each" in fails(*args, tmp_path / "y.npz")
    source = (tmp_path / "net.py").read_text().replace(", 'total')", ")")
    (tmp_path / "net.py").write_text(source)
    succeeds("compile", tmp_path / "net.py", "-o", model, "--initial")
    assert "a table cannot hold output 'square'" in fails(*args, tmp_path / "y.csv")
    assert "has 2 outputs" in fails(*args, tmp_path / "y.npy")
    succeeds(*args, tmp_path / "y.npz", "--batch-size", 3)
    two = read_arrays(tmp_path / "y.npz")["two"]
    feeds = {"x": x.astype(np.float32)}
    np.testing.assert_allclose(two, Session(model, threads=1).run(feeds)["two"], rtol=1e-5)
    (tmp_path / "net.py").write_text(source.replace("'two', 'square'", "'two',"))
    succeeds("compile", tmp_path / "net.py", "-o", model, "--initial")
    succeeds(*args, tmp_path / "y.csv", "--batch-size", 3)
    lines = (tmp_path / "y.csv").read_text().splitlines()
    assert lines[0] == "two_0,two_1"
    np.testing.assert_allclose(np.loadtxt(lines[1:], delimiter=","), two, rtol=1e-6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("evaluate", "RUN/model.onnx"), "has neither metrics nor data"),
        (("evaluate", "RUN", "--target", "leaves"), "--target is for an .onnx file"),
        (("evaluate", "RUN/model.onnx", *LEAVES[:3], "leave"), "did you mean 'leaves'?"),
        (("evaluate", "RUN/model.onnx", *LEAVES[:3], "leaves=prob"), "no output 'prob'"),
        (("evaluate", "RUN/best"), "best is not a run directory"),
        (("evaluate", "PLACE"), "holds runs, and is not one itself\n  hint: choose one of "),
        (("predict", "PLACE/9", *NEW), "9 is not there\n  hint: choose one of "),
        (("predict", "FILE", *NEW), "is a model file, which has no weights"),
        (("evaluate", "RUN", "--set", "width=4"), "leave out --set"),
        (("evaluate", "RUN", "--data", "PLACE/none.csv"), "there is no file"),
        (("evaluate", "RUN", "--data", "PLACE/tabular.py"), "is not a table"),
        (("evaluate", "FILE", "--best"), "--best is that of a run"),
        (("predict", "RUN", "-i", "PLACE/held.csv", "-o", "PLACE/out.xls"), "cannot write"),
        (("predict", "RUN", "-i", "PLACE/a.txt", "-o", "PLACE/out.csv"), "cannot read examples"),
        (
            ("predict", "RUN", "-i", "PLACE/no.csv", "-o", "PLACE/out.csv"),
            "Error: there is no file",
        ),
        (("predict", "RUN", "-i", "PLACE/held.csv", "-o", "PLACE/held.csv"), "of the examples"),
        (("predict", "RUN", "-i", "PLACE/bad.npy", "-o", "PLACE/out.csv"), "bad.npy"),
        (("predict", "RUN", "-i", "PLACE/bad.parquet", "-o", "PLACE/out.csv"), "bad.parquet"),
        (("predict", "RUN", "-i", "PLACE/empty.csv", "-o", "PLACE/out.csv"), "empty.csv"),
        (("predict", "RUN", "-i", "PLACE/names.csv", "-o", "PLACE/out.csv"), "no examples"),
        (("predict", "RUN", "-i", "PLACE/other.csv", "-o", "PLACE/out.csv"), "no column 'plan'"),
    ],
)
def test_mistakes_are_told(project: Path, args: tuple[str, ...], message: str) -> None:
    for name, content in {
        "bad.npy": b"\x93NUMPY\x01\x00v\x00",
        "bad.parquet": b"PAR1 no",
        "empty.csv": b"",
        "names.csv": b"age,income,visits,plan\n",
        "other.csv": b"age,income,visits\n1,2,3\n",
    }.items():
        (project / name).write_bytes(content)
    places = {"RUN": project / "run", "PLACE": project, "FILE": project / "tabular.py"}
    full = []
    for arg in args:
        head, slash, rest = arg.partition("/")
        full.append(f"{places[head]}{slash}{rest}" if head in places else arg)
    assert message in fails(*full)
    assert not (project / "out.xls").exists()


def test_a_run_without_a_file_is_told(project: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(project / "run", copy)
    config = json.loads((copy / "config.json").read_text())
    del config["file"]
    (copy / "config.json").write_text(json.dumps(config))
    assert "nncompile evaluate FILE --params" in fails("evaluate", copy)
    assert config["hyperparameters"] == {"width": 8, "drop": 0.2, "rate": 3e-3}


def test_a_model_of_a_fixed_batch_predicts_all(tmp_path: Path) -> None:
    """As many examples as it takes at a time; what fills up the last ones is left out."""
    w = np.arange(15, dtype=np.float32).reshape(5, 3)
    fixed = build("test (float[4, 5] x) => (float[4, 3] y) { y = MatMul (x, w) }", {"w": w})
    onnx.save(fixed, tmp_path / "fixed.onnx")
    x = np.random.default_rng(0).normal(size=(22, 5)).astype(np.float32)
    for count in (22, 8, 3):
        np.save(tmp_path / "x.npy", x[:count])
        args = ("--data", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            printed = run("predict", tmp_path / "fixed.onnx", *args)
        assert printed.exit_code == 0, printed.output
        np.testing.assert_allclose(np.load(tmp_path / "y.npy"), x[:count] @ w, rtol=1e-5)
        text = printed.output + "".join(str(w.message) for w in told)
        assert ("takes 4 examples at a time: the last" in text) == (count != 8)
    one = build("test (float[4, 5] x) => (float[1, 1] y) { y = ReduceSum (x) }")
    onnx.save(one, tmp_path / "one.onnx")
    message = fails("predict", tmp_path / "one.onnx", *args)
    assert "has size 3 on axis 0, not 4" in message
