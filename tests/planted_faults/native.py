"""Faults in native kernels, which are built anew with each, and in the compile cache."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

CACHE = "tests/test_compile_cache.py tests/test_compile_cache_files.py"
ELEMENTWISE = "tests/test_native_elementwise.py -k 'not instruction_sets'"

NATIVE = (
    # Kernels.
    Fault(
        "kernels/source/products.cpp",
        "const Added added = first ? Added{x.c, x.beta} : Added{x.out, 1.0f};",
        "const Added added = Added{x.c, first ? x.beta : 1.0f};",
        "tests/test_native_products.py",
    ),
    Fault(
        "kernels/source/products.cpp",
        "left[k][r] = x.a[k * x.rows + i + r] * x.alpha;",
        "left[k][r] = x.a[k * x.rows + i + r];",
        "tests/test_native_products.py",
    ),
    Fault(
        "kernels/source/losses.cpp",
        "const float most = largest(x, s.classes);",
        "const float most = x[0];",
        "tests/test_native_losses.py",
    ),
    Fault(
        "kernels/source/losses.cpp",
        "s.indices[row] < 0 ? s.indices[row] + s.classes : s.indices[row];",
        "s.indices[row] < 0 ? 0 : s.indices[row];",
        "tests/test_native_losses.py",
    ),
    Fault(
        "kernels/source/embedding.cpp",
        "s.indices[i] < 0 ? s.indices[i] + s.rows : s.indices[i];",
        "s.indices[i] < 0 ? 0 : s.indices[i];",
        "tests/test_native_scatters.py",
    ),
    Fault(
        "kernels/source/embedding.cpp",
        "    double sum[kColumns];",
        "    float sum[kColumns];",
        "tests/test_native_scatters.py",
    ),
    Fault(
        "kernels/source/pooling.cpp",
        "(x > found.element) | (x != x);",
        "x > found.element;",
        "tests/test_native_pooling.py",
    ),
    Fault(
        "kernels/source/pooling.cpp",
        "const long k = start < 0 ? parts(-start, c.dilation[axis]) : 0;",
        "const long k = 0 * start;",
        "tests/test_native_pooling.py",
    ),
    Fault(
        "kernels/source/normalization.cpp",
        "const float start = s.width ? x[0] : 0.0f, n = float(s.width);",
        "const float start = 0.0f, n = float(s.width);",
        "tests/test_native_normalization.py",
    ),
    Fault(
        "kernels/source/elementwise.cpp",
        "NNK_STEP(left, T, T(y[i] < T(8 * sizeof(T)) ? x[i] << y[i] : 0))",
        "NNK_STEP(left, T, T(y[i] < T(8 * sizeof(T)) ? x[i] << y[i] : x[i]))",
        ELEMENTWISE,
    ),
    Fault(
        "kernels/source/elementwise.cpp",
        "NNK_STEP(max, T, T(x[i] > y[i] || x[i] != x[i] ? x[i] : y[i]))",
        "NNK_STEP(max, T, T(x[i] > y[i] ? x[i] : y[i]))",
        ELEMENTWISE,
    ),
    Fault(
        "kernels/source/recurrent.cpp",
        "  if (to.c_after) copy(to.c_after, to.c, hidden);\n",
        "",
        "tests/test_native_recurrences.py",
    ),
    # How they are found, and what is made calls of them.
    Fault(
        "nncompile/runtime/native.py",
        "if interface != INTERFACE:",
        "if interface is None:",
        "tests/test_native.py",
    ),
    Fault(
        "nncompile/runtime/native.py",
        "    wide = field[1] >= 128 and len(field) > 2",
        "    wide = False",
        "tests/test_native.py",
    ),
    Fault(
        "nncompile/backends/onnx/native/elementwise.py",
        "return a in candidates and v in candidates and a.shape == v.shape",
        "return a in candidates and v in candidates",
        "tests/test_native.py tests/test_native_ops.py",
    ),
    Fault(
        "nncompile/backends/onnx/native/elementwise.py",
        "            levels[v] = latest\n",
        "            levels[v] = latest + 1\n",
        "tests/test_native.py tests/test_native_ops.py",
    ),
    Fault(
        "nncompile/backends/onnx/native/functions.py",
        "            if number > MOST:",
        "            if number > MOST + 1:",
        "tests/test_native.py",
    ),
    # The compile cache.
    Fault(
        "nncompile/compiler/cache_files.py",
        "                self._memory.move_to_end(key)\n",
        "                pass\n",
        CACHE,
    ),
    Fault(
        "nncompile/compiler/cache_files.py",
        "                self._remembered -= len(oldest.content)",
        "                self._remembered = 0",
        CACHE,
    ),
    Fault(
        "nncompile/compiler/cache_files.py",
        "self.directory.mkdir(mode=0o700, ",
        "self.directory.mkdir(",
        CACHE,
    ),
    Fault(
        "nncompile/compiler/cache_keys.py",
        'f"onnxruntime {RUNTIME_VERSION}"',
        '"onnxruntime"',
        CACHE,
    ),
    Fault(
        "nncompile/compiler/cache_place.py",
        "    if not base.is_absolute():",
        "    if not str(base):",
        CACHE,
    ),
)
