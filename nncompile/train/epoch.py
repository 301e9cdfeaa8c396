"""The epoch under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import FeedError
from nncompile.train.sums import Sums


@dataclass
class Epoch:
    """The epoch under way: how many came before it, the step it began with, and what its metrics
    are computed of, over the batches so far."""

    number: int
    start: int
    sums: Sums
    data: Mapping[str, Any] = field(default_factory=dict)  # what its batches are cut from
    may_be_left: bool = False  # fit ended within it as it was asked to

    @classmethod
    def of(
        cls,
        compiled: CompiledStep,
        number: int = 0,
        start: int = 0,
        data: Mapping[str, Any] | None = None,
        **sums: Any,
    ) -> Epoch:
        """An epoch with what its metrics are computed of so far. Raises `TypeError` or
        `ValueError` for anything else."""
        source = compiled.source
        inputs = source.recipe.model.inputs
        restored = Sums.restored(source.accumulation, inputs, **sums)
        return cls(int(number), int(start), restored, dict(data or {}))

    def position(self) -> dict[str, Any]:
        """What a file holds of it."""
        position = {"number": self.number, "start": self.start, "data": dict(self.data)}
        return {**position, **self.sums.stored()}

    def continued(self, compiled: CompiledStep, step: int) -> Epoch:
        """The same epoch at that step of another compilation; a new one, where its metrics are put
        together of other parts."""
        # Of a file, they may be those of the other compilation already.
        if self.sums.names != compiled.source.accumulation.parts.keys():
            return Epoch.of(compiled, self.number, step)
        epoch = Epoch.of(compiled, batches=self.sums.added.batches, **self.position())
        epoch.may_be_left = self.may_be_left
        return epoch

    def mismatch(self, data: Mapping[str, Any]) -> FeedError | None:
        """The error of an epoch that cannot be finished on such data, as batches of others were
        trained on already, or with other metrics (those of weighted examples)."""
        done = self.sums.added.batches
        then, now = sorted(self.sums.names), sorted(self.sums.plan.parts)
        if then != now:
            return FeedError(
                f"epoch {self.number + 1} was interrupted after {done} batches whose metrics add "
                "up otherwise, such as with or without weights of examples",
                rows=[("then", ", ".join(then)), ("now", ", ".join(now))],
                hint=_FINISHED,
            )
        names = dict.fromkeys((*self.data, *data)) if done and self.data else ()
        rows = [
            (name, f"{self.data.get(name, 'unknown')} then", f"{data.get(name, 'unknown')} now")
            for name in names
            if self.data.get(name) != data.get(name)
        ]
        if not rows:
            return None
        return FeedError(
            f"epoch {self.number + 1} was interrupted after {done} batches of other data "
            "or in another order, and cannot be finished on these",
            rows=rows,
            hint=_FINISHED,
        )


_FINISHED = "fit as then finishes it; trainer.begin_epoch() leaves it unfinished"
