"""Faults in what several processes compute, agree on and say when they end."""

from __future__ import annotations

from tests.planted_faults.fault import Fault

PARALLEL = (
    Fault(
        "nncompile/program/reductions.py",
        'name] = SUM\n        return Reduction("mean", name)\n',
        'name] = SUM\n        return Reduction("mean")\n',
        "tests/test_reductions.py",
    ),
    Fault(
        "nncompile/program/first_row.py",
        "return v.op(counter + cast(first, u32) * size_value(size, u32), key)",
        "return v.op(counter + cast(first, u32), key)",
        "tests/test_reductions.py",
    ),
    Fault(
        "nncompile/program/accumulation_halves.py",
        "{number: number - 1}",
        "{number: number}",
        "tests/test_reductions.py",
    ),
    Fault(
        "nncompile/parallel/reducing.py",
        "            if not factor:  # a mean of nothing is NaN\n",
        "            if factor is None:\n",
        "tests/test_parallel.py",
    ),
    Fault(
        "nncompile/program/shared_statistics.py",
        "    weight = where(weight > 0, weight, 1.0)  # of",
        "    weight = where(weight > 0, weight, 0.0)  # of",
        "tests/test_parallel.py",
    ),
    Fault(
        "nncompile/parallel/runner.py",
        "            shard[FIRST_ROW] = np.array(first, np.int64)\n",
        "            shard[FIRST_ROW] = np.array(0, np.int64)\n",
        "tests/test_parallel.py",
    ),
    Fault(
        "nncompile/parallel/agreement.py",
        "            fitting.feeder.whole.is_shared = True\n",
        "            pass\n",
        "tests/test_parallel_data.py",
    ),
    Fault(
        "nncompile/train/sums.py",
        'weights.get(name, 0.0) + part["weights"][name]',
        "weights.get(name, 0.0) + 1",
        "tests/test_parallel_data.py",
    ),
    Fault(
        "nncompile/parallel/processes.py",
        "            self._tell(error)\n",
        "            pass\n",
        "tests/test_parallel.py",
    ),
    Fault(
        "nncompile/parallel/agreement.py",
        "            self._check_state(event.trainer)\n",
        "            pass\n",
        "tests/test_parallel.py",
    ),
)
