"""Which kernels onnxruntime has for which element types, and what carries the others.

The table is measured: a node of each operator was loaded and run on the CPU for each element type,
in onnxruntime 1.23 and 1.32, and it has what both compute (tests/test_kernels.py does it again). A
node on another type is emitted on one that carries it, between casts. That is exact: integers wrap
round when they are cast back, as they would have in their own type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import (
    DTYPES,
    FLOATS,
    INTEGERS,
    DType,
    bf16,
    boolean,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    u8,
    u16,
    u32,
    u64,
)

ELEMENT_TYPES = {
    d.name: helper.np_dtype_to_tensor_dtype(d.numpy) if d is not bf16 else TensorProto.BFLOAT16
    for d in DTYPES
}
BY_ELEMENT_TYPE: dict[int, DType] = {ELEMENT_TYPES[d.name]: d for d in DTYPES}
BY_TEXT = {
    f"tensor({ {'float32': 'float', 'float64': 'double'}.get(d.name, d.name) })": d for d in DTYPES
}

_REALS = frozenset((f16, f32, f64))
_SIGNED = frozenset((i8, i16, i32, i64))
_INTEGERS = frozenset(INTEGERS)
_LONG = frozenset((i32, i64))
_ANY = frozenset((boolean, *INTEGERS, *FLOATS))
# What an operator has that is not in the table.
_USUAL = frozenset((boolean, *_LONG, f32, f64))


def _table(*rows: tuple[Iterable[DType], str]) -> dict[str, frozenset[DType]]:
    return {name: frozenset(types) for types, names in rows for name in names.split()}


# The types of the argument that the result is of, by operator; where its attribute `reduction`
# matters, with that behind it.
KERNELS = _table(
    (_ANY, "Identity Flatten Reshape Shape Transpose Squeeze Unsqueeze Concat Split Slice Gather"),
    (_ANY, "GatherElements GatherND ScatterElements ScatterND Cast If Loop Scan"),
    (_ANY - {bf16}, "Equal Size Expand Tile ReverseSequence Compress"),
    (_ANY - {bf16, i16, u16}, "Pad CenterCropPad"),
    (_INTEGERS | _REALS, "Add Sub Mul Div Less LessOrEqual Greater GreaterOrEqual Abs"),
    (_INTEGERS | _REALS, "ScatterElements:max ScatterElements:min"),
    (_INTEGERS | {boolean, f32, f64}, "ScatterElements:add ScatterElements:mul"),
    (_INTEGERS | {boolean, f32, f64}, "ScatterND:add ScatterND:mul"),
    (_INTEGERS, "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot"),
    (_INTEGERS | {f32, f64}, "Mod"),
    ((u8, u32, u64), "BitShift"),
    (FLOATS, "IsNaN IsInf"),
    (_INTEGERS | _REALS | {bf16}, "Sign"),
    (_SIGNED | _REALS, "Neg"),
    (_REALS | {i8, i32}, "Relu"),
    (_REALS | {i32, i64, u32, u64}, "Max Min"),
    (_REALS | {i8, u8, i32, u32, i64, u64}, "Clip"),
    (_REALS | {u8, i32, i64}, "Where"),
    # That of unsigned integers fails where the inner size is zero.
    (_REALS | _LONG, "MatMul"),
    (_REALS, "Gemm SpaceToDepth"),
    (_REALS | _LONG, "Pow ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceLogSum"),
    (_REALS | _LONG, "ReduceLogSumExp ReduceSumSquare CumSum TopK Einsum"),
    (_REALS | _LONG | {boolean, i8, u8}, "ReduceMax ReduceMin"),
    (_REALS | _LONG | {i8, u8}, "ArgMax ArgMin"),
    (_REALS | {i8, u8}, "MaxPool"),
    ((i8, u8, i32, f16, f32), "Resize"),
    ((boolean, u8, i32, i64, f16, f32), "NonZero"),
    (_REALS | {boolean, i64}, "Trilu"),
    ((i64, f16, f32), "OneHot"),
    (_REALS | {i8, i64}, "Unique"),
    (_REALS | {u8}, "DepthToSpace"),
    ((i16, i32, i64, f32, f64), "Range"),
    ((f32,), "QuantizeLinear"),
    ((i8, u8, i32), "DequantizeLinear"),
)
# The operators for which devices with kernels of 16 bits have them: CUDA has all of f16, and of
# bf16 the first two; the others are defined for it from opset 22 on (onnxruntime's own table,
# docs/OperatorKernels.md).
HALF_KERNELS = frozenset(("MatMul", "Gemm", "Conv", "ConvTranspose"))
# What holds every number of a type, the first choice first.
_CARRIERS: dict[DType, tuple[DType, ...]] = {
    boolean: (i32, i64, u8, f32),
    **dict.fromkeys((i8, u8, i16, u16), (i32, i64, f32, f64)),
    i32: (i64, f64),
    u32: (i64, f64),
    u64: (i64,),
    f16: (f32,),
    bf16: (f32,),
}
# Operators that order numbers. Of uint64 they are given what has the same order in int64.
_ORDERING = frozenset(
    _table(
        ((), "ReduceMax ReduceMin ArgMax ArgMin TopK Max Min Clip Unique"),
        ((), "Less LessOrEqual Greater GreaterOrEqual ScatterElements:max ScatterElements:min"),
    )
)
# The variable of the type in the table, where it is not that of the first input.
_MAIN = {"Where": "T", "OneHot": "T3"}


@dataclass(frozen=True)
class Carrier:
    """How values of a type are given to a node on another one."""

    source: DType
    target: DType
    ordered: bool = False

    def carry(self, o: OnnxEmitter, x: str) -> str:
        """`x` in the type that has the kernel."""
        if not x:
            return x  # an optional input that is left out
        wide = o.cast(x, self.target)
        return self._flipped(o, wide) if self.ordered else wide

    def back(self, o: OnnxEmitter, x: str) -> str:
        """`x` in its declared type again."""
        return o.cast(self._flipped(o, x) if self.ordered else x, self.source)

    def _flipped(self, o: OnnxEmitter, x: str) -> Any:
        return o.BitwiseXor(x, o.scalar(np.iinfo(np.int64).min, i64))


@dataclass(frozen=True, eq=False)
class Signature:
    """The variables that stand for element types in an operator's inputs and outputs; a variable
    that can be one type only is that type."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    allowed: Mapping[str, frozenset[DType]]

    def variables(self, count: int) -> tuple[str, ...]:
        """The variables of so many inputs; the last one may be repeated."""
        return (*self.inputs, *self.inputs[-1:] * (count - len(self.inputs)))[:count]

    def result_variables(self, count: int) -> tuple[str, ...]:
        """The variables of so many outputs."""
        return (*self.outputs, *self.outputs[-1:] * (count - len(self.outputs)))[:count]

    def bound(self, dtypes: Sequence[DType | None]) -> Iterator[tuple[str, DType]]:
        """The types that inputs of those types give variables."""
        for variable, dtype in zip(self.variables(len(dtypes)), dtypes, strict=True):
            if dtype is not None:
                yield variable, dtype

    def results(
        self, names: Sequence[str], dtypes: Sequence[DType | None], attributes: Mapping[str, Any]
    ) -> list[tuple[str, DType]]:
        """The types of results, as far as the operator and its attributes tell them."""
        element_type = None
        if attributes:
            graphs = [x for x in attributes.values() if isinstance(x, onnx.GraphProto)]
            if graphs:  # a loop's condition is not a result
                outputs = list(graphs[0].output)[len(graphs[0].output) - len(names) :]
                inner = [BY_ELEMENT_TYPE[x.type.tensor_type.elem_type] for x in outputs]
                return list(zip(names, inner, strict=True))
            element_type = attributes.get("to", attributes.get("dtype"))
        types = _result_types(self, tuple(dtypes), len(names), element_type)
        return [(name, dtype) for name, dtype in zip(names, types, strict=True) if dtype]


