"""Faults in the guards of rules."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

PASSES = (
    Fault(
        "nncompile/passes/convolution.py",
        "or not _is_one_each(c.shape, w.shape[0], y.rank)",
        "",
        "tests/test_rules.py -k convolution",
    ),
    Fault(
        "nncompile/passes/convolution.py",
        "return is_flat and same(shape[at], channels) is True",
        "return is_flat",
        "tests/test_rules.py -k convolution",
    ),
    Fault(
        "nncompile/passes/gemm.py",
        " or _is_of_sizes(factor, value)",
        "",
        "tests/test_rules.py -k linear_in_sum",
    ),
    Fault(
        "nncompile/passes/gemm.py",
        "    if uses(product_) != 1:",
        "    if uses(product_) < 1:",
        "tests/test_rules.py -k add_into_product",
    ),
    Fault(
        "nncompile/passes/joined_formulas.py",
        "return is_one and abs(coefficient) in (abs(number), 2 * abs(number))",
        "return is_one and abs(coefficient) == abs(number)",
        "tests/test_stable_forms.py tests/test_naive.py",
    ),
    Fault(
        "nncompile/passes/algebra.py",
        "    if outer_keep is not inner_keep:",
        "    if outer_keep and not inner_keep:",
        "tests/test_rules.py -k sum_of_sum",
    ),
    Fault(
        "nncompile/passes/algebra.py",
        "    if len(axes) != len(shape):",
        "    if len(axes) > len(shape):",
        "tests/test_rules.py -k sum_of_reshaped",
    ),
    Fault(
        "nncompile/passes/layout.py",
        "    if not holds(inner, x.dtype):",
        "    if holds(inner, x.dtype) is None:",
        "tests/test_rules.py -k cast_of_cast",
    ),
    Fault(
        "nncompile/passes/common_subexpressions.py",
        "    if not present(logarithm):",
        "    if logarithm is None:",
        "tests/test_rules.py -k softmax",
    ),
    Fault(
        "nncompile/passes/indexing.py",
        "    if not is_zero(x):",
        "    if x is None:",
        "tests/test_rules.py -k scatter",
    ),
    Fault(
        "nncompile/passes/softmaxes.py",
        "if shift.rank > x.rank or (axis >= 0 and not is_one(shift.shape[axis])):",
        "if shift.rank > x.rank:",
        "tests/test_rules.py -k shifted",
    ),
    Fault(
        "nncompile/passes/matmul_reassociation.py",
        "return any(n > 0 for n in terms) and all(n >= 0 for n in terms)",
        "return any(n > 0 for n in terms)",
        "tests/test_chains.py",
    ),
    Fault(
        "nncompile/passes/constant_folding.py",
        "    if body.has(sp.zoo, sp.nan, sp.oo):",
        "    if body.has(sp.nan, sp.oo):",
        "tests/test_rules.py -k literals",
    ),
    Fault(
        "nncompile/passes/surroundings.py",
        "    count = around.asked[value] = around.uses.get(value, 1)",
        "    count = around.uses.get(value, 1)",
        "tests/test_rewrite.py",
    ),
    Fault(
        "nncompile/passes/surroundings.py",
        "    around.asked_else = True\n    return value in",
        "    return value in",
        "tests/test_rewrite.py",
    ),
    Fault(
        "nncompile/passes/rewriting.py",
        "get(a, 1) == count for a, count in asked",
        "a is not None for a, count in asked",
        "tests/test_rewrite.py",
    ),
    Fault(
        "nncompile/passes/rewriting.py",
        "            distances[final[known]] = 0  # two",
        "            pass  # two",
        "tests/test_rewrite.py",
    ),
    Fault(
        "nncompile/passes/rewriting.py",
        "        if is_new and distance >= FAR:\n",
        "        if is_new:\n",
        "tests/test_rewrite.py",
    ),
)
