"""Faults in files, the DSL, the command line and `verify`."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

PROGRAMS = (
    # Files, feeds, checkpoints, exports.
    Fault(
        "nncompile/diagnostics/files.py",
        "                beside.chmod(mode)  # it was made",
        "                pass  # it was made",
        "tests/test_files.py",
    ),
    Fault(
        "nncompile/diagnostics/files.py",
        "            stack.callback(_remove, beside)\n",
        "",
        "tests/test_files.py",
    ),
    Fault(
        "nncompile/diagnostics/files.py",
        "            if not is_ours:\n",
        "            if is_ours is None:\n",
        "tests/test_unfinished_files.py",
    ),
    Fault(
        "nncompile/diagnostics/files.py",
        "            if name.endswith(_MOVING):\n",
        "            if not name:\n",
        "tests/test_unfinished_files.py",
    ),
    Fault(
        "nncompile/runtime/array_files.py",
        "            if needed != size - file.tell():\n",
        "            if needed < 0:\n",
        "tests/test_array_files.py",
    ),
    Fault(
        "nncompile/runtime/array_files.py",
        "        used.add(found[name].casefold())\n",
        "",
        "tests/test_array_files.py",
    ),
    Fault(
        "nncompile/runtime/checkpoint.py",
        "unknown = [name for name in tensors if name not in expected]",
        "unknown = []",
        "tests/test_load.py tests/test_export_step.py tests/test_runner.py",
    ),
    Fault(
        "nncompile/compiler/export.py",
        "first = source.seed if isinstance(source, Recipe) else 0",
        "first = 0",
        "tests/test_export.py",
    ),
    Fault(
        "nncompile/compiler/cache_files.py",
        "or checksum != _checksum(key, body):",
        "or not checksum:",
        "tests/test_compile_cache.py tests/test_compile_cache_files.py",
    ),
    Fault(
        "nncompile/compiler/cache_files.py",
        "            os.utime(file)\n",
        "            pass\n",
        "tests/test_compile_cache.py tests/test_compile_cache_files.py",
    ),
    Fault(
        "nncompile/compiler/cache_keys.py",
        "repr((arguments, source))",
        "repr(arguments)",
        "tests/test_compile_cache.py tests/test_compile_cache_files.py",
    ),
    Fault(
        "nncompile/compiler/cache_keys.py",
        "repr((arguments, source))",
        "repr(source)",
        "tests/test_compile_cache.py tests/test_compile_cache_files.py",
    ),
    Fault(
        "nncompile/compiler/cache_keys.py",
        "            _add_graph(state, inner, locations, classes)\n",
        "            pass\n",
        "tests/test_compile_cache.py tests/test_compile_cache_files.py",
    ),
    Fault(
        "nncompile/compiler/stages.py",
        '            "opset": self.opset,\n',
        "",
        "tests/test_compile_cache.py tests/test_compile_cache_files.py",
    ),
    Fault(
        "nncompile/compiler/stages.py",
        "active_cache() if self.observe is None else None",
        "active_cache()",
        "tests/test_compile_cache.py tests/test_compile_cache_files.py",
    ),
    Fault(
        "nncompile/passes/__init__.py",
        "    with located_nowhere():\n",
        "    if own:\n",
        "tests/test_compile_cache.py",
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
        'getattr(error, "exit_code", MISTAKE)',
        'getattr(error, "exit_code", 1)',
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
