"""A slice of `python -m tests.faults files`, and that it sees what it is for."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

import pytest

from tests.faults import files, workers
from tests.faults.__main__ import main
from tests.faults.files import outcomes_of
from tests.faults.loaders import LOADERS, Loader
from tests.faults.workers import Outcome

# Those that need no process of their own, which takes longer than all the rest.
QUICK = (
    "npy",
    "npz",
    "npz, packed",
    "safetensors",
    "metadata",
    "log, csv",
    "log, json",
    "csv",
    "run",
)


@pytest.fixture(autouse=True)
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "KEPT", tmp_path / "kept")
    (tmp_path / "cases").mkdir()


def _wrong(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.is_wrong]


def test_wrong_files_are_read_or_refused(tmp_path: Path) -> None:
    loaders = [x for x in LOADERS if x.name in QUICK]
    outcomes = list(outcomes_of(range(500), tmp_path / "cases", loaders))
    assert not _wrong(outcomes)
    refused = sum(outcome.kind == "refused" for outcome in outcomes)
    assert 300 < refused < 480  # it is neither all wrong nor nothing


def test_wrong_models_are_run_or_refused(tmp_path: Path) -> None:
    loaders = [x for x in LOADERS if x.name in ("onnx", "run, npz", "step", "external")]
    assert not _wrong(list(outcomes_of(range(40), tmp_path / "cases", loaders)))


def _crashes(path: Path) -> None:
    faulthandler.disable()  # pytest has it print the stack
    os.kill(os.getpid(), signal.SIGSEGV)


def _writes_outside(path: Path) -> None:
    (path.parent.parent / "outside").touch()


def _hangs(path: Path) -> None:
    signal.pause()


def _prints(path: Path) -> None:
    os.write(2, b"Traceback (most recent call last):\n")


def _raises(path: Path) -> None:
    raise KeyError("header")


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (_crashes, "crash"),
        (_writes_outside, "files outside"),
        (_hangs, "hang"),
        (_prints, "printed a traceback"),
        (_raises, "traceback"),
    ],
)
def test_what_is_wrong_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: object, kind: str
) -> None:
    monkeypatch.setattr(files, "_SECONDS", 0.5)
    monkeypatch.setattr(files, "make_files", lambda valid, with_torch: _files(valid))
    loader = Loader("bad", "x.npy", read, 1)
    outcomes = list(outcomes_of([3, 4], tmp_path / "cases", [loader]))
    assert [outcome.kind for outcome in outcomes] == [kind, kind]
    assert (tmp_path / "kept" / "3" / "inner" / "x.npy").exists()


def _files(valid: Path) -> None:
    for name in ("x.npy", "y.npy"):
        (valid / name).write_bytes(bytes(range(256)))


def test_a_case_is_the_same_each_time(tmp_path: Path) -> None:
    contents = []
    for i in "12":
        (tmp_path / i).mkdir()
        valid = tmp_path / "valid"
        valid.mkdir(exist_ok=True)
        _files(valid)
        files._make(7, valid, tmp_path / i, Loader("bad", "x.npy", _raises, 1))
        contents.append((tmp_path / i / "x.npy").read_bytes())
    assert contents[0] == contents[1] != bytes(range(256))


def test_the_count_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = iter(["read", "refused", "crash"])
    monkeypatch.setattr(
        files, "outcomes_of", lambda seeds, _: [Outcome(s, "npy", next(kinds), "x") for s in seeds]
    )
    assert main(["files", "3", "--seed", "5"]) == 1
    printed = capsys.readouterr().out
    assert "--- seed 7, npy: crash" in printed
    assert "3 wrong files in 0 s: 1 not taken as they should be" in printed
