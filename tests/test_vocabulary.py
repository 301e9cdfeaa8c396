"""Categories and their codes: outside of a model, in it, and in its files."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import nncompile
from dsl import Dense, Embedding, OneHot, Vocabulary, cross_entropy, i64, model, training
from nncompile import CategoryCodes, Session, Trainer, export
from nncompile.diagnostics.errors import CompileError, FeedError, FileError, ModelWarning


def test_categories_are_in_order_of_how_often_they_are_there() -> None:
    column = ["b", "a", None, "c", "b", float("nan"), "a", "d", "a"]
    assert Vocabulary().adapt(column).codes.categories == ("a", "b", "c", "d")
    assert Vocabulary(max_size=2).adapt(column).codes.categories == ("a", "b")
    assert Vocabulary(min_count=2).adapt(iter([column[:4], column[4:]])).codes.categories == (
        "a",
        "b",
    )


def test_codes_go_there_and_back() -> None:
    words = Vocabulary().adapt(np.array([["x", "y"], ["x", "z"]]))
    codes = words.encode([["z", "x"], ["?", None]])
    assert codes.tolist() == [[3, 1], [0, 0]]
    assert codes.dtype == np.int64
    assert words.decode(codes) == [["z", "x"], [None, None]]
    assert words.decode(np.int64(1)) == "x"
    assert words.encode("y") == 2
    assert len(words) == 4


def test_codes_are_scikit_learns() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    labels = ["cat", "dog", "cat", "ant"]
    codes = Vocabulary(sorted(set(labels)), unknown=False)
    assert np.array_equal(codes.encode(labels), preprocessing.LabelEncoder().fit_transform(labels))


def test_integers_with_holes_are_categories() -> None:
    pandas = pytest.importorskip("pandas")
    products = Vocabulary().adapt(pandas.Series([40.0, None, 7, 40]))  # floats, in pandas
    assert products.codes.categories == (40, 7)
    assert products.encode(pandas.array([7, None], dtype="Int64")).tolist() == [2, 0]
    colors = pandas.Series(["red", None, "blue"], dtype="category")
    assert Vocabulary().adapt(colors).encode(colors).tolist() == [2, 0, 1]


def classifier(colors: Vocabulary, labels: Vocabulary) -> Any:
    @model
    def net(color=i64["batch"], size=i64["batch", 2], label=i64["batch"]):
        x = (color >> colors >> Embedding(len(colors), 4)) + (
            size[:, 1] >> Vocabulary(["S", "M"], name="sizes") >> OneHot(3) >> Dense(4)
        )
        logits = x >> Dense(len(labels))
        return {"logits": logits, "loss": cross_entropy(logits, label >> labels)}

    return net


def test_the_file_has_the_categories(tmp_path: Path) -> None:
    colors = Vocabulary().adapt(["rød", "blue", "rød"])
    net = classifier(colors, Vocabulary(["no", "yes"], unknown=False))
    for options in ({}, {"external_data": True}):
        export(net, tmp_path / "net.onnx", seed=0, **options)
        found = nncompile.vocabularies(tmp_path / "net.onnx")
        assert found == net.vocabularies
        assert list(found) == ["color", "sizes", "label"]  # of a part of an input: the layer
        assert found["color"].encode(["blue", "?"]).tolist() == [2, 0]
        assert found["label"].decode([1]) == ["yes"]
    stored = onnx.load(tmp_path / "net.onnx", load_external_data=False).metadata_props
    text = next(p.value for p in stored if p.key == "nncompile.vocabularies")
    assert json.loads(text)["color"] == {"categories": ["rød", "blue"], "unknown": True}
    session = Session(tmp_path / "net.onnx")
    outside = session.run({"color": [9, -1], "size": [[0, 1], [0, 9]]})["logits"]
    unknown = session.run({"color": [0, 0], "size": [[0, 1], [0, 0]]})["logits"]
    assert np.array_equal(outside, unknown)
    export(training(net), tmp_path / "step.onnx", to="step", seed=0)
    assert nncompile.vocabularies(tmp_path / "step.onnx") == found
    assert nncompile.vocabularies(onnx.load(tmp_path / "step.onnx")) == found


def test_a_model_of_models_has_the_categories_of_both() -> None:
    net = classifier(Vocabulary(["a"]), Vocabulary(["no", "yes"], unknown=False))

    @model
    def outer(color=i64["batch"], size=i64["batch", 2], label=i64["batch"]):
        return {"loss": net(color, size, label)["loss"]}

    assert outer.vocabularies == net.vocabularies


def test_labels_that_are_none_are_refused() -> None:
    net = classifier(Vocabulary(["a"]), Vocabulary(["no", "yes"], unknown=False))
    data = {"color": [0, 1], "size": [[0, 0], [0, 1]], "label": [0, 2]}
    arrays = {name: np.array(x) for name, x in data.items()}
    with pytest.raises(FeedError, match=r"label.* codes of Vocabulary are from 0 to 1"):
        Trainer(training(net)).fit(arrays, epochs=1)


def test_words_are_their_codes_in_what_a_training_is_fed() -> None:
    pandas = pytest.importorskip("pandas")
    net = classifier(Vocabulary(["b", "a"]), Vocabulary(["no", "yes"], unknown=False))
    size = np.zeros((4, 2), np.int64)
    colors, labels = [None, "a", "c", "b"], ["no", "yes", "yes", "no"]
    codes = {"color": np.array([0, 2, 0, 1]), "size": size, "label": np.array([0, 1, 1, 0])}
    expected = Trainer(training(net)).evaluate(codes)
    table = pandas.DataFrame({"color": colors, "label": labels})
    categories = table.astype("category")
    for data in (
        {"color": np.array(colors), "size": size, "label": np.array(labels)},
        {"color": colors, "size": size, "label": labels},
        {"color": table["color"], "size": size, "label": codes["label"]},
        {"color": categories["color"], "size": size, "label": categories["label"]},
        (np.array(colors, object), size, np.array(labels)),
        [{"color": np.array(colors), "size": size, "label": np.array(labels)}],
    ):
        trainer = Trainer(training(net))
        assert trainer.evaluate(data) == expected
        trainer.fit(data, epochs=1)
    with pytest.raises(FeedError, match="'maybe' is none of the 2 categories"):
        trainer.fit({**codes, "label": np.array(["maybe"] * 4)})


@pytest.mark.parametrize("column", [["a", "b"], [None, "b"]])
def test_text_without_a_vocabulary_is_told(column: list[Any]) -> None:
    @model
    def net(color=i64["batch"]):
        return {"loss": (color >> Embedding(3, 2)).sum()}

    with pytest.raises(FeedError, match=r"'color' has the wrong element type(.|\n)*\.encode"):
        Trainer(training(net)).fit({"color": np.array(column)}, epochs=1)


def test_a_file_with_other_categories_is_told(tmp_path: Path) -> None:
    export(classifier(Vocabulary(["a"]), Vocabulary(["b", "c"])), tmp_path / "net.onnx", seed=0)
    proto = onnx.load(tmp_path / "net.onnx")
    for text in ("{", "[]", '{"color": {"categories": [1.5], "unknown": true}}', '{"color": 3}'):
        for stored in proto.metadata_props:
            if stored.key == "nncompile.vocabularies":
                stored.value = text
        with pytest.raises(FileError, match=r"vocabularies in .* cannot be read"):
            nncompile.vocabularies(proto)


def test_it_is_pickled_and_adapted_again() -> None:
    words = Vocabulary().adapt(["a"])
    assert pickle.loads(pickle.dumps(words)).codes == words.codes

    @model
    def net(x=i64["batch"]):
        return x >> words

    with pytest.warns(ModelWarning, match="models that use it keep the categories of before"):
        words.adapt(["b"])
    assert net.vocabularies["x"].categories == ("a",)


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "not adapted": (lambda: len(Vocabulary()), r"no categories yet(.|\n)*adapt it"),
    "nothing": (lambda: Vocabulary().adapt([None]), "the data have no category"),
    "twice": (lambda: Vocabulary(["a", "a"]), "'a' is listed twice"),
    "both": (lambda: Vocabulary(["a"]).adapt(["b"]), "has its categories already"),
    "floats": (lambda: Vocabulary().adapt([0.5]), r"text or an integer, got 0.5(.|\n)*Discretize"),
    "truth": (lambda: Vocabulary().adapt([True]), "got True"),
    "mixed": (lambda: Vocabulary().adapt(["a", 1]), "not both: 'a' and 1"),
    "text": (lambda: Vocabulary("red"), "are a list, got 'red'"),
    "unknown": (lambda: Vocabulary(["a"], unknown=False).encode(["b"]), "'b' is none of the 1"),
    "no code": (lambda: CategoryCodes(("a",)).decode([2]), "2 is no code: they count from 0 to 1"),
    "codes": (lambda: CategoryCodes(("a",)).decode(["a"]), "codes are integers"),
    "a dict": (lambda: Vocabulary().adapt({"a": ["x"]}), "not to a dict"),
    "ragged": (lambda: Vocabulary().adapt(np.ma.masked_equal([1, 2], 1)), "masked"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told(mistake: str) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises(CompileError) as caught:
        make()
    assert re.search(message, str(caught.value)), str(caught.value)
