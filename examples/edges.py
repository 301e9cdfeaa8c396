"""A convolution learns an edge filter from a photograph and its edges, exactly.

    nncompile train examples/edges.py
    python examples/edges.py                # trains, and prints the two kernels that were learned

The target is what the Sobel filters, one for each direction, make of the photograph. Their 18
numbers come back to five decimals from pieces of 32×32 pixels of one photograph. The exported file
then gives the edges of the other one, all of its 427×640 pixels, to the same precision.
"""

import numpy as np
from sklearn.datasets import load_sample_images

from dsl import Conv2d, adam, cosine, f32, mean_squared_error, model, training
from nncompile import Trainer

ACROSS = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
SOBEL = np.stack([ACROSS, ACROSS.T])


@model(predict="edges")
def edges(image=f32["batch", 1, "height", "width"], sobel=f32["batch", 2, "height-2", "width-2"]):
    # Edges do not depend on the brightness; without most of it they are learned much faster.
    found = image - 0.5 >> Conv2d(2, 3, bias=False, name="filter")
    return {"edges": found, "loss": mean_squared_error(found, sobel)}


recipe = training(
    edges, minimize="loss", optimizer=adam(cosine(0.1, steps=1000)), batch_size=16, steps=1000
)


def filtered(images):
    """What the Sobel filters make of images [batch, 1, height, width]: a channel for each."""
    windows = np.lib.stride_tricks.sliding_window_view(images[:, 0], (3, 3), axis=(1, 2))
    return np.einsum("bhwij,cij->bchw", windows, SOBEL).astype(np.float32)


def data():
    """Pieces of 32×32 pixels of the photograph of a temple; to measure on, all of a flower's."""
    temple, flower = (
        (photograph.mean(axis=2) / 255).astype(np.float32)
        for photograph in load_sample_images().images
    )
    rows, columns = temple.shape[0] // 32, temple.shape[1] // 32
    pieces = temple[: rows * 32, : columns * 32].reshape(rows, 32, columns, 32)
    pieces = pieces.transpose(0, 2, 1, 3).reshape(-1, 1, 32, 32)
    return (
        {"image": pieces, "sobel": filtered(pieces)},
        {"image": flower[None, None], "sobel": filtered(flower[None, None])},
    )


if __name__ == "__main__":
    trainer = Trainer(recipe)
    train, flower = data()
    trainer.fit(train)
    print(trainer.params["filter.weight"][:, 0].round(5))
    print(f"squared error on the other photograph: {trainer.evaluate(flower)['loss']:.2g}")
