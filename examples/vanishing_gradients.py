"""Why deep networks of sigmoids do not learn: the gradient of the loss, layer by layer.

    python examples/vanishing_gradients.py          # a table, and vanishing_gradients.png
    nncompile train examples/vanishing_gradients.py

Twenty hidden layers tell points of two rings apart. A sigmoid passes on at most a quarter of a
gradient, so that what arrives at the first layer is 10⁻¹² of what the last one gets, and the
network guesses (X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward
neural networks", 2010). With ReLU and the initial weights of He et al. (2015) first and last layer
get gradients of like size, and after 300 steps the same network tells 98 % of the points or more.
The picture needs matplotlib: pip install 'nncompile[plot]'.
"""

from importlib.util import find_spec

import numpy as np

from dsl import (
    Dense,
    accuracy,
    adam,
    cross_entropy,
    f32,
    glorot_uniform,
    he_normal,
    i64,
    model,
    relu,
    sigmoid,
    training,
)
from nncompile import Trainer
from nncompile.train.drawing import draw_lines
from nncompile.train.monitor import Probe

LAYERS = 20


def deep(activation, init):
    """The recipe for a network of LAYERS hidden layers with that activation."""

    @model
    def rings(x=f32["batch", 2], ring=i64["batch"]):
        hidden = x
        for i in range(LAYERS):
            hidden = hidden >> Dense(32, activation, init=init, name=f"layer{i + 1}")
        logits = hidden >> Dense(2, name="out")
        return {
            "logits": logits,
            "loss": cross_entropy(logits, ring),
            "accuracy": accuracy(logits, ring),
        }

    return training(rings, minimize="loss", optimizer=adam(1e-3), batch_size=128, steps=300)


sigmoids = deep(sigmoid, glorot_uniform)
relus = deep(relu, he_normal)
recipe = relus


def data():
    """512 points of two noisy rings, of radius 1 and 2."""
    random = np.random.default_rng(0)
    ring = random.integers(0, 2, 512)
    angle = random.uniform(0, 2 * np.pi, 512)
    radius = 1 + ring + random.normal(scale=0.1, size=512)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return {"x": x.astype(np.float32), "ring": ring}


def gradients(recipe):
    """What is measured before the first step: norms of gradients, layer by layer."""
    probe = Probe(recipe)
    return probe.measure(probe.compiled.source.initial(), data())


def learned(recipe):
    """The share of points that are told right after training."""
    trainer = Trainer(recipe)
    trainer.fit(data())
    return trainer.evaluate(data())["accuracy"]


def main(picture="vanishing_gradients.png"):
    found = {"sigmoid": gradients(sigmoids), "ReLU + He": gradients(relus)}
    print(f"{'gradient in':<12}" + "".join(f"{name:>12}" for name in found))
    for layer in found["sigmoid"].layers:
        norms = (measured.layers[layer].gradient for measured in found.values())
        print(f"{layer:<12}" + "".join(f"{norm:>12.2e}" for norm in norms))
    for name, measured in found.items():
        # Of dead units there are some in any network this deep on points of a plane.
        wrong = measured.warnings(dead=1).values()
        print(f"\n{name}: {'; '.join(wrong) or 'the gradient neither vanishes nor explodes'}")
    print(
        f"\nright after training: sigmoid {learned(sigmoids):.2f}, ReLU + He {learned(relus):.2f}"
    )
    if find_spec("matplotlib"):
        lines = {
            name: (range(1, LAYERS + 2), [x.gradient for x in measured.layers.values()])
            for name, measured in found.items()
        }
        print(draw_lines(picture, lines, "layer", "norm of the gradient", log_y=True))


if __name__ == "__main__":
    main()
