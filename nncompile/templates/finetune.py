"""What one network has learned, another begins with: a pretrained backbone and a new head.

`pretraining` learns which of four curves a noisy series is, of many examples. `tuning` takes over
its backbone, frozen, and learns from 40 examples whether a series is periodic:

    python finetune.py CHECKPOINT       # of a run of `pretraining`

Put your data in the place of `curves`.
"""

import sys

import numpy as np

from dsl import (
    Conv1d,
    Dense,
    GlobalAveragePool,
    Model,
    Sequential,
    Value,
    accuracy,
    adamw,
    cross_entropy,
    f32,
    i64,
    model,
    option,
    relu,
    softmax,
    training,
)
from nncompile import Trainer

width = option(32, low=1, help="channels of the backbone")
rate = option(3e-3, low=1e-5, high=1.0, log=True, help="learning rate")

LENGTH = 64
PERIODIC = (0, 1)


def network(name: str, classes: int) -> Model:
    """A classifier of that name: the backbone that all share, and a head of its own."""

    @model(predict="probability", name=name)
    def classifier(
        series: Value = f32["batch", 1, LENGTH], label: Value = i64["batch"]
    ) -> dict[str, Value]:
        backbone = Sequential(
            Conv1d(width, 7, stride=2, padding=3),
            relu,
            Conv1d(width, 5, stride=2, padding=2),
            relu,
            GlobalAveragePool(),
            name="backbone",
        )
        logits = series >> backbone >> Dense(classes, name="head")
        return {
            "probability": softmax(logits),
            "loss": cross_entropy(logits, label),
            "accuracy": accuracy(logits, label),
        }

    return classifier


which, periodic = network("which", 4), network("periodic", 2)
pretraining = training(which, optimizer=adamw(rate), batch_size=32, epochs=8)
tuning = training(periodic, optimizer=adamw(rate), batch_size=20, steps=100, freeze="backbone.*")


def curves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random series, and the numbers of their kinds: a wave, steps up and down, a line, a jump."""
    random = np.random.default_rng(seed)
    kind = random.integers(4, size=count)
    time = np.linspace(-1, 1, LENGTH) + random.uniform(-0.3, 0.3, (count, 1))
    wave = np.sin(random.uniform(8, 14, (count, 1)) * time)
    slope = random.uniform(0.5, 1.5, (count, 1)) * random.choice([-1, 1], (count, 1))
    shapes = np.stack([wave, np.sign(wave), slope * time, slope * np.sign(time)])
    drawn = shapes[kind, np.arange(count)] + random.normal(0, 0.2, (count, LENGTH))
    return drawn[:, None].astype(np.float32), kind


def data() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What `pretraining` trains on, and what is held out."""
    (train, kinds), (validation, others) = curves(2048, seed=0), curves(256, seed=1)
    return {"series": train, "label": kinds}, {"series": validation, "label": others}


def labelled(count: int, seed: int) -> dict[str, np.ndarray]:
    """What `tuning` trains on: so many series, and whether they are periodic."""
    series, kinds = curves(count, seed)
    return {"series": series, "label": np.isin(kinds, PERIODIC).astype(np.int64)}


if __name__ == "__main__":
    trainer = Trainer(tuning)
    print(trainer.load_params(sys.argv[1]))  # all but the head, which is of another width
    trainer.fit(labelled(40, seed=2), verbose=0)
    print(f"held out: {trainer.evaluate(labelled(512, seed=3))['accuracy']:.1%} right")
    print(*trainer.export("periodic.onnx"))
