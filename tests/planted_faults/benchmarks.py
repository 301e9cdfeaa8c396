"""Faults in what the benchmark measures with."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

BENCHMARKS = (
    Fault(
        "benchmarks/measure.py",
        "for name in draw.sample(list(sides), len(sides)):",
        "for name in list(sides):",
        "tests/test_benchmarks.py",
    ),
    Fault(
        "benchmarks/measure.py",
        "        calls[i % len(calls)]()\n    wait()\n",
        "        calls[i % len(calls)]()\n",
        "tests/test_benchmarks.py",
    ),
    Fault(
        "benchmarks/rows.py",
        "if far <= bound}  # not where it is NaN",
        "if not far > bound}",
        "tests/test_benchmarks.py",
    ),
    Fault(
        "benchmarks/comparison.py",
        "machine = statistics.median(peers) if peers else None",
        "machine = None",
        "tests/test_benchmark_reports.py",
    ),
)
