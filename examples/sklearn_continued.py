"""A pipeline of scikit-learn goes on learning from new rows: the file of skl2onnx, standardization
and a small network for tumors, was fitted on forty of them.

    python examples/sklearn_continued.py

`models/with_sklearn.py` made the file. It goes on from the weights that it has, on the next 329
rows; the means and scales that scikit-learn found stay. Of the 200 rows that neither has seen, 93 %
are right before and 97 % after, by a file of the same inputs, outputs and nodes.
"""

from pathlib import Path

import numpy as np
import onnxruntime
from sklearn.datasets import load_breast_cancer

from dsl import (
    adamw,
    binary_accuracy,
    binary_cross_entropy_with_logits,
    cosine,
    f32,
    i64,
    model,
    training,
)
from nncompile import Trainer, export, load_onnx

FILE = Path(__file__).parent / "models" / "tumors_sklearn.onnx"
LOGIT = "add_result1"  # what the sigmoid of the file is computed of

network = load_onnx(FILE, outputs=[LOGIT])


@model(predict="logit")
def tumors(X=f32["batch", 30], benign=i64["batch"]):
    logit = network(X)[LOGIT].squeeze(-1)
    return {
        "logit": logit,
        "loss": binary_cross_entropy_with_logits(logit, benign),
        "accuracy": binary_accuracy(logit, benign, threshold=0.0),
    }


recipe = training(tumors, optimizer=adamw(cosine(3e-3, steps=200)), batch_size=32, steps=200)


def data():
    """The rows after the forty that the file knows: 329 to go on with, 200 to measure on."""
    x, benign = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(benign))
    rows = {"X": x[order].astype(np.float32), "benign": benign[order]}
    return (
        {name: array[40:369] for name, array in rows.items()},
        {name: array[369:] for name, array in rows.items()},
    )


def right(path, rows):
    """The share of rows that a file gets right in plain onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (label,) = session.run(["label"], {"X": rows["X"]})
    return (label == rows["benign"]).mean()


if __name__ == "__main__":
    new, held_out = data()
    print(f"before: {right(FILE, held_out):.1%} right")
    trainer = Trainer(recipe)
    trainer.fit(new)
    path = "runs/tumors_sklearn.onnx"
    export(load_onnx(FILE), path, "original", params=trainer.params)
    print(f"after:  {right(path, held_out):.1%} right")
