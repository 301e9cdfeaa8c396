"""The same training step, from the same initial weights, in the peer: torch eager."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.workloads import Batch, Workload

torch.set_num_threads(1)


class TorchEager:
    """A `torch.nn.Sequential` with torch's own loss and optimizer, at their defaults."""

    name = f"torch {torch.__version__} eager"

    def __init__(self, workload: Workload, state: Mapping[str, np.ndarray[Any, Any]]) -> None:
        layers: list[torch.nn.Module] = []
        names = [f"hidden{i}" for i in range(len(workload.widths) - 2)] + ["head"]
        for layer, inputs, outputs in zip(
            names, workload.widths[:-1], workload.widths[1:], strict=True
        ):
            linear = torch.nn.Linear(inputs, outputs)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(state[f"{layer}.weight"].T.copy()))
                linear.bias.copy_(torch.from_numpy(state[f"{layer}.bias"].copy()))
            layers += [linear, torch.nn.ReLU()]
        self.network = torch.nn.Sequential(*layers[:-1])
        self.loss = torch.nn.CrossEntropyLoss()
        make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[workload.optimizer]
        self.optimizer = make(self.network.parameters(), lr=workload.learning_rate)

    def prepare(self, batch: Batch) -> Callable[[], float]:
        """A call that does one step on that batch; the loss is read only where it is used."""
        x, label = torch.from_numpy(batch["x"]), torch.from_numpy(batch["label"])

        def step() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = self.loss(self.network(x), label)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        return step  # type: ignore[return-value]
