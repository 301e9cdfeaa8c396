"""A small GPT: a causal transformer that writes Python, a character at a time.

    nncompile train examples/char_gpt.py
    python examples/char_gpt.py                  # trains, exports, and writes with the export

It is trained on sources of the standard library (`source_text.py`) and measured on modules that it
has not seen: it needs 2.5 bits for a character there, where one alone of 128 would need 7.
"""

import math

import onnxruntime
import source_text

from dsl import (
    Dense,
    Embedding,
    TransformerEncoder,
    cosine,
    cross_entropy,
    i64,
    model,
    muon,
    training,
)
from nncompile import Trainer


@model(predict="logits")
def char_gpt(text=i64["batch", "time"]):
    """After each character, the next one: `text` holds ASCII codes, of any length."""
    features = (
        text
        >> Embedding(128, 64, name="characters")
        >> TransformerEncoder(
            num_heads=4,
            dim_feedforward=128,
            num_layers=2,
            is_causal=True,
            norm_first=True,
            rotary_base=10000.0,
        )
    )
    logits = features >> Dense(128, name="next")
    loss = cross_entropy(logits[:, :-1], text[:, 1:])
    return {"logits": logits, "loss": loss, "bits": loss / math.log(2)}


recipe = training(
    char_gpt,
    minimize="loss",
    optimizer=muon(cosine(5e-2, warmup=50, steps=650)),
    batch_size=16,
    steps=650,
)

data = source_text.data


if __name__ == "__main__":
    text, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(text)
    print(f"{trainer.evaluate(held_out)['bits']:.3f} bits a character, on modules not seen\n")
    trainer.export("runs/char_gpt.onnx")
    session = onnxruntime.InferenceSession("runs/char_gpt.onnx")
    print(source_text.continued(session, "\tdef __init__(self, ", 400).expandtabs(4))
