"""Faults in ops and formulas: numpy, ONNX, TorchScript, gradients, types."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

OPS = (
    # Ops: numpy, ONNX, TorchScript, gradients, types.
    Fault(
        "nncompile/ops/contraction/gemm.py",
        "g if self.beta == 1 else g * self.beta",
        "g",
        "tests/test_ops.py -k Gemm",
    ),
    Fault(
        "nncompile/ops/contraction/lowering.py",
        'o.apart(x, "Transpose") if not inner or (o.moves_first(x) and not has_elements) else x',
        'o.apart(x, "Transpose") if not inner else x',
        "tests/test_runtime_fusions.py -k joined",
    ),
    Fault(
        "nncompile/ops/reduction/extremes.py",
        "otherwise = where(equal(count, 0), const(np.nan, x.dtype), 0)",
        "otherwise = where(equal(count, 0), const(0.0, x.dtype), 0)",
        "tests/test_gradients_at_nan.py",
    ),
    Fault(
        "nncompile/ops/reduction/sums.py",
        "total = where(equal(total, -np.inf), 0, total)",
        "total = where(equal(total, np.inf), 0, total)",
        "tests/test_softmax.py tests/test_tails.py",
    ),
    Fault(
        "nncompile/ops/shape/slicing.py",
        "        g = flip(g, backward)\n",
        "",
        "tests/test_ops.py -k Slice",
    ),
    Fault(
        "nncompile/ops/shape/slicing.py",
        "inside = min(start, last) >= 0 and max(start, last) < x.shape[axis]",
        "inside = min(start, last) >= 0 and max(start, last) <= x.shape[axis]",
        "tests/test_indexing.py tests/test_ops_contract.py",
    ),
    Fault(
        "nncompile/ops/random/generator.py",
        "    h = squared(add(turned(h, FIRST), key))",
        "    h = squared(turned(h, FIRST))",
        "tests/test_random_bits.py tests/test_draws.py",
    ),
    Fault(
        "nncompile/ops/random/generator.py",
        "return 1 / (1 - self.rate) if self.rate < 1 else 0.0",
        "return 1.0",
        "tests/test_random.py",
    ),
    Fault(
        "nncompile/ops/random/generator.py",
        "(*values, *iterations(), salt % RANGE)",
        "(*values, salt % RANGE)",
        "tests/test_scan_bodies.py",
    ),
    Fault(
        "nncompile/ops/reduction/softmax.py",
        "return [g - shares * Sum((self.axis,), True)(g)]",
        "return [g - shares * g]",
        "tests/test_ops.py -k LogSoftmax",
    ),
    Fault(
        "nncompile/ops/core/finite.py",
        "o.LessOrEqual(o.ReduceL1(source or x, keepdims=0), largest)",
        "o.Less(zero, o.ReduceL1(source or x, keepdims=0))",
        "tests/test_masks.py",
    ),
    Fault(
        "nncompile/ops/convolution/lowering.py",
        "(shifted >= 0) & (shifted < width)",
        "shifted < width",
        "tests/test_convolution_gradients.py",
    ),
    Fault(
        "nncompile/runtime/blocked_convolutions.py",
        "zip(reach * 2, pads, strict=True)",
        "zip(reach * 2, pads[::-1], strict=True)",
        "tests/test_blocked_convolutions.py",
    ),
    # Elementwise.
    Fault(
        "nncompile/elementwise/derivative.py",
        "return times(derivative(x.base), x.exp * x.base ** (x.exp - 1))",
        "return times(derivative(x.base), x.base ** (x.exp - 1))",
        "tests/test_formula_derivatives.py",
    ),
    Fault(
        "nncompile/elementwise/derivative.py",
        "return not derivative.args[0].is_nonpositive",
        "return False",
        "tests/test_where_gradients.py",
    ),
    Fault(
        "nncompile/elementwise/derivative.py",
        "return where(condition, times(branch, rest), _ZERO)",
        "return sp.Mul(*factors)",
        "tests/test_where_gradients.py tests/test_formula_derivatives.py",
    ),
)
