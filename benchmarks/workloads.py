"""What is measured: training steps of a network, ours and those of the peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.networks import sizes

Array = np.ndarray[Any, Any]
Batch = dict[str, Array]
LEARNING_RATES = {"sgd": 0.01, "momentum": 0.01, "adam": 0.001, "adamw": 0.001}


@dataclass(frozen=True)
class Targets:
    """The least ratios, time of the best peer by ours, that we answer for: of the portable file,
    and with the native kernels."""

    portable: float = 1.0
    native: float = 1.0


@dataclass(frozen=True)
class Workload:
    """One training step: a network at a batch size, with an optimizer at torch's defaults."""

    name: str
    batch: int
    optimizer: str  # a name in LEARNING_RATES
    network: str  # a name in `networks.in_dsl`, and in the frameworks beside it
    inputs: Callable[[np.random.Generator, int], Batch]  # a random batch of that size
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network
    # Options with which nothing in it is random: so the sides' losses are compared.
    fixed: Mapping[str, Any] = field(default_factory=dict)
    loss: str = "cross_entropy"  # or "mse", with the input itself
    targets: Targets = Targets()
    # The sides' losses agree for that many steps. Rounding grows a hundredfold in five steps of
    # the ResNet: against float64, torch's own losses are as far off as ours.
    checked: int = 20
    tolerance: float = 2e-4  # relative

    @property
    def learning_rate(self) -> float:
        return LEARNING_RATES[self.optimizer]

    @property
    def key(self) -> str:
        """Its name, batch size and optimizer: no two have the same."""
        return f"{self.name} {self.optimizer} B{self.batch}"

    def settled(self) -> Workload:
        """Without what is random in it."""
        return replace(self, options={**self.options, **self.fixed})

    def written_in(self, framework: Any) -> Callable[..., Any] | None:
        """What makes the network in that package, if it has it."""
        networks: Mapping[str, Callable[..., Any]] = framework.NETWORKS
        return networks.get(self.network)

    def batches(self, count: int) -> list[Batch]:
        """Different random batches, the same in every run."""
        generator = np.random.default_rng(0)
        return [self.inputs(generator, self.batch) for _ in range(count)]


def target_of(batch: Batch) -> Array:
    """What the network's result is compared with: the label, or the input itself."""
    return batch.get("label", batch["x"])


def inputs_of(batch: Batch) -> list[Array]:
    """What the network takes."""
    return [array for name, array in batch.items() if name != "label"]


def numbers(*shape: int, classes: int) -> Callable[[np.random.Generator, int], Batch]:
    """Normal numbers of that shape, and a class for each example."""

    def inputs(generator: np.random.Generator, batch: int) -> Batch:
        return {
            "x": generator.standard_normal((batch, *shape), np.float32),
            "label": generator.integers(0, classes, batch),
        }

    return inputs


def pictures(*shape: int) -> Callable[[np.random.Generator, int], Batch]:
    """Numbers in [0, 1) of that shape, which are their own targets."""

    def inputs(generator: np.random.Generator, batch: int) -> Batch:
        return {"x": generator.random((batch, *shape), np.float32)}

    return inputs


def following(length: int, count: int) -> Callable[[np.random.Generator, int], Batch]:
    """Sequences of token numbers, and the token that follows each."""

    def inputs(generator: np.random.Generator, batch: int) -> Batch:
        text = generator.integers(0, count, (batch, length + 1))
        return {"x": text[:, :-1].copy(), "label": text[:, 1:].copy()}

    return inputs


def words(length: int, count: int, classes: int) -> Callable[[np.random.Generator, int], Batch]:
    """Texts of word numbers, and a class for each."""

    def inputs(generator: np.random.Generator, batch: int) -> Batch:
        return {
            "x": generator.integers(0, count, (batch, length)),
            "label": generator.integers(0, classes, batch),
        }

    return inputs


