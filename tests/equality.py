"""Trainings of several processes under mpirun against one process: `python -m tests.equality`.

Prints the largest relative difference of the parameters after two epochs of gradient descent, the
batches of which are cut into unequal parts, the last of them into empty ones. `--examples` trains
the examples with two processes, which compare their states at the end.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import nncompile
from dsl import BatchNorm, Dense, Dropout, cross_entropy, f32, i64, model, relu
from nncompile import Trainer, training
from nncompile.optim import adam, sgd
from nncompile.program.recipe import Recipe, minimize
from tests.cuda.examples import PROGRAMS, recipe_and_data
from tests.mpi_jobs import ROOT, environment, job, launching
from tests.parallel_checks import adversarial

ROWS, BATCH = 53, 13  # the last batch has one row
CASES: dict[str, dict[str, Any]] = {
    "mean": {},
    "masked mean": {"ignore_index": 0},
    "sum": {"reduction": "sum"},
    "mean, clipped": {"clip_norm": 0.05},
    "masked mean, 4 batches accumulated": {"ignore_index": 0, "accumulate": 4},
    "sum, 4 batches accumulated": {"reduction": "sum", "accumulate": 4},
    "masked mean, clipped, 4 batches accumulated": {
        "ignore_index": 0,
        "clip_norm": 0.05,
        "accumulate": 4,
    },
    "mean, dropout": {"rate": 0.4},
    "mean, BatchNorm(sync=True)": {"norm": True},
    "masked mean, BatchNorm(sync=True)": {"norm": True, "ignore_index": 0},
    "mean, BatchNorm(sync=True), 4 batches accumulated": {"norm": True, "accumulate": 4},
    "two networks in turn, dropout and noise": {"turns": True},
    "two networks in turn, 4 batches accumulated": {"turns": True, "accumulate": 4},
    "two networks in turn, BatchNorm(sync=True)": {"turns": True, "norm": True},
}
SHARDED = (
    "mean",
    "sum",
    "mean, clipped",
    "masked mean, 4 batches accumulated",
    "masked mean, clipped, 4 batches accumulated",
)
OVERLAPPED = ("masked mean", "masked mean, clipped, 4 batches accumulated")
WITHIN = "every state within windows of 4 batches, masked mean, clipped"
LIMIT = 1e-6
# Adam divides by the root of a gradient near zero, whose rounding is then seen in the parameters.
ADAM, ADAM_LIMIT = "mean, Adam, each with its part of the update", 1e-4
# What becomes of an example.
EQUAL, PROGRAM, FAILED = "equal states", "is a program, and declares no training", "FAILS: "
SEVERAL = re.compile(r"declares several recipes: (.+?)\s+hint:")


def recipe(
    rate: float = 0.0,
    norm: bool = False,
    clip_norm: float | None = None,
    accumulate: int = 1,
    optimizer: Any = None,
    turns: bool = False,
    **loss: Any,
) -> Recipe:
    if turns:
        networks = [("of_disc", "disc.*"), ("of_gen", "gen.*")]
        updates = [minimize(of, params=own, optimizer=sgd(0.05, 0.9)) for of, own in networks]
        gan = model(adversarial(f32, norm or None))
        return training(gan, updates=updates, batch_size=BATCH, accumulate=accumulate)

    @model
    def net(x: Any = f32["batch", 20], label: Any = i64["batch"]) -> Any:
        hidden = x >> Dense(64, relu, name="one") >> Dropout(rate)
        hidden = (hidden >> BatchNorm(name="norm", sync=True)) if norm else hidden
        hidden = hidden >> Dense(64, relu, name="two")
        return {"loss": cross_entropy(hidden >> Dense(5, name="out"), label, **loss)}

    lr = 0.002 if loss.get("reduction") == "sum" else 0.05
    options: dict[str, Any] = {"clip_norm": clip_norm, "accumulate": accumulate}
    return training(net, optimizer=optimizer or sgd(lr, 0.9), batch_size=BATCH, **options)


def data(turns: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labelled = {"x": rng.normal(size=(ROWS, 20)).astype("f4"), "label": rng.integers(0, 5, ROWS)}
    return {"real": labelled["x"][:, :6]} if turns else labelled


def parameters(options: dict[str, Any], parallel: Any = None) -> dict[str, Any]:
    """Those that training ends with."""
    trainer = Trainer(recipe(**options), threads=1, parallel=parallel)
    trainer.fit(data(options.get("turns", False)), epochs=2, verbose=0)
    return trainer.params


def states(options: dict[str, Any], parallel: Any = None) -> list[dict[str, Any]]:
    """What the first process sees of parameters, of what the optimizer keeps and of the sums of
    gradients, after each step."""
    seen: list[dict[str, Any]] = []

    def look(event: Any) -> None:
        if parallel is None or parallel.is_first:
            state = event.trainer.state
            seen.append({n: x for n, x in state.items() if x.dtype == np.float32 and x.any()})

    trainer = Trainer(recipe(**options), threads=1, parallel=parallel)
    trainer.fit(data(), epochs=2, verbose=0, callbacks=look)
    return seen


def difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """The largest relative one."""
    pairs = ((found[path], x) for path, x in expected.items())
    return max(float(np.abs(y - x).max() / np.abs(x).max()) for y, x in pairs)


def compared(parallel: Any, sharing: Any, overlapping: Any) -> None:
    """What one process of several computes: prints the differences from one alone as JSON. Those
    who are `sharing` make parts of the update; the last ones reduce early."""
    found = {}
    cases = {name: (parallel, options) for name, options in CASES.items()}
    for names, others, how in (
        (SHARDED, sharing, "each with its part of the update"),
        (OVERLAPPED, overlapping, "reduced while others are computed"),
    ):
        cases |= {f"{name}, {how}": (others, CASES[name]) for name in names}
    cases[ADAM] = sharing, {"optimizer": adam(1e-3)}
    for name, (processes, options) in cases.items():
        several = parameters(options, processes)
        if parallel.is_first:
            found[name] = difference(several, parameters(options))
    within = CASES["masked mean, clipped, 4 batches accumulated"]
    for processes, how in ((parallel, ""), (sharing, ", each with its part of the update")):
        seen = states(within, processes)
        if parallel.is_first:
            pairs = zip(seen, states(within), strict=True)
            found[f"{WITHIN}{how}"] = max(difference(x, y) for x, y in pairs)
    if parallel.is_first:
        print(json.dumps(found))


def table(sizes: tuple[int, ...] = (2, 4)) -> None:
    """Runs the jobs, and prints the table. Exits with 1 where a difference is too large."""
    columns = {}
    with tempfile.TemporaryDirectory() as directory:
        for size in sizes:
            output = job(size, ["-m", "tests.equality", "--job"], Path(directory), 300)
            columns[size] = json.loads(output.splitlines()[-1])
    print("| loss | " + " | ".join(f"{size} processes" for size in sizes) + " |")
    print("|---|" + "---|" * len(sizes))
    for name in columns[sizes[0]]:
        figures = " | ".join(f"{column[name]:.1e}" for column in columns.values())
        print(f"| {name} | {figures} |")
    found = [(name, x) for column in columns.values() for name, x in column.items()]
    if any(x > (ADAM_LIMIT if name == ADAM else LIMIT) for name, x in found):
        sys.exit(1)


def examples(only: str, seconds: float) -> None:
    """Trains the examples with two processes, as the command line does, for 20 steps, after which
    they compare their states. Exits with 1 where one fails otherwise than with a message that it
    cannot be trained by several."""
    said: dict[str, str] = {}
    # Of a file that declares several trainings, each.
    left = [(file, "") for file in sorted((ROOT / "examples").glob("*.py")) if only in file.stem]
    while left:
        (file, model), start = left.pop(0), time.monotonic()
        name, answer = f"{file.stem} {model}", _trained(file, model, seconds)
        several = SEVERAL.search(answer)
        if several is not None:
            left = [(file, model) for model in several[1].split(", ")] + left
            continue
        said[name] = answer
        print(f"{name:40} {time.monotonic() - start:4.0f} s  {answer}", flush=True)
    tried = [x for x in said.values() if x != PROGRAM]
    print(f"{tried.count(EQUAL)} of {len(tried)} trainings have equal states")
    sys.exit(any(x.startswith(FAILED) for x in tried))


def _trained(file: Path, model: str, seconds: float) -> str:
    """What becomes of an example, or of that model in it."""
    words = [sys.executable, "-m", "nncompile", "train", str(file), "--steps", "20"]
    words += ["--workers", "2", *(["--model", model] if model else [])]
    if file.stem in PROGRAMS:  # of which the command line does not know what they train on
        words = [*launching(2), sys.executable, "-m", "tests.equality", "--program", file.stem]
    elif "recipe = " not in file.read_text(encoding="utf-8"):
        return PROGRAM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        try:
            done = subprocess.run(
                words,
                cwd=directory,
                env=environment(),
                timeout=seconds,
                capture_output=True,
                text=True,
            )
        except subprocess.TimeoutExpired:
            return f"takes more than {seconds:.0f} s"
    if not done.returncode:
        return EQUAL
    lines = (done.stdout + done.stderr).strip().splitlines()
    return f"{'' if done.returncode == 2 else FAILED}{' '.join(lines[-4:])}"


def program(name: str) -> None:
    """Trains what an example trains that is a program, in one process of several."""
    declared, rows = recipe_and_data(name)
    Trainer(declared, threads=1, parallel=nncompile.mpi()).fit(rows, steps=20, verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.equality", description=__doc__)
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--program", default="", help=argparse.SUPPRESS)
    parser.add_argument("--examples", action="store_true", help="train the examples")
    parser.add_argument("--only", default="", help="examples with that in their name")
    parser.add_argument("--seconds", type=float, default=60, help="the longest time of an example")
    chosen = parser.parse_args()
    if chosen.job:
        mpi = nncompile.mpi
        compared(mpi(), mpi(shard_optimizer=True), mpi(overlap=4096))
    elif chosen.program:
        program(chosen.program)
    elif chosen.examples:
        examples(chosen.only, chosen.seconds)
    else:
        table()


if __name__ == "__main__":
    main()
