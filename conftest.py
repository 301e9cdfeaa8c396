"""For all tests: one thread each, as they run side by side; what is collected without torch."""

import gc
import os
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy and torch read it where they are imported

import onnxruntime

# What thousands of tests keep (modules, nodes, cases) is looked through less often: an eighth of
# the time otherwise.
gc.set_threshold(400_000, 20, 100)


def pytest_collection_finish() -> None:
    """What was collected stays to the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At its end pytest looks five times for what raises while it is collected: once is enough."""
    gc.collect()
    gc.freeze()


NEED_TORCH = ["nncompile/backends/torchscript*", "tests/fuzzing/torch_checks.py"]
NEED_TORCH += ["tests/onnx_models/torch_*.py"]
collect_ignore = ["nncompile/templates"]  # programs of users: tests/test_templates.py runs them
collect_ignore_glob = [] if find_spec("torch") else NEED_TORCH
if not find_spec("sklearn"):
    collect_ignore_glob = [*collect_ignore_glob, "nncompile/sklearn/*"]
if not find_spec("fastapi"):
    collect_ignore_glob = [*collect_ignore_glob, "nncompile/serving/*"]


class OneThread(onnxruntime.InferenceSession):
    """A session whose operators use one thread unless it was asked for a number of them: the
    others would take the time of the tests beside it, waiting for work above all."""

    def __init__(self, model: Any, options: Any = None, *more: Any, **named: Any) -> None:
        options = named.pop("sess_options", options) or onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        super().__init__(model, options, *more, **named)


onnxruntime.InferenceSession = OneThread
