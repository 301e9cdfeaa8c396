"""Networks of texts and series."""

from __future__ import annotations

from typing import Any

from benchmarks.networks.sizes import BLOCKS, HEADS, HIDDEN, LENGTH, SENTENCE, TOKENS, WIDTH, WORDS
from dsl import (
    GRU,
    LSTM,
    Conv1d,
    Dense,
    Embedding,
    LayerNorm,
    LearnedPositions,
    TransformerEncoderLayer,
    cross_entropy,
    f32,
    i64,
    mean,
    model,
    relu,
    tanh,
)


def gpt(
    tokens: int = TOKENS,
    length: int = LENGTH,
    width: int = WIDTH,
    heads: int = HEADS,
    blocks: int = BLOCKS,
) -> Any:
    """A decoder-only transformer, normalized before each branch."""

    @model
    def gpt(x: Any = i64["batch", length], label: Any = i64["batch", length]) -> dict[str, Any]:
        x = x >> Embedding(tokens, width, name="tokens") >> LearnedPositions(length, name="places")
        for i in range(blocks):
            x = x >> TransformerEncoderLayer(
                heads, norm_first=True, is_causal=True, name=f"block{i}"
            )
        logits = x >> LayerNorm(name="norm") >> Dense(tokens, name="head")
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


def recurrent(kind: str, layers: int = 1, bidirectional: bool = False, width: int = HIDDEN) -> Any:
    """An LSTM or GRU and a dense layer on its last output; where it goes both ways, on the mean of
    its outputs."""
    layer = {"LSTM": LSTM, "GRU": GRU}[kind]

    @model
    def recurrent(x: Any = f32["batch", "time", width], label: Any = i64["batch"]) -> Any:
        x = x >> layer(
            width,
            num_layers=layers,
            bidirectional=bidirectional,
            return_sequences=bidirectional,
            name="cell",
        )
        logits = (mean(x, 1) if bidirectional else x) >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return recurrent


def temporal(channels: int = 64, blocks: int = 4) -> Any:
    """Causal convolutions whose dilation doubles, with shortcuts (Bai et al. 2018)."""

    @model
    def temporal(x: Any = f32["batch", 8, 128], label: Any = i64["batch"]) -> dict[str, Any]:
        x = x >> Conv1d(channels, 1, name="stem")
        for i in range(blocks):
            options = {"padding": "causal", "dilation": 2**i, "activation": relu}
            y = x >> Conv1d(channels, 3, name=f"block{i}_first", **options)
            x = relu(x + (y >> Conv1d(channels, 3, name=f"block{i}_second", **options)))
        logits = mean(x, 2) >> Dense(10, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return temporal
