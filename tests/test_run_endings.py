"""How a run ends, and what it leaves: errors, signals, a full disk."""

from __future__ import annotations

import errno
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from nncompile.diagnostics.errors import CheckpointError, TrainingError
from nncompile.runtime import load_state, save_state
from nncompile.train import CSVLog, Event, RunDirectory, TrainingWarning
from nncompile.train.progress import Snapshot
from nncompile.train.run_places import latest
from tests.run_checks import log_rows, states, stop_after
from tests.small_models import assert_same, data, trainer


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), TrainingError("lost")])
def test_an_error_leaves_the_last_good_and_the_best_state(tmp_path: Path, error: Exception) -> None:
    place = tmp_path / "run"
    run = RunDirectory(place)
    ours = trainer()
    with pytest.raises(type(error)) as caught:
        ours.fit(data(), epochs=4, callbacks=[stop_after(10, error), run])
    told = str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
    assert re.search(rf"run +{place}", told)
    best, _ = load_state(place / "best" / "checkpoint.safetensors")
    assert best["step"] == 4 * run.best_epoch
    last = 9 if isinstance(error, TrainingError) else 10  # a TrainingError undoes the step
    assert states(place) == [last]
    assert re.search(rf"last +checkpoints/step-{last:09d}.safetensors", told)
    assert not (place / "model.onnx").exists()


def test_an_epoch_at_whose_end_another_callback_fails_is_complete(tmp_path: Path) -> None:
    def failing(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            raise ZeroDivisionError

    run = RunDirectory(tmp_path / "run", exports=False)
    with pytest.raises(ZeroDivisionError):
        trainer().fit(data(), epochs=4, callbacks=[run, failing])
    assert states(tmp_path / "run") == [8]
    assert [row.split(",")[0] for row in log_rows(tmp_path / "run")] == ["epoch", "1", "2"]


@pytest.mark.parametrize(
    ("number", "ended"),
    [("SIGINT", KeyboardInterrupt), ("SIGTERM", SystemExit), ("SIGHUP", SystemExit)],
)
def test_signals_end_a_training_after_its_step(
    tmp_path: Path, number: str, ended: type[BaseException]
) -> None:
    if not hasattr(signal, number):
        pytest.skip(f"this system has no {number}")
    sent = getattr(signal, number)
    before = signal.getsignal(sent)

    def send(event: Event) -> None:
        if event.step == 6:
            os.kill(os.getpid(), sent)

    ours = trainer()
    with pytest.raises(ended) as caught:
        ours.fit(data(), epochs=4, callbacks=[send, RunDirectory(tmp_path / "run")])
    if ended is SystemExit:
        assert caught.value.code == 128 + sent
    assert ours.step == 6
    assert states(tmp_path / "run") == [6]
    assert (tmp_path / "run" / "model.onnx").is_file()
    assert signal.getsignal(sent) == before


def test_a_signal_does_not_interrupt_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run, ours = RunDirectory(tmp_path / "run", exports=False), trainer()
    write = Snapshot.write

    def slow(moment: Snapshot, path: Path) -> Path:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
        return write(moment, path)

    monkeypatch.setattr(Snapshot, "write", slow)
    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), epochs=1, callbacks=run)
    assert states(tmp_path / "run") == [4]
    assert "the state is being written" in capfd.readouterr().err


def test_a_second_interrupt_ends_a_long_validation(tmp_path: Path) -> None:
    class Hanging:
        def on_validation(self, _: Event) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    ours = trainer()
    run = RunDirectory(tmp_path / "run", exports=False)
    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), epochs=2, validation_data=data(), callbacks=[Hanging(), run])
    assert states(tmp_path / "run") == [4]
    rest, whole = trainer(), trainer()
    run = RunDirectory(tmp_path / "run", exports=False, resume=True)
    rest.fit(data(), epochs=2, validation_data=data(), callbacks=run)
    whole.fit(data(), epochs=2)
    assert_same(rest.state, whole.state)
    assert len(log_rows(tmp_path / "run")) == 3


def test_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    seen = []

    def fit() -> None:
        watch = lambda event: seen.append(signal.getsignal(signal.SIGTERM))  # noqa: E731
        run = RunDirectory(tmp_path / "run", exports=False)
        trainer().fit(data(), steps=1, callbacks=[watch, run])

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert set(seen) == {signal.getsignal(signal.SIGTERM)}


