"""Logistic regression: is a tumour benign, from 30 measurements of it (scikit-learn's data).

    nncompile train examples/logistic_regression.py

Measurements are of very different sizes. The mean and the deviation that put them on one scale
are constants of the model, so that the exported file takes the raw ones. Of the 114 tumours that
are held out, 97 % are told right.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from dsl import (
    Dense,
    adamw,
    binary_accuracy,
    binary_cross_entropy_with_logits,
    f32,
    model,
    sigmoid,
    training,
)

measured, benign = load_breast_cancer(return_X_y=True)
train_x, held_x, train_y, held_y = train_test_split(
    measured.astype(np.float32),
    benign.astype(np.float32),
    test_size=114,
    stratify=benign,
    random_state=0,
)
CENTRE, SPREAD = train_x.mean(axis=0), train_x.std(axis=0)


@model
def tumour(x=f32["batch", 30], benign=f32["batch"]):
    logit = ((x - CENTRE) / SPREAD >> Dense(1, name="odds"))[:, 0]
    return {
        "probability": sigmoid(logit),
        "loss": binary_cross_entropy_with_logits(logit, benign),
        "accuracy": binary_accuracy(logit, benign, threshold=0),
    }


recipe = training(
    tumour, minimize="loss", optimizer=adamw(0.01, weight_decay=0.01), batch_size=65, steps=700
)

data = {"x": train_x, "benign": train_y}, {"x": held_x, "benign": held_y}
