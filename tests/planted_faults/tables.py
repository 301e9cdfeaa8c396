"""Faults in what is adapted to data, in pickling and in the estimators."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

PREPROCESSING, VOCABULARY = "tests/test_preprocessing.py", "tests/test_vocabulary.py"
PICKLING, ESTIMATORS = (
    "tests/test_pickling.py",
    "tests/test_sklearn.py -k 'not is_an_estimator and not two_processes'",
)

TABLES = (
    # Layers that are adapted.
    Fault(
        "dsl/layers/preprocessing/statistics.py",
        "self._squares = self._squares + squares + np.square(shift) * self.count * share",
        "self._squares = self._squares + squares",
        PREPROCESSING,
    ),
    Fault(
        "dsl/layers/preprocessing/statistics.py",
        "values, places = np.unique(np.concatenate([old[0], new[0]]), return_inverse=True)",
        "values, places = np.unique(np.concatenate([new[0], old[0]]), return_inverse=True)",
        PREPROCESSING,
    ),
    Fault(
        "dsl/layers/preprocessing/scaling.py",
        "std = np.where(constant, 1, np.sqrt(variance))",
        "std = np.sqrt(variance)",
        PREPROCESSING,
    ),
    Fault(
        "dsl/layers/preprocessing/categories.py",
        "return np.where(below, np.nextafter(rounded, np.array(np.inf, rounded.dtype)), rounded)",
        "return rounded",
        PREPROCESSING,
    ),
    Fault(
        "dsl/layers/preprocessing/missing.py",
        "return concatenate([filled, cast(absent, x.dtype)], -1)",
        "return concatenate([filled, cast(~absent, x.dtype)], -1)",
        PREPROCESSING,
    ),
    Fault(
        "dsl/layers/preprocessing/vocabulary.py",
        "known: Value = where((x >= 0) & (x < len(codes)), x, 0)",
        "known: Value = where(x < len(codes), x, 0)",
        VOCABULARY,
    ),
    Fault(
        "nncompile/compiler/inference_files.py",
        "        lambda _: metadata,\n        weights",
        "        None,\n        weights",
        VOCABULARY,
    ),
    # Pickling.
    Fault(
        "nncompile/ir/graph.py",
        "lines = [self.locations.all_locations(v) for v in _with_bodies(places)]",
        "lines = [self.locations.all_locations(v) for v in places]",
        PICKLING,
    ),
    Fault(
        "nncompile/train/trainer.py",
        'batches = int(state["step"]) - int(position["start"])',
        "batches = 0",
        PICKLING,
    ),
    Fault(
        "nncompile/optim/schedules.py",
        'object.__setattr__(made, "_call", functools.partial(wrapper, *args, **options))',
        'object.__setattr__(made, "_call", functools.partial(wrapper, *args))',
        PICKLING,
    ),
    # Estimators.
    Fault(
        "nncompile/sklearn/stopping.py",
        "self._estimator.trainer_.set_params({path: self._state[path] for path in paths})",
        "self._estimator.trainer_.set_params({})",
        ESTIMATORS,
    ),
    Fault(
        "nncompile/sklearn/stopping.py",
        "self._since = 0 if value > self._best + self._estimator.tol else self._since + 1",
        "self._since = 0 if value > self._best - self._estimator.tol else self._since + 1",
        ESTIMATORS,
    ),
    Fault(
        "nncompile/sklearn/estimator.py",
        "X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]",
        "X, y, weight = X, y, weight",
        ESTIMATORS,
    ),
    Fault(
        "nncompile/sklearn/classifier.py",
        "return weight * factors",
        "return weight",
        ESTIMATORS,
    ),
    Fault(
        "nncompile/sklearn/conversion.py",
        "if source.type.tensor_type.elem_type != wanted:",
        "if False:",
        ESTIMATORS,
    ),
)
