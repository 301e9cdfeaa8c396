"""A table with missing values and words, as a CSV file has them: of which grape is a wine?

    python examples/tabular.py wine.onnx        # where the model goes
    nncompile train examples/tabular.py

The table is scikit-learn's, of 178 wines from Piedmont: 12 measurements, of which one in eight is
removed here, and the color, which is put into words. Medians, means and deviations are computed
from the training rows and become part of the model, so that the exported file takes raw numbers
with holes, and says itself which code stands for which word. Of the 59 wines that are held out,
93 % are told right.
"""

import csv
import io
import sys

import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

from dsl import (
    Dense,
    Dropout,
    Impute,
    OneHot,
    Sequential,
    Standardize,
    Vocabulary,
    accuracy,
    adamw,
    concatenate,
    cross_entropy,
    f32,
    i64,
    model,
    relu,
    softmax,
    training,
)
from nncompile import Session, Trainer, vocabularies

GRAPES = ("Barolo", "Grignolino", "Barbera")


def as_csv() -> str:
    """The table as a file: a line for each wine, empty where a value is missing."""
    wines = load_wine()
    measured = [n for n in wines.feature_names if n != "color_intensity"]
    colors = wines.data[:, wines.feature_names.index("color_intensity")]
    words = np.array(["pale", "ruby", "deep"])[np.digitize(colors, [3.5, 5.5])]
    missing = np.random.default_rng(0).random((len(words), len(measured) + 1)) < 1 / 8
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*measured, "color", "grape"])
    for i, row in enumerate(wines.data):
        cells = [*(row[wines.feature_names.index(name)] for name in measured), words[i]]
        shown = ["" if gone else cell for cell, gone in zip(cells, missing[i], strict=True)]
        writer.writerow([*shown, GRAPES[wines.target[i]]])
    return text.getvalue()


rows = list(csv.DictReader(io.StringIO(as_csv())))
train_rows, held_rows = train_test_split(rows, test_size=59, random_state=0)
MEASURED = [name for name in rows[0] if name not in ("color", "grape")]


def numbers_of(rows: list[dict[str, str]]) -> np.ndarray:
    return np.array([[float(row[n] or "nan") for n in MEASURED] for row in rows], np.float32)


def colors_of(rows: list[dict[str, str]]) -> list[str | None]:
    return [row["color"] or None for row in rows]


prepare = Sequential(Impute("median", indicator=True), Standardize(), name="prepare")
prepare.adapt(numbers_of(train_rows))
colors = Vocabulary(name="colors").adapt(colors_of(train_rows))
grapes = Vocabulary(GRAPES, unknown=False, name="grapes")


@model(predict="probability")
def wine(measured=f32["batch", len(MEASURED)].may_be_nan(), color=i64["batch"], grape=i64["batch"]):
    x = concatenate([measured >> prepare, color >> colors >> OneHot(len(colors))], axis=1)
    logits = x >> Dense(32, relu) >> Dropout(0.3) >> Dense(len(grapes))
    return {
        "probability": softmax(logits),
        "loss": cross_entropy(logits, grape >> grapes),
        "accuracy": accuracy(logits, grape),
    }


recipe = training(wine, minimize="loss", optimizer=adamw(3e-3), batch_size=32, epochs=60)

data = tuple(
    {
        "measured": numbers_of(part),
        "color": colors.encode(colors_of(part)),
        "grape": grapes.encode([row["grape"] for row in part]),
    }
    for part in (train_rows, held_rows)
)


def main(path: str) -> None:
    trainer = Trainer(recipe, threads=1)
    trainer.fit(data[0])
    print(f"held out: {trainer.evaluate(data[1])['accuracy']:.0%} right")
    trainer.export(path)

    # What a program does that has the file alone.
    session, codes = Session(path, threads=1), vocabularies(path)
    row = next(row for row in held_rows if not all(row.values()))
    feeds = {"measured": numbers_of([row]), "color": codes["color"].encode([row["color"]])}
    probability = session.run(feeds)["probability"][0]
    (named,) = codes["grape"].decode([probability.argmax()])
    missing = [n for n in MEASURED if not row[n]]
    print(f"without {', '.join(missing)}: {named}, {probability.max():.0%}; it is {row['grape']}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "wine.onnx")
