"""Native kernels for what nncompile exports: a library of operators for onnxruntime.

`session_options.register_custom_ops_library(library())` is all that a program does with it, in any
language that onnxruntime has an interface for.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

__all__ = ["INTERFACE", "__version__", "instruction_set", "kernels", "library"]
__version__ = "0.1.0"
INTERFACE = 1
"""Which calls the library understands, and how: another number is another meaning."""


def library() -> str:
    """The path of the shared library. Raises `OSError` where it is missing or cut short, which
    would end a process that loads it."""
    folder = Path(__file__).parent
    for name in ("libnncompile_kernels.so", "libnncompile_kernels.dylib"):
        path = folder / name
        if path.exists():
            _check_size(path)
            return str(path)
    raise FileNotFoundError(f"{folder} holds no library libnncompile_kernels")


@cache
def _check_size(path: Path) -> None:
    """Raises `OSError` where the file is not as long as that which was installed."""
    try:
        installed = distribution("nncompile-kernels").files or ()
    except PackageNotFoundError:
        return
    sizes = [file.size for file in installed if file.name == path.name and file.size is not None]
    found = path.stat().st_size
    if sizes and found not in sizes:
        raise OSError(
            f"{path} has {found:,} bytes of {sizes[0]:,}: install nncompile-kernels again"
        )


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
