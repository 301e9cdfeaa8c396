"""One node case: imported, lowered, run, and compared with the arrays that onnx holds."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.backend.test.loader import load_model_tests

import nncompile.frontends.onnx.entries  # noqa: F401 (fills the table)
from nncompile.backends.onnx.model import to_model
from nncompile.diagnostics.errors import CompileError, DTypeError
from nncompile.frontends.onnx.importing import Importer
from nncompile.frontends.onnx.refusals import Refusal, Refused
from nncompile.frontends.onnx.tensors import Tensor, array_of, dtype_from
from nncompile.ir.graph import Graph, Input
from nncompile.ir.types import Type, dtype_of


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "passed", "close", "refused" or "wrong", why, and which inputs were
    bound. Results that differ by more than the case allows, but by no more than the last place of
    16 bits or float32's noise about 0, are close."""

    name: str
    result: str
    reason: str = ""
    bound: tuple[str, ...] = ()
    op: str = ""


def cases(kind: str = "node") -> Iterator[Any]:
    """The cases of the installed onnx."""
    yield from load_model_tests(kind=kind)


def cases_of(modules: Iterable[str]) -> list[Any]:
    """The cases of some operators, by onnx's names of their modules; to make all takes 10 s."""
    for module in modules:
        importlib.import_module(f"onnx.backend.test.case.node.{module}")
    return list(node_cases._NodeTestCases)


def outcome(case: Any) -> Outcome:
    """What becomes of a case."""
    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    op = model.graph.node[0].op_type if model.graph.node else ""
    bound: set[str] = set()
    try:
        inputs, expected = _data(case, model)
    except Refused as error:
        return Outcome(case.name, "refused", error.reason, op=op)
    for given, wanted in zip(inputs, expected, strict=True):
        while True:
            try:
                got = _results(model, given, bound)
                break
            except _Stopped as stopped:
                needed = _needed(stopped.refusals, given) - bound
                if not needed:
                    return Outcome(case.name, "refused", stopped.reason, tuple(sorted(bound)), op)
                bound |= needed
            except (Refused, CompileError) as error:
                reason = getattr(error, "reason", None) or getattr(error, "problem", str(error))
                return Outcome(case.name, "refused", reason, tuple(sorted(bound)), op)
        problem = _difference(got, wanted, case.rtol, case.atol)
        if problem:
            is_close = not _difference(got, wanted, case.rtol, case.atol, rounded=True)
            kind = "close" if is_close else "wrong"
            return Outcome(case.name, kind, problem, tuple(sorted(bound)), op)
    return Outcome(case.name, "passed", "", tuple(sorted(bound)), op)


def _needed(refusals: list[Refusal], given: dict[str, Any]) -> set[str]:
    """The inputs that have to be known for these nodes; all that may say a size, where it is not an
    input itself that is missing."""
    missing = {r.needs for r in refusals if r.needs}
    named = {name for name in missing if name in given}
    if named == missing:
        return named
    return named | {n for n, x in given.items() if _may_say_a_size(x)}


def _may_say_a_size(x: Any) -> bool:
    return isinstance(x, np.ndarray) and (x.size == 1 or (x.dtype.kind in "biu" and x.size <= 64))


class _Stopped(Exception):
    def __init__(self, refusals: list[Refusal]) -> None:
        super().__init__()
        self.refusals = refusals
        first = refusals[0]
        self.reason = f"{first.op}: {first.reason}"


def _results(model: onnx.ModelProto, given: dict[str, Any], bound: set[str]) -> list[Any]:
    importer = Importer(model, "case.onnx", training=False)
    environment: dict[str, Any] = {
        t.name: Tensor.of_numbers(array_of(t)) for t in model.graph.initializer
    }
    feeds: dict[str, Any] = {}
    leaves = []

    def leaf(name: str, array: Any) -> Any:
        if isinstance(array, list):
            return [leaf(f"{name}_{i}", x) for i, x in enumerate(array)]
        if array is None:
            return None
        dtype = dtype_from(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
        if name in bound:
            return Tensor.of_numbers(array)
        value = Input(name, Type(dtype, array.shape))()
        leaves.append(value)
        feeds[name] = array
        return Tensor(value.type, None, lambda: value, name)

    environment |= {name: leaf(name, x) for name, x in given.items()}
    importer.nodes(model.graph.node, environment, {}, importer.opsets)
    if importer.refusals:
        raise _Stopped(importer.refusals)
    found = [importer.fetched(environment, o.name) for o in model.graph.output]
    outputs: dict[str, Any] = {}

    def put(x: Any) -> Any:
        if isinstance(x, list):
            return [put(item) for item in x]
        if x is None:
            return None
        name = f"result_{len(outputs)}"
        outputs[name] = x.value
        return name

    names = [put(x) for x in found]
    graph = Graph("case", outputs, tuple(leaves))
    lowered = to_model(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        lowered.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    needed = {i.name for i in session.get_inputs()}
    values = {n: _ort_value(x) for n, x in feeds.items() if n in needed}
    results = session.run_with_ort_values(list(outputs), values)
    arrays = {n: _array(r, outputs[n].type) for n, r in zip(outputs, results, strict=True)}

    def get(x: Any) -> Any:
        return [get(i) for i in x] if isinstance(x, list) else None if x is None else arrays[x]

    return [get(x) for x in names]


def _ort_value(x: Any) -> Any:
    if x.dtype.name == "bfloat16":
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(x.view(np.uint16), 16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(x).reshape(x.shape))


def _array(result: Any, type_: Type) -> Any:
    if type_.dtype.name == "bfloat16":
        size = 2 * int(np.prod(result.shape()))
        raw = np.frombuffer(ctypes.string_at(result.data_ptr(), size), np.uint16)
        return raw.view(type_.dtype.numpy).reshape(result.shape())
    return result.numpy()


def _data(case: Any, model: onnx.ModelProto) -> tuple[list[dict[str, Any]], list[list[Any]]]:
    """The inputs by name, and the outputs that onnx holds, of each set of a case."""
    if case.data_sets is not None:
        names = [i.name for i in model.graph.input]
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


def _difference(
    got: list[Any], wanted: list[Any], rtol: float, atol: float, rounded: bool = False
) -> str:
    """How the results differ from those of the case; empty where they do not. Some of the arrays of
    onnx are `rounded`: after each step of a softmax of 16 bits, or by sums of float32."""
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        if isinstance(b, list):
            if not isinstance(a, list) or len(a) != len(b):
                return f"output {i} is another sequence"
            problem = _difference(a, b, rtol, atol, rounded)
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
