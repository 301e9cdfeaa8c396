"""How the time to compile a training step grows with depth and width, beside the compilers of
torch and jax: from the network as it is written until the first step is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Figure
from benchmarks.initial import initial
from benchmarks.networks import sizes
from benchmarks.peers.base import Lacking, Peer
from benchmarks.peers.compiled_torch import time_limit
from benchmarks.peers.ours import Ours
from benchmarks.sides import OURS
from benchmarks.workloads import Workload, following, numbers
from nncompile.compiler.cache_place import without_cache

COMPILERS = ("torch.compile", "jax.jit")
LIMIT = 15.0  # seconds: a peer that takes longer is not tried on what is larger
TRIED = 60.0  # seconds that a peer is given, where it can be stopped


@dataclass(frozen=True)
class Family:
    """Training steps of one network in several sizes."""

    name: str
    subjects: Mapping[str, Workload]  # by what a table calls them, the smallest first


def _gpt(blocks: int) -> Workload:
    inputs = following(32, sizes.TOKENS)
    options = {"blocks": blocks, "length": 32}
    return Workload("gpt", 2, "adamw", "gpt", inputs, options)


def _resnet(blocks: int) -> Workload:
    inputs = numbers(3, 32, 32, classes=10)
    return Workload("resnet", 2, "sgd", "resnet", inputs, {"depth": blocks})


def _densenet(layers: int) -> Workload:
    inputs = numbers(3, 32, 32, classes=10)
    return Workload("densenet", 2, "sgd", "densenet", inputs, {"layers": layers})


def _lstm(layers: int) -> Workload:
    inputs = numbers(16, sizes.HIDDEN, classes=10)
    return Workload("lstm", 2, "sgd", "recurrent", inputs, {"kind": "LSTM", "layers": layers})


def _tensors(count: int) -> Workload:
    widths = (16,) * (count // 2) + (10,)
    inputs = numbers(16, classes=10)
    return Workload("tensors", 2, "adam", "perceptron", inputs, {"widths": widths})


FAMILIES = (
    Family("gpt", {f"GPT, {n} blocks": _gpt(n) for n in (6, 12, 24, 48)}),
    Family("resnet", {f"ResNet-{6 * n + 2}": _resnet(n) for n in (3, 9, 18)}),
    Family("densenet", {f"DenseNet-{3 * n + 4}": _densenet(n) for n in (12, 32)}),
    Family("lstm", {f"LSTM, {n} layers": _lstm(n) for n in (1, 2, 4, 8)}),
    Family("tensors", {f"{n:,} tensors, Adam": _tensors(n) for n in (500, 5000)}),
)


NAMES = tuple(f"compile {family.name}" for family in FAMILIES)


def measure_compiling(
    peers: Iterable[Peer], threads: int, only: str = "", families: Sequence[Family] = FAMILIES
) -> Iterator[Figure]:
    """Seconds of each size of each family."""
    compilers: list[Peer] = [Ours(OURS), *(peer for peer in peers if peer.name in COMPILERS)]
    wanted = [f for f in families if only in f"compile {f.name}"]
    if wanted:
        for peer in compilers:  # what each loads when it first compiles is no part of the rows
            with suppress(Lacking):
                _seconds(peer, _tensors(4), initial(_tensors(4)), threads, TRIED)
    for family in wanted:
        lacking: dict[str, str] = {}
        for subject, workload in family.subjects.items():
            seconds = {OURS: _seconds(Ours(OURS), workload, None, threads)}
            state = initial(workload)  # later: what was compiled once may be faster again
            for peer in compilers[1:]:
                if peer.name in lacking:
                    continue
                try:
                    seconds[peer.name] = _seconds(peer, workload, state, threads, TRIED)
                except Lacking as reason:
                    lacking[peer.name] = str(reason)
                peer.finish()
            yield Figure("compile", subject, "until the first step", "s", seconds, dict(lacking))
            for name, taken in seconds.items():
                if taken > LIMIT and name != OURS:
                    lacking[name] = f"over {LIMIT:g} s for {subject}"


def _seconds(peer: Peer, workload: Workload, state: Any, threads: int, limit: float = 0.0) -> float:
    """Raises `Lacking` where it is not done within the limit, if there is one: of what a peer runs
    outside of Python, nothing ends before."""
    batch = workload.batches(1)[0]
    start = time.perf_counter()
    try:
        with time_limit(limit), without_cache():
            side = peer.training(workload, state, threads)
            float(side.read(side.call(batch)()))
    except TimeoutError:
        raise Lacking(f"not within {limit:g} s") from None
    return time.perf_counter() - start
