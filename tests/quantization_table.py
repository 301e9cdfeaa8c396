"""What rounding afterwards loses and training for 8 bits keeps:
`python -m tests.quantization_table`.

Images with bright squares, of which few pixels are far too bright, as broken sensors have them: the
brightest stretch the ranges, and leave few numbers for all others. Prints the table of
docs/precision.md, over several seeds of the initial weights and of the order of the images.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsl import adam, quantization_aware, training
from nncompile import Session, Trainer, precision_report
from tests.test_quantization import images, squares

TRAINED, HELD_OUT = 768, 600  # images
SPIKES = {"one pixel in 2,000, 200 times": (5e-4, 200), "one in 3,300, 1,000 times": (3e-4, 1000)}
COLUMNS = ("float32", "int8 afterwards", "trained for int8", "float32, longer", "int8 of these")


def spiky(count: int, share: float = 5e-4, factor: float = 200) -> dict[str, Any]:
    """Images of which so many pixels are so many times too bright."""
    data = squares(count)
    hit = np.random.default_rng(count).random(data["image"].shape) < share
    data["image"] = np.where(hit, factor * data["image"], data["image"]).astype(np.float32)
    return data


def in_floats(data: Mapping[str, Any], seed: int = 0) -> Trainer:
    """The network, trained in float32."""
    trainer = Trainer(training(images, optimizer=adam(5e-3), batch_size=64), seed=seed)
    return fitted(trainer, data, 6)


def with_rounding(
    start: Trainer, data: Mapping[str, Any], epochs: int = 6, seed: int = 0
) -> Trainer:
    """The same, trained further with the rounding in it."""
    recipe = training(quantization_aware(images), optimizer=adam(2e-3), batch_size=64)
    trainer = Trainer(recipe, seed=seed)
    trainer.load_params(start)
    return fitted(trainer, data, epochs)


def fitted(trainer: Trainer, data: Mapping[str, Any], epochs: int) -> Trainer:
    trainer.fit(data, epochs=epochs, verbose=0)
    return trainer


def rounded(trainer: Trainer, data: Mapping[str, Any], held_out: Mapping[str, Any]) -> Any:
    """Which share is right in float32, and in the file that is rounded afterwards."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "after.onnx")
        trainer.export(file, precision="int8", calibration=data)
        return precision_report(trainer, file, held_out).metrics["accuracy"]


def in_file(trainer: Trainer, held_out: Mapping[str, Any]) -> float:
    """Which share the exported file has right."""
    with tempfile.TemporaryDirectory() as name:
        trainer.export(Path(name, "net.onnx"))
        logits = Session(Path(name, "net.onnx")).run({"image": held_out["image"]})["logits"]
    return float((logits.argmax(1) == held_out["label"]).mean())


def row(share: float, factor: float, seed: int) -> list[float]:
    """The shares that are right, by the columns of the table."""
    data, held_out = spiky(TRAINED, share, factor), spiky(HELD_OUT, share, factor)
    trainer = in_floats(data, seed)
    before, after = rounded(trainer, data, held_out)
    learned = in_file(with_rounding(trainer, data, seed=seed), held_out)
    further = Trainer(training(images, optimizer=adam(2e-3), batch_size=64), seed=seed)
    further.load_params(trainer)
    return [before, after, learned, *rounded(fitted(further, data, 6), data, held_out)]


def shown(values: Sequence[float]) -> str:
    """Their mean, and from where to where they are."""
    mean, least, most = (100 * x for x in (np.mean(values), min(values), max(values)))
    return f"{mean:.1f} % ({least:.1f} to {most:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    chosen = parser.parse_args()
    print(f"| too bright | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    for name, spikes in SPIKES.items():
        rows = [row(*spikes, seed) for seed in range(chosen.seeds)]
        columns = map(shown, zip(*rows, strict=True))
        print(f"| {name} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
