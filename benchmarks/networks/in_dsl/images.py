"""Networks of images."""

from __future__ import annotations

from typing import Any

from benchmarks.networks.sizes import DEPTH, STAGES, VGG, Stages
from dsl import (
    AveragePool2d,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    GlobalAveragePool,
    MaxPool2d,
    concatenate,
    cross_entropy,
    f32,
    flatten,
    i64,
    model,
    mse,
    relu,
)


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


def vgg(stages: tuple[tuple[int, ...], ...] = VGG, hidden: int = 256) -> Any:
    """Convolutions of 3×3 with ReLU, a maximum after each stage (Simonyan, Zisserman 2015)."""

    @model
    def vgg(x: Any = f32["batch", 3, 32, 32], label: Any = i64["batch"]) -> dict[str, Any]:
        for stage, convolutions in enumerate(stages):
            for i, channels in enumerate(convolutions):
                name = f"stage{stage}{i}"
                x = x >> Conv2d(channels, 3, padding=1, activation=relu, name=name)
            x = x >> MaxPool2d(2)
        x = x >> flatten >> Dense(hidden, relu, name="hidden")
        logits = x >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return vgg


def _block(x: Any, channels: int, stride: int, name: str) -> Any:
    shortcut = x
    if stride != 1:
        shortcut = x >> Conv2d(channels, 1, stride, bias=False, name=f"{name}_short")
        shortcut = shortcut >> BatchNorm(name=f"{name}_short_norm")
    x = x >> Conv2d(channels, 3, stride, padding=1, bias=False, name=f"{name}_first")
    x = relu(x >> BatchNorm(name=f"{name}_first_norm"))
    x = x >> Conv2d(channels, 3, padding=1, bias=False, name=f"{name}_second")
    return relu(shortcut + (x >> BatchNorm(name=f"{name}_second_norm")))


def resnet(stages: Stages = STAGES, depth: int = DEPTH, size: int = 32) -> Any:
    """ResNet-20 for images of 32×32 (He et al. 2016), with projections as shortcuts; or of other
    stages, with so many blocks in each. Larger images go through a stem of stride 2 and pooling, as
    those of ImageNet."""

    @model
    def resnet(x: Any = f32["batch", 3, size, size], label: Any = i64["batch"]) -> dict[str, Any]:
        first = stages[0][0]
        kernel, stride = (3, 1) if size <= 32 else (7, 2)
        x = x >> Conv2d(first, kernel, stride, padding=kernel // 2, bias=False, name="stem")
        x = relu(x >> BatchNorm(name="stem_norm"))
        if size > 32:
            x = x >> MaxPool2d(3, 2, padding=1)
        for stage, (channels, stride) in enumerate(stages):
            for i in range(depth):
                x = _block(x, channels, stride if i == 0 else 1, f"block{stage}{i}")
        logits = x >> GlobalAveragePool() >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return resnet


def densenet(layers: int = 12, growth: int = 12) -> Any:
    """Three dense blocks of so many layers (Huang et al. 2017), on images of 32×32."""

    @model
    def densenet(x: Any = f32["batch", 3, 32, 32], label: Any = i64["batch"]) -> dict[str, Any]:
        x = x >> Conv2d(2 * growth, 3, padding=1, bias=False, name="stem")
        for block in range(3):
            for i in range(layers):
                name = f"block{block}_{i}"
                y = relu(x >> BatchNorm(name=f"{name}_norm"))
                y = y >> Conv2d(growth, 3, padding=1, bias=False, name=name)
                x = concatenate([x, y], 1)
            if block < 2:
                x = relu(x >> BatchNorm(name=f"transition{block}_norm"))
                channels = (2 + layers) * growth if block == 0 else (2 + 2 * layers) * growth
                x = x >> Conv2d(channels, 1, bias=False, name=f"transition{block}")
                x = x >> AveragePool2d(2)
        x = relu(x >> BatchNorm(name="norm"))
        logits = x >> GlobalAveragePool() >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return densenet


def autoencoder() -> Any:
    """Two strided convolutions, and two transposed ones back, with batch normalization."""

    @model
    def autoencoder(x: Any = f32["batch", 1, 28, 28]) -> dict[str, Any]:
        y = x >> Conv2d(16, 3, 2, padding=1, name="down0") >> BatchNorm(name="down0_norm")
        y = relu(y) >> Conv2d(32, 3, 2, padding=1, name="down1") >> BatchNorm(name="down1_norm")
        y = (
            relu(y)
            >> ConvTranspose2d(16, 4, 2, padding=1, name="up0")
            >> BatchNorm(name="up0_norm")
        )
        logits = relu(y) >> ConvTranspose2d(1, 4, 2, padding=1, name="up1")
        return {"logits": logits, "loss": mse(logits, x)}

    return autoencoder
