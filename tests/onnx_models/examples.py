"""Inputs of a file at several sizes, and what onnxruntime computes of them as the file is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.ir.types import Array
from nncompile.runtime import Session
from nncompile.runtime.feeds import Port
from nncompile.verify.onnx_files import Drawn

Arrays = dict[str, Array]
OTHER_SIZES = 3  # of every size that is not fixed


@dataclass(frozen=True)
class Case:
    """A set of inputs, and the outputs of the file in its order."""

    name: str
    sizes: Mapping[Any, int]
    feeds: Arrays
    expected: list[Array]


class Examples(Drawn):
    """Inputs of a file, drawn as those in the `.npz` file of its name beside it are, where there is
    one: arrays `in_NAME`. Their sizes are the first ones, and three others of each are tried."""

    def __init__(self, file: Path, seed: int = 0) -> None:
        super().__init__(Session(file, threads=1, optimization="none"), seed)
        beside = file.with_suffix(".npz")
        arrays = dict(np.load(beside)) if beside.is_file() else {}
        self.given: Arrays = {
            port.name: arrays[f"in_{port.name}"]
            for port in self.session.inputs
            if f"in_{port.name}" in arrays
        }

    @cached_property
    def base(self) -> dict[Any, int] | None:
        """The sizes of the given arrays, or others that the file accepts."""
        found = self._sizes_of(self.given)
        return found if len(found) == len(self.names) and self.given else super().base

    @cached_property
    def drawn(self) -> list[Case]:
        """All sets of inputs that the file accepts."""
        return [
            Case(name, self._sizes_of(feeds), feeds, [*outputs.values()])
            for name, feeds, outputs in self.cases()
        ]

    def _sizes_of(self, feeds: Arrays) -> dict[Any, int]:
        """The sizes that are not fixed, in these inputs."""
        return {
            d: n
            for name, x in feeds.items()
            for d, n in zip(self.shapes[name], x.shape, strict=True)
            if d in self.names
        }

    @property
    def others(self) -> dict[Any, list[int]]:
        """The sizes that were tried beside the first, of each that is not fixed."""
        base = self.base or {}
        return {
            name: sorted({case.sizes[name] for case in self.drawn} - {base.get(name)})
            for name in self.names
        }

    def batch(self, rows: int) -> Arrays:
        """Examples to train on: more rows where the number of them is not fixed."""
        sizes = dict(self.base or {})
        first = {shape[0] for shape in self.shapes.values() if shape} & set(self.names)
        sizes |= dict.fromkeys(first, rows)
        self._widen(self.base or {})
        feeds, outputs = self._tried(sizes, 100)
        assert outputs is not None, f"the file does not accept {sizes}"
        return feeds

    def _widen(self, sizes: Mapping[Any, int]) -> None:
        kept = self.highest
        self.highest = {name: n for name, n in kept.items() if name not in self.given}
        super()._widen(sizes)
        self.highest = kept | self.highest

    def _drawn(self, port: Port, sizes: Mapping[Any, int], random: np.random.Generator) -> Array:
        x = super()._drawn(port, sizes, random)
        given = self.given.get(port.name)
        if given is None:
            return x
        if given.dtype.kind == "f":
            return np.asarray(given.mean() + (given.std() or 1) * x, x.dtype)
        return random.choice(given.reshape(-1), x.shape).astype(x.dtype)
