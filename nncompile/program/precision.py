"""In which element type the products of a model are computed."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.ir.types import DType, bf16, f16

HALVES = {"f16": f16, "bf16": bf16}
PRECISIONS = ("f32", *HALVES)
"""In which the products of a training may be computed."""
_FOREIGN = {
    **dict.fromkeys(("float16", "fp16", "half", "16", "16-mixed", "mixed_float16"), "f16"),
    **dict.fromkeys(("bfloat16", "bf16-mixed", "mixed_bfloat16"), "bf16"),
    **dict.fromkeys(("float32", "fp32", "32", "32-true", "full", "single"), "f32"),
    **dict.fromkeys(("i8", "qint8", "8"), "int8"),
}  # fmt: skip


def precision_name(x: Any, allowed: tuple[str, ...]) -> str:
    """The precision as it is called here: its own name, or that of an element type. Raises
    `ModelError` for others."""
    name = x.short if isinstance(x, DType) else str(x)
    if name in allowed:
        return name
    meant = _FOREIGN.get(name.lower().removeprefix("torch."))
    raise ModelError(
        f"precision must be {', '.join(allowed[:-1])} or {allowed[-1]}, got {x!r}",
        hint=f'precision="{meant}"' if meant in allowed else did_you_mean(name, allowed),
    )
