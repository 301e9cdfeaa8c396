"""Networks of images in torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import sizes


class LeNet(nn.Module):
    """`in_dsl.lenet`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.third, self.fourth = nn.Linear(400, 120), nn.Linear(120, 84)
        self.head = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.first(x)), 2)
        x = functional.max_pool2d(functional.relu(self.second(x)), 2).flatten(1)
        return self.head(functional.relu(self.fourth(functional.relu(self.third(x)))))  # type: ignore[no-any-return]


class Vgg(nn.Module):
    """`in_dsl.vgg`."""

    def __init__(self, stages: tuple[tuple[int, ...], ...] = sizes.VGG, hidden: int = 256) -> None:
        super().__init__()
        self.stages: list[list[str]] = []
        now = 3
        for stage, convolutions in enumerate(stages):
            self.stages.append([f"stage{stage}{i}" for i in range(len(convolutions))])
            for name, channels in zip(self.stages[-1], convolutions, strict=True):
                setattr(self, name, nn.Conv2d(now, channels, 3, padding=1))
                now = channels
        side = 32 >> len(stages)
        self.hidden, self.head = nn.Linear(now * side * side, hidden), nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        for names in self.stages:
            for name in names:
                x = functional.relu(getattr(self, name)(x))
            x = functional.max_pool2d(x, 2)
        return self.head(functional.relu(self.hidden(x.flatten(1))))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """`in_dsl.resnet`."""

    def __init__(
        self, stages: sizes.Stages = sizes.STAGES, depth: int = sizes.DEPTH, size: int = 32
    ) -> None:
        super().__init__()
        self.pools = size > 32
        now = stages[0][0]
        self.stem = self._convolution(3, now, *((7, 2) if self.pools else (3, 1)))
        self.stem_norm = nn.BatchNorm2d(now)
        self.blocks: list[tuple[str, bool]] = []
        for stage, (channels, first) in enumerate(stages):
            for i in range(depth):
                name, stride = f"block{stage}{i}", first if i == 0 else 1
                self.blocks.append((name, stride != 1))
                parts = {"first": (now, 3, stride), "second": (channels, 3, 1)}
                if stride != 1:
                    parts["short"] = (now, 1, stride)
                for part, (inputs, kernel, step) in parts.items():
                    convolution = self._convolution(inputs, channels, kernel, step)
                    setattr(self, f"{name}_{part}", convolution)
                    setattr(self, f"{name}_{part}_norm", nn.BatchNorm2d(channels))
                now = channels
        self.head = nn.Linear(now, 10)

    @staticmethod
    def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    def _normalized(self, name: str, x: Tensor) -> Tensor:
        return getattr(self, f"{name}_norm")(getattr(self, name)(x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self._normalized("stem", x))
        if self.pools:
            x = functional.max_pool2d(x, 3, 2, padding=1)
        for name, projected in self.blocks:
            shortcut = self._normalized(f"{name}_short", x) if projected else x
            x = functional.relu(self._normalized(f"{name}_first", x))
            x = functional.relu(shortcut + self._normalized(f"{name}_second", x))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class DenseNet(nn.Module):
    """`in_dsl.densenet`."""

    def __init__(self, layers: int = 12, growth: int = 12) -> None:
        super().__init__()
        self.layers = layers
        now = 2 * growth
        self.stem = nn.Conv2d(3, now, 3, padding=1, bias=False)
        for block in range(3):
            for i in range(layers):
                name = f"block{block}_{i}"
                setattr(self, f"{name}_norm", nn.BatchNorm2d(now))
                setattr(self, name, nn.Conv2d(now, growth, 3, padding=1, bias=False))
                now += growth
            if block < 2:
                setattr(self, f"transition{block}_norm", nn.BatchNorm2d(now))
                setattr(self, f"transition{block}", nn.Conv2d(now, now, 1, bias=False))
        self.norm, self.head = nn.BatchNorm2d(now), nn.Linear(now, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in range(3):
            for i in range(self.layers):
                name = f"block{block}_{i}"
                y = functional.relu(getattr(self, f"{name}_norm")(x))
                x = torch.cat([x, getattr(self, name)(y)], 1)
            if block < 2:
                x = functional.relu(getattr(self, f"transition{block}_norm")(x))
                x = functional.avg_pool2d(getattr(self, f"transition{block}")(x), 2)
        return self.head(functional.relu(self.norm(x)).mean((2, 3)))  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """`in_dsl.autoencoder`."""

    def __init__(self) -> None:
        super().__init__()
        self.down0, self.down0_norm = nn.Conv2d(1, 16, 3, 2, padding=1), nn.BatchNorm2d(16)
        self.down1, self.down1_norm = nn.Conv2d(16, 32, 3, 2, padding=1), nn.BatchNorm2d(32)
        self.up0, self.up0_norm = nn.ConvTranspose2d(32, 16, 4, 2, padding=1), nn.BatchNorm2d(16)
        self.up1 = nn.ConvTranspose2d(16, 1, 4, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.down0_norm(self.down0(x)))
        x = functional.relu(self.down1_norm(self.down1(x)))
        x = functional.relu(self.up0_norm(self.up0(x)))
        return self.up1(x)  # type: ignore[no-any-return]
