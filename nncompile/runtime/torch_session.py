"""A model loaded by torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.backends.optional import torch_backend
from nncompile.diagnostics.errors import BackendError, whole_number
from nncompile.diagnostics.reading import open_file
from nncompile.ir.types import Array
from nncompile.runtime.feeds import Port, check_feeds, describe

SUFFIXES = (".pt", ".pth", ".pt2")


class TorchSession:
    """A `.pt` file (TorchScript) or a `.pt2` file (torch.export) of nncompile or any other program,
    with the inputs and errors of `Session`; what another program wrote names its inputs, and not
    their types.

    Raises `FileError` or `BackendError` where the file cannot be loaded or torch is missing,
    `ProviderError` where torch has no such device.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        provider: str = "cpu",
        threads: int | None = None,
        *,
        trust: bool = False,
    ) -> None:
        if threads is not None:
            whole_number("threads", threads, 1)
        self.name = os.fspath(path)
        open_file(path, "model").close()
        if not trust:
            raise BackendError(
                f"{self.name} is a program, not only data: a {Path(path).suffix} file may run any "
                "code when it is loaded, with all that you may do",
                hint="where you know who wrote it, say so: --trust, or TorchSession(path, "
                "trust=True); an .onnx file needs no trust",
            )
        self._file = torch_backend().load_file(Path(path), provider.lower(), threads)
        self._types: Mapping[str, Sequence[Any]] = self._file.about.get("inputs", {})

    @property
    def note(self) -> str | None:
        """What the file is, where that is more than a model."""
        steps: int | None = self._file.steps
        if steps is None:
            return None
        return (
            f"a training step, after {steps:,} steps: these are its predictions; "
            f"train_step({', '.join(self._file.about['batch'])}) trains it"
        )

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Array]:
        """The outputs by name. Raises `FeedError` for data that do not fit the inputs,
        `BackendError` where the model fails on them."""
        arrays = check_feeds([self._port(name, feeds) for name in self._file.names], feeds)
        try:
            results: dict[str, Array] = self._file(arrays)
        except MemoryError:
            raise
        except Exception as error:  # of any class: the file is any program
            rows = [("input", name, describe(x.dtype, x.shape)) for name, x in arrays.items()]
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise BackendError(f"{self.name} failed on these data: {reason}", rows=rows) from error
        return results

    def _port(self, name: str, feeds: Mapping[str, Any]) -> Port:
        """The declared input; for another program, one of the type of the data."""
        if name in self._types:
            dtype, shape = self._types[name]
            return Port(name, np.dtype(dtype), tuple(shape))
        array = np.asarray(feeds.get(name, 0.0))
        return Port(name, array.dtype, (None,) * array.ndim)