def padded(generator: np.random.Generator, batch: int) -> Batch:
    """Texts of different lengths, for the encoder."""
    length = sizes.SENTENCE
    return {
        "x": generator.integers(0, sizes.WORDS, (batch, length)),
        "mask": (np.arange(length) < generator.integers(length // 2, length, (batch, 1))) * 1,
        "label": generator.integers(0, 4, batch),
    }


def _perceptron(
    widths: tuple[int, ...],
    batch: int,
    optimizer: str,
    targets: Targets,
    name: str = "",
    checked: int = 20,
) -> Workload:
    return Workload(
        *(name or f"mlp-{'-'.join(map(str, widths))}", batch, optimizer, "perceptron"),
        numbers(widths[0], classes=widths[-1]),
        {"widths": widths},
        targets=targets,
        checked=checked,
    )


def _images(name: str, batch: int, optimizer: str = "sgd", **fields: Any) -> Workload:
    return Workload(name, batch, optimizer, inputs=numbers(3, 32, 32, classes=10), **fields)


def _recurrent(name: str, optimizer: str, **options: Any) -> Workload:
    return Workload(
        *(name, 32, optimizer, "recurrent"),
        numbers(64, sizes.HIDDEN, classes=10),
        options,
        targets=Targets(1.05, 1.3),
    )


_SMALL, _MIDDLE, _WIDE = (64, 64, 64, 10), (784, 256, 128, 10), (1024, 2048, 2048, 1000)
_GPT_2 = {"tokens": 8192, "length": 128, "width": 768, "heads": 12, "blocks": 2}
_WORDS = {"words": 50_000, "width": 64, "length": 32}

WORKLOADS = (
    _perceptron((8, 16, 4), 1, "sgd", Targets(), "tiny"),
    _perceptron(_SMALL, 32, "sgd", Targets(0.9, 1.2)),
    _perceptron(_SMALL, 32, "adam", Targets(0.9, 1.2)),
    _perceptron(_MIDDLE, 32, "sgd", Targets(0.95, 1.0)),
    _perceptron(_MIDDLE, 32, "adam", Targets(0.7, 1.1)),
    _perceptron(_MIDDLE, 32, "adamw", Targets(0.7, 1.1)),
    _perceptron(_MIDDLE, 256, "sgd", Targets(0.95, 1.0)),
    _perceptron(_MIDDLE, 256, "adam", Targets(0.7, 1.1)),
    _perceptron(_MIDDLE, 256, "adamw", Targets(0.7, 1.1)),
    _perceptron(_WIDE, 64, "sgd", Targets(1.0, 1.0)),
    _perceptron(_WIDE, 64, "adam", Targets(0.75, 1.05), checked=6),
    _perceptron(_WIDE, 64, "adamw", Targets(0.75, 1.05), checked=6),
    Workload(
        *("dropout", 128, "sgd", "perceptron"),
        numbers(784, classes=10),
        {"widths": (784, 1024, 1024, 1024, 10), "drop": 0.5},
        fixed={"drop": 0.0},
    ),
    Workload(
        *("lenet", 32, "sgd", "lenet"),
        numbers(1, 28, 28, classes=10),
        targets=Targets(0.95, 1.1),
    ),
    _images("vgg", 32, network="vgg", targets=Targets(0.75, 1.0)),
    _images("resnet-20", 32, network="resnet", targets=Targets(0.75, 1.05), checked=3),
    _images("resnet-20", 128, network="resnet", targets=Targets(0.75, 1.05), checked=3),
    Workload(
        *("resnet-18", 16, "momentum", "resnet"),
        numbers(3, 64, 64, classes=10),
        {"stages": sizes.STAGES_18, "depth": sizes.DEPTH_18, "size": 64},
        checked=2,  # decision 0056 has what rounding comes to in the third
        tolerance=1e-3,
    ),
    Workload(
        *("autoencoder", 32, "adam", "autoencoder"),
        pictures(1, 28, 28),
        loss="mse",
        targets=Targets(1.05, 1.3),
        tolerance=1e-3,
    ),
    Workload("temporal", 32, "adam", "temporal", numbers(8, 128, classes=10), tolerance=1e-3),
    Workload(
        *("gpt", 8, "adamw", "gpt"),
        following(sizes.LENGTH, sizes.TOKENS),
        targets=Targets(1.0, 1.1),
        tolerance=1e-3,
    ),
    Workload(
        *("gpt-2", 2, "adamw", "gpt"),
        following(_GPT_2["length"], _GPT_2["tokens"]),
        _GPT_2,
        targets=Targets(0.9, 1.05),
        checked=5,
        tolerance=1e-3,
    ),
    Workload(
        *("encoder", 16, "adamw", "encoder", padded),
        targets=Targets(1.0, 1.1),
        tolerance=1e-3,
    ),
    _recurrent("lstm", "sgd", kind="LSTM"),
    _recurrent("gru", "sgd", kind="GRU"),
    _recurrent("lstm-2-ways", "adam", kind="LSTM", layers=2, bidirectional=True),
    Workload("embedding", 128, "sgd", "bag", words(32, 50_000, 4), _WORDS),
    Workload("embedding", 128, "adam", "bag", words(32, 50_000, 4), _WORDS),
)
