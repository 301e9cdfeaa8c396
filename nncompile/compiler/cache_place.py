"""Which compile cache is in use: that of the user, another directory, or none."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nncompile.compiler.cache_files import CompileCache
from nncompile.diagnostics.switches import switched_off

VARIABLE = "NNCOMPILE_CACHE"
"""The environment variable that names the directory of the cache, or is `off` (or 0, no, false)."""

OFF = "off"


def cache_directory() -> Path | None:
    """The directory of the cache; None where there is to be none.

    It is what `NNCOMPILE_CACHE` says, else `nncompile` among the user's caches: in
    `XDG_CACHE_HOME`, or in `~/.cache`.
    """
    if switched_off(VARIABLE):
        return None
    chosen = os.environ.get(VARIABLE, "")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # what is not is to be ignored, as the specification says
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # a user without a home
            return None
    return base / "nncompile"


def active_cache() -> CompileCache | None:
    """The cache in use; None where there is to be none."""
    directory = cache_directory()
    return None if directory is None else _cache_in(directory)


@functools.lru_cache(maxsize=8)
def _cache_in(directory: Path) -> CompileCache:
    return CompileCache(directory)


@contextmanager
def without_cache() -> Iterator[None]:
    """Compiles anew whatever the block compiles, also in processes that it starts."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = OFF
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
