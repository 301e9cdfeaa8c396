"""A network of Keras goes on learning without Keras: the file of tf2onnx that knows digits learns
their negatives, too.

    python examples/keras_continued.py

Keras trained the network (`models/with_keras.py`), tf2onnx wrote it: images with channels last, a
batch called `unk__25`, probabilities as output. None of that changes. Of held-out digits, 96 % are
right before and after; of their negatives, 1 % and 93 %. What is written at the end is the file
with other weights, which takes the place of the old one.
"""

from pathlib import Path

import digits
import numpy as np
import onnxruntime

from dsl import accuracy, adamw, cosine, f32, i64, log, model, negative_log_likelihood, training
from nncompile import Trainer, export, load_onnx

FILE = Path(__file__).parent / "models" / "digits_keras.onnx"

keras = load_onnx(FILE, sizes={"unk__25": "batch"})


@model(predict="probabilities")
def both(image=f32["batch", 8, 8, 1], label=i64["batch"]):
    probabilities = keras(image)["dense_1"]
    # The logarithm of a softmax is computed as one: no probability is 0 in it.
    return {
        "probabilities": probabilities,
        "loss": negative_log_likelihood(log(probabilities), label),
        "accuracy": accuracy(probabilities, label),
    }


recipe = training(both, optimizer=adamw(cosine(5e-3, steps=600)), batch_size=32, steps=600)


def channels_last(part, negative=False):
    images = (part["image"] / 16).transpose(0, 2, 3, 1)
    return {"image": 1 - images if negative else images, "label": part["label"]}


def data():
    """Digits and negatives to train on; digits, and negatives, to measure on."""
    train, held_out = digits.data()
    parts = channels_last(train), channels_last(train, negative=True)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined, channels_last(held_out), channels_last(held_out, negative=True)


def right(path, part):
    """The share that a file gets right in plain onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["dense_1"], {"image": part["image"]})
    return (probabilities.argmax(-1) == part["label"]).mean()


if __name__ == "__main__":
    train, plain, negative = data()
    print(f"before: {right(FILE, plain):.1%} of the digits, {right(FILE, negative):.1%} negatives")
    trainer = Trainer(recipe)
    trainer.fit(train)
    path = "runs/digits_keras.onnx"
    export(keras, path, "original", params=trainer.params)
    print(f"after:  {right(path, plain):.1%} of the digits, {right(path, negative):.1%} negatives")
