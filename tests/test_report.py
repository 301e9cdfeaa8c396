"""The page on a training: what is in it, that it needs nothing else, and that names are text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from dsl import (
    Dense,
    accuracy,
    adam,
    binary_cross_entropy,
    cross_entropy,
    f32,
    i64,
    model,
    mse,
    sigmoid,
    softmax,
    tanh,
    training,
)
from nncompile import FileError, History, Trainer
from nncompile.graphics.charts import bar_chart, line_chart, scatter_chart
from nncompile.report import Report, history_of, report
from nncompile.report.page import shown
from nncompile.report.predictions import compared, examples_of
from nncompile.train import CSVLog, Monitor
from tests.command_line import succeeds

VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """The headings, texts and addresses of a page; every element must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] not in ("style", "script"):
            self.texts.append(data.strip())
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@model(name="<script>alert(1)</script>")
def classes(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> Any:
    logits = x >> Dense(8, tanh, name="stem") >> Dense(3, name="head")
    return {
        "logits": logits,
        "probabilities": softmax(logits),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


@model
def numbers(x: Any = f32["batch", 4], y: Any = f32["batch"]) -> Any:
    prediction = x >> Dense(1)
    return {"prediction": prediction, "loss": mse(prediction[:, 0], y)}


@model
def yes_or_no(x: Any = f32["batch", 4], y: Any = f32["batch"]) -> Any:
    probability = sigmoid((x >> Dense(1))[:, 0])
    return {"probability": probability, "loss": binary_cross_entropy(probability, y)}


def labelled(count: int = 60, seed: int = 0) -> dict[str, Any]:
    x = np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)
    return {"x": x, "label": x[:, :3].argmax(1)}


def test_a_page_has_all_of_a_training_and_needs_nothing_else(tmp_path: Path) -> None:
    trainer = Trainer(training(classes, optimizer=adam(1e-2), batch_size=16))
    monitor = Monitor(warn=False)
    path = tmp_path / "new" / "report.html"
    history = trainer.fit(
        labelled(),
        epochs=3,
        validation_data=labelled(30, 1),
        callbacks=[monitor, Report(path, monitor)],
        verbose=0,
    )
    page = Page(path.read_text("utf-8"))
    assert page.headings == [
        *("Metrics", "Learning rate", "Gradients", "Confusion matrix", "Most wrong"),
        *("Model", "Graph", "Configuration"),
    ]
    assert "<script>alert(1)</script>" in page.texts  # the name, as text
    assert page.tags.count("script") == 1  # which opens the boxes of the graph
    assert all(address.startswith("data:image/png") for address in page.addresses)
    best = history.best["val_loss"]
    assert f"best val_loss, epoch {best.epoch}" in page.texts and f"{best.value:.4f}" in page.texts
    assert "onnxruntime" in page.texts and any("of 30 examples" in text for text in page.texts)
    with pytest.raises(FileError):
        report(trainer, history, tmp_path)


def test_predictions_of_classes_are_counted() -> None:
    trainer = Trainer(training(classes))
    data = labelled(40)
    found = compared(trainer, examples_of(trainer.batches(data, 16), classes))
    assert found is not None and found.output == "probabilities" and found.count == 3
    scores = trainer.predict(data["x"])["probabilities"]
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (data["label"], scores.argmax(1)), 1)
    np.testing.assert_array_equal(found.confusion, expected)
    worst = int(found.doubt.argmax())
    assert scores[worst].argmax() != data["label"][worst]


def test_predictions_of_numbers_and_of_yes_or_no() -> None:
    x = labelled(40)["x"]
    trainer = Trainer(training(numbers))
    data = {"x": x, "y": x[:, 0] * 2}
    found = compared(trainer, examples_of([data], numbers))
    assert found is not None and found.count is None
    difference = trainer.predict(x)["prediction"][:, 0] - data["y"]
    np.testing.assert_allclose((found.predicted - found.true)[:, 0], difference, rtol=1e-6)
    trainer = Trainer(training(yes_or_no))
    data = {"x": x, "y": (x[:, 0] > 0).astype(np.float32)}
    found = compared(trainer, examples_of([data], yes_or_no))
    assert found is not None and found.count == 2
    right = (trainer.predict(x)["probability"] > 0.5) == data["y"]
    assert found.confusion.trace() == right.sum()
    assert compared(trainer, {}) is None


def test_a_page_of_numbers_has_residuals(tmp_path: Path) -> None:
    trainer = Trainer(training(numbers))
    x = labelled(40)["x"]
    path = report(trainer, History([{"loss": 1.0}]), tmp_path / "r.html", {"x": x, "y": x[:, 0]})
    page = Page(path.read_text("utf-8"))
    assert "Residuals" in page.headings and "Gradients" not in page.headings
    bare = Page(report(trainer, History(), tmp_path / "bare.html").read_text("utf-8"))
    assert "Metrics" not in bare.headings and "Graph" in bare.headings


def test_charts_hold_every_number() -> None:
    chart = line_chart({"a": ([1, 2, 3], [1.0, float("nan"), 2.0]), "<b>": ([1], [0.0])}, "x")
    root = ElementTree.fromstring(chart)
    assert len(root.findall("circle")) == 3 and "<b>" in [t.text for t in root.iter("text")]
    assert not line_chart({"a": ([1.0], [float("inf")])}) and not line_chart({})
    assert not line_chart({"a": ([1.0], [-1.0])}, log=True)
    log = ElementTree.fromstring(line_chart({"a": ([0, 1], [0.01, 0.04])}, log=True))
    assert {"0.01", "0.02"} <= {t.text for t in log.iter("text")}
    bars = ElementTree.fromstring(bar_chart([0, 1, 2], [3, 0], "n"))
    heights = [float(r.get("height", "")) for r in bars.findall("rect")]
    assert heights[0] > 0 == heights[1]
    assert len(ElementTree.fromstring(scatter_chart(([0, 1], [1, 0]), "t")).findall("circle")) == 2


def test_inputs_are_shown_as_pictures_or_numbers() -> None:
    assert shown(np.zeros((1, 8, 8), np.float32)).startswith("<img")
    assert shown(np.arange(20)) == "0, 1, 2, 3, 4, 5, 6, 7, …"
    assert shown(np.float32(0.5).reshape(())) == "0.5"


def test_a_history_is_read_from_a_log(tmp_path: Path) -> None:
    trainer = Trainer(training(classes))
    log = CSVLog(tmp_path / "log.csv")
    history = trainer.fit(labelled(), epochs=2, callbacks=log, verbose=0)
    assert history_of(tmp_path / "log.csv") == history
    with pytest.raises(FileError, match="cannot read"):
        history_of(tmp_path / "none.csv")


@pytest.mark.slow
def test_the_command_line_writes_a_page_into_the_run(good: Path, tmp_path: Path) -> None:
    told = succeeds("train", good, "--output", tmp_path / "run", "--epochs", 2, "--quiet")
    assert "report.html" in told and "epoch " not in told
    page = Page((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert "Confusion matrix" in page.headings and "Metrics" in page.headings
