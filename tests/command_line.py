"""A model file, and helpers that run the command line on it."""

from __future__ import annotations

import functools
from pathlib import Path

import typer.main
import typer.testing
from typer.testing import CliRunner, Result

from nncompile.cli.app import app

# The commands are made of their functions once, and not for each of a thousand calls.
typer.testing._get_command = functools.cache(typer.main.get_command)  # type: ignore[attr-defined]

GOOD = """\
import numpy as np
from dsl import Dense, Dropout, accuracy, adam, cross_entropy, f32, i64, model, softmax, tanh
from dsl import training

@model(predict=("probabilities", "best"))
def net(x=f32["batch", 4], label=i64["batch"]):
    logits = x >> Dense(8, tanh, name="stem") >> Dropout(0.1) >> Dense(3, name="head")
    return {
        "probabilities": softmax(logits),
        "best": logits.argmax(-1),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }

recipe = training(net, optimizer=adam(3e-2), batch_size=16, epochs=8)

def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 4)).astype(np.float32)
    label = x[:, :3].argmax(1)
    return {"x": x[:60], "label": label[:60]}, {"x": x[60:], "label": label[60:]}
"""

# The least that trains: for processes, each of which compiles it anew.
SMALL = """\
import numpy as np
from dsl import Dense, cross_entropy, f32, i64, model, sgd, training

@model
def net(x=f32["batch", 4], label=i64["batch"]):
    logits = x >> Dense(3, name="head")
    return {"logits": logits, "loss": cross_entropy(logits, label)}

recipe = training(net, optimizer=sgd(3e-2), batch_size=16, epochs=8)

""" + GOOD[GOOD.index("def data") :]


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def succeeds(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def fails(*args: object) -> str:
    """The message of a mistake: exit code 2, one error by name, no traceback."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    name, colon, _ = result.stderr.partition(": ")
    assert colon
    assert name.endswith("Error")
    assert result.stderr.count("Error: ") <= 2  # its own name, and that of what a file raised
    return result.stderr


def line(text: str, source: str = GOOD) -> str:
    """`net.py:7`, the line that holds the text."""
    number = next(i for i, x in enumerate(source.splitlines(), start=1) if text in x)
    return f"net.py:{number}"


def written(directory: Path, source: str, name: str = "net.py") -> Path:
    path = directory / name
    path.write_text(source, encoding="utf-8")
    return path


WRONG_SLOPE = """
from nncompile.ir.op import Op
class Twice(Op):
    def infer(self, x): return x
    def pullback(self, g, y, x): return (3 * g,)
    def numpy(self, x): return 2 * x
    def onnx(self, o, x): return o.Add(x, x)
"""
