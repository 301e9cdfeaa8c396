"""What a loss is given that it does not take: it computes, and trains badly.

What the graph shows becomes a `ModelWarning` at the user's line.
"""

from __future__ import annotations

from nncompile.diagnostics.errors import warn
from nncompile.elementwise.map import body_of, is_plain
from nncompile.elementwise.sympy_functions import sigmoid
from nncompile.ir.op import Value
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.shape.moves import moved

_MOST = 16  # ops that only move elements, between a softmax and a loss


def warn_of_probabilities(caller: str, takes: str, value: Value, hint: str) -> None:
    """Warns where `value` is made by a softmax or a sigmoid, and `caller` takes something else."""
    maker = _maker(value)
    if maker is not None:
        warn(f"{caller} takes {takes}, but got the result of {maker}: {hint}")


def _maker(value: Value) -> str | None:
    for _ in range(_MOST):
        if isinstance(value.op, Softmax):
            return "softmax"
        if is_plain(value) and isinstance(body_of(value), sigmoid):
            return "sigmoid"
        sources = moved(value)
        if len(sources) != 1:
            return None
        value = sources[0]
    return None


def without_log_softmax(logits: Value, axis: int) -> Value:
    """The logits themselves where they are their log softmax along that axis: it is its own."""
    while isinstance(logits.op, LogSoftmax) and logits.op.axis == axis:
        logits = logits.args[0]
    return logits
