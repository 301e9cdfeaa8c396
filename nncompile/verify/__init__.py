"""Whether every backend computes what the graph says."""

from nncompile.verify.backends import Backend, OnnxRuntime, TorchScript, all_backends
from nncompile.verify.report import Cell, Fault, Report
from nncompile.verify.testing import assert_backends_agree
from nncompile.verify.verification import verify

__all__ = [
    "Backend",
    "Cell",
    "Fault",
    "OnnxRuntime",
    "Report",
    "TorchScript",
    "all_backends",
    "assert_backends_agree",
    "verify",
]
