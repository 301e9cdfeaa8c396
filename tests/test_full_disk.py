"""A disk that is full for a while or for good: a limit of the size of files in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from nncompile.runtime import load_state
from tests.command_line import GOOD, written
from tests.run_checks import log_rows, states

pytest.importorskip("resource")
ROOT = Path(__file__).parent.parent
# Trains for 8 epochs, of which each is the best, and tells how that ended.
PROGRAM = """
    import json, resource, sys, warnings
    from nncompile.train import CSVLog, RunDirectory, intervals
    from tests.small_models import data, trainer

    intervals._AGAIN = 0.0
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def scenario(place, limits):
        def change(event):
            if event.kind == "epoch" and event.epoch in limits:
                limit(limits[event.epoch])

        run = RunDirectory(place, checkpoint_every="1epoch")
        told = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                callbacks = [change, CSVLog(place + ".csv"), run]
                trainer().fit(data(), epochs=8, callbacks=callbacks, verbose=0)
            except Exception as error:
                told = [type(error).__name__, str(error), *getattr(error, "__notes__", ())]
        limit(None)
        return {"error": told, "warnings": [str(x.message) for x in caught]}

    kinds = json.loads(sys.argv[2])
    found = {
        name: scenario(f"{sys.argv[1]}/{name}", {int(k): x for k, x in limits.items()})
        for name, limits in kinds.items()
    }
    print(json.dumps(found))
"""
# Bytes that a file may have, from the end of that epoch on.
KINDS: dict[str, dict[int, int | None]] = {
    "never": {},
    "for a while": {2: 0, 5: None},
    "for good": {2: 0},
    "for the page": {8: 30_000},
    "for the exports": {8: 6_000},
    "for the log alone": {2: 0, 3: None},
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where the runs are, and how each training ended."""
    directory = tmp_path_factory.mktemp("disk")
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(directory), json.dumps(KINDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory, json.loads(done.stdout)


def epochs_in(log: Path) -> list[str]:
    return [row.split(",")[0] for row in log.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", ["never", "for a while", "for the log alone", "for the page"])
def test_a_training_outlives_a_full_disk(ended: Any, kind: str) -> None:
    directory, found = ended
    place, told = directory / kind, found[kind]
    assert told["error"] == []
    assert log_rows(place) == log_rows(directory / "never")
    assert epochs_in(directory / f"{kind}.csv") == ["epoch", *map(str, range(1, 9))]
    assert states(place) == [32]
    for file in ("checkpoint.safetensors", "best/checkpoint.safetensors", "model.onnx"):
        never = directory / "never" / file
        assert (place / file).is_file()
        if file == "model.onnx":
            assert (place / file).read_bytes() == never.read_bytes()
        else:
            assert load_state(place / file)[0]["step"] == load_state(never)[0]["step"] == 32
    assert (place / "report.html").is_file() == (kind != "for the page")
    words = {
        "never": [],
        "for a while": ["the log waits", "CSVLog failed", "the state is not on disk"],
        "for the log alone": ["the log waits", "CSVLog failed", "the state is not on disk"],
        "for the page": ["a page of"],
    }[kind]
    for word in words:
        assert any(word in warning for warning in told["warnings"]), told["warnings"]
    assert bool(told["warnings"]) == bool(words)


@pytest.mark.thorough  # what it shares takes long
def test_a_state_that_cannot_be_written_at_the_end_is_an_error(ended: Any) -> None:
    """It says what is on disk: the states from before."""
    directory, found = ended
    place, (kind, message) = directory / "for good", found["for good"]["error"]
    assert kind == "FileError"
    assert "best/checkpoint.safetensors: file too large" in message
    assert "checkpoints/step-000000004.safetensors" in message
    assert "what came after it: cannot write" in message
    assert "that of epoch 1, in best/" in message
    assert "make room, and continue the run: --resume" in message
    assert states(place) == [4]
    assert load_state(place / "best" / "checkpoint.safetensors")[0]["step"] == 4
    assert not (place / "model.onnx").exists()
    assert not list(place.rglob("*writing*"))


@pytest.mark.thorough  # what it shares takes long
def test_the_last_state_is_there_where_the_exports_do_not_fit(ended: Any) -> None:
    directory, found = ended
    place, (kind, message) = directory / "for the exports", found["for the exports"]["error"]
    assert kind == "FileError"
    assert f"cannot write {place}/" in message
    assert "file too large" in message
    assert "lost" not in message
    assert "that of epoch 8, in best/" in message
    assert states(place) == [32]
    assert sorted(x.name for x in place.iterdir()) == [
        *(".lock", "best", "checkpoints", "config.json", "log.csv")
    ]


COMMAND_ERRORS = {
    0: ["FileError: cannot write", "0/config.json: file too large"],
    3_000: ["FileError: cannot write", "file too large", "no state yet", "make room"],
}


def test_the_command_ends_with_an_error(tmp_path: Path) -> None:
    written(tmp_path, GOOD.replace("Dense(8,", "Dense(100,"))
    program = f"""
        import resource, sys
        from nncompile.cli.app import app
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        for size in {list(COMMAND_ERRORS)}:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            try:
                app(["train", "net.py", "--output", f"runs/{{size}}", "--quiet"])
            except SystemExit as end:
                print("exit code", end.code, file=sys.stderr)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    *messages, rest = done.stderr.split("exit code 2\n")
    assert rest == ""
    for message, parts in zip(messages, COMMAND_ERRORS.values(), strict=True):
        assert [part for part in parts if part not in message] == []
    assert ".nncompile-writing" not in done.stderr
    assert "Traceback" not in done.stderr
