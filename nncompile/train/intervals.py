"""How often a training writes its state: every so many seconds, steps or epochs."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Any, Literal

from nncompile.diagnostics.errors import ModelError

Unit = Literal["seconds", "steps", "epochs"]
_UNITS: dict[str, tuple[float, Unit]] = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), (1.0, "seconds")),
    **dict.fromkeys(("m", "min", "minute", "minutes"), (60.0, "seconds")),
    **dict.fromkeys(("h", "hour", "hours"), (3600.0, "seconds")),
    **dict.fromkeys(("step", "steps"), (1.0, "steps")),
    **dict.fromkeys(("epoch", "epochs"), (1.0, "epochs")),
}
_FIRST = 10.0  # seconds before the first state is written, where it is written by time
_AGAIN = 60.0  # seconds, at most, until what could not be written is tried again


@dataclass(frozen=True)
class Interval:
    """So many seconds, steps or epochs."""

    count: float
    unit: Unit

    @classmethod
    def of(cls, text: Any) -> Interval:
        """`5m`, `90s`, `1h`, `500steps`, `2epochs`. Raises `ModelError` for anything else."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", str(text).lower())
        factor, unit = _UNITS.get(match[2], (0.0, None)) if match else (0.0, None)
        count = float(match[1]) * factor if match else 0.0
        if unit is None or count <= 0 or (unit != "seconds" and count % 1):
            raise ModelError(
                f"the interval between checkpoints cannot be {text!r}",
                hint="5m, 90s, 1h, 500steps or 2epochs",
            )
        return cls(count, unit)


class Due:
    """When the next state is due, of a training that begins now.

    By steps and epochs, after each so many. By time, the state on disk is never older than the
    interval when a step ends: it is written at the end of an epoch where half of the interval is
    over, and else within one. In the beginning the interval is as long as what was trained up to
    the last state, from ten seconds on. It then waits for a step of whose number `window` is a
    divisor.
    """

    def __init__(self, interval: Interval, step: int, epoch: int, window: int = 1) -> None:
        self.interval, self._window = interval, window
        self._start = time.monotonic()
        self.written(step, epoch)

    def written(self, step: int, epoch: int) -> None:
        """The state was written."""
        self._step, self._epoch, self._time = step, epoch, time.monotonic()
        self._again = math.inf

    def failed(self) -> None:
        """The state could not be written, as on a full disk: it is due again in a minute."""
        count, unit = self.interval.count, self.interval.unit
        self._again = time.monotonic() + (min(count, _AGAIN) if unit == "seconds" else _AGAIN)

    def is_due(self, step: int, epoch: int, at_border: bool) -> bool:
        """Whether the state is to be written after that step, when so many epochs are complete;
        `at_border` where an epoch has just ended."""
        if self._again < math.inf:
            return time.monotonic() >= self._again
        count = self.interval.count
        if self.interval.unit == "steps":
            return step - self._step >= count
        if self.interval.unit == "epochs":
            return epoch - self._epoch >= count
        if step % self._window:
            return False
        now = time.monotonic()
        longest = min(count, max(_FIRST, self._time - self._start))
        return now - self._time >= (longest / 2 if at_border else longest)
