"""Time to the first step and memory, each side in a process of its own: `python -m
benchmarks.process SIDE WORKLOAD STATE THREADS` is one of them."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure
from benchmarks.peers.base import Absent, Lacking, Peer
from benchmarks.peers.known import PEERS
from benchmarks.sides import IN_PLACE, NATIVE, OURS, OWN
from benchmarks.workloads import WORKLOADS, Workload

SUBJECTS = (
    "mlp-784-256-128-10 adam B32",
    "mlp-1024-2048-2048-1000 adam B64",
    "resnet-20 sgd B32",
    "gpt adamw B8",
    "gpt-2 adamw B2",
)
# One of the eager kinds is enough: what they need before the first step is the same.
SIDES = (NATIVE, "torch fused", "torch.compile", "jax.jit")
STEPS = 5
NAMES = tuple(f"memory {key}" for key in SUBJECTS)
SECONDS = 180.0  # that one process may take
STATUS = Path("/proc/self/status")
FIGURES = {
    "first": ("first step", "s"),
    "again": ("first step, with what was kept on disk", "s"),
    "resident": ("resident", "MB"),
    "peak": ("peak", "MB"),
    "steps": ("peak of steps above imports", "MB"),
}


def measure_processes(peers: Iterable[Peer], threads: int, only: str = "") -> Iterator[Figure]:
    """The figures of each workload. Outside of Linux, where the memory of a process is not known
    so, there are none."""
    if not STATUS.exists():
        return
    here = [peer.name for peer in peers if peer.name in SIDES]
    names = [OURS, IN_PLACE, *here]
    for key in SUBJECTS:
        if only in f"memory {key}":
            yield from _figures(key, names, threads)


def _figures(key: str, names: Sequence[str], threads: int) -> Iterator[Figure]:
    found: dict[str, dict[str, float]] = {}
    lacking: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as directory:
        state = Path(directory) / "state.npz"
        np.savez(state, **import_module("benchmarks.initial").initial(_workload(key)))
        for name in names:
            caches = Path(directory) / name
            caches.mkdir()
            try:
                found[name] = _child(name, key, state, threads, caches)
                again = _child(name, key, state, threads, caches)
            except Lacking as reason:
                lacking[name] = str(reason)
            else:
                found[name]["again"] = again["first"]
    for figure, (what, unit) in FIGURES.items():
        values = {name: figures[figure] for name, figures in found.items() if figure in figures}
        yield Figure("memory", key, what, unit, values, lacking)


def _workload(key: str) -> Workload:
    for workload in WORKLOADS:
        if workload.key == key:
            return workload
    raise Lacking(f"no workload is called {key!r}")


def _child(name: str, key: str, state: Path, threads: int, caches: Path) -> dict[str, float]:
    """The figures that the process of one side gives. Raises `Lacking` where it ends otherwise."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    kept |= {"XDG_CACHE_HOME": str(caches), "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor")}
    kept.pop("NNCOMPILE_CACHE", None)
    kept["STARTED"] = repr(time.time())
    run = [sys.executable, "-m", "benchmarks.process", name, key, str(state), str(threads)]
    try:
        done = subprocess.run(run, capture_output=True, text=True, env=kept, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Lacking(f"no step within {SECONDS:g} s") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        told = (done.stderr.strip() or "no output").splitlines()
        raise Lacking(told[-1][:160])
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


def _side(name: str) -> Peer:
    """Ours is imported only where it is measured."""
    if name in OWN:
        options = {"native": name == NATIVE, "in_place": name == IN_PLACE}
        ours: Peer = import_module("benchmarks.peers.ours").Ours(name, **options)
        return ours
    (peer,) = (peer for peer in PEERS if peer.name == name)
    return peer


def main(name: str, key: str, state: str, threads: str) -> None:
    """Prints the figures of one side: seconds since `STARTED`, and megabytes."""
    workload = _workload(key)
    peer = _side(name)
    peer.start(int(threads))
    imported = _memory("VmRSS")
    with np.load(state) as arrays:
        side = peer.training(workload, dict(arrays), int(threads))
    batches = workload.batches(STEPS)
    float(side.read(side.call(batches[0])()))
    first = time.time() - float(os.environ["STARTED"])
    peak = _memory("VmHWM")
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    for batch in batches:
        float(side.read(side.call(batch)()))
    steps = _memory("VmHWM")
    figures = {"first": first, "resident": _memory("VmRSS"), "peak": max(peak, steps)}
    print(json.dumps({**figures, "steps": steps - imported}))


def _memory(kind: str) -> float:
    """Megabytes of this process, now (`VmRSS`) or at most so far (`VmHWM`)."""
    lines = STATUS.read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{kind}:"))
    return float(line.split()[1]) / 1024


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (Absent, Lacking) as reason:
        sys.exit(str(reason))
