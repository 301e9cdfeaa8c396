"""Quantization-aware training of a quantized file: 8-bit integers go on learning, and stay 8-bit
integers.

    python examples/qat.py

onnxruntime's quantizer made the file of a network of Keras (`models/with_quantization.py`), and
was told the ranges of the activations by images that were too dark: what is brighter is cut off,
and of 96 % right 83 % are left. Here the pairs of QuantizeLinear and DequantizeLinear are computed
as the file has them, their gradient goes straight through where nothing is cut off, and the weights
learn to do within these ranges: 92 % are right. The same training without the pairs, quantized
afterwards, gets 84 %.
"""

from pathlib import Path

import digits
import onnxruntime

from dsl import accuracy, adamw, cosine, cross_entropy, f32, i64, model, training
from nncompile import Trainer, export, load_onnx

MODELS = Path(__file__).parent / "models"
QUANTIZED = MODELS / "digits_qdq.onnx"
FLOATS = MODELS / "digits_keras.onnx"  # what it was made of
LOGITS = "digits/dense_1/BiasAdd:0"  # what the softmax is computed of, in both files


quantized = load_onnx(QUANTIZED)
# What the quantizer calls "x_quantized" is "x" in the other file: the same weights have the same
# paths in both.
paths = {name.removesuffix("_quantized"): path for path, name in quantized.report.renames.items()}


def recipe(network, tensor):
    """How a network of a file is trained, by the logits in this tensor."""

    @model(predict="logits")
    def net(image=f32["batch", 8, 8, 1], label=i64["batch"]):
        logits = network(image)[tensor]
        return {
            "logits": logits,
            "loss": cross_entropy(logits, label),
            "accuracy": accuracy(logits, label),
        }

    return training(net, optimizer=adamw(cosine(1e-3, steps=300)), batch_size=32, steps=300)


DEQUANTIZED = f"{LOGITS}_DequantizeLinear_Output"
aware = recipe(load_onnx(QUANTIZED, outputs=[DEQUANTIZED]), DEQUANTIZED)
unaware = recipe(load_onnx(FLOATS, outputs=[LOGITS], renames=paths), LOGITS)


def data():
    """Images with channels last, and their labels, to train and to measure on."""
    return tuple(
        {"image": (part["image"] / 16).transpose(0, 2, 3, 1), "label": part["label"]}
        for part in digits.data()
    )


def right(path, part):
    """The share that a file gets right in plain onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # int8 without overflow
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["dense_1"], {"image": part["image"]})
    return (probabilities.argmax(-1) == part["label"]).mean()


def write_quantized(trainer, path):
    """The quantized file with the weights of the trainer, as integers."""
    export(quantized, path, "original", params=trainer.params)


if __name__ == "__main__":
    train, held_out = data()
    print(f"floats: {right(FLOATS, held_out):.1%} right")
    print(f"quantized: {right(QUANTIZED, held_out):.1%}")
    for name, chosen in (("trained with the pairs", aware), ("trained without", unaware)):
        trainer = Trainer(chosen)
        trainer.fit(train)
        write_quantized(trainer, "runs/digits_qdq.onnx")
        print(f"{name}: {right('runs/digits_qdq.onnx', held_out):.1%}")
