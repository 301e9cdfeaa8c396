"""Graphs as TorchScript modules; importing this package imports torch."""

from nncompile.backends.torchscript.emitter import Emitter
from nncompile.backends.torchscript.formulas import TorchFormulas
from nncompile.backends.torchscript.script import source, to_bytes, to_script

__all__ = ["Emitter", "TorchFormulas", "source", "to_bytes", "to_script"]
