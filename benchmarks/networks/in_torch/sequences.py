"""Networks of texts and series in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.networks import sizes


class Attention(nn.Module):
    """Attention of several heads by torch's fused function: causal, or to what a mask leaves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        for name in ("query", "key", "value", "output"):
            setattr(self, name, nn.Linear(width, width))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            getattr(self, name)(x).view(batch, time, self.heads, -1).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        y = self.attended(q, k, v, mask)
        return self.output(y.transpose(1, 2).reshape(batch, time, width))  # type: ignore[no-any-return]

    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)


class AttentionWrittenOut(Attention):
    """With a mask that is added, as transformers wrote it."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is not None
        added = (1.0 - mask.to(torch.float32)) * -10000.0
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + added
        return scores.softmax(-1) @ v


class Block(nn.Module):
    """`TransformerEncoderLayer`: with `first`, `norm_first=True, is_causal=True`."""

    def __init__(self, attention: Attention, width: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.attention, self.attention_norm = attention, nn.LayerNorm(width)
        self.feed = nn.ModuleDict(
            {"hidden": nn.Linear(width, 4 * width), "output": nn.Linear(4 * width, width)}
        )
        self.feed_norm = nn.LayerNorm(width)

    def fed(self, x: Tensor) -> Tensor:
        return self.feed["output"](functional.gelu(self.feed["hidden"](x)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.first:
            x = x + self.attention(self.attention_norm(x), mask)
            return x + self.fed(self.feed_norm(x))
        x = self.attention_norm(x + self.attention(x, mask))
        return self.feed_norm(x + self.fed(x))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """`in_dsl.gpt`."""

    def __init__(
        self,
        tokens: int = sizes.TOKENS,
        length: int = sizes.LENGTH,
        width: int = sizes.WIDTH,
        heads: int = sizes.HEADS,
        blocks: int = sizes.BLOCKS,
    ) -> None:
        super().__init__()
        self.blocks = [f"block{i}" for i in range(blocks)]
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(length, width)
        for name in self.blocks:
            setattr(self, name, Block(Attention(width, heads), width, first=True))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places.weight
        for name in self.blocks:
            x = getattr(self, name)(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """`in_dsl.encoder`; its attention may be written out."""

    def __init__(self, written_out: bool = False) -> None:
        super().__init__()
        width = sizes.WIDTH
        kind = AttentionWrittenOut if written_out else Attention
        self.tokens = nn.Embedding(sizes.WORDS, width)
        self.places = nn.Embedding(sizes.SENTENCE, width)
        self.norm = nn.LayerNorm(width)
        for i in range(sizes.BLOCKS):
            setattr(self, f"block{i}", Block(kind(width, sizes.HEADS), width, first=False))
        self.pooled, self.head = nn.Linear(width, width), nn.Linear(width, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        seen = (mask == 1)[:, None, None, :]
        x = self.norm(self.tokens(x) + self.places.weight)
        for i in range(sizes.BLOCKS):
            x = getattr(self, f"block{i}")(x, seen)
        return self.head(torch.tanh(self.pooled(x[:, 0])))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """`in_dsl.recurrent`."""

    def __init__(
        self,
        kind: str,
        layers: int = 1,
        bidirectional: bool = False,
        width: int = sizes.HIDDEN,
    ) -> None:
        super().__init__()
        options = {"batch_first": True, "bidirectional": bidirectional}
        self.cell = getattr(torch.nn, kind)(width, width, layers, **options)
        self.head = nn.Linear(width * (2 if bidirectional else 1), 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cell(x)[0]
        return self.head(y.mean(1) if self.cell.bidirectional else y[:, -1])  # type: ignore[no-any-return]


class Temporal(nn.Module):
    """`in_dsl.temporal`."""

    def __init__(self, channels: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv1d(8, channels, 1)
        self.blocks = [(f"block{i}", 2**i) for i in range(blocks)]
        for name, dilation in self.blocks:
            for part in ("first", "second"):
                convolution = nn.Conv1d(channels, channels, 3, dilation=dilation)
                setattr(self, f"{name}_{part}", convolution)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for name, dilation in self.blocks:
            y = x
            for part in ("first", "second"):
                convolution = getattr(self, f"{name}_{part}")
                y = functional.relu(convolution(functional.pad(y, (2 * dilation, 0))))
            x = functional.relu(x + y)
        return self.head(x.mean(2))  # type: ignore[no-any-return]
