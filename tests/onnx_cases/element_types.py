"""A sample with inputs of other element types."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from tests.onnx_cases.forms import type_string
from tests.onnx_cases.samples import Sample, formal, types_of

FLOATS = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
INTEGERS = {f"{'iu'[kind]}{8 << k}": np.dtype(f"{'iu'[kind]}{1 << k}")
            for kind in (0, 1) for k in range(4)}  # fmt: skip
DTYPES = {**FLOATS, **INTEGERS, "bool": np.dtype(bool)}


def letter_of(sample: Sample, schema: onnx.defs.OpSchema) -> str | None:
    """The letter of the first input of a sample, which is of one node; of the first that may be
    other than truth values where there is one."""
    letters = [
        str(formal(schema.inputs, i).type_str)
        for i, name in enumerate(sample.node.input)
        if isinstance(sample.inputs.get(name), np.ndarray)
    ]
    letters = [letter for letter in letters if "(" not in letter]
    several = [letter for letter in letters if len(types_of(schema, letter)) > 1]
    return next(iter(several or letters), None)


def of_type(sample: Sample, schema: onnx.defs.OpSchema, dtype: np.dtype[Any]) -> Sample | None:
    """The sample with inputs of this element type where its first input may have it; None where
    not. Inputs of other letters that had the type of the first one have the new one, too, where
    they may."""
    letter = letter_of(sample, schema)
    if letter is None or type_string(np.zeros(0, dtype)) not in types_of(schema, letter):
        return None
    inputs = dict(sample.inputs)
    letters = {n: formal(schema.inputs, i).type_str for i, n in enumerate(sample.node.input)}
    before = {inputs[n].dtype for n, t in letters.items() if n in inputs and t == letter}
    wanted = type_string(np.zeros(0, dtype))
    for name, other in letters.items():
        x = inputs.get(name)
        is_like = isinstance(x, np.ndarray) and x.dtype in before
        if isinstance(x, np.ndarray) and (
            other == letter or (is_like and wanted in types_of(schema, other))
        ):
            inputs[name] = _converted(x, dtype)
    model = onnx.ModelProto()
    model.CopyFrom(sample.model)
    for declared in model.graph.input:
        x = inputs.get(declared.name)
        if isinstance(x, np.ndarray):
            number = helper.np_dtype_to_tensor_dtype(x.dtype)
            declared.type.tensor_type.elem_type = number
    for result in model.graph.output:  # which onnxruntime finds
        result.ClearField("type")
    return Sample(f"{sample.name} {dtype.name}", sample.operators, model, inputs)


def _converted(x: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Reals as they are; as whole numbers small ones that are not 0, which nothing can be divided
    by."""
    if dtype == x.dtype:
        return x
    if dtype.kind not in "biu" or x.dtype.kind == "b":
        return x.astype(dtype)
    if x.dtype.kind in "iu":
        return np.asarray(np.abs(x) if dtype.kind == "u" else x).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(x > 0)
    with np.errstate(invalid="ignore"):
        whole = np.rint(np.clip(np.nan_to_num(x.astype(np.float64)) * 2, -50, 50))
    whole = np.where(whole == 0, 1, whole)
    return np.asarray(np.abs(whole) if dtype.kind == "u" else whole).astype(dtype)


def written(names: list[str]) -> str:
    """Element types in short: ranges for whole kinds."""
    found = set(names)
    parts = []
    if found >= set(FLOATS):
        parts.append("floats")
        found -= set(FLOATS)
    for kind, word in (("i", "i8–i64"), ("u", "u8–u64")):
        all_of_kind = {n for n in INTEGERS if n[0] == kind}
        if found >= all_of_kind:
            parts.append(word)
            found -= all_of_kind
    rest = [n for n in DTYPES if n in found]
    return " ".join(
        [*[n for n in rest if n in FLOATS], *parts, *[n for n in rest if n not in FLOATS]]
    )
