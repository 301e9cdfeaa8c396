"""Inputs of a file at several sizes, and what onnxruntime computes of them as the file is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp

from nncompile.ir.dims import symbols
from nncompile.ir.types import Array, Type
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
    one: arrays `in_NAME`. Their sizes are the first ones, and three others of each are tried; they
    are of these `types`, which say what an import assumed."""

    def __init__(self, file: Path, types: Mapping[str, Type] = {}, seed: int = 0) -> None:
        super().__init__(Session(file, threads=1, optimization="none"), seed)
        self.types = types
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

    def cases(self) -> Iterator[tuple[str, Arrays, Arrays]]:
        """Those of the base class, and others of the sizes of which it finds less than three."""
        found: dict[Any, set[int]] = {name: set() for name in self.names}
        for case in super().cases():
            for name, n in self._sizes_of(case[1]).items():
                found[name].add(n)
            yield case
        base = self.base or {}
        for k, name in enumerate(self.names):
            n = base.get(name, 0)
            for number, size in enumerate((n + 1, n - 1, 3 * n, n + 2, 4 * n, n // 2, n + 4)):
                if size < 1 or size in found[name] or len(found[name]) > OTHER_SIZES:
                    continue
                feeds, outputs = self._tried({**base, name: size}, 50 + 10 * k + number)
                if outputs is not None:
                    found[name].add(size)
                    yield f"{name}={size}", feeds, outputs

    @cached_property
    def drawn(self) -> list[Case]:
        """All sets of inputs that the file accepts."""
        return [
            Case(name, self._sizes_of(feeds), feeds, [*outputs.values()])
            for name, feeds, outputs in self.cases()
        ]

    def _sizes_of(self, feeds: Arrays) -> dict[Any, int]:
        """The sizes that are not fixed, in these inputs."""
        sizes: dict[Any, int] = {}
        for name, x in feeds.items():
            for d, n in zip(self.shapes[name], x.shape, strict=True):
                for symbol in symbols([d]):  # of which it is a multiple, as h of 4*h
                    sizes.setdefault(symbol, n if d == symbol else int(sp.solve(d - n, symbol)[0]))
        return sizes

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

    def _tried(self, sizes: Mapping[Any, int], number: int) -> tuple[Arrays, Arrays | None]:
        feeds, outputs = super()._tried(sizes, number)
        return feeds, outputs if self._fits(feeds) else None

    def _fits(self, feeds: Arrays) -> bool:
        found: dict[Any, Any] = {}
        for name, type_ in self.types.items():
            for d, n in zip(type_.shape, feeds[name].shape, strict=True):
                names = symbols([d])
                if not names and d != n:
                    return False
                for symbol in names:
                    roots = sp.solve(d - n, symbol)  # none where d is a multiple, and n is not
                    if not roots or found.setdefault(symbol, roots[0]) != roots[0]:
                        return False
        return True

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
