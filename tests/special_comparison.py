"""The results of onnxruntime and TorchScript for a sweep of special values against numpy's.

A number is right where it is numpy's: as numpy computes it in the type of the arguments, or in
float64 rounded to that type (they differ where something between overflows or is rounded). Numbers
below the smallest normal one are as good as zero, for kernels may flush them. NaN equals NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec

import numpy as np
from ml_dtypes import finfo

from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import DType
from tests.backends import script_of, session
from tests.op_types import Feeds
from tests.special_sweeps import Sweep

RELATIVE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-10}


@dataclass(frozen=True, order=True)
class Difference:
    """Where a backend differs from numpy in an output of a program."""

    program: str
    output: str
    backend: str
    kind: str
    shown: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.program}, {self.output}, {self.backend}, {self.kind}: {self.shown}"


@dataclass
class Found:
    """What a sweep gave."""

    names: set[str] = field(default_factory=set)
    values: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def programs(self) -> int:
        return len(self.names)


def backends() -> tuple[str, ...]:
    return ("onnxruntime", "torch") if find_spec("torch") else ("onnxruntime",)


def _runner(backend: str, graph: Graph) -> Callable[[Feeds], Feeds]:
    return session(to_model(graph)) if backend == "onnxruntime" else script_of(graph)


def swept(sweep: Sweep) -> Found:
    """What differs. Raises where a backend does not run at all."""
    graph = sweep.graph
    found = Found({output.program for output in sweep.outputs})
    runners = {backend: _runner(backend, graph) for backend in backends()}
    for kind, feeds in sweep.data:
        own = evaluate(graph, feeds)
        double = evaluate(graph, feeds, precision=np.float64)
        for backend, run in runners.items():
            results = run(feeds)
            for output, name in zip(sweep.outputs, graph.outputs, strict=True):
                dtype, scaled = output.value.dtype, not sweep.signs
                wrong = _wrong(results[name], own[name], double[name], dtype, scaled)
                kinds = {kind: wrong}
                if sweep.signs and output.value.dtype.is_float:
                    kinds["sign of zero"] = _wrong_signs(results[name], own[name], double[name])
                found.values += results[name].size
                for label, places in kinds.items():
                    if places.any():
                        shown = _shown(places, feeds, results[name], own[name])
                        found.differences.append(
                            Difference(output.program, output.name, backend, label, shown)
                        )
    return found


def _wrong(
    got: np.ndarray, own: np.ndarray, double: np.ndarray, dtype: DType, scaled: bool
) -> np.ndarray:
    """Where a result is not numpy's; `scaled` says that it may be off by a part of the largest
    one, as sums are."""
    if not dtype.is_float:
        return got != own
    with np.errstate(all="ignore"):
        double = double.astype(dtype.numpy)
        return ~(_near(got, own, dtype, scaled) | _near(got, double, dtype, scaled))


def _near(got: np.ndarray, expected: np.ndarray, dtype: DType, scaled: bool) -> np.ndarray:
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    a, b = got.astype(np.float64), expected.astype(np.float64)
    size = np.abs(b)
    if scaled:
        size = size + 0.1 * size[np.isfinite(size)].max(initial=1.0)
    allowed = np.maximum(RELATIVE[dtype.name] * size, float(finfo(dtype.numpy).tiny))
    return same | (np.isfinite(a) & np.isfinite(b) & (np.abs(a - b) <= allowed))


def _wrong_signs(got: np.ndarray, own: np.ndarray, double: np.ndarray) -> np.ndarray:
    """Where a zero has another sign than numpy's, on which both of numpy's agree."""
    zero = (got == 0) & (own == 0) & (double == 0)
    told = np.signbit(own) == np.signbit(double)
    return zero & told & (np.signbit(got) != np.signbit(own))


def _shown(wrong: np.ndarray, feeds: Feeds, got: np.ndarray, own: np.ndarray) -> str:
    first = np.unravel_index(int(np.flatnonzero(wrong)[0]), wrong.shape)
    at = [str(a[first]) for a in feeds.values() if a.shape == wrong.shape]
    place = f"at ({', '.join(at)}) " if 0 < len(at) < 6 else ""
    return f"{int(wrong.sum())} of {wrong.size}, {place}{got[first]} for {own[first]}"
