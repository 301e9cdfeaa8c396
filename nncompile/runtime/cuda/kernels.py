"""The kernels of onnxruntime's CUDA provider: a table that `python -m tests.cuda.kernel_table`
takes from the provider itself, and what its source says beside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import onnx

from nncompile.backends.onnx.kernels import BY_TEXT, signature_of
from nncompile.ir.types import INTEGERS, DType

CUDA = "CUDAExecutionProvider"

# The inputs that kernels read in main memory, by operator: they stay where sizes are computed.
HOST_INPUTS: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(("Reshape", "Expand", "Tile", "TopK", "Split", "CumSum"), frozenset((1,))),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "OneHot", "Trilu"), frozenset((1,))),
    **dict.fromkeys(("Slice", "Pad", "Clip", "Resize"), frozenset((1, 2, 3, 4))),
    **dict.fromkeys(("ConstantOfShape", "If"), frozenset((0,))),
    "Range": frozenset((0, 1, 2)),
    "Loop": frozenset((0, 1)),
}
# The operators whose results lie in main memory.
SIZES = frozenset(("Shape", "Size"))
# They compute integers in float32, which is wrong above 2²⁴ (reduction_ops.cc).
_ROUNDING = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean", "ReduceL1")


class Kernel(NamedTuple):
    """A kernel: the versions of its operator, and what its type variables may be."""

    first: int
    last: int | None
    types: Mapping[str, frozenset[DType]]

    def is_of(self, version: int) -> bool:
        """Whether it is for an operator since that version: one without a last version knows no
        later operator."""
        last = self.first if self.last is None else self.last
        return self.first <= version <= last


class Table(NamedTuple):
    """The kernels by operator, and the version of onnxruntime that has them."""

    version: str
    kernels: Mapping[str, tuple[Kernel, ...]]


@cache
def table() -> Table:
    """The table of kernels."""
    text = files(__package__).joinpath("kernels.json").read_text(encoding="ascii")
    content = json.loads(text)
    return Table(
        content["onnxruntime"],
        {
            name: tuple(Kernel(first, last, _known(types)) for first, last, types in rows)
            for name, rows in content["kernels"].items()
        },
    )


def _known(types: Mapping[str, list[str]]) -> Mapping[str, frozenset[DType]]:
    """The types of each variable that this compiler has, too."""
    texts = {name: [f"tensor({text})" for text in allowed] for name, allowed in types.items()}
    return {n: frozenset(BY_TEXT[t] for t in found if t in BY_TEXT) for n, found in texts.items()}


@cache
def _version_of(operator: str, opset: int) -> int:
    version: int = onnx.defs.get_schema(operator, opset).since_version
    return version


def has_kernel(
    operator: str, opset: int, types: Sequence[DType | None], attributes: Mapping[str, Any]
) -> bool:
    """Whether there is a kernel that computes such a node, with inputs of those types, as ONNX
    says. What is not known of the types is taken to fit."""
    rows = table().kernels.get(operator, ())
    if not rows or not onnx.defs.has(operator, opset):
        return False
    bound = dict(signature_of(operator, opset).bound(types))
    main = types[0] if types else None
    if operator in _ROUNDING and main in INTEGERS:
        return False
    if operator == "ConvTranspose" and not _is_even(attributes):
        return False
    version = _version_of(operator, opset)
    return any(
        kernel.is_of(version)
        and all(dtype in kernel.types.get(variable, (dtype,)) for variable, dtype in bound.items())
        for kernel in rows
    )


def _is_even(attributes: Mapping[str, Any]) -> bool:
    """Whether as much is taken off at the end of each axis as at its beginning."""
    pads = list(attributes.get("pads", ()))
    half = len(pads) // 2
    padding = attributes.get("auto_pad", b"NOTSET")
    return pads[:half] == pads[half:] and padding in (b"NOTSET", b"VALID")
