"""Whether processes train the same thing: compared when they begin, and after every epoch."""

from __future__ import annotations

import hashlib
import json
import platform
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from nncompile.diagnostics.errors import ModelError, Row, TrainingError
from nncompile.diagnostics.version import VERSION
from nncompile.ir.types import Array
from nncompile.runtime.session import RUNTIME_VERSION
from nncompile.train.data import Feeder
from nncompile.train.events import Event, EventTrainer, Fitting

_WHOLE = 2**26  # bytes of an array that are all compared; of longer ones, so many in blocks
_BLOCKS = 1024
_SAME = "all run the same script, with the same packages, on the same data"


class Comparing(Protocol):
    """Processes that tell each other; see `nncompile.parallel.processes.Processes`."""

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    def said(self, value: Any) -> list[Any]: ...
    def settle(self) -> None: ...
    def follow_first(self, trainer: EventTrainer) -> None: ...


class Agreement:
    """A callback that compares the processes: before any of them writes, what they train of what,
    with what, from which state; after every epoch, their states. What the first process goes on
    from, as it resumes a run, is `followed` by the others.

    Raises `ModelError` where they train different things, `TrainingError` with the names of the
    tensors where states differ."""

    told_first = True

    def __init__(self, processes: Comparing, followed: bool) -> None:
        self._processes, self._followed = processes, followed
        self._checked = -1  # the step of the states that were compared
        self._made = False  # whether Python makes the batches in each process
        self._looks = False  # whether the next batch is compared

    def check_beginning(self, fitting: Fitting) -> None:
        """Compares what begins."""
        options = {"the options of the processes": dict(self._processes.options)}
        self._check_same(self._processes.said({**described(fitting), **options}))
        self._followed = any(self._processes.said(self._followed))
        if not self._followed or self._are_at_one_step(fitting.trainer):
            self._check_state(fitting.trainer)

    @contextmanager
    def during(self, fitting: Fitting) -> Iterator[None]:
        """Makes all go on from where the first process is, which may have resumed a run."""
        trainer = fitting.trainer
        if self._followed:
            if not self._are_at_one_step(trainer):
                self._processes.follow_first(trainer)
            self._check_state(trainer)
        if fitting.feeder.whole is not None:
            fitting.feeder.whole.is_shared = True
        self._made = self._looks = fitting.feeder.whole is None
        yield

    def _are_at_one_step(self, trainer: EventTrainer) -> bool:
        here = [trainer.step, trainer.epoch]
        return self._processes.said(here).count(here) == self._processes.size

    def on_step(self, event: Event) -> None:
        """Compares the first batch, where Python makes them in each process."""
        if self._looks:
            self._looks = False
            self._check_batch(event)

    def on_epoch(self, event: Event) -> None:
        """Compares the states, but those that a training goes on from: it tells of an epoch again
        of which not all were told."""
        if event.step != self._checked:
            if self._made and event.batch:
                self._check_batch(event)
            self._processes.settle()
            self._check_state(event.trainer)

    def _check_same(self, every: Sequence[Mapping[str, Any]], hint: str = _SAME) -> None:
        for what, first in every[0].items():
            others = {rank: x[what] for rank, x in enumerate(every) if x[what] != first}
            if others:
                rows: list[Row] = [("process 0", _short(first))]
                rows += [(f"process {rank}", _short(x)) for rank, x in others.items()]
                raise ModelError(
                    f"the processes do not train the same thing: {what} differ",
                    rows=rows[:8],
                    hint=hint,
                )

    def _check_batch(self, event: Event) -> None:
        """Of an epoch, the last: who draws otherwise once goes on to do so."""
        batch = {
            name: f"{x.dtype}{list(x.shape)} {_digest(x)}"
            for name, x in ((n, np.asarray(x)) for n, x in event.batch.items())
        }
        what = f"the batches of step {event.step}"
        self._check_same(
            self._processes.said({what: batch}),
            "a generator draws the same numbers in each process: with a seed",
        )

    def _check_state(self, trainer: EventTrainer) -> None:
        self._checked = trainer.step
        state = trainer.snapshot(copied=False).state
        digests = {path: _digest(x) for path, x in state.items()}
        whole = hashlib.blake2b(json.dumps(digests).encode(), digest_size=16).hexdigest()
        every = self._processes.said(whole)
        if len(set(every)) == 1:
            return
        told = self._processes.said(digests)
        different = [n for n in told[0] if any(x.get(n) != told[0][n] for x in told)]
        raise TrainingError(
            f"the states of the processes differ at step {trainer.step}, in "
            f"{len(different)} of {len(digests)} tensors",
            rows=[(name, *_holders(name, told)) for name in different[:8]],
            hint="load weights in every process, and let no callback change them in one alone",
        )


def described(fitting: Fitting) -> dict[str, Any]:
    """What a process trains, of what, with what; as JSON has it, by what differs where it does."""
    trainer, source = fitting.trainer, fitting.trainer.compiled.source
    ends = [str(end) for end in fitting.ends]
    return {
        "the versions of packages": [
            f"nncompile {VERSION}",
            f"onnxruntime {RUNTIME_VERSION}",
            f"numpy {np.__version__}",
            f"Python {platform.python_version()}",
        ],
        "the models": f"{source.recipe.model.name} {source.digest}",
        "the seeds": trainer.seed,
        "the ends": ends,
        "the batches": fitting.feeder.identity((trainer.seed, 0) if fitting.shuffle else None),
        "the data": _fingerprint(fitting.feeder),
    }


def _fingerprint(feeder: Feeder) -> dict[str, str]:
    """What tells arrays apart, by input. Of batches nothing is known before they are read."""
    if feeder.whole is None:
        return {}
    found = {}
    for name, rows in feeder.whole.arrays.items():
        check = 0
        row_bytes = max(1, rows.dtype.itemsize * int(np.prod(rows.shape[1:], dtype=np.int64)))
        count = rows.shape[0] if rows.shape else 0
        for first, last in _spans(count, row_bytes):
            part = rows[first:last] if rows.shape else rows
            check = zlib.crc32(np.ascontiguousarray(part).tobytes(), check)
        found[name] = f"{rows.dtype}{list(rows.shape)} {check:08x}"
    return found


def _spans(count: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Which of so many rows are compared: all, or blocks from everywhere, with the last."""
    length = max(1, _WHOLE // row_bytes // _BLOCKS)
    step = length if count * row_bytes <= _WHOLE else max(length, count // _BLOCKS)
    for first in range(0, count, step):
        yield first, min(first + length, count)
    yield max(0, count - length), count


def _digest(array: Array) -> str:
    """What tells arrays apart of which one was computed otherwise: of large ones, the sum of their
    bits by words and the exclusive or, which take a fifth of the time of a hash."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    length = len(content) // 8 * 8
    words = content[:length].view(np.uint64)
    end = content[length:].tobytes().hex()
    return f"{int(np.add.reduce(words)):016x}{int(np.bitwise_xor.reduce(words)):016x}{end}"


def _holders(name: str, told: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Which processes have which of the digests of a tensor."""
    by_digest: dict[str | None, list[int]] = {}
    for rank, digests in enumerate(told):
        by_digest.setdefault(digests.get(name), []).append(rank)
    groups = ["process " + ", ".join(map(str, ranks[:8])) for ranks in by_digest.values()]
    return (" ≠ ".join(groups),)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
