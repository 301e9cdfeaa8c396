"""A recurrent network that writes Python, a character at a time.

    nncompile train examples/char_lstm.py
    python examples/char_lstm.py                 # trains, exports, and writes with the export

The same text, loss and figure as `char_gpt.py`, with an LSTM in the place of attention: what it
knows of the text so far is in its state alone. It needs 2.75 bits for a character.
"""

import math

import onnxruntime
import source_text

from dsl import (
    LSTM,
    Dense,
    Embedding,
    adamw,
    cosine,
    cross_entropy,
    i64,
    model,
    training,
)
from nncompile import Trainer


@model(predict="logits")
def char_lstm(text=i64["batch", "time"]):
    """After each character, the next one: `text` holds ASCII codes, of any length."""
    features = text >> Embedding(128, 64, name="characters") >> LSTM(128, return_sequences=True)
    logits = features >> Dense(128, name="next")
    loss = cross_entropy(logits[:, :-1], text[:, 1:])
    return {"logits": logits, "loss": loss, "bits": loss / math.log(2)}


recipe = training(
    char_lstm,
    minimize="loss",
    optimizer=adamw(cosine(1.5e-2, warmup=40, steps=400)),
    batch_size=16,
    steps=400,
)


data = source_text.data


if __name__ == "__main__":
    text, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(text)
    print(f"{trainer.evaluate(held_out)['bits']:.3f} bits a character, on modules not seen\n")
    trainer.export("runs/char_lstm.onnx")
    session = onnxruntime.InferenceSession("runs/char_lstm.onnx")
    print(source_text.continued(session, "\tdef __init__(self, ", 400).expandtabs(4))
