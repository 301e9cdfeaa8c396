"""How the generative examples are judged, and how their images are drawn.

Three figures, on images that are rows of 64 pixels from 0 to 1, beside those of real digits that
were held out and of normal numbers with the mean and the covariance of the digits:

- confidence: how many of the ten nearest digits that were trained on are of one kind, as a share;
- digits: of the ten, how many make up at least 3 % of the images (a generator that draws the
  same digit again and again is confident, too);
- told apart: the share of images whose nearest other one, in a mixture of half real and half
  generated ones, is of their own kind: 50 % where both are alike, 100 % where they never mix
  (D. Lopez-Paz and M. Oquab, "Revisiting classifier two-sample tests", 2017).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

HELD_OUT = 360


def digits():
    """The images in two parts, always the same ones: to train on, and held out."""
    images, _ = shuffled()
    return images[:-HELD_OUT], images[-HELD_OUT:]


def shuffled():
    """All images and labels in an order in which the writers, who follow each other in the data,
    are mixed."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 16).astype(np.float32), labels[order]


@dataclass(frozen=True)
class Verdict:
    """The figures of the judge."""

    confidence: float
    digits: int
    told_apart: float

    def __str__(self):
        return (
            f"confidence {self.confidence:.2f}, {self.digits} digits, "
            f"told apart {self.told_apart:.0%}"
        )


@cache
def classifier():
    """The ten nearest neighbours, by which 97.5 % of the held-out digits are told right."""
    images, labels = shuffled()
    return KNeighborsClassifier(10).fit(images[:-HELD_OUT], labels[:-HELD_OUT])


def judged(images):
    """The verdict on as many images as are held out."""
    assert images.shape == (HELD_OUT, 64)
    probabilities = classifier().predict_proba(images)
    counts = np.bincount(probabilities.argmax(1), minlength=10)
    both = np.concatenate([digits()[1], images])
    _, near = NearestNeighbors(n_neighbors=2).fit(both).kneighbors(both)
    generated = np.arange(len(both)) >= HELD_OUT
    return Verdict(
        confidence=float(probabilities.max(1).mean()),
        digits=int((counts >= 0.03 * HELD_OUT).sum()),
        told_apart=float((generated[near[:, 1]] == generated).mean()),
    )


def of_moments():
    """Normal numbers with the mean and covariance of the digits, cut to the range of pixels."""
    train = digits()[0]
    drawn = np.random.default_rng(0).multivariate_normal(train.mean(0), np.cov(train.T), HELD_OUT)
    return drawn.clip(0, 1).astype(np.float32)


def draw(images, path, columns=20):
    """Writes a PNG with the images in rows, four times as large, dark on light; it needs
    matplotlib (pip install 'nncompile[plot]')."""
    from matplotlib.image import imsave

    rows = len(images) // columns
    page = images[: rows * columns].reshape(rows, columns, 8, 8)
    page = np.pad(page, [(0, 0), (0, 0), (1, 1), (1, 1)]).transpose(0, 2, 1, 3)
    page = page.reshape(rows * 10, columns * 10).repeat(4, 0).repeat(4, 1)
    imsave(path, page, cmap="gray_r", vmin=0, vmax=1)
    print(f"drew {rows * columns} images: {path}")


if __name__ == "__main__":
    train, _ = digits()
    print("other digits:  ", judged(train[:HELD_OUT]))
    print("normal numbers:", judged(of_moments()))
