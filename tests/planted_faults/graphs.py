"""Faults in sizes, printing, transforms, locations and backends."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

GRAPHS = (
    # Sizes, printer, transforms.
    Fault(
        "nncompile/ir/size_arithmetic.py",
        "            return cls(-a, -b)",
        "            return -cls(a, -b)",
        "tests/test_dims.py",
    ),
    Fault(
        "nncompile/ir/size_arithmetic.py",
        "    FloorDiv: lambda args: args[0] // args[1],",
        "    FloorDiv: lambda args: -(-args[0] // args[1]),",
        "tests/test_dims.py",
    ),
    Fault(
        "nncompile/ir/size_arithmetic.py",
        "return size if type(size) is int else None",
        "return size",
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
        "            with located(site(v)):\n                new[v] = make",
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
        "tests/test_layer_names.py tests/test_monitoring_units.py",
    ),
    # Where the user's line is.
    Fault(
        "nncompile/diagnostics/locations.py",
        "        if not _is_our_module(name):\n            break",
        "        if ours:\n            break",
        "tests/test_mistakes.py tests/test_tracing.py",
    ),
    Fault(
        "nncompile/diagnostics/locations.py",
        "return package in _OURS or package in _PLUMBING",
        "return package in _OURS",
        "tests/test_tracing.py tests/test_called_names.py",
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
        "nncompile/ir/pool.py",
        "if self._references.get(key) is reference:",
        "if key in self._references:",
        "tests/test_pool.py",
    ),
)
