"""Estimators of scikit-learn: a network behind `fit` and `predict`, and pipelines as ONNX files."""

from nncompile.diagnostics.extras import extra

_HINT = "pip install 'nncompile[sklearn]'"
extra("sklearn", "sklearn", "nncompile.sklearn", _HINT)  # before what imports it by name

from nncompile.sklearn.classifier import NeuralClassifier  # noqa: E402
from nncompile.sklearn.conversion import to_onnx  # noqa: E402
from nncompile.sklearn.regressor import NeuralRegressor  # noqa: E402

__all__ = ["NeuralClassifier", "NeuralRegressor", "to_onnx"]
