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
    Embedding,
    Vocabulary,
    accuracy,
    adam,
    binary_cross_entropy,
    cross_entropy,
    f32,
    i64,
    log,
    minimize,
    model,
    mse,
    plateau,
    sigmoid,
    softmax,
    tanh,
    training,
)
from nncompile import FileError, History, ModelError, Trainer
from nncompile.graphics.charts import bar_chart, line_chart, scatter_chart
from nncompile.report import Report, history_of, report
from nncompile.report.page import shown
from nncompile.report.predictions import compared, examples_of
from nncompile.report.writing import Record
from nncompile.train import CSVLog, Event, Monitor, RunDirectory, TrainingWarning
from tests.command_line import fails, run, succeeds

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


@model
def characters(text: Any = i64["batch", "time"]) -> Any:
    logits = text >> Embedding(128, 8) >> Dense(128)
    return {"logits": logits, "loss": cross_entropy(logits[:, :-1], text[:, 1:])}


def test_a_language_model_is_shown_by_what_it_says_next(tmp_path: Path) -> None:
    line = np.frombuffer(b"abcabcabcabcabcabcabcabcabcabcabcabc", np.uint8).astype(np.int64)
    texts = np.stack([np.roll(line, i % 3) for i in range(48)])
    trainer = Trainer(training(characters, optimizer=adam(5e-2), batch_size=16))
    history = trainer.fit({"text": texts}, epochs=10, verbose=0)
    found = compared(trainer, examples_of(trainer.batches({"text": texts}), characters))
    assert found is not None and found.kind == "tokens" and found.target == "text"
    np.testing.assert_array_equal(found.true.reshape(48, -1), texts[:, 1:])  # what comes next
    np.testing.assert_array_equal(found.context[40], texts[1, :6])
    page = Page(report(trainer, history, tmp_path / "r.html", {"text": texts}).read_text("utf-8"))
    assert "Sample predictions" in page.headings and "Most wrong" not in page.headings
    assert any("100.0% right" in text for text in page.texts)
    assert any("cabcabc" in text for text in page.texts)  # as text, not as codes
    assert any("and 98 more" in text for text in page.texts)  # of the classes


def test_an_autoencoder_is_shown_beside_its_input(tmp_path: Path) -> None:
    @model(predict=("code", "copy"))
    def autoencoder(image: Any = f32["batch", 64], noise: Any = f32["batch", 64]) -> Any:
        code = (image + noise) >> Dense(4, tanh)
        copy = code >> Dense(64)
        return {"code": code, "copy": copy, "loss": mse(copy, image)}

    x = np.random.default_rng(0).normal(size=(30, 64)).astype(np.float32)
    data = {"image": x, "noise": 0 * x}
    trainer = Trainer(training(autoencoder, batch_size=10))
    found = compared(trainer, examples_of(trainer.batches(data), autoencoder))
    assert found is not None and (found.kind, found.target) == ("copies", "image")
    page = Page(report(trainer, History(), tmp_path / "r.html", data).read_text("utf-8"))
    assert "Residuals" in page.headings and "copy − image" in page.texts


def test_drawn_images_are_not_compared_with_those_that_are_fed(tmp_path: Path) -> None:
    @model
    def gan(real: Any = f32["batch", 6], code: Any = f32["batch", 2]) -> Any:
        fake = code >> Dense(6, name="draw")
        judge = Dense(1, name="judge")
        of_real, of_fake = sigmoid(judge(real)), sigmoid(judge(fake))
        return {
            "fake": fake,
            "judge_loss": -(log(of_real) + log(1 - of_fake)).mean(),
            "draw_loss": -log(of_fake).mean(),
        }

    updates = [
        minimize("judge_loss", params="judge.*", optimizer=adam(1e-2)),
        minimize("draw_loss", params="draw.*", optimizer=adam(1e-3)),
    ]
    trainer = Trainer(training(gan, updates=updates, batch_size=8))
    generator = np.random.default_rng(0)
    data = {n: generator.normal(size=(16, k)).astype(np.float32) for n, k in _SIZES.items()}
    assert compared(trainer, examples_of(trainer.batches(data), gan)) is None
    path = tmp_path / "r.html"
    trainer.fit(data, epochs=2, callbacks=Report(path, profile=True), verbose=0)
    page = Page(path.read_text("utf-8"))
    assert page.headings[:3] == ["Metrics", "Learning rate", "Where the time goes"]
    assert {"judge_loss", "draw_loss"} <= set(page.texts)  # both losses, and both rates


_SIZES = {"real": 6, "code": 2}


def test_classes_have_names(tmp_path: Path) -> None:
    trainer = Trainer(training(classes))
    data, path = labelled(40), tmp_path / "r.html"
    names = ["cat", "dog", "<bird>"]
    page = Page(report(trainer, History(), path, data, class_names=names).read_text("utf-8"))
    assert set(names) <= set(page.texts)
    with pytest.raises(ModelError, match="are 2 names, and 'probabilities' has 3 classes"):
        report(trainer, History(), path, data, class_names=["cat", "dog"])


