"""One node case: imported, lowered, run, and compared with the arrays that onnx holds."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.loader import load_model_tests

from nncompile.diagnostics.errors import CompileError, DTypeError
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.tensors import array_of, dtype_from
from nncompile.ir.types import dtype_of
from tests.onnx_cases.imported import Stopped, in_onnxruntime, resolved
from tests.onnx_cases.light import inputs_of, light_cases


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "passed", "close", "drawn", "refused" or "wrong", why, and which
    inputs were bound. Results that differ by more than the case allows, but by no more than the
    last place of 16 bits or float32's noise about 0, are close. Of random numbers, which onnx
    leaves to each runtime, types and shapes are compared."""

    name: str
    result: str
    reason: str = ""
    bound: tuple[str, ...] = ()
    op: str = ""


def cases(kind: str = "node") -> Iterator[Any]:
    """The cases of the installed onnx: "node", "pytorch-converted", "pytorch-operator", "simple" or
    "light"."""
    yield from light_cases() if kind == "light" else load_model_tests(kind=kind)


def cases_of(modules: Iterable[str]) -> list[Any]:
    """The cases of some operators, by onnx's names of their modules, which not every version has;
    to make all takes 10 s."""
    for module in modules:
        name = f"onnx.backend.test.case.node.{module}"
        if find_spec(name) is not None:
            importlib.import_module(name)
    return list(node_cases._NodeTestCases)


def outcome(case: Any) -> Outcome:
    """What becomes of a case."""
    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    op = model.graph.node[0].op_type if model.graph.node else ""
    bound: set[str] = set()
    try:
        inputs, expected = data_of(case, model)
    except Refused as error:
        return Outcome(case.name, "refused", error.reason, op=op)
    passed = "passed"
    for given, wanted in zip(inputs, expected, strict=True):
        try:
            graph = resolved(model, given, bound)
            got = in_onnxruntime(graph)
        except (Stopped, Refused, CompileError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "problem", str(error))
            return Outcome(case.name, "refused", reason, tuple(sorted(bound)), op)
        if graph.draws:
            passed, got, wanted = "drawn", [*map(np.zeros_like, got)], [*map(np.zeros_like, wanted)]
        problem = difference(got, wanted, case.rtol, case.atol)
        if problem:
            is_close = not difference(got, wanted, case.rtol, case.atol, rounded=True)
            kind = "close" if is_close else "wrong"
            return Outcome(case.name, kind, problem, tuple(sorted(bound)), op)
    return Outcome(case.name, passed, "", tuple(sorted(bound)), op)


def data_of(case: Any, model: onnx.ModelProto) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """The inputs by name, and the outputs that onnx holds, of each set of a case."""
    if case.data_sets is not None:
        names = [i.name for i in inputs_of(model)]
        inputs = [
            dict(zip(names, map(_supported, given), strict=False)) for given, _ in case.data_sets
        ]
        return inputs, [[*map(_supported, wanted)] for _, wanted in case.data_sets]
    sets = sorted(Path(case.model_dir).glob("test_data_set_*"))
    return [_fed(model, s) for s in sets], [_expected(model, s) for s in sets]


def _supported(x: Any) -> Any:
    if isinstance(x, list):
        return [_supported(item) for item in x]
    if x is None:
        return None
    if isinstance(x, onnx.TensorProto):
        return array_of(x)
    try:
        dtype_of(x)
    except DTypeError:
        raise Refused(f"element type {x.dtype}") from None
    return np.asarray(x)


def _fed(model: onnx.ModelProto, directory: Path) -> dict[str, Any]:
    files = sorted(directory.glob("input_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
    return {f.name: _read(p, f.type) for f, p in zip(model.graph.input, files, strict=False)}


def _expected(model: onnx.ModelProto, directory: Path) -> list[Any]:
    files = sorted(directory.glob("output_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
    return [_read(p, f.type) for f, p in zip(model.graph.output, files, strict=True)]


def _read(path: Path, type_: onnx.TypeProto) -> Any:
    content = path.read_bytes()
    kind = type_.WhichOneof("value")
    if kind == "sequence_type":
        proto = onnx.SequenceProto.FromString(content)
        return [array_of(t) for t in proto.tensor_values]
    if kind == "optional_type":
        optional = onnx.OptionalProto.FromString(content)
        if optional.HasField("tensor_value"):
            return array_of(optional.tensor_value)
        if optional.HasField("sequence_value"):
            return [array_of(t) for t in optional.sequence_value.tensor_values]
        return None
    tensor = onnx.TensorProto.FromString(content)
    dtype_from(tensor.data_type)
    return np.asarray(numpy_helper.to_array(tensor))


def difference(
    got: list[Any], wanted: list[Any], rtol: float, atol: float, rounded: bool = False
) -> str:
    """How the results differ from those of the case; empty where they do not. Some of the arrays of
    onnx are `rounded`: after each step of a softmax of 16 bits, or by sums of float32."""
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if isinstance(b, list):
            if not isinstance(a, list) or len(a) != len(b):
                return f"output {i} is another sequence"
            problem = difference(a, b, rtol, atol, rounded)
            if problem:
                return problem
            continue
        if b is None:
            continue
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"output {i} is {a.dtype}{list(a.shape)}, not {b.dtype}{list(b.shape)}"
        x, y = a, b
        relative, absolute = rtol, atol
        if b.dtype.kind not in "biu":
            x, y = a.astype(np.float64), b.astype(np.float64)
            if rounded:
                relative = max(rtol, 2 * dtype_of(b).eps) if b.dtype.itemsize == 2 else rtol
                largest = float(np.max(np.abs(y), where=np.isfinite(y), initial=0))
                absolute = max(atol, 1e-6 * largest)
        if not np.allclose(x, y, rtol=relative, atol=absolute, equal_nan=True):
            with np.errstate(all="ignore"):
                worst = np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)))
            return f"output {i} differs by {worst:.3g}"
    return ""
