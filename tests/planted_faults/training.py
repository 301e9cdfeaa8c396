"""Faults in gradients, training steps, optimizers and the loop around them."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

TRAINING = (
    # Gradients and training steps.
    Fault(
        "nncompile/autodiff/masks.py",
        "    if isinstance(v.op, Expand):\n        return _narrow(v.args[0], axis)\n",
        "",
        "tests/test_gradients_at_nan.py -k leaves_out",
    ),
    Fault(
        "nncompile/autodiff/masks.py",
        "otherwise = otherwise if when_b is None else h.logical_and(otherwise, when_b)",
        "otherwise = when_b if when_b is not None else otherwise",
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
        "tests/test_recipe.py tests/test_recipe_parameters.py",
    ),
    Fault(
        "nncompile/program/gradient_transforms.py",
        "axes = (0,) if w.rank == 2 else tuple(range(1, w.rank))",
        "axes = tuple(range(1, w.rank))",
        "tests/test_recipe_parameters.py tests/test_regularizers.py",
    ),
    Fault(
        "nncompile/program/recipe.py",
        "updates = {p: v for p, v in model.updates.items() if not matches(p, self.freeze)}",
        "updates = dict(model.updates)",
        "tests/test_freezing.py",
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
    # Training: sums, callbacks, transfer.
    Fault(
        "nncompile/train/sums.py",
        "(x * weight if weight != 1 else x)",
        "x",
        "tests/test_accumulated_losses.py tests/test_metrics.py tests/test_train.py",
    ),
    Fault(
        "nncompile/train/sums.py",
        "totals, weights = dict(added.totals), dict(added.weights)",
        "totals, weights = added.totals, added.weights",
        "tests/test_interrupts.py",
    ),
    Fault(
        "nncompile/train/sums.py",
        "pool[added.parts :] = [np.array(x)]",
        "pool.append(np.array(x))",
        "tests/test_interrupts.py",
    ),
    Fault(
        "nncompile/train/loop.py",
        "        except BaseException:\n            self.settle()",
        "        except Exception:\n            self.settle()",
        "tests/test_interrupts.py",
    ),
    Fault(
        "nncompile/runtime/runner.py",
        "if at.can_undo:  # the step writes",
        "if False:  # the step writes",
        "tests/test_runner.py",
    ),
    Fault(
        "nncompile/runtime/runner.py",
        "self._fill(other, arrays)",
        "self._fill(at.current, arrays)",
        "tests/test_interrupts.py",
    ),
    Fault(
        "nncompile/train/callbacks.py",
        "not sign * x < sign * self.value - self.min_delta",
        "not sign * x <= sign * self.value - self.min_delta",
        "tests/test_early_stopping.py",
    ),
    Fault(
        "nncompile/train/callbacks.py",
        "{p: x for p, x in state.items() if _is_restored(p)}",
        "dict(state)",
        "tests/test_early_stopping.py",
    ),
    # Rates that are set.
    Fault(
        "nncompile/train/callbacks.py",
        "path not in RANDOM_STATE and not is_set_rate(path)",
        "path not in RANDOM_STATE",
        "tests/test_rates_set.py -k best_epoch",
    ),
    Fault(
        "nncompile/train/callbacks.py",
        "told_first = True",
        "told_first = False",
        "tests/test_monitoring_finite.py -k nobody_else",
    ),
    Fault(
        "nncompile/optim/descent.py",
        "if declared and not isinstance(rate, float):",
        "if False:",
        "tests/test_rates_set.py -k 'torch or always'",
    ),
    Fault(
        "nncompile/optim/adjustable.py",
        "where(number < 0, cast(base, f64), number)",
        "where(number < 0, number, number)",
        "tests/test_rates_set.py -k always",
    ),
    Fault(
        "nncompile/runtime/runner.py",
        "self._at = self._at._replace(equal=False)  # before, for an interrupt",
        "self._fill(1 - self._at.current, arrays)",
        "tests/test_rates_set.py -k undone",
    ),
    Fault(
        "nncompile/runtime/runner.py",
        "return _Position(at.steps, read=1, can_undo=at.can_undo, equal=False)",
        "return _Position(at.steps)",
        "tests/test_rates_set.py -k undone",
    ),
    Fault(
        "nncompile/train/loop.py",
        "if self.sums.names != compiled.source.accumulation.parts.keys():",
        "if self.sums.plan.parts.keys() != compiled.source.accumulation.parts.keys():",
        "tests/test_rates_set.py -k weighted",
    ),
    Fault(
        "nncompile/train/run_config.py",
        "described_recipe(trainer.declared.source)",
        "described_recipe(trainer.compiled.source)",
        "tests/test_rates_set.py -k resumed",
    ),
    Fault(
        "nncompile/program/rate_groups.py",
        "if p == pattern else optimizer",
        "if True else optimizer",
        "tests/test_rates_of_groups.py -k groups_have",
    ),
    Fault(
        "nncompile/train/trainer.py",
        "        self._go_on_with(compiled, saved.state)\n",
        "",
        "tests/test_rates_set.py -k files_and_copies",
    ),
    Fault(
        "nncompile/train/transfer.py",
        "longest = max(begins, key=len)",
        "longest = min(begins, key=len)",
        "tests/test_examples_learning.py tests/test_freezing.py -k transfer",
    ),
    Fault(
        "nncompile/train/transfer.py",
        " and x.dtype == target[path].dtype",
        "",
        "tests/test_freezing.py -k transferred",
    ),
    Fault(
        "nncompile/runtime/session.py",
        'options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")',
        "pass",
        "tests/test_step_memory.py",
    ),
    Fault(
        "nncompile/runtime/batch_inputs.py",
        "return array.nbytes >= BOUND and",
        "return array.nbytes < 0 and",
        "tests/test_step_memory.py",
    ),
    Fault(
        "nncompile/runtime/batch_inputs.py",
        "        self._bindings[side].bind_ortvalue_input(name, buffer)\n",
        "        self._bindings[0].bind_ortvalue_input(name, buffer)\n",
        "tests/test_step_memory.py",
    ),
    Fault(
        "nncompile/train/sources/whole.py",
        "fitting = 1 if batch_bytes >= BOUND else",
        "fitting = 8 if batch_bytes >= BOUND else",
        "tests/test_step_memory.py",
    ),
    Fault(
        "nncompile/train/trainer.py",
        "self.snapshot(copied=False)",
        "self.snapshot(copied=True)",
        "tests/test_step_memory.py",
    ),
    Fault(
        "nncompile/runtime/in_place.py",
        "            return bool(self.before[maker] >> reader & 1)\n",
        "            return True\n",
        "tests/test_in_place.py",
    ),
    Fault(
        "nncompile/runtime/in_place.py",
        "        if not self.captured.isdisjoint(views):\n",
        "        if name in self.captured:\n",
        "tests/test_in_place.py",
    ),
    Fault(
        "nncompile/runtime/runner.py",
        "            target.update_inplace(bits_of(array_of(result)))\n",
        "            pass\n",
        "tests/test_in_place.py",
    ),
    Fault(
        "nncompile/train/loop.py",
        "            self.epoch.sums.added = added._replace(batches=made)\n",
        "            pass\n",
        "tests/test_in_place.py",
    ),
)