def test_words_are_shown_for_their_codes(tmp_path: Path) -> None:
    colors = Vocabulary(("red", "green", "blue"), name="colors")
    sizes = Vocabulary(("small", "large"), unknown=False, name="sizes")

    @model(predict="logits")
    def garments(color: Any = i64["batch"], size: Any = i64["batch"]) -> Any:
        logits = (color >> colors >> Embedding(4, 8)) >> Dense(2)
        return {"logits": logits, "loss": cross_entropy(logits, size >> sizes)}

    data = {"color": np.arange(32) % 4, "size": np.arange(32) % 2}
    trainer = Trainer(training(garments, optimizer=adam(1e-2)))
    history = trainer.fit(data, epochs=1, verbose=0)
    page = Page(report(trainer, history, tmp_path / "r.html", data).read_text("utf-8"))
    assert {"small", "large"} <= {*page.texts}
    assert {"red", "green", "blue", "(unknown)"} & {*page.texts}


def test_rates_of_groups_and_of_plateaus_are_shown(tmp_path: Path) -> None:
    groups = {"stem.*": adam(1e-2), "*": adam(plateau(0.1, monitor="loss", patience=0, every=2))}
    trainer = Trainer(training(classes, optimizer=groups, batch_size=16))
    path = tmp_path / "r.html"
    callback = Report(path)
    trainer.fit(labelled(), epochs=4, callbacks=callback, verbose=0)
    text = path.read_text("utf-8")
    chart = text[text.index("Learning rate</h2>") :].partition("</svg>")[0]
    assert ">stem.*<" in chart and ">*<" in chart
    assert len(callback.record.rates) == 4
    assert min(rates["*"] for rates in callback.record.rates.values()) < 0.1
    again = Record()
    again.load_state_dict(callback.record.state_dict())
    assert again.rates == callback.record.rates


class Fails:
    """Ends a training."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_epoch(self, event: Event) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyboardInterrupt(), "it was interrupted"), (ValueError("<what>"), "ValueError: <what>")],
)
def test_a_training_that_does_not_reach_its_end_has_a_page(
    tmp_path: Path, error: BaseException, told: str
) -> None:
    trainer = Trainer(training(classes, batch_size=16))
    path, files = tmp_path / "r.html", tmp_path / "run"
    # Whatever the order, the run is on the disk before the page is begun.
    callbacks = [Report(path), Fails(error), RunDirectory(files)]
    with pytest.raises(type(error)):
        trainer.fit(labelled(), epochs=3, callbacks=callbacks, verbose=0)
    page = Page(path.read_text("utf-8"))
    assert page.headings[0] == "Ended early" and told in page.texts
    state = next((files / "checkpoints").iterdir())
    assert state.stat().st_mtime_ns <= path.stat().st_mtime_ns


def test_a_page_that_fails_warns(tmp_path: Path) -> None:
    trainer = Trainer(training(classes, batch_size=16))
    with pytest.warns(TrainingWarning, match="is not written"):
        trainer.fit(labelled(), epochs=1, callbacks=Report(tmp_path), verbose=0)
    assert trainer.epoch == 1


def test_states_are_kept_as_long_as_they_are_few() -> None:
    trainer = Trainer(training(classes, batch_size=60))
    record = Record()
    trainer.fit(labelled(), epochs=70, callbacks=record, verbose=0)
    steps = [int(state["step"]) for state, _ in record.moments]
    assert 10 <= len(steps) <= 20 and steps[-1] >= 68
    assert set(np.diff(steps)) == {4}


def test_axes_of_epochs_have_whole_ticks() -> None:
    chart = ElementTree.fromstring(line_chart({"a": ([1, 2], [0.5, 1.5])}, "epoch"))
    below = [t.text for t in chart.iter("text") if t.get("text-anchor") == "middle"]
    assert below == ["1", "2", "epoch"]


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
    (tmp_path / "words.csv").write_text("epoch,city\n1,Rome\n")
    with pytest.raises(FileError, match=r"words.csv is not a log of a training"):
        history_of(tmp_path / "words.csv")


def test_the_command_line_writes_a_page_into_the_run(good: Path, tmp_path: Path) -> None:
    told = succeeds("train", good, "--output", tmp_path / "run", "--epochs", 2, "--quiet")
    assert "report.html" in told and "epoch " not in told
    page = Page((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert {"Confusion matrix", "Metrics", "Gradients", "Where the time goes"} <= set(page.headings)


def test_a_run_that_diverges_has_a_page(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "import numpy as np\n"
        "from dsl import Dense, f32, model, mse, sgd, training\n"
        "@model\n"
        "def net(x=f32['batch', 3], y=f32['batch', 1]):\n"
        "    p = x >> Dense(1)\n"
        "    return {'p': p, 'loss': mse(p, y)}\n"
        "recipe = training(net, optimizer=sgd(10), batch_size=8, epochs=50)\n"
        "x = np.ones((64, 3), 'float32')\n"
        "data = {'x': x, 'y': x[:, :1]}\n"
        "class_names = 3\n"
    )
    assert "class_names" in fails("train", file, "-q", "-o", tmp_path / "run")
    assert not (tmp_path / "run").exists()  # told before anything begins
    file.write_text(file.read_text().replace("class_names = 3", ""))
    assert run("train", file, "-q", "-o", tmp_path / "run").exit_code == 2
    page = Page((tmp_path / "run" / "report.html").read_text("utf-8"))
    assert page.headings[:2] == ["Ended early", "Metrics"]
    assert any("loss" in text and "step" in text for text in page.texts)
    file.write_text(file.read_text().replace("sgd(10)", "sgd(1e4)"))  # within the first epoch
    assert run("train", file, "-q", "-o", tmp_path / "early").exit_code == 2
    page = Page((tmp_path / "early" / "report.html").read_text("utf-8"))
    assert page.headings[0] == "Ended early" and "Metrics" not in page.headings
