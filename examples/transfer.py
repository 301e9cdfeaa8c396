"""Transfer learning: a network that knows the digits learns from twenty labelled images which ones
have a hole (0, 6, 8 and 9).

    python examples/transfer.py

The layers below the head are taken over by name (`load_params`) and frozen, so that they are
computed as after training, and a new head is trained; from scratch, the same network is trained on
the same 20 images. Of the 777 others, 89 % are right after the transfer and 80 % from scratch
(means over five choices of the 20).
"""

import numpy as np
from sklearn.datasets import load_digits

from dsl import (
    Conv2d,
    Dense,
    Dropout,
    MaxPool2d,
    Sequential,
    accuracy,
    adamw,
    cross_entropy,
    f32,
    flatten,
    i64,
    model,
    relu,
    training,
)
from nncompile import Trainer

HOLES = (0, 6, 8, 9)


def classifier(name, classes):
    @model(predict="logits", name=name)
    def network(image=f32["batch", 1, 8, 8], label=i64["batch"]):
        backbone = Sequential(
            Conv2d(16, 3, padding=1), relu, Conv2d(32, 3, padding=1), relu, MaxPool2d(2), flatten,
            Dense(64, relu), Dropout(0.2), name="backbone",
        )  # fmt: skip
        logits = image >> backbone >> Dense(classes, name="head")
        return {
            "logits": logits,
            "loss": cross_entropy(logits, label),
            "accuracy": accuracy(logits, label),
        }

    return network


which, hole = classifier("which", 10), classifier("hole", 2)
pretraining = training(which, optimizer=adamw(1e-3), batch_size=64, epochs=12)
tuning = training(hole, optimizer=adamw(3e-3), batch_size=20, steps=150, freeze="backbone.*")
from_scratch = training(hole, optimizer=adamw(3e-3), batch_size=20, steps=150)


def data():
    """1000 images with the digit, and 797 others with whether it has a hole."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images = (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    labels = labels[order]
    holes = np.isin(labels, HOLES).astype(np.int64)
    return (
        {"image": images[:1000], "label": labels[:1000]},
        {"image": images[1000:], "label": holes[1000:]},
    )


def few(examples, seed, each=10):
    """So many random examples of each class, and the others."""
    random = np.random.default_rng(seed)
    chosen = np.concatenate(
        [random.choice(np.flatnonzero(examples["label"] == k), each, False) for k in (0, 1)]
    )
    rest = np.setdiff1d(np.arange(len(examples["label"])), chosen)
    return tuple({name: x[part] for name, x in examples.items()} for part in (chosen, rest))


def compared(choices=5):
    """The accuracies after the transfer and from scratch, for each choice of labelled images."""
    old, new = data()
    pretrained = Trainer(pretraining)
    pretrained.fit(old)
    found = {"transferred": [], "from scratch": []}
    for seed in range(choices):
        labelled, others = few(new, seed)
        tuned = Trainer(tuning, seed=seed)
        tuned.load_params(pretrained)  # all but the head, which is of another width
        scratch = Trainer(from_scratch, seed=seed)
        for name, trainer in zip(found, (tuned, scratch), strict=True):
            trainer.fit(labelled)
            found[name].append(trainer.evaluate(others)["accuracy"])
    return {name: np.array(accuracies) for name, accuracies in found.items()}


if __name__ == "__main__":
    for name, found in compared().items():
        print(f"{name}: {found.mean():.1%} right ({', '.join(f'{x:.1%}' for x in found)})")
