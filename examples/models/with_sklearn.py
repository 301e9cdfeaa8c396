"""Makes `tumors_sklearn.onnx`: a pipeline that scikit-learn fits and skl2onnx writes. Needs
scikit-learn and skl2onnx; the example needs the file alone.

    python examples/models/with_sklearn.py
"""

import warnings
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
FITTED_ON = 40


def rows():
    """Measurements of 569 tumors and whether they are benign, in an order of their own: the first
    40 are those that this pipeline is fitted on."""
    x, label = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(label))
    return x[order].astype(np.float32), label[order]


def fitted():
    """Standardization, and a network with a hidden layer of 16."""
    x, label = rows()
    pipeline = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=300, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return pipeline.fit(x[:FITTED_ON], label[:FITTED_ON])


def export(path=HERE / "tumors_sklearn.onnx"):
    """Writes the file: probabilities as an array, not as a list of dictionaries."""
    pipeline = fitted()
    options = {id(pipeline): {"zipmap": False}}
    content = to_onnx(pipeline, rows()[0][:1], options=options, target_opset=17)
    Path(path).write_bytes(content.SerializeToString())


if __name__ == "__main__":
    export()
