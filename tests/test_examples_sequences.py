"""The examples with sequences and text: each learns what it says, and one exported file of each
runs at several lengths in plain onnxruntime."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from nncompile.compiler.export import export
from nncompile.program.model_file import Declared, load
from nncompile.train import Trainer

pytestmark = pytest.mark.thorough  # each shares the training of an example
EXAMPLES = Path(__file__).parent.parent / "examples"

QUALITY = {
    "char_gpt": {"bits": (2.0, 2.6)},
    "char_lstm": {"bits": (2.0, 2.9)},
    "sequence_classifier": {"accuracy": (0.96, 1.0)},
    "recurrent": {"loss": (0.0, 0.001)},
    "translation": {"accuracy": (0.995, 1.0)},
    "mixture": {"error": (0.0, 0.008), "balance": (0.99, 1.1)},
    "neural_ode": {"error": (0.0, 0.04)},
    "ctc": {"loss": (0.0, 0.06)},
}
"""What each reaches on data that it was not trained on."""


class Trained:
    """An example after the training that it declares, and its exported file in a session."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.declared: Declared = load(EXAMPLES / f"{name}.py")
        self.module: Any = self.declared.module
        self.trainer = Trainer(self.declared.recipe, threads=1)
        data = self.declared.data
        assert data is not None and data.validation is not None
        self.held_out = data.validation
        self.trainer.fit(data.train)
        self.found = self.trainer.evaluate(self.held_out)
        path = directory / f"{name}.onnx"
        export(self.declared.recipe, path, params=self.trainer.state)
        self.session = onnxruntime.InferenceSession(path)

    def run(self, **feeds: Any) -> Any:
        """The only output of the exported file."""
        (output,) = self.session.run(None, feeds)
        return output


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The example of the name that the test is of. pytest runs those of one name after another, so
    that it is trained once."""
    return Trained(request.param, tmp_path_factory.mktemp("sequences"))


def of(*names: str) -> pytest.MarkDecorator:
    """The test is one of these examples, which it gets `trained`."""
    return pytest.mark.parametrize("trained", names, indirect=True)


@of(*QUALITY)
def test_examples_learn_what_they_say(trained: Trained) -> None:
    found = trained.found
    for metric, (low, high) in QUALITY[trained.name].items():
        assert low <= found[metric] <= high, f"{metric} = {found[metric]}"


@of(*QUALITY)
def test_torchscript_gives_what_onnx_gives(trained: Trained, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    recipe = trained.declared.recipe
    export(recipe, path, "torchscript", params=trained.trainer.state)
    module = torch.jit.load(str(path))
    inputs = [port.name for port in trained.session.get_inputs()]
    for count in (1, 5):
        whole = ("time",) if trained.name == "neural_ode" else ()
        feeds = {n: x if n in whole else x[:count] for n, x in trained.held_out.items()}
        feeds = {n: feeds[n] for n in inputs}
        (result,) = module(*(torch.from_numpy(x) for x in feeds.values())).values()
        np.testing.assert_allclose(result.detach(), trained.run(**feeds), atol=5e-4)


WRITERS = ("char_gpt", "char_lstm")


def source_text() -> Any:
    """The module beside the examples that reads the sources."""
    return load(EXAMPLES / "char_gpt.py").module.source_text


def test_what_is_held_out_is_not_trained_on() -> None:
    text = source_text()
    assert not set(text.TRAINED_ON) & set(text.HELD_OUT)
    train, held_out = text.data()
    assert train["text"].shape[1:] == held_out["text"].shape[1:] == (64,)
    assert train["text"].max() < 128
    assert len(train["text"]) > 10_000 and len(held_out["text"]) > 1_000
    assert bytes(text.source("bisect")[:11].tolist()) == b'"""Bisection'[:11]


