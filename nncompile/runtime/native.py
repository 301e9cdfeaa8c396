"""The library of native kernels, where it is installed: see docs/native.md."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import onnxruntime as ort

from nncompile.diagnostics.errors import ModelWarning, warn
from nncompile.diagnostics.extras import installed

PACKAGE = "nncompile_kernels"
SWITCH = "NNCOMPILE_NATIVE"
"""The environment variable that is 0 where the kernels are not to be used."""
DOMAIN = "nncompile.kernels"
_NAMES, _THREADS = f"{DOMAIN}.names", f"{DOMAIN}.threads"


class NativeWarning(ModelWarning):
    """Native kernels are installed, and cannot be used: models run without them."""


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
    if asked is False or os.environ.get(SWITCH, "") in ("0", "no", "off", "false"):
        return None
    library, problem = examined()
    if problem is not None:
        warn(f"native kernels are not used: {problem}", NativeWarning)
    return library


@cache
def examined() -> tuple[Library | None, str | None]:
    """The library where it can be used, else what is wrong with it; neither where there is none."""
    package: Any = installed(PACKAGE)
    if package is None:
        return None, None
    try:
        library = Library(package.library(), package.__version__, package.instruction_set())
        # What is not there for this runtime shows itself here.
        ort.SessionOptions().register_custom_ops_library(library.path)
    except Exception as error:  # a library of any version may fail in any way
        return None, " ".join(str(error).split()) or type(error).__name__
    return library, None


def register(
    library: Library, options: ort.SessionOptions, model: Any, threads: int | None
) -> None:
    """Makes the kernels that the model calls known to a session."""
    functions = getattr(model, "functions", None)
    if functions is not None:  # only the names that it has, as each takes its time
        names = Counter(f.name.partition("_")[0] for f in functions if f.domain == DOMAIN)
        counts = " ".join(f"{name}:{count}" for name, count in sorted(names.items()))
        options.add_session_config_entry(_NAMES, counts)
    if threads is not None:
        options.add_session_config_entry(_THREADS, str(threads))
    options.register_custom_ops_library(library.path)


def calls_kernels(model: Any) -> bool:
    """Whether a model (a path, its bytes, or a `ModelProto`) has calls of native kernels."""
    functions: Sequence[Any] | None = getattr(model, "functions", None)
    if functions is not None:
        return any(f.domain == DOMAIN for f in functions)
    mark = DOMAIN.encode()
    if isinstance(model, bytes):
        return mark in model
    if not os.path.isfile(model) or not os.path.getsize(model):
        return False
    with open(model, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(mark) >= 0
