"""For all tests: one thread each, as they run side by side; what is collected without torch."""

import gc
import os
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # numpy and torch read it where they are imported

import onnxruntime
import pytest
from _pytest.runner import runtestprotocol

# What thousands of tests keep (modules, nodes, cases) is looked through less often: an eighth of
# the time otherwise.
gc.set_threshold(1_000_000, 20, 100)


def pytest_collection_finish() -> None:
    """What was collected stays to the end: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At its end pytest looks five times for what raises while it is collected: once is enough."""
    gc.collect()
    gc.freeze()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """In a worker, the reports that somebody reads: of a test that passes one, not five. To send
    and to receive them all took a third of what pytest itself takes."""
    if not hasattr(item.config, "workerinput"):
        return None
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed or report.duration >= SHOWN:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


SHOWN = 0.005  # seconds: shorter ones `--durations` hides


def passed_to_the_system(descriptor: int) -> None:
    """What `os.fsync` is here: no test cuts the power, and without that nothing tells whether what
    was written has reached the disk. To wait for it took a tenth of the time; programs that tests
    start do."""
    os.fstat(descriptor)


os.fsync = passed_to_the_system  # type: ignore[assignment]

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
