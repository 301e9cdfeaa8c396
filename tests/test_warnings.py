"""What is visible in a graph and hardly meant is warned of once, at the user's line, with a way
out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, f32, i64, model, sgd, sigmoid, softmax, training
from nncompile.diagnostics.errors import ModelWarning
from nncompile.elementwise import log
from nncompile.ir.op import Value
from nncompile.ops import expand_dims, log_softmax
from nncompile.program.model import Model
from nncompile.train import Trainer
from tests.command_line import run, written
from tests.leaves import leaf

Z, LABEL, T = leaf("z", f32["n", 3]), leaf("label", i64["n"]), leaf("t", f32["n"])
ONE = Z[:, 0]

SUSPECT: dict[str, tuple[Callable[[], Value], str]] = {
    "cross_entropy": (
        lambda: dsl.cross_entropy(softmax(Z), LABEL),
        "cross_entropy takes logits, but got the result of softmax: pass the logits",
    ),
    "cross_entropy of a sigmoid": (
        lambda: dsl.cross_entropy(sigmoid(Z), LABEL),
        "cross_entropy takes logits, but got the result of sigmoid",
    ),
    "cross_entropy of what was moved": (
        lambda: dsl.cross_entropy(softmax(Z).reshape((-1, 3))[:, ::-1], LABEL),
        "cross_entropy takes logits",
    ),
    "focal_loss": (lambda: dsl.focal_loss(softmax(Z), LABEL), "focal_loss takes logits"),
    "ctc_loss": (
        lambda: dsl.ctc_loss(softmax(leaf("s", f32["n", 5, 4])), leaf("l", i64["n", 2])),
        "ctc_loss takes logits",
    ),
    "negative_log_likelihood": (
        lambda: dsl.negative_log_likelihood(softmax(Z), LABEL),
        r"negative_log_likelihood takes logarithms, .* pass log_softmax\(logits\)",
    ),
    "kl_divergence": (
        lambda: dsl.kl_divergence(softmax(Z), softmax(Z + 1)),
        "kl_divergence takes logarithms",
    ),
    "binary_cross_entropy_with_logits": (
        lambda: dsl.binary_cross_entropy_with_logits(sigmoid(ONE), T),
        "binary_cross_entropy_with_logits takes logits, .* the result of sigmoid: .* or use "
        "binary_cross_entropy",
    ),
    "binary_focal_loss": (
        lambda: dsl.binary_focal_loss(sigmoid(Z)[:, 0], T),
        "binary_focal_loss takes logits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SUSPECT)
def test_what_a_loss_does_not_take_is_told(name: str) -> None:
    loss, words = SUSPECT[name]
    with pytest.warns(ModelWarning, match=words) as caught:
        loss()
    assert len(caught) == 1
    assert Path(caught[0].filename).name == "test_warnings.py"
    assert name.split()[0] in Path(__file__).read_text().splitlines()[caught[0].lineno - 1]


def test_what_a_loss_takes_is_not() -> None:
    dsl.cross_entropy(Z, LABEL)
    dsl.cross_entropy(Z, softmax(Z))  # of a teacher
    dsl.cross_entropy(Z * sigmoid(Z), LABEL)
    dsl.negative_log_likelihood(log_softmax(Z), LABEL)
    dsl.negative_log_likelihood(log(softmax(Z)), LABEL)
    dsl.kl_divergence(log_softmax(Z), softmax(Z + 1))
    dsl.binary_cross_entropy(sigmoid(ONE), T)
    dsl.binary_cross_entropy_with_logits(ONE, sigmoid(T))


def test_a_log_softmax_is_its_own_log_softmax() -> None:
    """An exact rewrite, and no warning."""
    loss = dsl.cross_entropy(Z, LABEL)
    assert dsl.cross_entropy(log_softmax(Z), LABEL) is loss
    assert dsl.focal_loss(log_softmax(Z), LABEL) is dsl.focal_loss(Z, LABEL)
    assert dsl.cross_entropy(log_softmax(Z, 0), LABEL) is not loss


def regression(difference: Callable[[Value, Value], Value]) -> Model:
    @model
    def net(x=f32["batch", 4], t=f32["batch"]):
        y = x >> Dense(1)
        d = difference(y, t)
        return {"loss": (d * d).mean()}

    return net


def test_a_column_beside_a_row_is_told_where_it_is_trained() -> None:
    net = regression(lambda y, t: y - t)
    with pytest.warns(
        ModelWarning, match=r"f32\[batch, 1\] beside f32\[batch\] broadcasts to"
    ) as caught:
        training(net)
    assert len(caught) == 1
    assert "y[:, 0] or expand_dims(t, 1)" in str(caught[0].message)
    assert "y - t" in Path(__file__).read_text().splitlines()[caught[0].lineno - 1]
    training(regression(lambda y, t: y[:, 0] - t))
    training(regression(lambda y, t: y - expand_dims(t, 1)))
    training(regression(lambda y, t: expand_dims(y[:, 0], 1) - t))  # all pairs, on purpose


def test_an_error_filter_makes_errors_of_them() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelWarning, match="takes logits"):
            dsl.cross_entropy(softmax(Z), LABEL)


def test_they_are_shown_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            dsl.cross_entropy(softmax(Z + 2), LABEL)
    assert len(caught) == 1


FILE = """
from dsl import Dense, cross_entropy, f32, i64, model, sgd, softmax, training


@model
def net(x=f32["batch", 4], label=i64["batch"]):
    z = x >> Dense(3)
    return {"loss": cross_entropy(softmax(z), label)}


recipe = training(net, optimizer=sgd(0.1), batch_size=4)
"""


@pytest.mark.filterwarnings("default::nncompile.diagnostics.errors.ModelWarning")
def test_the_command_line_shows_one_line(tmp_path: Path) -> None:
    for command in (("check",), ("show", "--stage", "step")):
        path = written(tmp_path, FILE.replace("Dense(3)", f"Dense({3 + len(command)})"))
        result: Any = run(command[0], path, *command[1:])
        assert result.exit_code == 0, result.output
        lines = [line for line in result.stderr.splitlines() if "Warning" in line]
        assert len(lines) == 1 and lines[0].startswith("ModelWarning: cross_entropy takes logits")
        assert lines[0].endswith(", at net.py:8")


def test_a_loss_of_a_softmax_trains_badly() -> None:
    """Hence the warning: its gradient is small where the answer is wrong."""
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    data = {"x": x, "label": x[:, :3].argmax(1)}

    def trained(logits_of: Callable[[Value], Value]) -> float:
        @model
        def net(x=f32["batch", 4], label=i64["batch"]):
            z = x >> Dense(3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loss = dsl.cross_entropy(logits_of(z), label)
            return {"loss": loss, "real": dsl.cross_entropy(z, label)}

        trainer = Trainer(training(net, optimizer=sgd(0.5), batch_size=16))
        trainer.fit(data, epochs=10)
        return float(trainer.evaluate(data)["real"])

    assert trained(lambda z: z) < 0.7 * trained(softmax)
