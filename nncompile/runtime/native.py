"""The library of native kernels, where it is installed: see docs/native.md."""

from __future__ import annotations

import mmap
import os
from functools import cache
from typing import Any, NamedTuple

import onnxruntime as ort

from nncompile.diagnostics.errors import ModelWarning, warn
from nncompile.diagnostics.extras import installed
from nncompile.diagnostics.switches import switched_off
from nncompile.ir.native import DOMAIN, FUNCTIONS_KEY

PACKAGE = "nncompile_kernels"
SWITCH = "NNCOMPILE_NATIVE"
"""The environment variable that is 0 where the kernels are not to be used."""
INTERFACE = 1
"""That of the library which the files of this package call."""
_ASKED = "NNCOMPILE_KERNELS_ISA"
_NAMES, _THREADS = f"{DOMAIN}.names", f"{DOMAIN}.threads"


class NativeWarning(ModelWarning):
    """Native kernels are installed, and cannot be used, or not as asked."""


class Library(NamedTuple):
    """The shared library of the kernels: its path, its version, and the instructions it uses."""

    path: str
    version: str
    instruction_set: str

    def __str__(self) -> str:
        return f"nncompile-kernels {self.version}, {self.instruction_set}"


def native_library(asked: bool | None = None) -> Library | None:
    """The library to use: None where it is not installed, where `asked` is False or the environment
    variable NNCOMPILE_NATIVE is 0, and, with a warning, where this onnxruntime does not take it."""
    if asked is False or switched_off(SWITCH):
        return None
    library, problem = examined()
    if problem is not None:
        _warn(problem)
    instructions = os.environ.get(_ASKED, "")
    if library is not None and instructions not in ("", library.instruction_set):
        used = f"this processor has none such, native kernels use {library.instruction_set}"
        warn(f"{_ASKED} is {instructions!r}: {used}", NativeWarning)
    return library


@cache
def examined() -> tuple[Library | None, str | None]:
    """The library where it can be used, else what is wrong with it; neither where there is none."""
    package: Any = installed(PACKAGE)
    if package is None:
        return None, None
    interface = getattr(package, "INTERFACE", None)
    if interface != INTERFACE:
        found = f"nncompile-kernels {package.__version__} has interface {interface}"
        return None, f"{found}, not {INTERFACE}: pip install --force-reinstall nncompile[native]"
    try:
        library = Library(package.library(), package.__version__, package.instruction_set())
        # What is not there for this runtime shows itself here.
        ort.SessionOptions().register_custom_ops_library(library.path)
    except Exception as error:  # a library of any version may fail in any way
        return None, _told(error)
    return library, None


def register(
    library: Library, options: ort.SessionOptions, names: str, threads: int | None
) -> Library | None:
    """Makes the kernels of those names, as `names_of` gives them, known to a session. None, with a
    warning, where the library is another one than when it was examined, and cannot be used."""
    options.add_session_config_entry(_NAMES, names)
    if threads is not None:
        options.add_session_config_entry(_THREADS, str(threads))
    try:
        options.register_custom_ops_library(library.path)
    except Exception as error:  # as in `examined`
        _warn(_told(error))
        return None
    return library


def _warn(problem: str) -> None:
    warn(f"native kernels are not used: {problem}", NativeWarning)


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def names_of(model: Any) -> str:
    """Which native kernels a model (a path, its bytes, or a `ModelProto`) calls, and how many
    functions of each it has: `Elementwise:3`. Empty where it calls none."""
    if hasattr(model, "metadata_props"):
        return next((p.value for p in model.metadata_props if p.key == FUNCTIONS_KEY), "")
    if isinstance(model, bytes):
        return _entry(model)
    if not os.path.isfile(model) or not os.path.getsize(model):
        return ""
    with open(model, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _entry(content)


def _entry(content: bytes | mmap.mmap) -> str:
    """The value of that key in the metadata of a file: two fields of text, each behind its number
    and its length, which is below 128 or has two bytes."""
    key = FUNCTIONS_KEY.encode()
    start = content.rfind(bytes((0x0A, len(key))) + key)  # it stands near the end
    if start < 0:
        return ""
    field = content[start + 2 + len(key) : start + 6 + len(key)]
    if len(field) < 2 or field[0] != 0x12:
        return ""
    wide = field[1] >= 128 and len(field) > 2
    length = (field[1] & 127) + (field[2] << 7) if wide else field[1]
    begin = start + 4 + len(key) + wide
    return content[begin : begin + length].decode("ascii", "replace")
