"""Rows of the table: the times of all sides of one workload, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.measure import Clock, Effort, SystemClock, Timing, Turn, interleaved
from benchmarks.peers.base import Absent, Lacking, Peer, Side
from benchmarks.peers.ours import Ours, OursInTorchScript
from benchmarks.recipes import recipe_of
from benchmarks.sides import AGAIN, NATIVE, OURS, OWN
from benchmarks.workloads import Targets, Workload
from nncompile.compiler.compile import compile_step

BATCHES = 20
TRAINING, INFERENCE = "training", "inference"


@dataclass(frozen=True)
class SideResult:
    """Medians over the rounds, in milliseconds a call; `ratio` is this side's time by ours, round
    by round, with its quartiles, `native_ratio` that by ours with native kernels,
    `processor_ratio` that of the processor's time; `difference` the largest relative one of its
    results from ours."""

    milliseconds: float
    processor_milliseconds: float
    ratio: float
    quartiles: tuple[float, float]
    difference: float
    native_ratio: float | None = None
    processor_ratio: float | None = None


@dataclass(frozen=True)
class Row:
    """A workload, in training or inference. `lacking` says which sides it has none of, and why."""

    kind: str
    workload: str
    batch: int
    optimizer: str
    threads: int
    sides: dict[str, SideResult]
    targets: Targets
    bound: float  # of the differences
    rounds: int
    lacking: dict[str, str] = field(default_factory=dict)
    remark: str = ""

    @property
    def key(self) -> str:
        """What a row of another run is compared by."""
        return f"{self.kind} {self.name}, threads: {self.threads}"

    @property
    def name(self) -> str:
        """The workload as a table shows it."""
        middle = f" {self.optimizer}" if self.kind == TRAINING else ""
        return f"{self.workload}{middle} B{self.batch}"

    @property
    def ours(self) -> SideResult:
        return self.sides[OURS]

    @property
    def peers(self) -> dict[str, SideResult]:
        return {name: side for name, side in self.sides.items() if name not in OWN}

    @property
    def best(self) -> str | None:
        """The fastest peer, if there is any."""
        peers = self.peers
        return min(peers, key=lambda name: peers[name].milliseconds) if peers else None

    @property
    def ratio(self) -> float | None:
        """The time of the best peer by ours."""
        return None if self.best is None else self.sides[self.best].ratio

    @property
    def native_ratio(self) -> float | None:
        """The time of the best peer by that with native kernels."""
        return None if self.best is None else self.sides[self.best].native_ratio

    @property
    def again(self) -> float:
        """The time of our own step by itself, measured a second time in the same rounds."""
        return self.sides[AGAIN].ratio

    @property
    def noise(self) -> float:
        """How far that is from 1 in the middle half of the rounds, and 3 % at least."""
        again = self.sides[AGAIN]
        return max(0.03, *(abs(q - 1) for q in (again.ratio, *again.quartiles)))

    @property
    def processor_ratio(self) -> float | None:
        """The best peer's time of the processor by ours: what the ratio is where nothing else uses
        the core."""
        return None if self.best is None else self.sides[self.best].processor_ratio

    @property
    def native_processor_ratio(self) -> float | None:
        """The same by ours with native kernels, of the medians."""
        if self.best is None or NATIVE not in self.sides:
            return None
        native = max(self.sides[NATIVE].processor_milliseconds, 1e-6)
        return self.sides[self.best].processor_milliseconds / native

    @property
    def is_busy(self) -> bool:
        """Whether something else used the core while ours ran there: then wall times are not much
        worth. On several threads nobody can tell so."""
        ours = self.ours
        return self.threads == 1 and ours.processor_milliseconds < 0.9 * ours.milliseconds

    @property
    def is_below(self) -> tuple[bool, bool]:
        """Whether the portable file is below its target, and whether it is with native kernels;
        by the processor's time where something else used the core."""
        portable, native = self.ratio, self.native_ratio
        if self.is_busy and self.processor_ratio is not None:
            portable, native = self.processor_ratio, self.native_processor_ratio
        return (
            portable is not None and portable < self.targets.portable,
            native is not None and native < self.targets.native,
        )

    @property
    def is_short(self) -> bool:
        """Whether one of the two is below its target."""
        return any(self.is_below)


