"""A language model that was exported elsewhere learns another language by a small file: low-rank
adaptation of an ONNX file.

    python examples/lora_gpt.py

The file is a small GPT of torch that writes Python (`models/with_torch.py` made it). Factors of
rank 4 beside its matrices learn English: the language reference that comes with Python, on other
topics than it is measured on. A character takes 2.57 bits before and 2.28 after; what was learned
is a file of 28 kB beside one of 187. Merged, it is the same graph with other weights, for whatever
runs the file today.
"""

import math
import re
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import onnxruntime
import source_text

from dsl import adamw, cosine, cross_entropy, i64, lora, model, training
from nncompile import Trainer, export, load_onnx, merge

FILE = Path(__file__).parent / "models" / "code_gpt.onnx"

gpt = load_onnx(FILE)
adapted = lora(gpt, rank=4)


def language(network, name):
    """The network with the loss of a language model: the next character at each place."""

    @model(predict="logits", name=name)
    def net(text=i64["batch", "time"]):
        logits = network(text)["logits"]
        loss = cross_entropy(logits[:, :-1], text[:, 1:])
        return {"logits": logits, "loss": loss, "bits": loss / math.log(2)}

    return net


english = language(adapted, "english")
recipe = training(english, optimizer=adamw(cosine(2e-2, steps=150)), batch_size=8, steps=150)


def pieces(length=64):
    """The reference in pieces of one length; those of every fifth topic are to measure on."""
    found = ([], [])
    for number, name in enumerate(sorted(topics)):
        text = re.sub(r"\s+", " ", topics[name]).encode("ascii", "replace")
        codes = np.frombuffer(text, np.uint8).astype(np.int64)
        found[number % 5 == 0].append(codes[: len(codes) // length * length])
    return tuple({"text": np.concatenate(part).reshape(-1, length)} for part in found)


data = pieces


def bits(trainer, texts, count=200):
    """Bits a character, on so many of the pieces."""
    return trainer.evaluate({"text": texts["text"][:count]})["bits"]


if __name__ == "__main__":
    (reference, held_out), (_, code) = data(), source_text.data()
    trainer = Trainer(recipe)
    before = bits(trainer, held_out), bits(trainer, code)
    trainer.fit(reference)
    print(f"English {before[0]:.2f} → {bits(trainer, held_out):.2f} bits a character")
    print(f"Python  {before[1]:.2f} → {bits(trainer, code):.2f} with the factors")
    export(trainer, "runs/english.safetensors")
    export(merge(adapted, trainer.state), "runs/english_gpt.onnx", "original")
    for file in (FILE, Path("runs/english.safetensors"), Path("runs/english_gpt.onnx")):
        print(f"{file.name}: {file.stat().st_size:,} bytes")
    session = onnxruntime.InferenceSession("runs/english_gpt.onnx")
    print(source_text.continued(session, "The value of the ", 300, window=63))
