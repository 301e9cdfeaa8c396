"""What errors call the arguments of an op."""

from __future__ import annotations

import inspect
from typing import Any


def argument_labels(op: Any, count: int) -> list[str]:
    """What an error calls the arguments of an op that is given `count` of them: the names that its
    type rule has for them."""
    labels: list[str] = []
    for p in inspect.signature(op.infer).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            labels += [f"{p.name} {i}" for i in range(count - len(labels))]
        else:
            labels.append(p.name)
    return labels