def test_a_log_that_cannot_be_written_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ours = RunDirectory(tmp_path / "run", exports=False), trainer()
    opened = Path.open

    def fill(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            monkeypatch.setattr(Path, "open", full)
        if event.kind == "epoch" and event.epoch == 4:
            monkeypatch.undo()

    def full(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "log.csv":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *args, **options)

    with pytest.warns(TrainingWarning, match="the log waits, and training goes on"):
        ours.fit(data(), epochs=5, callbacks=[fill, run])
    assert [row.split(",")[0] for row in log_rows(tmp_path / "run")] == ["epoch", *"12345"]


def test_a_run_without_a_state_begins_anew(tmp_path: Path) -> None:
    place = tmp_path / "run"
    trainer().fit(data(), epochs=2, callbacks=RunDirectory(place, exports=False))
    for file in (place / "checkpoints").iterdir():  # as after a kill -9 before the first
        file.unlink()
    trainer().fit(data(), epochs=3, callbacks=RunDirectory(place, exports=False, resume=True))
    assert [row.split(",")[0] for row in log_rows(place)] == ["epoch", "1", "2", "3"]


def test_a_log_is_synced_before_a_state_and_not_at_every_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    for module in ("logs", "run_files"):
        monkeypatch.setattr(
            f"nncompile.train.{module}.sync", lambda path: order.append(Path(path).name)
        )
    write = Snapshot.write

    def noted(moment: Snapshot, path: Path) -> Path:
        order.append(f"before {path.parent.name}")
        written = write(moment, path)
        order.append(path.parent.name)
        return written

    monkeypatch.setattr(Snapshot, "write", noted)
    mine = CSVLog(tmp_path / "mine.csv")
    run = RunDirectory(tmp_path / "run", exports=False, checkpoint_every="100epochs")
    trainer().fit(data(), epochs=6, callbacks=[mine, run])
    assert run.best_epoch == 6  # each was the best
    one = ["log.csv", "before {0}", "mine.csv", "{0}"]
    assert order == [name.format(place) for place in ("best", "checkpoints") for name in one]


GARBAGE = {
    "config.json": [
        *(b"", b"[]", b"\xff\xfe", b'{"format": "1"}', b'{"format": 1, "model": "perceptron"}'),
        *(b'{"format": 1, "model": 3, "seed": 0, "until": {}}', b"[" * 10**5),
        b'{"format": 1, "model": "perceptron", "seed": 0, "until": {"epoch": "x"}}',
        b'{"format": 1, "model": "perceptron", "seed": 0, "until": {}, "options": [1]}',
        b'{"format": 1, "model": "perceptron", "seed": 0, "until": {}, "resumed": 1}',
    ],
    "notes": [
        *(b"", b"null", b"[]", b"{}", b'{"log": null}', b'{"log": {"bytes": "many"}}'),
        b'{"log": {"bytes":1,"crc32":1,"waiting":"","seconds":0,"columns":[]},"best":{"value":1}}',
    ],
}


@pytest.mark.parametrize(
    ("file", "content"), [(file, x) for file, several in GARBAGE.items() for x in several]
)
def test_garbage_in_a_run_is_told_in_one_message(tmp_path: Path, file: str, content: bytes) -> None:
    place = tmp_path / "run"
    trainer().fit(data(), epochs=1, callbacks=RunDirectory(place, exports=False))
    if file == "notes":
        (state,) = (place / "checkpoints").iterdir()
        arrays, about = load_state(state)
        save_state(state, arrays, {**about, "nncompile.run": content.decode()})
    else:
        (place / file).write_bytes(content)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="cannot be read"):
        trainer().fit(data(), epochs=2, callbacks=RunDirectory(place, resume=True))
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", [b"", b"\xff", b"a\0b", b"gone", b"x" * 5000, None])
def test_where_latest_is_garbage_the_last_run_is_that_which_began_last(
    tmp_path: Path, content: bytes | None
) -> None:
    trainer().fit(data(), steps=1, callbacks=RunDirectory(root=tmp_path, exports=False))
    parent = tmp_path / "perceptron"
    (parent / "latest").unlink()
    if content is None:
        os.mkfifo(parent / "latest")
    else:
        (parent / "latest").write_bytes(content)
    assert latest(parent) == parent / "1"
