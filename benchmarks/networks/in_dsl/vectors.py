"""Networks of vectors."""

from __future__ import annotations

from typing import Any

from dsl import Dense, Dropout, Embedding, cross_entropy, f32, i64, mean, model, relu


def perceptron(widths: tuple[int, ...], drop: float = 0.0) -> Any:
    """Dense layers with ReLU between them, and dropout behind each where a rate is given."""
    inputs, *hidden, classes = widths

    @model
    def perceptron(x: Any = f32["batch", inputs], label: Any = i64["batch"]) -> dict[str, Any]:
        for i, width in enumerate(hidden):
            x = x >> Dense(width, relu, name=f"hidden{i}")
            if drop:
                x = x >> Dropout(drop, name=f"drop{i}")
        logits = x >> Dense(classes, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return perceptron


def bag(words: int, width: int, length: int, classes: int = 4) -> Any:
    """A text by the mean of its words' vectors (Joulin et al. 2017), with a hidden layer."""

    @model
    def bag(x: Any = i64["batch", length], label: Any = i64["batch"]) -> dict[str, Any]:
        x = mean(x >> Embedding(words, width, name="words"), 1)
        logits = x >> Dense(width, relu, name="hidden") >> Dense(classes, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return bag
