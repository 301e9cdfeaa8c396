"""Runs ONNX files in another runtime: `python one.py RUNTIME DIRECTORY SECONDS` prints a line of
JSON for each. It needs the runtime and numpy, and nothing of this package."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], list[Any]]


def onnx_reference(file: Path, inputs: list[str], outputs: list[str]) -> Run:
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load(file))
    return lambda feeds: list(evaluator.run(outputs, feeds))


def openvino(file: Path, inputs: list[str], outputs: list[str]) -> Run:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(file), "CPU", options)

    def run(feeds: Arrays) -> list[Any]:
        results = compiled(feeds)
        return [np.array(results[i]) for i in range(len(outputs))]

    return run


def onnx2torch(file: Path, inputs: list[str], outputs: list[str]) -> Run:
    import onnx
    import onnx2torch
    import torch

    torch.set_num_threads(1)
    module = onnx2torch.convert(onnx.load(file))

    def run(feeds: Arrays) -> list[Any]:
        with torch.no_grad():
            results = module(*[torch.from_numpy(np.array(feeds[name])) for name in inputs])
        return list(results) if isinstance(results, tuple | list) else [results]

    return run


def tinygrad(file: Path, inputs: list[str], outputs: list[str]) -> Run:
    from tinygrad import Tensor
    from tinygrad.nn.onnx import OnnxRunner

    runner = OnnxRunner(file)

    def run(feeds: Arrays) -> list[Any]:
        results = runner({name: Tensor(np.array(x)) for name, x in feeds.items()})
        found = [results[name] for name in outputs]
        return [x.numpy() if isinstance(x, Tensor) else x for x in found]

    return run


RUNTIMES: dict[str, tuple[str, Callable[[Path, list[str], list[str]], Run]]] = {
    "onnx.reference": ("onnx", onnx_reference),
    "OpenVINO": ("openvino", openvino),
    "onnx2torch": ("onnx2torch", onnx2torch),
    "tinygrad": ("tinygrad", tinygrad),
}
"""The package of each, and what makes a function of a file: from arrays by input to outputs."""


def largest_difference(case: dict[str, Any], run: Run, arrays: Arrays) -> float:
    """The largest difference of an output from onnxruntime's, relative to its largest number: of a
    model all outputs, of a step the metrics of each of several, with the state going on."""
    worst = 0.0
    state = {name: arrays[f"state:{name}"] for name in case["state"]}
    for i in range(case["runs"]):
        feeds = {name: arrays[f"{i}:{name}"] for name in case["batch"]} | state
        found = run({name: feeds[name] for name in case["inputs"]})
        results = dict(zip(case["outputs"], found, strict=True))
        for name in case["compared"]:
            expected = arrays[f"{i}:={name}"].astype(np.float64)
            actual = np.asarray(results[name])
            if actual.shape != expected.shape:
                raise ValueError(f"{name} has the shape {actual.shape}, not {expected.shape}")
            scale = max(1e-6, float(np.abs(expected).max(initial=0)))
            apart = float(np.abs(actual.astype(np.float64) - expected).max(initial=0)) / scale
            worst = max(worst, apart) if apart == apart else float("inf")
        state = {name: np.asarray(results[next_]) for name, next_ in case["state"].items()}
    return worst


def _tried(runtime: str, file: Path, answers: Any) -> None:
    try:
        case = json.loads(file.with_suffix(".json").read_text("utf-8"))
        with np.load(file.with_suffix(".npz")) as arrays:
            run = RUNTIMES[runtime][1](file, case["inputs"], case["outputs"])
            answers.put({"difference": largest_difference(case, run, dict(arrays))})
    except BaseException as error:  # whatever a runtime raises is what it says
        answers.put({"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:2000]})


def main(runtime: str, directory: str, seconds: str) -> None:
    """Runs each file in a process of its own, which a crash or an endless loop ends."""
    warnings.filterwarnings("ignore")
    importlib.import_module(RUNTIMES[runtime][0])  # once, before the processes part
    print(json.dumps({"version": importlib.metadata.version(RUNTIMES[runtime][0])}), flush=True)
    context = multiprocessing.get_context("fork")
    for file in sorted(Path(directory).glob("*.onnx")):
        answers = context.Queue()
        process = context.Process(target=_tried, args=(runtime, file, answers))
        process.start()
        try:
            found = answers.get(timeout=float(seconds))
        except Empty:
            crashed = process.exitcode not in (None, 0)
            found = {"error": "crash" if crashed else f"more than {seconds} s"}
        process.kill()
        process.join()
        print(json.dumps({"file": file.stem, **found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
