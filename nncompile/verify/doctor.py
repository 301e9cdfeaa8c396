"""Whether this installation works: versions, wheels, execution providers, and three steps."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.resources import as_file, files

import numpy as np

from nncompile.backends.onnx import OPSET
from nncompile.compiler.cache_files import LIMIT, CompileCache
from nncompile.compiler.cache_place import OFF, VARIABLE, cache_directory
from nncompile.compiler.compile import compile_model, compile_step
from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.version import VERSION
from nncompile.ir.interpreter import evaluate
from nncompile.program.model_file import Declared, load
from nncompile.runtime import Session, available_providers
from nncompile.runtime.child import in_child
from nncompile.runtime.cuda.pinned import LEAST, page_locked
from nncompile.runtime.native import SWITCH, examined, native_library
from nncompile.verify.check import Finding

# What this package needs at least, as pyproject.toml says.
NEEDED = {"numpy": "2", "onnx": "1.20", "onnxruntime": "1.23", "sympy": "1.13"}
NEEDED |= dict.fromkeys(("ml_dtypes", "rich", "safetensors", "typer"), "0")
EXTRAS = ("torch", "pandas", "pyarrow", "matplotlib", "optuna", "tensorboardX", "scikit-learn")
# Wheels that install the same module, of which the last one wins.
_RUNTIMES = re.compile(r"onnxruntime(-(gpu|directml|openvino|qnn|migraphx|rocm|training|silicon))?")
_CUDA_LIBRARIES = re.compile(r"nvidia-(cublas|cuda-runtime|cudnn|cufft|curand)(-cu\d+)?")
_SECONDS = 60.0  # after which a provider does not start any more
_STEPS, _TOLERANCE = 3, 1e-3


def examine(wanted: str | None = None) -> Iterator[Finding]:
    """What holds of this installation, one after the other; of the providers, with `wanted`, that
    one alone, which must be there."""
    yield _python()
    installed = _installed()
    runtimes = sorted(name for name in installed if _RUNTIMES.fullmatch(name))
    for package in NEEDED:
        yield _package(package, installed, runtimes)
    yield _one_runtime(runtimes, installed)
    for package in EXTRAS:
        found = installed.get(package.lower())
        yield Finding(package, None if found is None else True, found or "not installed (an extra)")
    if "onnxruntime-gpu" in installed:
        yield _libraries_of_cuda(installed)
    yield _native()
    yield _processors()
    yield _compile_cache()
    declared = _example()
    for provider in available_providers() if wanted is None else (wanted,):
        yield _without_tensorrt(installed, provider) or _provider(declared, provider)
    yield _steps(declared)


def _python() -> Finding:
    found = platform.python_version()
    figures = f"{found} on {platform.platform()}, nncompile {VERSION}"
    recent = tuple(map(int, platform.python_version_tuple()[:2])) >= (3, 11)
    return Finding("python", recent, figures, () if recent else ("needs Python 3.11 or later",))


def _installed() -> dict[str, str]:
    """The version of each distribution, by its name in lower case."""
    found: dict[str, str] = {}
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name:  # a directory that a removal left behind has none
            found.setdefault(name.lower(), distribution.version)
    return found


def _package(package: str, installed: dict[str, str], runtimes: list[str]) -> Finding:
    """Whether a required package is there, and new enough."""
    name = runtimes[0] if package == "onnxruntime" and runtimes else package
    try:
        found = installed.get(name) or version(name)
    except PackageNotFoundError:
        return Finding(package, False, "not installed", (f"pip install '{package}'",))
    least = NEEDED[package]
    if _numbers(found) < _numbers(least):
        remedy = f"needs {least} or later: pip install --upgrade '{name}>={least}'"
        return Finding(package, False, found, (remedy,))
    note = f", writes operators of version {OPSET}" if package == "onnx" else ""
    return Finding(package, True, found + note)


def _one_runtime(runtimes: list[str], installed: dict[str, str]) -> Finding:
    """Whether one wheel alone has installed onnxruntime."""
    figures = ", ".join(f"{name} {installed[name]}" for name in runtimes) or "none"
    if len(runtimes) <= 1:
        return Finding("wheels of onnxruntime", True, figures)
    remedy = (
        "they overwrite each other's files, and one has all of the other's: "
        f"pip uninstall {' '.join(runtimes)}; then install one: "
        f"pip install --no-deps {runtimes[-1]}"
    )
    return Finding("wheels of onnxruntime", False, figures, (remedy,))


def _libraries_of_cuda(installed: dict[str, str]) -> Finding:
    """Which libraries of CUDA are installed as wheels; the provider itself says what is missing."""
    found = {n: v for n, v in sorted(installed.items()) if _CUDA_LIBRARIES.fullmatch(n)}
    if found:
        listed = ", ".join(f"{name} {version}" for name, version in found.items())
        return Finding("libraries of CUDA", True, listed)
    remedy = "pip install 'onnxruntime-gpu[cuda,cudnn]' brings them, where the system has none"
    return Finding("libraries of CUDA", None, "no wheels: those of the system", (remedy,))


def _native() -> Finding:
    """Whether native kernels are there, and whether this onnxruntime takes them."""
    library, problem = examined()
    if problem is not None:
        return Finding("native kernels", False, "not used", (problem,))
    if library is None:
        return Finding("native kernels", None, "not installed: pip install nncompile[native]")
    if native_library() is None:
        return Finding("native kernels", None, f"{library}, switched off by {SWITCH}")
    return Finding("native kernels", True, str(library))


def _processors() -> Finding:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    figures = f"{usable} of {cores} for this process"
    limits = [
        f"{n}={os.environ[n]}" for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if n in os.environ
    ]
    return Finding("processors", True, ", ".join([figures, *limits]))


def _compile_cache() -> Finding:
    """Where compiled models are kept, and how much there is of them."""
    directory = cache_directory()
    if directory is None:
        return Finding("compile cache", None, f"off ({VARIABLE}={OFF}, or no home)")
    count, size = CompileCache(directory).usage
    figures = f"{directory}, {count:,} entries, {size / 2**20:.1f} of {LIMIT / 2**20:.0f} MB"
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding("compile cache", True, figures)
    remedy = f"{existing} cannot be written: {VARIABLE}=DIR names another directory"
    return Finding("compile cache", None, figures, (remedy,))


def _example() -> Declared:
    """A small model file: a template of this package."""
    with as_file(files("nncompile") / "templates" / "tabular.py") as file:
        declared = load(file)
        assert declared.data is not None  # the template has data
        return declared


def _without_tensorrt(installed: dict[str, str], provider: str) -> Finding | None:
    """What is said of TensorRT, which onnxruntime-gpu has a provider for, where it is not there."""
    if provider != "tensorrt" or any(name.startswith("tensorrt") for name in installed):
        return None
    if find_library("nvinfer") is not None:
        return None
    return Finding("provider tensorrt", None, "not tried: TensorRT is not installed")


def _provider(declared: Declared, provider: str) -> Finding:
    """Whether a model runs on the provider, in a process that may crash."""
    what = f"provider {provider}"
    try:
        figures = in_child(_predict, declared, provider, what=what, timeout=_SECONDS)
    except CompileError as error:
        details = (error.message, *((error.hint,) if error.hint else ()))
        return Finding(what, False, "does not run a model", details)
    return Finding(what, True, figures)


def _predict(declared: Declared, provider: str) -> str:
    """What is said of a provider that runs a model."""
    compiled = compile_model(declared.model)
    values = compile_step(declared.recipe).source.initial(0)
    session = Session(compiled.model, provider)
    data = declared.data
    assert data is not None
    feeds = {**values, **{name: np.asarray(x)[:8] for name, x in data.train.items()}}
    session.run({port.name: feeds[port.name] for port in session.inputs})
    if session.device[0] == "cpu":
        return "runs a model"
    with page_locked(provider) as place:
        is_direct = place is not None and place((LEAST,), np.dtype(np.uint8)) is not None
    how = "page-locked memory" if is_direct else "memory that is not page-locked"
    return f"runs a model; batches are gathered in {how}"


def _steps(declared: Declared) -> Finding:
    """Whether training steps in onnxruntime are those of numpy."""
    compiled = compile_step(declared.recipe)
    step, data = compiled.source, declared.data
    assert data is not None
    state = step.initial(0)
    runner = compiled.runner(dict(state), "cpu", 1)
    largest = 0.0
    for number in range(_STEPS):
        rows = slice(32 * number, 32 * (number + 1))
        batch = {name: np.asarray(x)[rows] for name, x in data.train.items()}
        results = evaluate(step.step, {**state, **batch})
        state |= {path: results[name] for path, name in step.state_map.items()}
        runner.step(batch)
    for path, x in runner.state().items():
        size = max(1.0, float(np.abs(state[path]).max(initial=0.0)))
        difference = np.abs(x.astype(np.float64) - state[path])
        largest = max(largest, float(difference.max(initial=0.0)) / size)
    holds = bool(largest <= _TOLERANCE)  # NaN is no number that does
    figures = f"{_STEPS} steps differ from numpy by at most {largest:.1e}"
    remedy = "nncompile verify FILE names the first node that differs"
    return Finding("training", holds, figures, () if holds else (remedy,))


def _numbers(text: str) -> tuple[int, ...]:
    """The version as numbers: (1, 23, 0) for 1.23.0."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
