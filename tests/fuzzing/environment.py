"""What the text of a program may name, and its imports."""

from __future__ import annotations

from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

import dsl
import nncompile.ops
from nncompile.ir.dims import dim
from nncompile.ir.graph import items
from nncompile.ir.op import Op
from nncompile.ops.core.annotations import CustomVjp
from nncompile.ops.loops.body import Body, formal
from nncompile.ops.windows.pooling import Window


def environment() -> dict[str, Any]:
    """What the printed text may name: the DSL, numpy, the ops; those that are called as a layer
    is have `_op` behind."""
    return dict(_environment())


@cache
def _environment() -> dict[str, Any]:
    op_types = {
        op_name(op_type): op_type
        for (module, _), op_type in Op.registry.items()
        if module.startswith("nncompile.")
    }
    return {
        **op_types,
        **{name: getattr(nncompile.ops, name) for name in nncompile.ops.__all__},
        **{name: getattr(dsl, name) for name in (*dsl.__all__, *dsl.BUILTINS)},
        "Window": Window,
        "dim": dim,
        **{s.op.gradient.__name__: s.op.gradient for s in CustomVjp.samples()},  # type: ignore[attr-defined]
        "items": items,
        "Body": Body,
        "formal": formal,
        "np": np,
        "ml_dtypes": ml_dtypes,
    }


def op_name(op_type: type[Op]) -> str:
    return f"{op_type.__name__}_op" if op_type.__name__ in dsl.__all__ else op_type.__name__


def imports(text: str) -> list[str]:
    """The imports of the names that the text uses."""
    words = set(_words(text)) | {"model"}
    known = environment()
    by_module: dict[str, list[str]] = {}
    for word in sorted(words & known.keys()):
        if word in ("np", "ml_dtypes"):
            continue
        if word in dsl.__all__ or word in dsl.BUILTINS:
            module = "dsl"
        elif word in nncompile.ops.__all__:
            module = "nncompile.ops"
        else:
            module = known[word].__module__
        own = word.removesuffix("_op")
        by_module.setdefault(module, []).append(word if own == word else f"{own} as {word}")
    lines = ["import ml_dtypes"] if "bf16" in text or "bfloat16" in text else []
    lines.append("import numpy as np")
    return lines + [f"from {m} import {', '.join(names)}" for m, names in by_module.items()]


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()
