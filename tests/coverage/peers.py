"""The same in torch, in double precision: optimizers, what bounds gradients, schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.coverage.checks import Feeds, System
from tests.coverage.stepping import batches_of
from tests.schedule_checks import curve_of_torch

Peer = Callable[[Any, System], dict[str, Feeds]]


def descent(
    *makes: Callable[[Any, dict[str, Any]], Any],
    bound: Callable[[Any, list[Any]], None] | None = None,
    penalty: Callable[[dict[str, Any]], Any] | None = None,
    every: int = 1,
    plateau: Callable[[Any, Any], Any] | None = None,
) -> Peer:
    """Ten steps on `tests.coverage.nets.network` with optimizers that `makes` make of `torch.optim`
    and the parameters by path. `bound` changes the gradients, `penalty` is added to the loss, the
    gradients of `every` steps are averaged, and `rate` is a factor of the learning rate by step."""

    def peer(torch: Any, system: System) -> dict[str, Feeds]:
        start = system.compiled.source.initial()
        p = {
            path: torch.nn.Parameter(torch.from_numpy(start[path].astype(np.float64)))
            for path in system.compiled.source.parameters
        }
        optimizers = [make(torch.optim, p) for make in makes]
        watching = [plateau(torch.optim.lr_scheduler, o) for o in optimizers if plateau]
        forward: Feeds = {}
        gradient: Feeds = {}
        metrics: Feeds = {}
        for i, batch in enumerate(batches_of(system)):
            x, target = (torch.from_numpy(batch[n].astype(np.float64)) for n in ("x", "target"))
            hidden = torch.tanh(x @ p["hidden.weight"] + p["hidden.bias"])
            loss = ((hidden @ p["out.weight"] + p["out.bias"] - target) ** 2).mean()
            loss = loss if penalty is None else loss + penalty(p)
            if i % every == 0:
                for w in p.values():
                    w.grad = None
            (loss / every).backward()
            metrics[f"loss {i}"] = loss.detach().numpy()
            if i == 0:
                forward["loss"] = metrics["loss 0"]
                gradient = {f"{path}.grad": every * w.grad.numpy() for path, w in p.items()}
            if i % every < every - 1:
                continue
            if bound is not None:
                bound(torch.nn.utils, list(p.values()))
            for optimizer in optimizers:
                optimizer.step(lambda loss=loss: loss)
            for scheduler in watching:
                scheduler.step(loss.item())
        after = metrics | {path: w.detach().numpy() for path, w in p.items()}
        return {"forward": forward, "gradient": gradient, "ten steps": after}

    return peer


def curve(rate: float, make: Callable[[Any, Any], Any]) -> Peer:
    """The learning rates of a scheduler that `make` makes of `torch.optim.lr_scheduler` and an
    optimizer."""

    def peer(torch: Any, system: System) -> dict[str, Feeds]:
        rates = curve_of_torch(torch, rate, make, len(system.data["step"]))
        return {"rates": {"rate": np.array(list(rates))}}

    return peer
