"""A convolutional network on handwritten digits, with normalization and pooling.

    nncompile train examples/digits_cnn.py

Of the 360 digits that are held out, 99 % are recognised; the dense network of `digits.py` has 98 %.
The exported file has no normalization in it: what was learned about mean and variance is part of
the weights of the convolutions. `digits_resnet.py` takes images of any size.
"""

import digits

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    MaxPool2d,
    RandomCrop,
    accuracy,
    adamw,
    cosine,
    cross_entropy,
    f32,
    flatten,
    i64,
    model,
    relu,
    softmax,
    training,
)


@model(predict=("logits", "probabilities"))
def digits_cnn(image=f32["batch", 1, 8, 8], label=i64["batch"]):
    x = image / 16 >> RandomCrop(padding=1)
    x = x >> Conv2d(16, 3, padding="same", bias=False) >> BatchNorm() >> relu
    x = x >> Conv2d(32, 3, padding="same", bias=False) >> BatchNorm() >> relu
    x = x >> MaxPool2d(2)
    x = x >> Conv2d(64, 3, padding="same", bias=False) >> BatchNorm() >> relu
    x = x >> MaxPool2d(2)
    logits = x >> flatten >> Dropout(0.3) >> Dense(10, name="head")
    return {
        "logits": logits,
        "probabilities": softmax(logits),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


recipe = training(
    digits_cnn,
    minimize="loss",
    optimizer=adamw(cosine(6e-3, warmup=50, steps=500)),
    batch_size=32,
    steps=500,
)

data = digits.data
