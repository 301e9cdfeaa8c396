"""How many numbers are drawn, and how far their statistics may be off."""

from __future__ import annotations

COUNT = 1 << 16
# Beyond it a statistic that should be normal is wrong: 1 in 10⁸, over a few thousand of them.
SIGMAS = 5.7