@lru_cache(maxsize=4096)
def _result_types(
    signature: Signature, dtypes: tuple[DType | None, ...], count: int, element_type: int | None
) -> list[DType | None]:
    """The types of so many results; None where the operator does not tell."""
    known = dict(signature.bound(dtypes))
    types: list[DType | None] = []
    for variable in signature.result_variables(count):
        allowed = signature.allowed[variable]
        if variable in known and element_type is None:
            types.append(known[variable])
        elif len(allowed) == 1:
            types.append(next(iter(allowed)))
        else:
            types.append(BY_ELEMENT_TYPE.get(element_type) if element_type else None)
    return types


@lru_cache(maxsize=1024)
def signature_of(operator: str, opset: int) -> Signature:
    """The signature of a standard operator, as onnx's own schema says it."""
    schema = onnx.defs.get_schema(operator, opset)
    allowed = {
        t.type_param_str: frozenset(BY_TEXT[x] for x in t.allowed_type_strs if x in BY_TEXT)
        for t in schema.type_constraints
    }
    for formal in (*schema.inputs, *schema.outputs):
        if formal.type_str in BY_TEXT:
            allowed[formal.type_str] = frozenset((BY_TEXT[formal.type_str],))
    return Signature(
        operator,
        tuple(x.type_str for x in schema.inputs),
        tuple(x.type_str for x in schema.outputs),
        allowed,
    )


@lru_cache(maxsize=4096)
def carriers_of(
    signature: Signature, reduction: str, dtypes: tuple[DType | None, ...], halves: bool = False
) -> Mapping[str, Carrier]:
    """What carries the variables whose types have no kernel; floats of 16 bits have one where that
    is for `halves`, and the operator is defined for them."""
    operator = signature.operator
    if reduction != "none":
        operator = f"{operator}:{reduction}"
    main = _MAIN.get(signature.operator, signature.inputs[0] if signature.inputs else "")
    carriers = {}
    for variable, dtype in signature.bound(dtypes):
        kernels = signature.allowed[variable]
        if variable == main:
            known = KERNELS.get(operator, _USUAL)
            kernels = kernels & (known | {f16, bf16} if halves else known)
        if dtype not in kernels:
            target = next((c for c in _CARRIERS.get(dtype, ()) if c in kernels), None)
            if target is not None:
                ordered = dtype is u64 and operator in _ORDERING
                carriers[variable] = Carrier(dtype, target, ordered)
    return carriers
