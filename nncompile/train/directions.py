"""Whether less or more of a metric is better."""

from __future__ import annotations

from typing import Literal

Mode = Literal["min", "max"]
# A metric whose name has one of these words is better the larger it is.
LARGER = ("accuracy", "acc", "auc", "f1", "precision", "recall", "iou", "r2", "reward", "score")


def better(name: str) -> Mode:
    """Whether less or more of the metric is better, by the words of its name (see `LARGER`).

    >>> better("val_loss"), better("val_accuracy")
    ('min', 'max')
    """
    words = name.lower().replace(".", "_").split("_")
    return "max" if any(word in LARGER for word in words) else "min"
