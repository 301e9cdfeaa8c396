"""A network that was exported elsewhere learns other classes: a file of torch that knows the digits
0 to 4 learns 5 to 9, from three labelled images of each.

    python examples/finetune_cnn.py

`load_onnx(path, outputs=[…])` cuts the file at the features before its last layer, and a layer of
our own follows. `freeze=backbone` trains that layer alone: 77 % of the held-out images are right.
Without it the whole network is trained, from the weights of the file on: 88 %; from random weights
84 % (means over five choices of the 15 images). `models/with_torch.py` made the file; torch is not
needed here.
"""

from pathlib import Path

import digits
import numpy as np

from dsl import Dense, accuracy, adamw, cosine, cross_entropy, f32, i64, model, training
from nncompile import Trainer, compile_step, load_onnx

FILE = Path(__file__).parent / "models" / "digits_cnn.onnx"
FEATURES = "/Flatten_output_0"

backbone = load_onnx(FILE, prefix="backbone", outputs=[FEATURES])


@model(predict="logits")
def five_to_nine(image=f32["batch", 1, 8, 8], label=i64["batch"]):
    logits = backbone(image)[FEATURES] >> Dense(5, name="head")
    return {
        "logits": logits,
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


def recipe(rate, **options):
    return training(
        five_to_nine, optimizer=adamw(cosine(rate, steps=150)), batch_size=15, steps=100, **options
    )


def data(seed=0, each=3):
    """So many images of each digit from 5 to 9, labelled from 0 on; all of these digits that are
    held out."""
    train, held_out = (
        {"image": part["image"] / 16, "label": part["label"] - 5} for part in digits.data()
    )
    random = np.random.default_rng(seed)
    rows = np.concatenate(
        [random.choice(np.flatnonzero(train["label"] == k), each, False) for k in range(5)]
    )
    others = held_out["label"] >= 0
    return (
        {name: array[rows] for name, array in train.items()},
        {name: array[others] for name, array in held_out.items()},
    )


def drawn(params, seed):
    """Random weights in the place of all those of the file, by He's rule, and biases of 0."""
    random = np.random.default_rng(seed)
    return {
        path: np.zeros_like(x)
        if x.ndim == 1
        else random.normal(0, np.sqrt(2 / x[0].size), x.shape).astype(np.float32)
        for path, x in params.items()
    }


def compared(choices=5):
    """The accuracies of the new layer alone, of the whole network, and of the whole network from
    random weights, for each choice of labelled images."""
    layer = compile_step(recipe(rate=1e-2, freeze=backbone))
    whole = compile_step(recipe(rate=2e-3))
    found = {"new layer": [], "whole network": [], "from scratch": []}
    for seed in range(choices):
        train, held_out = data(seed)
        for name, step in zip(found, (layer, whole, whole), strict=True):
            trainer = Trainer(step, seed=seed)
            if name == "from scratch":
                trainer.load_params(drawn(trainer.params, seed))
            trainer.fit(train)
            found[name].append(trainer.evaluate(held_out)["accuracy"])
    return {name: np.array(accuracies) for name, accuracies in found.items()}


if __name__ == "__main__":
    print(backbone.report)
    for name, found in compared().items():
        print(f"{name}: {found.mean():.1%} right ({', '.join(f'{x:.1%}' for x in found)})")
