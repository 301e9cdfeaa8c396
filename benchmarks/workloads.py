"""What is measured: training steps of a network, ours and torch's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks import networks, peer_networks
from dsl import adam, adamw, sgd, training
from nncompile.program.recipe import Recipe

Array = np.ndarray[Any, Any]
Batch = dict[str, Array]
OPTIMIZERS = {"sgd": sgd, "adam": adam, "adamw": adamw}
PEER_OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
LEARNING_RATES = {"sgd": 0.01, "adam": 0.001, "adamw": 0.001}


@dataclass(frozen=True)
class Workload:
    """One training step: a network with a cross-entropy, at a batch size, with an optimizer at
    torch's defaults."""

    name: str
    batch: int
    optimizer: str  # a name in OPTIMIZERS
    target: float  # the least peer/ours ratio that we answer for
    network: Callable[[], Any]  # our model
    peer: Callable[[], torch.nn.Module]  # torch's, with parameters under the same names
    inputs: Callable[[np.random.Generator, int], Batch]  # a random batch of that size
    # Both sides' losses agree for that many steps. Rounding grows a hundredfold in five steps of
    # the ResNet: against float64, torch's own losses are as far off as ours.
    checked: int = 20
    tolerance: float = 2e-4  # relative

    @property
    def learning_rate(self) -> float:
        return LEARNING_RATES[self.optimizer]

    def recipe(self) -> Recipe:
        """The step as a user would write it."""
        optimizer = OPTIMIZERS[self.optimizer](self.learning_rate)
        return training(self.network(), minimize="loss", optimizer=optimizer, batch_size=self.batch)

    def batches(self, count: int) -> list[Batch]:
        """Different random batches, the same in every run."""
        generator = np.random.default_rng(0)
        return [self.inputs(generator, self.batch) for _ in range(count)]


def numbers(*shape: int, classes: int) -> Callable[[np.random.Generator, int], Batch]:
    """Normal numbers of that shape, and a class for each example."""

    def inputs(generator: np.random.Generator, batch: int) -> Batch:
        return {
            "x": generator.standard_normal((batch, *shape), np.float32),
            "label": generator.integers(0, classes, batch),
        }

    return inputs


def _tokens(length: int, count: int) -> Callable[[np.random.Generator, int], Batch]:
    """Sequences of token numbers, and the token that follows each."""

    def inputs(generator: np.random.Generator, batch: int) -> Batch:
        text = generator.integers(0, count, (batch, length + 1))
        return {"x": text[:, :-1].copy(), "label": text[:, 1:].copy()}

    return inputs


def _perceptron(widths: tuple[int, ...], batch: int, optimizer: str, target: float) -> Workload:
    return Workload(
        f"mlp-{'-'.join(map(str, widths))}",
        batch,
        optimizer,
        target,
        lambda: networks.perceptron(widths),
        lambda: peer_networks.Perceptron(widths),
        numbers(widths[0], classes=widths[-1]),
    )


def _recurrent(kind: str, target: float) -> Workload:
    return Workload(
        kind.lower(),
        32,
        "sgd",
        target,
        lambda: networks.recurrent(kind),
        lambda: peer_networks.Recurrent(kind),
        numbers(64, networks.HIDDEN, classes=10),
    )


WORKLOADS = (
    _perceptron((64, 64, 64, 10), 32, "sgd", 5.0),
    _perceptron((64, 64, 64, 10), 32, "adam", 5.0),
    _perceptron((784, 256, 128, 10), 32, "sgd", 1.5),
    _perceptron((784, 256, 128, 10), 32, "adam", 1.5),
    _perceptron((1024, 2048, 2048, 1000), 64, "sgd", 0.95),
    _perceptron((1024, 2048, 2048, 1000), 64, "adam", 0.95),
    Workload(
        *("lenet", 32, "sgd", 1.3),
        networks.lenet,
        peer_networks.LeNet,
        numbers(1, 28, 28, classes=10),
    ),
    Workload(
        *("resnet-20", 32, "sgd", 0.9),
        networks.resnet,
        peer_networks.ResNet,
        numbers(3, 32, 32, classes=10),
        checked=3,
    ),
    Workload(
        *("gpt", 8, "adamw", 1.1),
        networks.gpt,
        peer_networks.Gpt,
        _tokens(networks.LENGTH, networks.TOKENS),
        tolerance=1e-3,
    ),
    _recurrent("LSTM", 0.85),
    _recurrent("GRU", 1.3),
)
