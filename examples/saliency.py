"""Which pixels an answer hangs on: the gradient of a logit at the image, in an exported file.

    python examples/saliency.py                           # measures
    python examples/saliency.py docs/images/saliency.png  # and draws

The network is a file of torch that knows the digits 0 to 4 (`models/with_torch.py` made it). Its
gradient is an output of a model like any other: the exported file, run by plain onnxruntime without
labels, gives the answer and a map of the image in one run (K. Simonyan et al., "Deep inside
convolutional networks", 2014; times the pixel, so that what is not drawn counts nothing).

Without the three pixels that count most, 44 % of the answers are others; without three random ones
of those that are drawn, 8 %.
"""

import sys
from pathlib import Path

import digits
import numpy as np
import onnxruntime

from dsl import f32, grad, model
from dsl import max as largest
from dsl import sum as total
from nncompile import export, load_onnx

HERE = Path(__file__).parent
network = load_onnx(HERE / "models" / "digits_cnn.onnx")


@model
def explained(image=f32["batch", 1, 8, 8]):
    logits = network(image)["logits"]
    # The answers of one batch do not depend on each other's images: one gradient for all of them.
    slope = grad(total(largest(logits, axis=-1)), image)
    return {"logits": logits, "saliency": slope * image}


def images():
    """The held-out images of the digits 0 to 4, and which they are."""
    held_out = digits.data()[1]
    known = held_out["label"] < 5
    return held_out["image"][known] / 16, held_out["label"][known]


def exported(path):
    """A session of plain onnxruntime with the file."""
    export(explained, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def changed(session, pixels, scores, count):
    """The share of answers that change without the `count` drawn pixels of the largest scores."""
    before = session.run(["logits"], {"image": pixels})[0].argmax(-1)
    flat = pixels.reshape(len(pixels), -1).copy()
    scores = np.where(flat > 0, scores.reshape(len(pixels), -1), -np.inf)
    np.put_along_axis(flat, np.argsort(-scores, axis=-1)[:, :count], 0, axis=-1)
    after = session.run(["logits"], {"image": flat.reshape(pixels.shape)})[0].argmax(-1)
    return (before != after).mean()


def draw(pixels, saliency, logits, path):
    """Each image above its map: red speaks for the answer, blue against it."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, len(pixels), figsize=(len(pixels), 2.4))
    for column, (image, scores, logit) in enumerate(zip(pixels, saliency, logits, strict=True)):
        limit = abs(scores).max()
        axes[0, column].imshow(image[0], cmap="gray_r")
        axes[0, column].set_title(f"{logit.argmax()}", fontsize=9)
        axes[1, column].imshow(scores[0], cmap="RdBu_r", vmin=-limit, vmax=limit)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    session = exported("runs/saliency.onnx")
    pixels, labels = images()
    logits, saliency = session.run(["logits", "saliency"], {"image": pixels})
    print(f"{(logits.argmax(-1) == labels).mean():.1%} of {len(pixels)} right")
    chance = np.random.default_rng(0).uniform(size=saliency.shape)
    for count in (3, 5, 8):
        salient, other = (changed(session, pixels, x, count) for x in (saliency, chance))
        print(f"without {count} pixels: {salient:.1%} change, of random ones {other:.1%}")
    if len(sys.argv) > 1:
        firsts = [np.flatnonzero(labels == digit)[:2] for digit in range(5)]
        rows = np.concatenate(firsts)
        draw(pixels[rows], saliency[rows], logits[rows], sys.argv[1])