@of(*WRITERS)
def test_what_is_written_next_does_not_depend_on_what_follows(trained: Trained) -> None:
    text = trained.held_out["text"][:3]
    whole = trained.run(text=text)
    assert whole.shape == (3, 64, 128)
    for length in (1, 2, 17, 63):
        part = trained.run(text=text[:, :length])
        np.testing.assert_allclose(part, whole[:, :length], atol=2e-4)


@of(*WRITERS)
def test_bits_are_those_of_the_exported_file(trained: Trained) -> None:
    text = trained.held_out["text"][:200]
    logits = trained.run(text=text).astype(np.float64)[:, :-1]
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    own = np.take_along_axis(chances, text[:, 1:, None], -1)
    found = trained.trainer.evaluate({"text": text})
    assert found["bits"] == pytest.approx(-np.log2(own).mean(), rel=1e-5)


@of(*WRITERS)
def test_text_is_written_by_plain_onnxruntime(trained: Trained) -> None:
    prompt = "\tdef __init__(self, "
    continued = source_text().continued
    text = continued(trained.session, prompt, 400)
    assert text.startswith(prompt) and len(text) == len(prompt) + 400
    assert text == continued(trained.session, prompt, 400)
    assert set(text) <= set(string.printable)
    data = trained.declared.data
    assert data is not None
    read = set(words(bytes(data.train["text"].astype(np.uint8).ravel()).decode()))
    written = words(text[len(prompt) :])
    assert len(written) > 10
    assert share_of(written, read) > 0.3 > 0.1 > share_of(shuffled(written), read)


def words(text: str) -> list[str]:
    """Its words of four letters or more."""
    return re.findall(r"[a-z]{4,}", text)


def share_of(written: Sequence[str], read: set[str]) -> float:
    """The share of words that were read. How large it is depends on the text, the sources of the
    Python that runs; of shuffled letters it is near zero."""
    return sum(word in read for word in written) / len(written)


def shuffled(written: Sequence[str]) -> list[str]:
    """Each word's own letters in random order, many times."""
    random = np.random.default_rng(0)
    return ["".join(random.permutation(list(word))) for word in written for _ in range(20)]


def test_brackets_are_labelled_rightly() -> None:
    module: Any = load(EXAMPLES / "sequence_classifier.py").module
    for text in ("", "()", "([][()])", "()[]"):
        assert module.is_balanced(text)
    for text in ("(", ")(", "([)]", "(]", "())"):
        assert not module.is_balanced(text)
    train, held_out = module.data()
    texts = [row.tobytes() for part in (train, held_out) for row in padded(part["text"], 24)]
    assert len(set(texts)) == 9000
    assert 0.45 < held_out["balanced"].mean() < 0.55


def padded(codes: Any, length: int) -> Any:
    return np.pad(codes, ((0, 0), (0, length - codes.shape[1])))


@of("sequence_classifier")
def test_the_length_of_the_filling_does_not_matter(trained: Trained) -> None:
    text = trained.held_out["text"][:50]
    whole = trained.run(text=text)
    np.testing.assert_allclose(trained.run(text=padded(text, 40)), whole, atol=1e-5)
    for row, expected in zip(text[:10], whole, strict=False):
        alone = trained.run(text=row[None, row != 0])
        np.testing.assert_allclose(alone, [expected], atol=1e-5)


@of("recurrent")
def test_the_recurrent_networks_that_keep_their_state_can_add(trained: Trained) -> None:
    data = trained.declared.data
    assert data is not None
    found = {"GRU": trained.found["loss"]}
    for name in ("identity RNN", "LSTM", "RNN"):
        trainer = Trainer(trained.module.RECIPES[name], threads=1)
        trainer.fit(data.train)
        found[name] = trainer.evaluate(trained.held_out)["loss"]
    assert found["identity RNN"] < 0.006 and found["LSTM"] < 0.006
    # 1/6 is what the answer 1 has.
    assert 0.1 < found["RNN"] < 0.2


