"""Faults in products of 16 bits, in scaled losses, and in files of fewer bits."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

HALVES, FILES = "tests/test_precision.py", "tests/test_quantization.py"
AWARE = "tests/test_quantization_aware.py"

PRECISION = (
    Fault(
        "nncompile/passes/mixed_precision.py",
        "(cast(x, dtype) for x in args[: len(args) - len(bias)])",
        "(x for x in args[: len(args) - len(bias)])",
        HALVES,
    ),
    Fault(
        "nncompile/program/loss_scaling.py",
        "values.keys() - updated.accumulators - scaling:",
        "values.keys() - scaling:",
        HALVES,
    ),
    Fault(
        "nncompile/program/loss_scaling.py",
        "where(reduce(logical_and, self._batch), new, old)",
        "new",
        HALVES,
    ),
    Fault(
        "nncompile/program/loss_scaling.py",
        "logical_and(is_long, isfinite(grown))",
        "is_long",
        HALVES,
    ),
    Fault(
        "nncompile/program/updated_state.py",
        "return due if self.skipped is None else due - self.skipped",
        "return due",
        HALVES,
    ),
    Fault(
        "nncompile/runtime/quantization.py",
        '"per_channel": True}',
        '"per_channel": False}',
        FILES,
    ),
    Fault(
        "nncompile/runtime/quantization.py",
        'if array.dtype.kind == "f" and not np.isfinite(array).all():',
        "if False:",
        FILES,
    ),
    Fault(
        "nncompile/runtime/quantization.py",
        " if x.key != METADATA_KEY}",
        "}",
        FILES,
    ),
    Fault(
        "nncompile/verify/precision_report.py",
        "followed = {n for n in known if _names([values[n]]) & predictions[0].keys()}",
        "followed = known",
        FILES,
    ),
    Fault(
        "nncompile/ops/quantization/linear.py",
        "return where(is_within, g, zeros_like(g)), None, None",
        "return g, None, None",
        AWARE,
    ),
    Fault(
        "nncompile/program/quantization_aware.py",
        "bottom = minimum(while_training(now[low], low), 0)",
        "bottom = while_training(now[low], low)",
        AWARE,
    ),
    Fault(
        "nncompile/passes/normalization_folding.py",
        "turned = cast(cast(q, i32) * signs, q.dtype)",
        "turned = q",
        AWARE,
    ),
    Fault(
        "nncompile/passes/normalization_folding.py",
        "known[v] = type(v.op) is not Dequantize and all(known[a] for a in v.args)",
        "known[v] = all(known[a] for a in v.args)",
        AWARE,
    ),
)
