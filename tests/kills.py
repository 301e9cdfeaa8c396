"""Kills random processes of a training at random moments: `python -m tests.kills --count 100`.

One run is trained by two to four processes, killed, and resumed by another number of them, again
and again. After each kill the job must end within five seconds, and go on from a state that is no
older than the last that was due. In the end its state is compared with that of one process which
was left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.runtime.checkpoint import load_state
from tests.mpi_jobs import environment

EVERY = 20  # steps from one state that is written to the next
ENDING = 5.0  # seconds
MODEL = """
import numpy as np
from dsl import Dense, Dropout, cross_entropy, f32, i64, model, sgd, training

@model
def net(x=f32["batch", 20], label=i64["batch"]):
    return {"loss": cross_entropy(x >> Dropout(0.2) >> Dense(3, name="out"), label)}

recipe = training(net, optimizer=sgd(0.01, 0.9), batch_size=32, epochs=100000)
rng = np.random.default_rng(0)
data = {"x": rng.normal(size=(700, 20)).astype("f4"), "label": rng.integers(0, 3, 700)}
"""


def train(directory: Path, *options: str) -> subprocess.Popen[Any]:
    command = [sys.executable, "-m", "nncompile", "train", "net.py", "--name", "killed", *options]
    # Without a page and exports, which nobody reads; in a group that ends with it.
    return subprocess.Popen(
        command,
        cwd=directory,
        env=environment(),
        stdout=(directory / "out").open("w"),
        stderr=subprocess.STDOUT,
    )


def ranks(parent: int) -> dict[int, int]:
    """The processes of the training that this one started, by their number."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or not _descends(int(entry.name), parent):
            continue
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            named = dict(x.split(b"=", 1) for x in variables if b"=" in x)
            if b"OMPI_COMM_WORLD_RANK" in named:
                found[int(named[b"OMPI_COMM_WORLD_RANK"])] = int(entry.name)
    return found


def _descends(process: int, parent: int) -> bool:
    while process not in (0, parent):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        process = int(fields[1])
    return process == parent


def last_state(directory: Path) -> tuple[int, Path | None]:
    files = sorted((directory / "runs/net/killed/checkpoints").glob("*.safetensors"))
    return (int(files[-1].stem.split("-")[-1]), files[-1]) if files else (0, None)


def logged(directory: Path) -> int:
    """The step of the last epoch that is complete."""
    file = directory / "runs/net/killed/log.csv"
    lines = file.read_text().splitlines() if file.exists() else []
    return int(lines[-1].split(",")[1]) if len(lines) > 1 else 0


def killed(directory: Path, rng: random.Random, number: int) -> tuple[str, bool]:
    """Trains, kills, and says how it went, and whether that is as promised."""
    before, _ = last_state(directory)
    size = rng.choice([2, 2, 3, 4])
    how = ["--workers", str(size), "--checkpoint-every", f"{EVERY}steps", "--quiet"]
    child = train(directory, *how, *(["--resume", "killed"] if number else []))
    while last_state(directory)[0] <= before and child.poll() is None:
        time.sleep(0.05)
    time.sleep(rng.random())
    alive = ranks(child.pid)
    if child.poll() is not None or not alive:
        return f"ended by itself: {(directory / 'out').read_text()[:1500]}", False
    rank = rng.choice(sorted(alive))
    os.kill(alive[rank], signal.SIGKILL)
    start = time.monotonic()
    try:
        code = child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()
        return f"{size} processes, {rank} killed: hangs", False
    seconds = time.monotonic() - start
    step, _ = last_state(directory)
    lost = max(0, logged(directory) - step)
    fine = code != 0 and seconds < ENDING and step > before and lost <= EVERY
    text = f"{size} processes, {rank} killed: ended in {seconds:.1f} s, state of step {step}"
    return f"{text}, {lost} steps of complete epochs after it", fine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng, failures = random.Random(chosen.seed), 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "net.py").write_text(MODEL)
        for number in range(chosen.count):
            text, fine = killed(directory, rng, number)
            failures += not fine
            print(f"{number + 1:3}  {text}{'' if fine else '  WRONG'}", flush=True)
        step, file = last_state(directory)
        assert file is not None
        state = load_state(file)[0]
        alone = train(directory, "--steps", str(step), "--name", "alone", "--quiet")
        assert alone.wait(600) == 0
        expected = load_state(directory / "runs/net/alone/checkpoint.safetensors")[0]
        error = max(
            float(np.abs(state[n] - x).max() / max(np.abs(x).max(), 1e-30))
            for n, x in expected.items()
        )
    print(f"{chosen.count - failures} of {chosen.count} as promised; after {step} steps the state "
          f"differs from that of one process by {error:.1e}")  # fmt: skip
    sys.exit(failures > 0 or error > 1e-4)


if __name__ == "__main__":
    main()
