"""The same networks in torch, their parameters under the same names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import networks


class Perceptron(nn.Module):
    """`networks.perceptron`."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.hidden = [f"hidden{i}" for i in range(len(widths) - 2)]
        for name, inputs, outputs in zip(
            (*self.hidden, "head"), widths[:-1], widths[1:], strict=True
        ):
            setattr(self, name, nn.Linear(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        for name in self.hidden:
            x = functional.relu(getattr(self, name)(x))
        return self.head(x)  # type: ignore[no-any-return]


class LeNet(nn.Module):
    """`networks.lenet`."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.third, self.fourth = nn.Linear(400, 120), nn.Linear(120, 84)
        self.head = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.first(x)), 2)
        x = functional.max_pool2d(functional.relu(self.second(x)), 2).flatten(1)
        return self.head(functional.relu(self.fourth(functional.relu(self.third(x)))))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """`networks.resnet`."""

    def __init__(
        self, stages: networks.Stages = networks.STAGES, depth: int = networks.DEPTH
    ) -> None:
        super().__init__()
        self.stem, self.stem_norm = self._convolution(3, 16, 3, 1), nn.BatchNorm2d(16)
        self.blocks: list[tuple[str, bool]] = []
        now = 16
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
        for name, projected in self.blocks:
            shortcut = self._normalized(f"{name}_short", x) if projected else x
            x = functional.relu(self._normalized(f"{name}_first", x))
            x = functional.relu(shortcut + self._normalized(f"{name}_second", x))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Causal attention of several heads, by torch's fused function."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("query", "key", "value", "output"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            getattr(self, name)(x).view(batch, time, networks.HEADS, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(batch, time, width))  # type: ignore[no-any-return]


class Block(nn.Module):
    """`TransformerEncoderLayer(norm_first=True, is_causal=True)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.attention_norm = Attention(width), nn.LayerNorm(width)
        self.feed = nn.ModuleDict(
            {"hidden": nn.Linear(width, 4 * width), "output": nn.Linear(4 * width, width)}
        )
        self.feed_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        hidden = functional.gelu(self.feed["hidden"](self.feed_norm(x)))
        return x + self.feed["output"](hidden)  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """`networks.gpt`."""

    def __init__(self) -> None:
        super().__init__()
        width = networks.WIDTH
        self.tokens = nn.Embedding(networks.TOKENS, width)
        self.places = nn.Embedding(networks.LENGTH, width)
        for i in range(networks.BLOCKS):
            setattr(self, f"block{i}", Block(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, networks.TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places.weight
        for i in range(networks.BLOCKS):
            x = getattr(self, f"block{i}")(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


class PaddedAttention(Attention):
    """Attention to what is no padding, as transformers wrote it out: with a mask that is added."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        batch, time, width = x.shape
        q, k, v = (
            getattr(self, name)(x).view(batch, time, networks.HEADS, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // networks.HEADS) + mask
        y = scores.softmax(-1) @ v
        return self.output(y.transpose(1, 2).reshape(batch, time, width))  # type: ignore[no-any-return]


class EncoderBlock(Block):
    """`TransformerEncoderLayer()` with a `key_mask`."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.attention = PaddedAttention(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        x = self.attention_norm(x + self.attention(x, mask))
        hidden = functional.gelu(self.feed["hidden"](x))
        return self.feed_norm(x + self.feed["output"](hidden))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """`networks.encoder`."""

    def __init__(self) -> None:
        super().__init__()
        width = networks.WIDTH
        self.tokens = nn.Embedding(networks.WORDS, width)
        self.places = nn.Embedding(networks.SENTENCE, width)
        self.norm = nn.LayerNorm(width)
        for i in range(networks.BLOCKS):
            setattr(self, f"block{i}", EncoderBlock(width))
        self.pooled, self.head = nn.Linear(width, width), nn.Linear(width, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        added = (1.0 - mask[:, None, None, :].to(torch.float32)) * -10000.0
        x = self.norm(self.tokens(x) + self.places.weight)
        for i in range(networks.BLOCKS):
            x = getattr(self, f"block{i}")(x, added)
        return self.head(torch.tanh(self.pooled(x[:, 0])))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """`networks.recurrent`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = getattr(torch.nn, kind)(networks.HIDDEN, networks.HIDDEN, batch_first=True)
        self.head = nn.Linear(networks.HIDDEN, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])  # type: ignore[no-any-return]
