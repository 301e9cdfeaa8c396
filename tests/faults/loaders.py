"""Valid files of every kind that the project reads, and what reads them as a user has it do."""

from __future__ import annotations

import functools
import importlib
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from dsl import Dense, accuracy, adam, cross_entropy, f32, i64, model, relu, stack, training
from nncompile import Trainer, export
from nncompile.cli.app import app
from nncompile.program.model import Model
from nncompile.program.model_file import load
from nncompile.program.recipe import Recipe
from nncompile.runtime import StepRunner, load_state, read_array, read_arrays
from nncompile.runtime.child import in_child
from nncompile.runtime.tensor_files import metadata_of
from nncompile.train import CSVLog, JSONLog, RunDirectory, run_config
from nncompile.train.run_files import notes_in
from nncompile.train.run_places import latest
from nncompile.train.sources.files import read_table

MODEL_FILE = """\
from dsl import Dense, adam, f32, model, mse, training

WIDTH = 3

@model(predict="y", name="net")
def net(x=f32["batch", 3], t=f32["batch", 2]):
    y = x >> Dense(WIDTH * 2, name="stem") >> Dense(2, name="head")
    return {"y": y, "loss": mse(y, t)}

recipe = training(net, optimizer=adam(1e-3), batch_size=4, epochs=2)
"""
HAS_TORCH = find_spec("torch") is not None


@dataclass(frozen=True)
class Loader:
    """What reads a file: `read(path)` raises, where the file is wrong. `weight` says how often it
    is chosen; a `slow` one is left out of the suite."""

    name: str
    file: str
    read: Callable[[Path], Any]
    weight: int
    slow: bool = False
    others: tuple[str, ...] = ()  # files that are beside it


class WrongExit(Exception):
    """The command line ended in another way than it should."""


EXIT_CODES = {0, 2, 124, *(128 + n for n in (4, 6, 7, 8, 9, 11))}