@dataclass
class Bench:
    """What rows are measured with: the peers that are here, and how long."""

    peers: Sequence[Peer]
    threads: int = 1
    effort: Effort = field(default_factory=Effort)
    clock: Clock = field(default_factory=SystemClock)
    absent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, peers: Sequence[Peer], threads: int, effort: Effort) -> Bench:
        """With those of the peers that are installed, and our own other ways."""
        here: list[Peer] = []
        absent: dict[str, str] = {}
        for peer in (Ours(NATIVE, native=True), *peers):
            try:
                peer.start(threads)
            except Absent as reason:
                absent[peer.name] = str(reason)
            else:
                here.append(peer)
        return cls(here, threads, effort, absent=absent)

    def training(self, workload: Workload) -> Row:
        """A training step of all sides. Raises `AssertionError` where losses differ."""
        state = compile_step(recipe_of(workload)).source.initial()
        peers: list[Peer] = [Ours(OURS), Ours(AGAIN), *self.peers]
        batches = workload.batches(BATCHES)
        lacking: dict[str, str] = {}
        losses: dict[str, np.ndarray[Any, Any]] = {}
        settled = workload.settled()
        first = settled.batches(workload.checked)
        sides: dict[str, Side] = {}
        for peer in peers:
            with _noted(lacking, peer):
                side = peer.training(settled, state, self.threads)
                losses[peer.name] = np.array([float(side.read(side.call(b)())) for b in first])
                if settled != workload:
                    side = peer.training(workload, state, self.threads)
                    side.call(batches[0])()
                sides[peer.name] = side
        differences = agreeing(losses, workload.tolerance, workload.key, lacking)
        turns = {
            n: Turn([side.call(b) for b in batches], side.wait)
            for n, side in sides.items()
            if n in differences
        }
        remark = "" if settled == workload else f"losses compared with {_shown(workload.fixed)}"
        return self._row(TRAINING, workload, turns, differences, lacking, remark)

    def inference(self, workload: Workload) -> Row:
        """Inference of all sides. Raises `AssertionError` where results differ."""
        state = compile_step(recipe_of(workload)).source.initial()
        peers: list[Any] = [Ours(OURS), Ours(AGAIN), *self.peers]
        script = OursInTorchScript()
        with suppress(Absent):
            script.start(self.threads)
            peers.append(script)
        (batch,) = workload.batches(1)
        lacking: dict[str, str] = {}
        results: dict[str, np.ndarray[Any, Any]] = {}
        turns: dict[str, Turn] = {}
        for peer in peers:
            with _noted(lacking, peer):
                side = peer.inference(workload, state, self.threads)
                call = side.call(batch)
                results[peer.name] = side.read(call())
                turns[peer.name] = Turn([call], side.wait)
        differences = agreeing(results, 1e-4, workload.name, lacking)
        turns = {name: turn for name, turn in turns.items() if name in differences}
        return self._row(INFERENCE, workload, turns, differences, lacking, "")

    def _row(
        self,
        kind: str,
        workload: Workload,
        turns: Mapping[str, Turn],
        differences: Mapping[str, float],
        lacking: dict[str, str],
        remark: str,
    ) -> Row:
        timings = interleaved(turns, self.effort, self.clock)
        for peer in self.peers:
            peer.finish()
        is_training = kind == TRAINING
        return Row(
            kind,
            workload.name,
            workload.batch,
            workload.optimizer,
            self.threads,
            _sides(timings, differences),
            workload.targets if is_training else Targets(),
            workload.tolerance if is_training else 1e-4,
            len(timings[OURS].wall),
            lacking,
            remark,
        )


def _sides(
    timings: Mapping[str, Timing], differences: Mapping[str, float]
) -> dict[str, SideResult]:
    ours, native = timings[OURS], timings.get(NATIVE)
    return {
        name: SideResult(
            *(t.median * 1e3, t.processor_median * 1e3, *t.ratio(ours)),
            differences.get(name, 0.0),
            t.ratio(native)[0] if native else None,
            t.processor_ratio(ours),
        )
        for name, t in timings.items()
    }


@contextmanager
def _noted(lacking: dict[str, str], peer: Peer) -> Iterator[None]:
    """Keeps the reason where a side is not there."""
    try:
        yield
    except Lacking as reason:
        lacking[peer.name] = str(reason)


def agreeing(
    results: Mapping[str, np.ndarray[Any, Any]], bound: float, what: str, lacking: dict[str, str]
) -> dict[str, float]:
    """How far each side's results are from ours, relative to the largest of ours. A peer that is
    further than the bound is `lacking` where another one computes what we do: then it is wrong.
    Raises `AssertionError` where none does, or where it is one of our own sides."""
    ours = results[OURS]
    scale = np.abs(ours) if ours.ndim == 1 else np.abs(ours).max()
    found = {n: float((np.abs(theirs - ours) / scale).max()) for n, theirs in results.items()}
    within = {name: far for name, far in found.items() if far <= bound}  # not where it is NaN
    for name in found.keys() - within.keys():
        differs = f"differs by {found[name]:.2g}, more than {bound:g}"
        if name in OWN or within.keys() <= set(OWN):
            raise AssertionError(f"{what}: {name} {differs}")
        lacking[name] = f"it {differs}, and others do not"
    return within


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in options.items())
