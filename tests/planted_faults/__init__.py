"""One-line faults for `python -m tests.planted`: the file, the line, what replaces it, and the
tests that should catch it (arguments of pytest)."""

from __future__ import annotations

from tests.planted_faults.adaptation import ADAPTATION
from tests.planted_faults.benchmarks import BENCHMARKS
from tests.planted_faults.cuda import CUDA
from tests.planted_faults.fault import Fault
from tests.planted_faults.graphs import GRAPHS
from tests.planted_faults.native import NATIVE
from tests.planted_faults.onnx_files import ONNX_FILES
from tests.planted_faults.onnx_roles import ONNX_ROLES
from tests.planted_faults.ops import OPS
from tests.planted_faults.parallel import PARALLEL
from tests.planted_faults.passes import PASSES
from tests.planted_faults.precision import PRECISION
from tests.planted_faults.programs import PROGRAMS
from tests.planted_faults.runtimes import RUNTIMES
from tests.planted_faults.serving import SERVING
from tests.planted_faults.tables import TABLES
from tests.planted_faults.training import TRAINING

__all__ = ["FAULTS", "Fault"]

FAULTS = (
    *(*OPS, *PASSES, *GRAPHS, *TRAINING, *PROGRAMS, *TABLES),
    *(*ADAPTATION, *ONNX_FILES, *ONNX_ROLES, *BENCHMARKS, *SERVING, *RUNTIMES, *CUDA),
    *(*PARALLEL, *PRECISION, *NATIVE),
)
