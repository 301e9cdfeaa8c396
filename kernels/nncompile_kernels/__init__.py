"""Native kernels for what nncompile exports: a library of operators for onnxruntime.

`session_options.register_custom_ops_library(library())` is all that a program does with it, in any
language that onnxruntime has an interface for.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

__all__ = ["__version__", "instruction_set", "kernels", "library"]
__version__ = "0.1.0"


def library() -> str:
    """The path of the shared library."""
    folder = Path(__file__).parent
    for name in ("libnncompile_kernels.so", "libnncompile_kernels.dylib"):
        if (folder / name).exists():
            return str(folder / name)
    raise FileNotFoundError(f"{folder} holds no library libnncompile_kernels")


def instruction_set() -> str:
    """Which instructions the kernels use on this processor: avx512, avx2 or baseline. The
    environment variable NNCOMPILE_KERNELS_ISA asks for less than the processor has."""
    return _text("nncompile_kernels_instruction_set")


def kernels() -> tuple[str, ...]:
    """The names of the operators, all of the domain `nncompile.kernels`."""
    return tuple(_text("nncompile_kernels_names").split())


@cache
def _loaded() -> ctypes.CDLL:
    return ctypes.CDLL(library())


def _text(function: str) -> str:
    call = getattr(_loaded(), function)
    call.restype = ctypes.c_char_p
    text: bytes = call()
    return text.decode()
