"""Faults of one line for `python -m tests.planted`: where, what stands there, what is put in its
place, and the tests that should see it (arguments of pytest)."""

from __future__ import annotations

from tests.planted_faults.fault import Fault
from tests.planted_faults.graphs import GRAPHS
from tests.planted_faults.ops import OPS
from tests.planted_faults.passes import PASSES
from tests.planted_faults.programs import PROGRAMS
from tests.planted_faults.training import TRAINING

__all__ = ["FAULTS", "Fault"]

FAULTS = (*OPS, *PASSES, *GRAPHS, *TRAINING, *PROGRAMS)
