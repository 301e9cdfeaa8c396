"""What `python -m benchmarks scaling` measures, and what its model says of many processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import document, scaling
from benchmarks.peers.base import Absent
from benchmarks.scaling import ONE, OVERLAPPED, PART, WHOLE, Result, Scaling, Sums
from benchmarks.scaling_model import ALGORITHMS, Link, efficiency, fitted, greatest, reduction
from nncompile.parallel.processes import Processes
from tests.parallel_checks import checked
from tests.test_benchmark_reports import called
from tests.thread_groups import in_threads

ROW = Scaling("gpt", 8, True, 10**6, {ONE: 0.04, WHOLE: 0.05, PART: 0.043})
RESULT = Result([ROW], Sums({256: 1e-5, 2**20: 2e-3}, {256: 2e-5, 2**20: 1e-4}))


def test_two_processes_are_measured_in_all_ways() -> None:
    workload = scaling.chosen_workload("tiny sgd B1")

    def work(processes: Processes) -> tuple[Scaling, Sums]:
        part = Processes(processes.group.apart(), shard_optimizer=True)
        late = Processes(processes.group.apart(), overlap=300)
        row = scaling.measured(processes, part, late, workload, False, 0.0)
        return row, scaling.measured_sums(processes, [256, 4096])

    (first, sums), (other, _) = checked(in_threads(2, work))
    assert all(0 < x < 5 for x in first.seconds.values())
    assert first.seconds.keys() == {ONE, WHOLE, PART, OVERLAPPED}
    assert other.seconds[ONE] == 0  # the first alone makes these steps
    assert first.parameters == 8 * 16 + 16 + 16 * 4 + 4
    assert sums.mpi.keys() == sums.shared.keys() == {256, 4096}


def test_a_link_follows_from_sums() -> None:
    link = Link(20e-6, 0.5e-9)
    found = fitted({n: 2 * link.alpha + n * link.beta for n in (256, 4096, 10**6, 10**8)})
    np.testing.assert_allclose([found.alpha, found.beta], [link.alpha, link.beta], 1e-6)
    assert fitted({256: 1e-5, 10**6: 1e-6}).beta == 0


def test_the_model_counts_messages_and_bytes() -> None:
    link = Link(1.0, 0.0)
    ring, _, halving = ALGORITHMS
    assert [reduction(ring, link, p, 100) for p in (2, 16)] == [2, 30]
    assert reduction(halving, link, 16, 100, 16) == 16 * 8
    assert reduction(ring, Link(0.0, 1.0), 4, 100) == 150
    # Of two normal numbers the greater is 1/√π on average, of a hundred 2.508.
    assert greatest(2) == pytest.approx(np.pi**-0.5, abs=1e-4)
    assert greatest(100) == pytest.approx(2.508, abs=1e-3)


def test_efficiencies_of_the_model() -> None:
    fast, slow = Link(5e-6, 0.08e-9), Link(30e-6, 0.8e-9)
    for algorithm in ALGORITHMS:
        assert efficiency(algorithm, Link(0, 0), 2, 1e6, 0.1) == pytest.approx(0.983, abs=1e-3)
        assert efficiency(algorithm, slow, 256, 4e8, 0.5) < efficiency(
            algorithm, fast, 256, 4e8, 0.5
        )
    ring, buckets, halving = (efficiency(a, fast, 4096, 4e8, 0.7) for a in ALGORITHMS)
    assert buckets < ring < halving


def test_tables_and_files_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def measured(seconds: float) -> Result:
        given.append(seconds)
        return RESULT

    monkeypatch.setattr(command.scaling, "measure_scaling", measured)
    file, page = tmp_path / "run.json", tmp_path / "page.md"
    done = called("scaling", "--seconds", "2", "--json", str(file), "--markdown", str(page))
    assert (done.exit_code, given) == (0, [6.0])
    assert "A MODEL, not a measurement" in done.stdout
    assert Result.of(json.loads(file.read_text())) == RESULT
    assert (
        "| GPT, 4 layers of 128, 128 tokens | native | 8 | 40.0 | 50.0 | 1.60 |" in page.read_text()
    )
    assert command.below_target(document.read(file)) == []
    assert called("--read", str(file), "--check").exit_code == 0
    shown: Any = Console(record=True, width=200)
    shown.print(scaling.table_of(RESULT))
    assert "1.86" in shown.export_text()


def test_what_falls_short_is_told() -> None:
    slow = Result([Scaling("gpt", 8, False, 10, {ONE: 0.04, WHOLE: 0.05, PART: 0.05})], RESULT.sums)
    assert command.below_target(slow.as_json) == ["scaling gpt, portable"]


def test_without_two_cores_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.os, "sched_getaffinity", lambda _: {0}, raising=False)
    with pytest.raises(Absent, match="two cores"):
        scaling.measure_scaling()
    done = called("scaling")
    assert done.exit_code == 0
    assert "scaling is left out: it needs two cores" in done.stdout
