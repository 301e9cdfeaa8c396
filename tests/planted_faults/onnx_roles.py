"""Faults in what of an ONNX file is trained, and in its gradients."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

_ONNX = "nncompile/frontends/onnx"
_MODELS, _ROLES = "tests/test_onnx_models.py", "tests/test_onnx_roles.py"

ONNX_ROLES = (
    Fault(
        f"{_ONNX}/tables.py",
        "if values.size == 2 and 0 in values:",
        "if False:",
        _ROLES,
    ),
    Fault(
        f"{_ONNX}/tables.py",
        "return bool(begins and np.abs(rows).max() <= 1 + _CLOSE and len(rows) > _FEW)",
        "return False",
        _ROLES,
    ),
    Fault(
        f"{_ONNX}/untying.py",
        'if own and own in (scope, re.sub(r"_\\d+$", "", scope)):',
        "if False:",
        _ROLES,
    ),
    Fault(
        f"{_ONNX}/untying.py",
        "takers = [*_directly(s), *_renamed(s)]",
        "takers = _directly(s)",
        _MODELS,
    ),
    Fault(
        f"{_ONNX}/roles.py",
        "if s.array.ndim and (is_weight or is_bias):",
        "if s.array.size > 1 and (is_weight or is_bias):",
        _MODELS,
    ),
    Fault(
        f"{_ONNX}/roles.py",
        "if s.path in layers and s.name not in renames:",
        "if False:",
        _MODELS,
    ),
    Fault(
        f"{_ONNX}/entries/activations.py",
        "return e.where(x > 0, x, alpha * e.expm1(x))",
        "return e.where(x > 0, x, alpha * e.expm1(e.minimum(x, 0)))",
        _MODELS,
    ),
    Fault(
        f"{_ONNX}/entries/quantization.py",
        "within = e.logical_and(place >= float(self.low), place <= float(self.high))",
        "within = e.logical_and(place > float(self.low), place < float(self.high))",
        _MODELS,
    ),
    Fault(
        f"{_ONNX}/registry.py",
        "if len(value) != count:",
        "if False:",
        "tests/test_onnx_malformed.py",
    ),
    Fault(
        f"{_ONNX}/loading.py",
        "original = dataclasses.replace(original, outputs=model.predicted_values)",
        "pass",
        "tests/test_onnx_original.py",
    ),
)