@of("recurrent")
def test_numbers_past_the_length_are_not_added(trained: Trained) -> None:
    sequence, length = trained.held_out["sequence"][:8], trained.held_out["length"][:8]
    whole = trained.run(sequence=sequence, length=length)
    longer = np.concatenate([sequence, np.ones_like(sequence)], 1)
    np.testing.assert_allclose(trained.run(sequence=longer, length=length), whole, atol=1e-6)
    for i, end in enumerate(length):
        alone = trained.run(sequence=sequence[i : i + 1, :end], length=length[i : i + 1])
        np.testing.assert_allclose(alone, whole[i : i + 1], atol=1e-6)


@of("translation")
def test_held_out_numbers_are_translated_one_digit_at_a_time(trained: Trained) -> None:
    assert [trained.module.roman(n) for n in (4, 1994, 3999)] == ["IV", "MCMXCIV", "MMMCMXCIX"]
    known, numbers = trained.module.split()
    assert len(numbers) == 500 and not set(known) & set(numbers)
    texts = [trained.module.roman(number) for number in numbers]
    found = trained.module.translated(trained.session, texts)
    right = np.mean([a == str(b) for a, b in zip(found, numbers, strict=True)])
    assert right >= 0.98
    # One at a time and together, whatever the filling.
    assert [trained.module.translated(trained.session, [x])[0] for x in texts[:20]] == found[:20]


@of("mixture")
def test_every_expert_is_at_work_and_together_they_beat_one_network(trained: Trained) -> None:
    choice = trained.module.chosen(trained.trainer.params, trained.held_out["x"])
    assert np.bincount(choice, minlength=4).min() >= 100  # of 1000
    one = Trainer(trained.module.trained_as(trained.module.plain), threads=1)
    assert trained.declared.data is not None
    one.fit(trained.declared.data.train)
    assert trained.found["error"] < one.evaluate(trained.held_out)["error"] / 2
    sizes = [
        sum(array.size for array in trainer.params.values()) for trainer in (trained.trainer, one)
    ]
    assert abs(sizes[0] - sizes[1]) <= 1


@of("neural_ode")
def test_the_pendulum_swings_as_the_exported_file_says(trained: Trained) -> None:
    start = np.array([[1.5, 0.0], [-0.5, 0.5]], np.float32)
    # Other times than those trained on, of several numbers, unevenly apart.
    for time in (np.linspace(0, 1, 2), np.linspace(0, 6, 40), np.array([0, 0.1, 0.3, 0.35, 0.8])):
        path = trained.run(start=start, time=time.astype(np.float32))
        assert path.shape == (2, len(time), 2)
        np.testing.assert_allclose(path, trained.module.swings(start, time), atol=0.1)
    # A pendulum that hangs still is where the law is zero.
    rest = trained.run(start=np.zeros((1, 2), np.float32), time=np.float32([0, 1, 2]))
    np.testing.assert_allclose(rest, 0, atol=0.1)


def test_the_true_swings_are_exact() -> None:
    module: Any = load(EXAMPLES / "neural_ode.py").module
    start, time = np.array([[2.0, 1.0]]), np.linspace(0, 12, 49)
    np.testing.assert_allclose(
        module.swings(start, time), module.swings(start, time, fine=64), atol=1e-7
    )


@of("ctc")
def test_recordings_are_read_without_times(trained: Trained) -> None:
    said = trained.module.digits_said(trained.held_out)
    sound, length = trained.held_out["sound"], trained.held_out["length"]
    found = trained.module.read(trained.run(sound=sound, length=length), length)
    assert np.mean([a == b for a, b in zip(found, said, strict=True)]) >= 0.95
    # A recording by itself, without silence after it, is read as it is among others.
    for i in range(10):
        alone = trained.run(sound=sound[i : i + 1, : length[i]], length=length[i : i + 1])
        assert trained.module.read(alone, length[i : i + 1]) == [found[i]]
