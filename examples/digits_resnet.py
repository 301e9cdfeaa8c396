"""A small residual network on handwritten digits; its exported file takes images of any size.

    nncompile train examples/digits_resnet.py
    python examples/digits_resnet.py        # trains, exports, and runs the export at several sizes

Three stages of residual blocks (K. He et al., "Deep residual learning for image recognition",
2016), trained on digits that are somewhere in 12×12 pixels. Of the 360 that are held out, 97 % are
recognised. Nothing in it depends on height or width: the same file recognises 95 % of them in 8×8
pixels and 97 % somewhere in 16×24.
"""

import digits
import numpy as np
import onnxruntime

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    GlobalMaxPool,
    Layer,
    RandomCrop,
    accuracy,
    adamw,
    cosine,
    cross_entropy,
    f32,
    he_normal,
    i64,
    model,
    relu,
    softmax,
    training,
)
from nncompile import Trainer


class Block(Layer):
    """relu(x + f(x)), f two convolutions; with a stride, x is made smaller and wider too."""

    filters: int
    stride: int = 1

    def __call__(self, x):
        def convolved(x, kernel, stride=1):
            conv = Conv2d(self.filters, kernel, stride, kernel // 2, bias=False, init=he_normal)
            return x >> conv >> BatchNorm()

        y = convolved(convolved(x, 3, self.stride) >> relu, 3)
        short = x if self.stride == 1 else convolved(x, 1, self.stride)
        return relu(short + y)


@model(predict=("logits", "probabilities"))
def digits_resnet(image=f32["batch", 1, "height", "width"], label=i64["batch"]):
    x = image / 16 >> RandomCrop(padding=2)
    x = x >> Conv2d(12, 3, padding="same", bias=False, init=he_normal) >> BatchNorm() >> relu
    x = x >> Block(12) >> Block(24, stride=2) >> Block(48, stride=2)
    logits = x >> GlobalMaxPool() >> Dense(10, name="head")
    return {
        "logits": logits,
        "probabilities": softmax(logits),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


recipe = training(
    digits_resnet,
    minimize="loss",
    optimizer=adamw(cosine(5e-3, warmup=50, steps=500)),
    batch_size=32,
    steps=500,
)


def data():
    """The data of `digits.py`, each digit somewhere in 12×12 pixels."""
    return tuple(part | {"image": placed(part["image"], 12, 12)} for part in digits.data())


def placed(images, height, width, seed=0):
    """The images, each at a place of its own in an empty one of that height and width."""
    random = np.random.default_rng(seed)
    count, channels, rows, columns = images.shape
    larger = np.zeros((count, channels, height, width), images.dtype)
    for image, page in zip(images, larger, strict=True):
        top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
        page[:, top : top + rows, left : left + columns] = image
    return larger


if __name__ == "__main__":
    train, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(train)
    trainer.export("runs/digits_resnet.onnx")
    session = onnxruntime.InferenceSession("runs/digits_resnet.onnx")
    for height, width in ((8, 8), (12, 12), (13, 17), (16, 24)):
        images = placed(digits.data()[1]["image"], height, width)
        (logits,) = session.run(["logits"], {"image": images})
        right = (logits.argmax(axis=1) == held_out["label"]).mean()
        print(f"digits somewhere in {height}×{width} pixels: {right:.1%} right")
