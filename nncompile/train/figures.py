"""Numbers as they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are one number."""
    return {name: float(x) for name, x in metrics.items() if np.ndim(x) == 0}


def figures(metrics: Mapping[str, Any]) -> str:
    """`loss 0.0123  accuracy 0.9812`: those that are one number."""
    return "  ".join(f"{name} {number(x)}" for name, x in numbers_of(metrics).items())


def number(x: float) -> str:
    """Four decimals, or four digits where those would say little."""
    return f"{x:.4f}" if x == 0 or 1e-3 <= abs(x) < 1e4 else f"{x:.3e}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3:05`, `1:02:45`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
