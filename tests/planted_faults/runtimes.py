"""Faults in what other runtimes train by."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

RUNTIMES = (
    Fault(
        "nncompile/program/repeated.py",
        "(*carries.items(), *rows.items())",
        "rows.items()",
        "tests/test_web.py",
    ),
    Fault(
        "nncompile/compiler/web.py",
        "if name in model.inference().leaves]",
        "]",
        "tests/test_web.py",
    ),
    Fault(
        "nncompile/compiler/web.py",
        " and not (directory / MANIFEST).is_file()",
        "",
        "tests/test_web.py",
    ),
    Fault(
        "nncompile/train/sources/declared.py",
        "literal=True) for port in ports}",
        "literal=False) for port in ports}",
        "tests/test_web.py",
    ),
)
