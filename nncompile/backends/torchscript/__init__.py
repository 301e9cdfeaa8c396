"""Graphs as modules of torch: TorchScript, exported programs, plain modules.

Importing this package imports torch.
"""

from nncompile.backends.torchscript.arrays import array_of
from nncompile.backends.torchscript.eager import EagerModule, to_eager
from nncompile.backends.torchscript.emitter import Emitter
from nncompile.backends.torchscript.exporting import exported_to_bytes, to_exported
from nncompile.backends.torchscript.formulas import TorchFormulas
from nncompile.backends.torchscript.function import to_function
from nncompile.backends.torchscript.loading import LoadedFile, load_file
from nncompile.backends.torchscript.lowering import Check
from nncompile.backends.torchscript.script import (
    check_python,
    source,
    tensors,
    to_bytes,
    to_script,
)
from nncompile.backends.torchscript.stepping import step_to_bytes, to_step

__all__ = [
    "Check",
    "EagerModule",
    "Emitter",
    "LoadedFile",
    "TorchFormulas",
    "array_of",
    "check_python",
    "exported_to_bytes",
    "load_file",
    "source",
    "step_to_bytes",
    "tensors",
    "to_bytes",
    "to_eager",
    "to_exported",
    "to_function",
    "to_script",
    "to_step",
]
