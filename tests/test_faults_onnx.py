"""A slice of `python -m tests.faults onnx`, and that it sees what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from nncompile.frontends.onnx.registry import ENTRIES, Registered
from tests.faults import workers
from tests.faults.onnx_cases import family_of, judged, made, outcomes_of
from tests.faults.onnx_seeds import SEEDS, perceptron

SLOW = ("long chains", "doubling", "huge results", "endless loops", "wrong functions", "much")


@pytest.fixture(autouse=True)
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "KEPT", tmp_path / "kept")


@pytest.mark.parametrize("name", SEEDS)
def test_valid_files_give_the_numbers_of_onnxruntime(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(SEEDS[name](tmp_path), path)
    assert judged(path) == ("equal", "")


def test_wrong_files_are_imported_or_refused(tmp_path: Path) -> None:
    seeds = [seed for seed in range(150) if family_of(seed) not in SLOW][:60]
    outcomes = list(outcomes_of(seeds, tmp_path))
    assert not [outcome for outcome in outcomes if outcome.is_wrong]
    assert {outcome.kind for outcome in outcomes} == {"read", "equal", "refused"}


def test_a_case_is_the_same_each_time(tmp_path: Path) -> None:
    onnx.save(perceptron(), tmp_path / "perceptron.onnx")
    assert all(made(seed, tmp_path) == made(seed, tmp_path) for seed in range(40))


def _twice(n: Any, x: Any) -> Any:
    return x + x


def _raises(n: Any, x: Any) -> Any:
    raise KeyError("axis")


def _takes_all_memory(n: Any, x: Any) -> Any:
    raise MemoryError


@pytest.mark.parametrize(
    ("function", "kind"),
    [(_twice, "other numbers"), (_raises, "fault"), (_takes_all_memory, "memory")],
)
def test_what_is_wrong_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, kind: str
) -> None:
    entry = Registered(function, frozenset(), False)
    monkeypatch.setitem(ENTRIES, ("", "Relu"), entry)
    onnx.save(perceptron(), tmp_path / "model.onnx")
    assert judged(tmp_path / "model.onnx")[0] == kind
