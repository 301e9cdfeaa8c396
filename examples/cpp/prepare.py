"""Writes what the C++ program takes: the training step of digits.py, and the digits.

    python examples/cpp/prepare.py build

DIRECTORY/digits.step.pt is the step for libtorch; DIRECTORY/digits.bin the data: four whole numbers
(int64) say how many images there are to train on, how many are held out, and their height and
width; the images (float32) and labels (int64) of both follow.
"""

import sys
from pathlib import Path

import numpy as np

from nncompile import export
from nncompile.program.model_file import load


def prepare(directory: Path) -> None:
    """Writes both files into the directory."""
    declared = load(Path(__file__).parent.parent / "digits.py")
    directory.mkdir(parents=True, exist_ok=True)
    export(declared.recipe, directory / "digits.step.pt", to="torchscript-step")
    train, held_out = declared.data.train, declared.data.validation
    sizes = (len(train["image"]), len(held_out["image"]), *train["image"].shape[2:])
    parts = [np.array(sizes, np.int64)]
    for data in (train, held_out):
        parts += [data["image"].astype("<f4"), data["label"].astype("<i8")]
    (directory / "digits.bin").write_bytes(b"".join(part.tobytes() for part in parts))


if __name__ == "__main__":
    prepare(Path(sys.argv[1] if len(sys.argv) > 1 else "build"))
