"""Makes `digits_keras.onnx`: a network that Keras trains and tf2onnx writes, of images whose
channels come last. Needs tensorflow 2.15, tf2onnx 1.16 and scikit-learn; the examples need the
file alone.

    python examples/models/with_keras.py
"""

from pathlib import Path

import numpy as np
import tensorflow
import tf2onnx
from sklearn.datasets import load_digits
from tensorflow import keras

HERE = Path(__file__).parent


def digits():
    """The images f32[count, 8, 8, 1] and labels without the 360 that `digits.py` holds out."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    held_out = np.concatenate([order[labels[order] == digit][:36] for digit in range(10)])
    rows = np.setdiff1d(order, held_out)
    return (images[rows] / 16).astype(np.float32).reshape(-1, 8, 8, 1), labels[rows]


def network():
    return keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, padding="same", activation="relu", input_shape=(8, 8, 1)),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ],
        name="digits",
    )


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*digits(), epochs=20, batch_size=32, verbose=2)
    signature = [tensorflow.TensorSpec((None, 8, 8, 1), tensorflow.float32, name="image")]
    tf2onnx.convert.from_keras(model, signature, opset=15, output_path=HERE / "digits_keras.onnx")
