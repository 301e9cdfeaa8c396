"""Faults of one line for `python -m tests.planted`: where, what stands there, what is put in its
place, and the tests that should see it (arguments of pytest)."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One line that becomes wrong."""

    file: str
    old: str
    new: str
    tests: str


_OPS = "nncompile/ops"
_PASSES = "nncompile/passes"

FAULTS = (
    # Ops: numpy, ONNX, TorchScript, gradients, types.
    Fault(
        f"{_OPS}/contraction/gemm.py",
        "s if self.beta == 1 else s * self.beta",
        "s",
        "tests/test_ops.py -k Gemm",
    ),
    Fault(
        f"{_OPS}/contraction/lowering.py",
        'o.apart(x, "Transpose") if not inner or (o.moves_first(x) and not some) else x',
        'o.apart(x, "Transpose") if not inner else x',
        "tests/test_runtime_fusions.py -k joined",
    ),
    Fault(
        f"{_OPS}/reduction/extremes.py",
        "others = where(equal(count, 0), const(np.nan, x.dtype), 0)",
        "others = where(equal(count, 0), const(0.0, x.dtype), 0)",
        "tests/test_gradients_at_nan.py",
    ),
    Fault(
        f"{_OPS}/reduction/sums.py",
        "total = where(equal(total, -np.inf), 0, total)",
        "total = where(equal(total, np.inf), 0, total)",
        "tests/test_ops_reduce.py tests/test_tails.py",
    ),
    Fault(
        f"{_OPS}/shape/slicing.py",
        "        g = flip(g, backward)\n",
        "",
        "tests/test_ops.py -k Slice",
    ),
    Fault(
        f"{_OPS}/shape/slicing.py",
        "inside = min(start, last) >= 0 and max(start, last) < x.shape[axis]",
        "inside = min(start, last) >= 0 and max(start, last) <= x.shape[axis]",
        "tests/test_ops_shape.py tests/test_ops_contract.py",
    ),
    Fault(
        f"{_OPS}/random/generator.py",
        "    h = squared(add(turned(h, FIRST), key))",
        "    h = squared(turned(h, FIRST))",
        "tests/test_random.py tests/test_draws.py",
    ),
    Fault(
        f"{_OPS}/random/generator.py",
        "return 1 / (1 - self.rate) if self.rate < 1 else 0.0",
        "return 1.0",
        "tests/test_random.py",
    ),
    Fault(
        f"{_OPS}/random/generator.py",
        "(*values, *iterations(), salt % RANGE)",
        "(*values, salt % RANGE)",
        "tests/test_scan_bodies.py",
    ),
    Fault(
        f"{_OPS}/reduction/softmax.py",
        "return (g - exp(y) * Sum((self.axis,), True)(g),)",
        "return (g - exp(y) * g,)",
        "tests/test_ops.py -k LogSoftmax",
    ),
    # Guards of rules.
    Fault(
        f"{_PASSES}/convolution.py",
        "or not _is_one_each(c.shape, w.shape[0], y.rank)",
        "",
        "tests/test_rules.py -k convolution",
    ),
    Fault(
        f"{_PASSES}/convolution.py",
        "return others and same(shape[at], channels) is True",
        "return others",
        "tests/test_rules.py -k convolution",
    ),
    Fault(
        f"{_PASSES}/gemm.py",
        " or _is_of_sizes(factor, value)",
        "",
        "tests/test_rules.py -k linear_in_sum",
    ),
    Fault(
        f"{_PASSES}/gemm.py",
        "    if uses(product_) != 1:",
        "    if uses(product_) < 1:",
        "tests/test_rules.py -k add_into_product",
    ),
    Fault(
        f"{_PASSES}/stabilise.py",
        "return is_one and abs(coefficient) in (abs(number), 2 * abs(number))",
        "return is_one and abs(coefficient) == abs(number)",
        "tests/test_stable_forms.py tests/test_naive.py",
    ),
    Fault(
        f"{_PASSES}/algebra.py",
        "    if keep is not kept:",
        "    if keep and not kept:",
        "tests/test_rules.py -k sum_of_sum",
    ),
    Fault(
        f"{_PASSES}/algebra.py",
        "    if len(axes) != len(shape):",
        "    if len(axes) > len(shape):",
        "tests/test_rules.py -k sum_of_reshaped",
    ),
    Fault(
        f"{_PASSES}/layout.py",
        "    if not holds(through, x.dtype):",
        "    if holds(through, x.dtype) is None:",
        "tests/test_rules.py -k cast_of_cast",
    ),
    Fault(
        f"{_PASSES}/common_subexpressions.py",
        "    if not present(logarithm):",
        "    if logarithm is None:",
        "tests/test_rules.py -k softmax",
    ),
    Fault(
        f"{_PASSES}/indexing.py",
        "    if not is_zero(x):",
        "    if x is None:",
        "tests/test_rules.py -k scatter",
    ),
    Fault(
        f"{_PASSES}/softmaxes.py",
        "return shift.rank <= x.rank and (place < 0 or is_one(shift.shape[place]))",
        "return shift.rank <= x.rank",
        "tests/test_rules.py -k shifted",
    ),
    Fault(
        f"{_PASSES}/matmul_reassociation.py",
        "return any(n > 0 for n in terms) and all(n >= 0 for n in terms)",
        "return any(n > 0 for n in terms)",
        "tests/test_chains.py",
    ),
    Fault(
        f"{_PASSES}/constant_folding.py",
        "    if body.has(sp.zoo, sp.nan, sp.oo):",
        "    if body.has(sp.nan, sp.oo):",
        "tests/test_rules.py -k literals",
    ),
    # Elementwise.
    Fault(
        "nncompile/elementwise/derivative.py",
        "return times(gradient(x.base), x.exp * x.base ** (x.exp - 1))",
        "return times(gradient(x.base), x.base ** (x.exp - 1))",
        "tests/test_formula.py",
    ),
    Fault(
        "nncompile/elementwise/derivative.py",
        "return not derivative.args[0].is_nonpositive",
        "return False",
        "tests/test_where_gradients.py",
    ),
    Fault(
        "nncompile/elementwise/derivative.py",
        "return where(condition, times(chosen, rest), _ZERO)",
        "return sp.Mul(*factors)",
        "tests/test_where_gradients.py tests/test_formula.py",
    ),
    # Sizes, printer, transforms.
    Fault(
        "nncompile/ir/dims.py",
        "            return cls(-a, -b)",
        "            return -cls(a, -b)",
        "tests/test_dims.py",
    ),
    Fault(
        "nncompile/ir/dims.py",
        "ast.FloorDiv: lambda a, b: FloorDiv(sp.sympify(a), sp.sympify(b))",
        "ast.FloorDiv: lambda a, b: sp.sympify(a) / sp.sympify(b)",
        "tests/test_dims.py",
    ),
    Fault(
        "nncompile/ir/printer.py",
        'return f"({name})" if compound else name',
        "return name",
        "tests/test_show.py",
    ),
    Fault(
        "nncompile/ir/transform.py",
        "            with trace.located(v):\n                new[v] = make",
        "            if True:\n                new[v] = make",
        "tests/test_tracing.py",
    ),
    Fault(
        "nncompile/ir/transform.py",
        "        sizes.update(renamed)\n",
        "",
        "tests/test_selecting.py",
    ),
    Fault(
        "nncompile/ir/names.py",
        'unused, number = f"{name}{separator}{number}", number + 1',
        'unused, number = f"{unused}{separator}{number}", number + 1',
        "tests/test_recipe_features.py tests/test_dsl.py tests/test_monitoring_units.py",
    ),
    # Where the user's line is.
    Fault(
        "nncompile/diagnostics/locations.py",
        "    while frame is not None and _is_ours(frame):",
        "    while frame is not None and not ours:",
        "tests/test_mistakes.py tests/test_tracing.py",
    ),
    Fault(
        "nncompile/diagnostics/locations.py",
        "return package in _OURS or package in _PLUMBING",
        "return package in _OURS",
        "tests/test_tracing.py tests/test_called_names.py",
    ),
    # Gradients and training steps.
    Fault(
        "nncompile/autodiff/masks.py",
        "other = other if of_b is None else h.logical_and(other, of_b)",
        "other = of_b if of_b is not None else other",
        "tests/test_where_gradients.py",
    ),
    Fault(
        "nncompile/autodiff/grad.py",
        "start[v] = _sum(start[v], gradient) if v in start else gradient",
        "start[v] = gradient",
        "tests/test_grad.py tests/test_jacobian.py",
    ),
    Fault(
        "nncompile/program/metric_aggregation.py",
        "if weights and all(w is weights[0] for w in weights):",
        "if weights:",
        "tests/test_accumulated_losses.py",
    ),
    Fault(
        "nncompile/program/metric_aggregation.py",
        "return sizes or marked or (sums and all(_is_linear(v) for v in self._inner))",
        "return sizes or (sums and all(_is_linear(v) for v in self._inner))",
        "tests/test_accumulated_losses.py tests/test_metrics.py",
    ),
    Fault(
        "nncompile/program/metric_aggregation.py",
        "return size if varies else None",
        "return None",
        "tests/test_accumulated_losses.py tests/test_metrics.py",
    ),
    Fault(
        "nncompile/program/gradient_transforms.py",
        "-g if update.maximize else g",
        "g",
        "tests/test_recipe.py tests/test_recipe_features.py",
    ),
    Fault(
        "nncompile/program/gradient_transforms.py",
        "axes = (0,) if w.rank == 2 else tuple(range(1, w.rank))",
        "axes = tuple(range(1, w.rank))",
        "tests/test_recipe_features.py tests/test_regularizers.py",
    ),
    Fault(
        "nncompile/program/recipe.py",
        "updates = {p: v for p, v in model.updates.items() if not matches(p, self.freeze)}",
        "updates = dict(model.updates)",
        "tests/test_recipe_features.py",
    ),
    Fault(
        "nncompile/optim/clipping.py",
        "scale = bound / maximum(global_norm(gradients), bound)",
        "scale = bound / global_norm(gradients)",
        "tests/test_optim.py tests/test_recipe.py",
    ),
    Fault(
        "nncompile/optim/schedules.py",
        "return schedule(lambda step: rate * factor ** floor(step / step_size))",
        "return schedule(lambda step: rate * factor ** (step / step_size))",
        "tests/test_schedules_torch.py",
    ),
    Fault(
        "nncompile/optim/adam.py",
        "scale = cast(root / (1 - self.betas[0] ** t) * factor, w.dtype)",
        "scale = cast(root * factor, w.dtype)",
        "tests/test_optim.py",
    ),
    # Backends.
    Fault(
        "nncompile/backends/torchscript/emitter.py",
        "return carried if is_within else self.wrapped(carried, target)",
        "return carried",
        "tests/test_integers_of_all_widths.py tests/test_element_types.py",
    ),
    Fault(
        "nncompile/backends/torchscript/carriers.py",
        'less = t.call("torch.where", t.call("torch.lt", bits, 0), 63, less)  # from 2⁶³ on',
        "",
        "tests/test_integers_of_all_widths.py tests/test_special_values.py",
    ),
    Fault(
        "nncompile/backends/torchscript/emitter.py",
        'return f"({x + 1} - 1)"  # the literal alone would overflow before its sign',
        "return repr(x)",
        "tests/test_torchscript.py tests/test_integer_arithmetic.py",
    ),
    # Files, feeds, checkpoints, exports.
    Fault(
        "nncompile/runtime/files.py",
        "    os.umask(mask)\n",
        "",
        "tests/test_files.py",
    ),
    Fault(
        "nncompile/runtime/files.py",
        "        beside.chmod(_mode(target))\n",
        "",
        "tests/test_files.py",
    ),
    Fault(
        "nncompile/runtime/files.py",
        "            beside.unlink()\n    return target",
        "            pass\n    return target",
        "tests/test_files.py",
    ),
    Fault(
        "nncompile/runtime/checkpoint.py",
        "unknown = [name for name in tensors if name not in expected]",
        "unknown = []",
        "tests/test_load.py tests/test_export.py tests/test_runner.py",
    ),
    Fault(
        "nncompile/compiler/export.py",
        "seed = source.seed if isinstance(source, Recipe) else 0",
        "seed = 0",
        "tests/test_export.py",
    ),
    # Training: sums, callbacks, transfer.
    Fault(
        "nncompile/train/sums.py",
        "(x * weight if weight != 1 else x)",
        "x",
        "tests/test_accumulated_losses.py tests/test_metrics.py tests/test_train.py",
    ),
    Fault(
        "nncompile/train/sums.py",
        "self.totals, self.weights = dict(totals), dict(weights)",
        "self.totals = dict(totals)",
        "tests/test_train.py tests/test_callbacks.py",
    ),
    Fault(
        "nncompile/train/callbacks.py",
        "not sign * x < sign * self.value - self.min_delta",
        "not sign * x <= sign * self.value - self.min_delta",
        "tests/test_callbacks.py",
    ),
    Fault(
        "nncompile/train/callbacks.py",
        "{p: x for p, x in state.items() if p not in RANDOM_STATE}",
        "dict(state)",
        "tests/test_callbacks.py",
    ),
    Fault(
        "nncompile/train/transfer.py",
        "longest = max(begins, key=len)",
        "longest = min(begins, key=len)",
        "tests/test_examples_learning.py tests/test_recipe_features.py -k transfer",
    ),
    Fault(
        "nncompile/train/transfer.py",
        " and x.dtype == target[path].dtype",
        "",
        "tests/test_recipe_features.py -k transferred",
    ),
    # The DSL.
    Fault(
        "dsl/initializers.py",
        '{"in": fans[0], "out": fans[1], "average": sum(fans) / 2}',
        '{"in": fans[1], "out": fans[0], "average": sum(fans) / 2}',
        "tests/test_initializers.py",
    ),
    Fault(
        "dsl/losses/reduction.py",
        "counts = ones if counts is None else counts * ones",
        "counts = None",
        "tests/test_losses.py tests/test_losses_labels.py",
    ),
    Fault(
        "dsl/losses/reduction.py",
        "losses = where(counted, losses, 0.0)",
        "losses = losses * cast(counted, losses.dtype)",
        "tests/test_losses.py tests/test_losses_labels.py tests/test_losses_tails.py",
    ),
    Fault(
        "dsl/metrics/classes.py",
        "/ maximum(sum_of(support), 1)",
        "/ sum_of(support)",
        "tests/test_metrics.py",
    ),
    Fault(
        "dsl/metrics/classes.py",
        'return reduced(cast(above < k, f32), "mean", weight, mask)',
        'return reduced(cast(above <= k, f32), "mean", weight, mask)',
        "tests/test_metrics.py",
    ),
    Fault(
        "dsl/augmentation/images.py",
        "return minimum(cast(floor(share), i64), size_value(dim(count - 1)))",
        "return cast(floor(share), i64)",
        "tests/test_augment_images.py tests/test_augment.py",
    ),
    # The command line, and what compares.
    Fault(
        "nncompile/cli/shared.py",
        "raise typer.Exit(MISTAKE) from None",
        "raise typer.Exit(FAILED) from None",
        "tests/test_cli_mistakes.py",
    ),
    Fault(
        "nncompile/cli/shared.py",
        'return tuple(PASSES) if without and "all" in without else tuple(without or ())',
        "return tuple(without or ())",
        "tests/test_cli.py tests/test_show.py",
    ),
    Fault(
        "nncompile/verify/finite_differences.py",
        "distance = min(distance, abs(difference - derivative))",
        "distance = min(distance, abs(abs(difference) - abs(derivative)))",
        "tests/test_differences.py tests/test_verify_gradients.py",
    ),
)
