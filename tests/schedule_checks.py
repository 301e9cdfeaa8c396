"""Learning rates of torch's schedulers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any


def curve_of_torch(torch: Any, rate: float, make: Any, steps: int) -> Iterator[float]:
    """The learning rate at each step; `make` makes the scheduler, of `torch.optim.lr_scheduler` and
    an optimizer."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SequentialLR calls its own deprecated form
        scheduler = make(torch.optim.lr_scheduler, optimizer)
        for step in range(steps):
            yield optimizer.param_groups[0]["lr"]
            optimizer.step()
            if step + 1 < steps:
                scheduler.step()
