"""Faults in what is made of ONNX files."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

_SIMPLIFY = "nncompile/frontends/onnx/simplify"
_TESTS = "tests/test_onnx_simplify.py"

ONNX_FILES = (
    Fault(
        f"{_SIMPLIFY}/shapes.py",
        "target.append(0 if axis < len(before) and before[axis] == size else -1)",
        "target.append(0 if axis < len(before) else -1)",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/chains.py",
        "item.set_attributes(perm=[first[axis] for axis in second])",
        "item.set_attributes(perm=[second[axis] for axis in first])",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/chains.py",
        "perm=[order.index(part) for part in range(len(after))]",
        "perm=order",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/channels.py",
        "return _folded(work, item, item.inputs[0], factor, shift - mean * factor, item.inputs[2])",
        "return _folded(work, item, item.inputs[0], factor, shift - mean, item.inputs[2])",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/channels.py",
        'addend = addend * product.attribute("beta", 1.0)',
        "addend = addend * 1.0",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/work.py",
        "        alone = alone and item.inputs.count(name) == 1\n",
        "",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/common.py",
        "        if item.op in RANDOM or item.captured:\n            continue\n",
        "",
        "tests/test_onnx_simplify.py tests/test_cli_optimize.py",
    ),
    Fault(
        f"{_SIMPLIFY}/products.py",
        "return not bool(numbers.any())",
        "return True",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/trivial.py",
        "forward = len(item.inputs) < 5 or (steps is not None and all(s == 1 for s in steps.flat))",
        "forward = True",
        _TESTS,
    ),
    Fault(
        "nncompile/frontends/onnx/equal_sizes.py",
        "if len(exact) == 1:",
        "if False:",
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/facts.py",
        "pairs = needed(importer.refusals, sizes, repeats=False)",
        "pairs = needed(importer.refusals, sizes)",
        "tests/test_onnx_equal_sizes.py",
    ),
    Fault(
        "nncompile/frontends/onnx/entries/images.py",
        'before = "ceil" if old and scale < 1 else "floor"',
        'before = "floor"',
        "tests/test_onnx_versions.py -k Resize",
    ),
    Fault(
        "nncompile/frontends/onnx/entries/normalization.py",
        "if n.version < 21:",
        "if n.version < 18:",
        "tests/test_onnx_versions.py -k GroupNormalization",
    ),
    Fault(
        "nncompile/ops/core/assertions.py",
        "return o.Reshape(x, o.Concat(*sizes, axis=0), allowzero=1)",
        "return x",
        "tests/test_onnx_equal_sizes.py",
    ),
    Fault(
        f"{_SIMPLIFY}/products.py",
        'if item.op != "Conv" and any(p >= k for p, k in',
        'if item.op == "Conv" and any(p >= k for p, k in',
        _TESTS,
    ),
    Fault(
        f"{_SIMPLIFY}/common.py",
        'bits = f"V{x.dtype.itemsize}"',
        "bits = x.dtype",
        _TESTS,
    ),
    Fault(
        "nncompile/backends/onnx/older.py",
        'apart = both if operator == "BitwiseOr" else o.Add(both, both)',
        "apart = both",
        "tests/test_opsets.py -k integers",
    ),
    Fault(
        "nncompile/backends/onnx/training_info.py",
        "{path: renamed(name) for path, name in next_values.items()}",
        "{path: path for path, name in next_values.items()}",
        "tests/test_training_info.py",
    ),
    Fault(
        "nncompile/verify/onnx_files.py",
        "too_far = not difference <= tolerance",
        "too_far = difference > 10 * tolerance",
        _TESTS,
    ),
    Fault(
        "nncompile/cli/optimize.py",
        "        if comparison.agrees:\n",
        "        if comparison.cases:\n",
        "tests/test_cli_optimize.py",
    ),
    Fault(
        "nncompile/frontends/onnx/differences.py",
        "        elif list(x.input) != list(y.input):",
        "        elif len(x.input) != len(y.input):",
        "tests/test_cli_optimize.py",
    ),
    Fault(
        "nncompile/frontends/onnx/entries/regions.py",
        "length = e.maximum(last - first + 1, 1)",
        "length = e.maximum(last - first, 1)",
        "tests/test_onnx_operators.py -k sample",
    ),
    Fault(
        "nncompile/frontends/onnx/source.py",
        "axis = 1 if len(shape) > 3 else -1",
        "axis = -1",
        "tests/test_cli_onnx.py",
    ),
    Fault(
        "nncompile/frontends/onnx/entries/quantization.py",
        "return while_training(e.where(e.isnan(source), source, rounded), rounded)",
        "return rounded",
        "tests/test_onnx_import.py",
    ),
    Fault(
        "nncompile/frontends/onnx/source.py",
        'likely = "log({x})" if is_softmax else "log(maximum({x}, 1e-7))"',
        'likely = "log({x})"',
        "tests/test_cli_onnx.py",
    ),
    Fault(
        "nncompile/backends/onnx/serialized.py",
        "return [tensor.SerializeToString() + prefix(_RAW_DATA, array.nbytes), array]",
        "return [tensor.SerializeToString() + prefix(_RAW_DATA, array.size), array]",
        "tests/test_serialized.py",
    ),
    Fault(
        "nncompile/ir/interpreter.py",
        "            if not users[a]:\n",
        "            if users[a] < 0:\n",
        "tests/test_serialized.py",
    ),
    Fault(
        "nncompile/passes/weight_folding.py",
        "        array = evaluate(v, weights, precision=np.float64)\n",
        "        array = evaluate(foldable, weights, precision=np.float64)[foldable.index(v)]\n",
        "tests/test_serialized.py",
    ),
    Fault(
        "nncompile/runtime/external_data.py",
        "start, start + _WINDOW + len(key) - 1",
        "start, start + _WINDOW",
        "tests/test_external_data.py",
    ),
)