def _command(*words: object) -> None:
    """Runs the command line, which may only end with a message of ours."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    wrong = result.exception is not None and not isinstance(result.exception, SystemExit)
    if wrong or result.exit_code not in EXIT_CODES or "Traceback" in result.output:
        raise WrongExit(f"exit code {result.exit_code}: {result.exception!r}\n{result.output}")
    if result.exit_code and "Error: " not in result.output:
        raise WrongExit(f"no message: {result.output!r}")
    hidden = [c for c in result.output if not c.isprintable() and c != "\n"]
    if hidden:
        raise WrongExit(f"control characters {hidden} in {result.output!r}")


def _run(path: Path) -> None:
    data = path.parent / "feeds.npz"
    trust = () if path.suffix == ".onnx" else ("--trust",)
    _command("run", path, "-i", data, "-o", path.parent / "out", "--timeout", 10, *trust)


def _feed(path: Path) -> None:
    text = path if path.suffix == ".npz" else f"image={path}"
    _command("run", path.parent / "net.onnx", "-i", text, "-o", path.parent / "out.npz")


def _step(path: Path) -> None:
    state, _ = load_state(path.parent / "step.state.safetensors")
    batch = {"image": np.ones((4, 6), np.float32), "label": np.zeros(4, np.int64)}

    def steps() -> None:
        StepRunner(path, state).step(batch)

    in_child(steps, what="the step", timeout=10)


@functools.cache
def net() -> Model:
    @model(predict=("logits", "a/b", "a_b"))
    def digits(image=f32["batch", 6], label=i64["batch"]):  # type: ignore[no-untyped-def]
        logits = image >> Dense(5, relu, name="stem") >> Dense(3, name="head")
        return {
            "logits": logits,
            "a/b": logits * 2,
            "a_b": logits * 3,
            "loss": cross_entropy(logits, label),
            "accuracy": accuracy(logits, label),
        }

    return digits


@functools.cache
def recipe() -> Recipe:
    return training(net(), minimize="loss", optimizer=adam(1e-3), batch_size=4)


@functools.cache
def trainer() -> Trainer:
    return Trainer(recipe())


def _log(path: Path) -> None:
    kind = CSVLog if path.suffix == ".csv" else JSONLog
    data = {"image": np.ones((4, 6), np.float32), "label": np.zeros(4, np.int64)}
    trainer().fit(data, epochs=1, callbacks=[kind(path, append=True)], verbose=0)


@functools.cache
def table_trainer() -> Trainer:
    @model
    def line(age=f32["batch"], weight=f32["batch"], label=i64["batch"]):  # type: ignore[no-untyped-def]
        logits = stack([age, weight], axis=-1) >> Dense(2, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return Trainer(training(line, optimizer=adam(1e-3), batch_size=2))


def _fit_table(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table_trainer().fit(path, epochs=1, verbose=0)


def _read_table_apart(path: Path) -> None:
    in_child(lambda: len(read_table(path)), what="it", timeout=20)


LOADERS = (
    Loader("npy", "x.npy", read_array, 14),
    Loader("npz", "feeds.npz", read_arrays, 10),
    Loader("npz, packed", "packed.npz", read_arrays, 6),
    Loader("run, npy", "x.npy", _feed, 3, others=("net.onnx",)),
    Loader("run, npz", "feeds.npz", _feed, 3, others=("net.onnx",)),
    Loader("safetensors", "step.state.safetensors", load_state, 14),
    Loader("metadata", "step.state.safetensors", metadata_of, 2),
    Loader("checkpoint", "checkpoint.safetensors", lambda p: trainer().load(p), 10),
    Loader("weights", "checkpoint.safetensors", lambda p: trainer().load_params(p), 3),
    Loader(
        "params",
        "checkpoint.safetensors",
        lambda p: export(net(), p.parent / "out.onnx", params=p),
        3,
    ),
    Loader(
        "external weights",
        "w.safetensors",
        lambda p: export(net(), p.parent / "out.onnx", params=trainer().params, external_data=p),
        2,
    ),
    Loader("onnx", "net.onnx", _run, 16, others=("feeds.npz",)),
    Loader(
        "onnx, external", "outer.onnx", _run, 4, others=("outer.weights.safetensors", "feeds.npz")
    ),
    Loader(
        "external",
        "outer.weights.safetensors",
        lambda p: _run(p.parent / "outer.onnx"),
        2,
        others=("outer.onnx", "feeds.npz"),
    ),
    Loader("step", "step.onnx", _step, 3, others=("step.state.safetensors",)),
    Loader("model file", "net.py", lambda p: in_child(lambda: str(load(p).model), what="it"), 3),
    Loader("run", "config.json", lambda p: run_config.read(p.parent), 2),
    Loader("run, latest", "latest", lambda p: latest(p.parent), 1),
    Loader("run, notes", "noted.safetensors", notes_in, 2),
    Loader("log, csv", "log.csv", _log, 2),
    Loader("log, json", "log.jsonl", _log, 1),
    *(
        (
            Loader("csv", "table.csv", read_table, 4),
            Loader("tsv", "table.tsv", read_table, 2),
            Loader("fit, csv", "table.csv", _fit_table, 4),
        )
        if find_spec("pandas") is not None
        else ()
    ),
    *(
        (
            Loader("parquet", "table.parquet", _read_table_apart, 6),
            Loader("feather", "table.feather", _read_table_apart, 3),
        )
        if find_spec("pyarrow") is not None
        else ()
    ),
    *(
        (
            Loader("torchscript", "net.pt", _run, 6, slow=True, others=("feeds.npz",)),
            Loader("torchscript step", "step.pt", _run, 2, slow=True, others=("feeds.npz",)),
            Loader("pt2", "net.pt2", _run, 1, slow=True, others=("feeds.npz",)),
        )
        if HAS_TORCH
        else ()
    ),
)


def make_files(directory: Path, with_torch: bool) -> None:
    """Writes a valid file for each loader."""
    random = np.random.default_rng(0)
    image = random.normal(size=(4, 6)).astype(np.float32)
    np.save(directory / "x.npy", image)
    np.savez(directory / "feeds.npz", image=image)
    np.savez_compressed(directory / "packed.npz", a=image, b=np.arange(50), c=np.array(["a"]))
    trained = trainer()
    data = {"image": image, "label": np.array([0, 1, 2, 0])}
    logs = [CSVLog(directory / "log.csv"), JSONLog(directory / "log.jsonl")]
    trained.fit(data, epochs=1, verbose=0, callbacks=logs)
    trained.save(directory / "checkpoint.safetensors")
    export(net(), directory / "net.onnx", params=trained.params)
    export(net(), directory / "outer.onnx", params=trained.params, external_data=True)
    export(recipe(), directory / "step.onnx", to="step")
    (directory / "net.py").write_text(MODEL_FILE)
    run = RunDirectory(directory / "run", exports=False, about={"options": {"patience": 3}})
    trained.fit(data, epochs=1, verbose=0, callbacks=run)
    shutil.copy(directory / "run" / "config.json", directory)
    (state,) = (directory / "run" / "checkpoints").iterdir()
    shutil.copy(state, directory / "noted.safetensors")
    shutil.rmtree(directory / "run")
    (directory / "latest").write_text("run\n")
    shutil.copy(directory / "outer.weights.safetensors", directory / "w.safetensors")
    columns = {
        "age": np.array([1, 2, 3, 4], np.float32),
        "weight": np.array([0.5, -1, 2, 1e3], np.float32),
        "label": np.array([0, 1, 1, 0]),
    }
    rows = zip(*(map(str, x.tolist()) for x in columns.values()), strict=True)
    lines = [list(columns), *map(list, rows)]
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        text = "".join(separator.join(line) + "\n" for line in lines)
        (directory / f"table{suffix}").write_text(text)
    if find_spec("pyarrow") is not None:
        table = importlib.import_module("pyarrow").table(columns)
        importlib.import_module("pyarrow.parquet").write_table(table, directory / "table.parquet")
        importlib.import_module("pyarrow.feather").write_feather(table, directory / "table.feather")
    if with_torch:
        export(net(), directory / "net.pt", params=trained.params, to="torchscript")
        export(net(), directory / "net.pt2", params=trained.params, to="pt2")
        export(recipe(), directory / "step.pt", to="torchscript-step")
