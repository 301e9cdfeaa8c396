"""All rows of the coverage table."""

from __future__ import annotations

from tests.coverage import learning, losses, networks
from tests.coverage.checks import System

SYSTEMS: tuple[System, ...] = (*networks.ROWS, *losses.ROWS, *learning.ROWS)
