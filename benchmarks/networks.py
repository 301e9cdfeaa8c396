"""The networks that are measured, as a user writes them."""

from __future__ import annotations

from typing import Any

from dsl import (
    GRU,
    LSTM,
    BatchNorm,
    Conv2d,
    Dense,
    Embedding,
    GlobalAveragePool,
    LayerNorm,
    LearnedPositions,
    MaxPool2d,
    TransformerEncoderLayer,
    cross_entropy,
    f32,
    flatten,
    i64,
    model,
    relu,
    tanh,
)

LENGTH, TOKENS, WIDTH, HEADS, BLOCKS = 128, 65, 128, 4, 4  # of the GPT
HIDDEN = 128  # of the recurrent networks
Stages = tuple[tuple[int, int], ...]
STAGES = ((16, 1), (32, 2), (64, 2))  # of the ResNet: channels, stride of the first block
DEPTH = 3  # blocks in a stage
STAGES_18, DEPTH_18 = (*STAGES, (128, 2)), 2  # of a ResNet-18 of a quarter of its channels
WORDS, SENTENCE = 1000, 64  # of the encoder


def perceptron(widths: tuple[int, ...]) -> Any:
    """Dense layers with ReLU between them."""
    inputs, *hidden, classes = widths

    @model
    def perceptron(x: Any = f32["batch", inputs], label: Any = i64["batch"]) -> dict[str, Any]:
        for i, width in enumerate(hidden):
            x = x >> Dense(width, relu, name=f"hidden{i}")
        logits = x >> Dense(classes, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return perceptron


def lenet() -> Any:
    """LeNet-5 (LeCun et al. 1998) with ReLU and maxima."""

    @model
    def lenet(x: Any = f32["batch", 1, 28, 28], label: Any = i64["batch"]) -> dict[str, Any]:
        x = x >> Conv2d(6, 5, padding=2, activation=relu, name="first") >> MaxPool2d(2)
        x = x >> Conv2d(16, 5, activation=relu, name="second") >> MaxPool2d(2) >> flatten
        x = x >> Dense(120, relu, name="third") >> Dense(84, relu, name="fourth")
        logits = x >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return lenet


def _block(x: Any, channels: int, stride: int, name: str) -> Any:
    shortcut = x
    if stride != 1:
        shortcut = x >> Conv2d(channels, 1, stride, bias=False, name=f"{name}_short")
        shortcut = shortcut >> BatchNorm(name=f"{name}_short_norm")
    x = x >> Conv2d(channels, 3, stride, padding=1, bias=False, name=f"{name}_first")
    x = relu(x >> BatchNorm(name=f"{name}_first_norm"))
    x = x >> Conv2d(channels, 3, padding=1, bias=False, name=f"{name}_second")
    return relu(shortcut + (x >> BatchNorm(name=f"{name}_second_norm")))


def resnet(stages: Stages = STAGES, depth: int = DEPTH) -> Any:
    """ResNet-20 for images of 32×32 (He et al. 2016), with projections as shortcuts; or of other
    stages, with so many blocks in each."""

    @model
    def resnet(x: Any = f32["batch", 3, 32, 32], label: Any = i64["batch"]) -> dict[str, Any]:
        x = x >> Conv2d(16, 3, padding=1, bias=False, name="stem") >> BatchNorm(name="stem_norm")
        x = relu(x)
        for stage, (channels, stride) in enumerate(stages):
            for i in range(depth):
                x = _block(x, channels, stride if i == 0 else 1, f"block{stage}{i}")
        logits = x >> GlobalAveragePool() >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return resnet


def gpt() -> Any:
    """A decoder-only transformer, normalized before each branch."""

    @model
    def gpt(
        x: Any = i64["batch", LENGTH],
        label: Any = i64["batch", LENGTH],
    ) -> dict[str, Any]:
        x = x >> Embedding(TOKENS, WIDTH, name="tokens") >> LearnedPositions(LENGTH, name="places")
        for i in range(BLOCKS):
            x = x >> TransformerEncoderLayer(
                HEADS, norm_first=True, is_causal=True, name=f"block{i}"
            )
        logits = x >> LayerNorm(name="norm") >> Dense(TOKENS, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return gpt


def encoder() -> Any:
    """A transformer encoder of padded texts, which are classified by their first token (Devlin et
    al. 2019)."""

    @model
    def encoder(
        x: Any = i64["batch", SENTENCE],
        mask: Any = i64["batch", SENTENCE],
        label: Any = i64["batch"],
    ) -> dict[str, Any]:
        x = x >> Embedding(WORDS, WIDTH, name="tokens") >> LearnedPositions(SENTENCE, name="places")
        x = x >> LayerNorm(name="norm")
        for i in range(BLOCKS):
            x = TransformerEncoderLayer(HEADS, name=f"block{i}")(x, key_mask=mask == 1)
        logits = x[:, 0] >> Dense(WIDTH, tanh, name="pooled") >> Dense(4, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return encoder


def recurrent(kind: str) -> Any:
    """An LSTM or GRU and a dense layer on its last output."""
    layer = {"LSTM": LSTM, "GRU": GRU}[kind]

    @model
    def recurrent(
        x: Any = f32["batch", "time", HIDDEN], label: Any = i64["batch"]
    ) -> dict[str, Any]:
        logits = x >> layer(HIDDEN, name="cell") >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return recurrent
