"""Runs the exported digits model on images that it has not seen, with plain onnxruntime.

nncompile train examples/digits.py
python examples/recognise.py [runs/digits/latest/model.onnx]
"""

import sys

import numpy as np
import onnxruntime
from sklearn.datasets import load_digits

SHADES = " .:-=+*#%@"


def held_out():
    """The 36 images of each digit that examples/digits.py does not train on, and what they show."""
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = np.concatenate([order[labels[order] == digit][:36] for digit in range(10)])
    return images[chosen], labels[chosen]


def drawn(image):
    """The lines of an image of pixels from 0 to 16, two characters a pixel."""
    shades = np.minimum(image[0] * len(SHADES) // 17, len(SHADES) - 1).astype(int)
    return ["".join(SHADES[shade] * 2 for shade in row) for row in shades]


def main(path="runs/digits/latest/model.onnx"):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images, labels = held_out()
    (probabilities,) = session.run(["probabilities"], {"image": images})
    recognised = probabilities.argmax(axis=1)
    right = recognised == labels
    print(f"{path}: {right.sum()} of {len(labels)} right, accuracy {right.mean():.4f}\n")
    known = np.flatnonzero(right)
    shown = [*known[[0, len(known) // 2]], *np.flatnonzero(~right)[:1]]
    for lines in zip(*(drawn(images[i]) for i in shown), strict=True):
        print("    ".join(lines))
    captions = (
        f"{recognised[i]} ({probabilities[i].max():.0%})"
        + ("" if right[i] else f", is {labels[i]}")
        for i in shown
    )
    print("    ".join(caption.ljust(16) for caption in captions))
    return right.mean()


if __name__ == "__main__":
    main(*sys.argv[1:])
