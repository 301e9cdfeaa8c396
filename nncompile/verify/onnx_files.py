"""Whether two ONNX files compute the same numbers, in onnxruntime without its optimizations."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import BackendError, CompileError
from nncompile.ir.dims import Dim, dim, substitute, symbol, symbols
from nncompile.ir.types import Array, is_real
from nncompile.runtime import Session
from nncompile.runtime.feeds import Port

BATCH, SMALLEST = 2, 5  # first sizes; each further one is another, so that exchanged axes show
GROWN = (8, 16, 32, 64, 128, 224, 256)  # tried where small ones are not accepted
EACH = (*range(1, 21), *GROWN[2:])  # tried for one or two sizes where none of these are
HIGHEST = (1_000_000, 30_000, 1000, 100, 30, 10, 3, 2, 1)  # of whole numbers
SEARCH = 60.0  # seconds in which sizes are looked for
ROUNDS = 2

# How far the results of sums in another order may be apart, relative to the largest element. What
# is not a float must be equal.
TOLERANCES = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5, "float64": 1e-12}

Arrays = dict[str, Array]


@dataclass
class Comparison:
    """The inputs that both files were run on, and the largest relative difference of an output."""

    cases: list[str] = field(default_factory=list)
    largest: float = 0.0
    where: str = ""
    problem: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether they were run, and no output differs by more than a few roundings."""
        return self.problem is None and bool(self.cases)

    def __str__(self) -> str:
        count = len(self.cases)
        where = f", at {self.where}" if self.largest else ""
        return f"largest relative difference {self.largest:.1e}{where}, on {count} sets of inputs"


def compare(file: Path, other: Path, seed: int = 0) -> Comparison:
    """Runs both files on random inputs, at two or three sizes of each size that is not fixed, as
    far as the first file accepts them. Raises `BackendError` where that cannot be loaded, or gives
    other results each time."""
    original, comparison = _session(file), Comparison()
    try:
        optimized = _session(other)
    except CompileError as error:
        comparison.problem = str(error)
        return comparison
    for case, feeds, expected in Drawn(original, seed).cases():
        comparison.cases.append(case)
        try:
            got = optimized.run(feeds)
        except CompileError as error:
            comparison.problem = f"it fails with {case}: {error}"
            return comparison
        for name, x in expected.items():
            difference, fault = difference_of(x, got[name])
            if difference >= comparison.largest:
                comparison.largest, comparison.where = difference, f"{name} with {case}"
            if fault is not None:
                _check_that_it_repeats(original, feeds, name, x)
                comparison.problem = f"output {name} {fault} with {case}"
                return comparison
    return comparison


def _check_that_it_repeats(session: Session, feeds: Arrays, name: str, result: Array) -> None:
    if difference_of(result, session.run(feeds, [name])[name])[1] is not None:
        raise BackendError(
            f"output {name} is random: of the same inputs it is another one each time"
        )


def _session(file: Path) -> Session:
    return Session(file, threads=1, optimization="none")


def difference_of(x: Array, y: Array) -> tuple[float, str | None]:
    """The largest difference of two arrays relative to the largest element, and what is wrong."""
    if x.shape != y.shape or x.dtype != y.dtype:
        return np.inf, f"is {y.dtype}{list(y.shape)}, not {x.dtype}{list(x.shape)}"
    if not x.size:
        return 0.0, None
    tolerance = TOLERANCES.get(x.dtype.name)
    if tolerance is None:
        is_equal = bool((x == y).all())
        return (0.0, None) if is_equal else (np.inf, "has other values")
    a, b = x.astype(np.float64), y.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf, "is not finite elsewhere"
    if not finite.any():
        return 0.0, None
    largest = np.abs(a[finite]).max() or 1.0
    difference = float(np.abs(a[finite] - b[finite]).max() / largest)
    too_far = not difference <= tolerance  # also where it is not a number
    return difference, f"differs by {difference:.1e}" if too_far else None


class Drawn:
    """Inputs that a file accepts, drawn at random."""

    def __init__(self, session: Session, seed: int) -> None:
        self.session, self.seed = session, seed
        self.shapes = {port.name: _shape(port) for port in session.inputs}
        self.names: list[Any] = sorted(
            symbols(d for shape in self.shapes.values() for d in shape), key=str
        )
        self.highest = {port.name: 1 for port in session.inputs if port.dtype.kind in "iu"}

    def cases(self) -> Iterator[tuple[str, Arrays, Arrays]]:
        """What each set is called, the inputs, and the outputs of the file."""
        base = self.base
        if base is None:
            return
        self._widen(base)
        chosen = [base] * ROUNDS
        for name in self.names:
            chosen += [{**base, name: n} for n in (1, 2 * base[name], 2 * base[name] + 1)]
        for number, sizes in enumerate(chosen):
            feeds, outputs = self._tried(sizes, number)
            if outputs is not None:
                listed = ", ".join(f"{name}={n}" for name, n in sizes.items())
                yield listed or f"random inputs {number + 1}", feeds, outputs

    @cached_property
    def base(self) -> dict[Any, int] | None:
        """Sizes that the file accepts, small ones if it can be."""
        first = {shape[0] for shape in self.shapes.values() if shape}
        small = {
            name: BATCH if name in first else SMALLEST + i for i, name in enumerate(self.names)
        }
        grown = [{name: n if name in first else size for name, n in small.items()}
                 for size in GROWN]  # fmt: skip
        equal = [dict.fromkeys(self.names, size) for size in GROWN]
        # As where a file was written for one length of its input, or for one of each of two.
        tried = self.names if len(self.names) < 3 else [n for n in self.names if n not in first]
        each = itertools.product(EACH, repeat=len(tried)) if len(tried) < 3 else ()
        listed = ({**small, **dict(zip(tried, chosen, strict=True))} for chosen in each)
        start = time.monotonic()
        for sizes in itertools.chain((small,), grown, equal, listed):
            if time.monotonic() - start > SEARCH:
                return None
            if self._tried(sizes, 0)[1] is not None:
                return sizes
        return None

    def _widen(self, sizes: Mapping[Any, int]) -> None:
        """Finds how large the whole numbers of each input may be."""
        for name in self.highest:
            for high in HIGHEST:
                self.highest[name] = high
                if self._tried(sizes, 0)[1] is not None:
                    break

    def _tried(self, sizes: Mapping[Any, int], number: int) -> tuple[Arrays, Arrays | None]:
        random = np.random.default_rng((self.seed, number))
        feeds = {port.name: self._drawn(port, sizes, random) for port in self.session.inputs}
        try:
            return feeds, self.session.run(feeds)
        except CompileError:
            return feeds, None

    def _drawn(self, port: Port, sizes: Mapping[Any, int], random: np.random.Generator) -> Array:
        shape = tuple(int(substitute(d, sizes)) for d in self.shapes[port.name])
        if port.dtype.kind == "b":
            return np.asarray(random.integers(0, 2, shape), bool)
        if not is_real(port.dtype):
            high = min(self.highest.get(port.name, 1), np.iinfo(port.dtype).max)
            drawn = random.integers(0, high, shape, endpoint=True)
            if drawn.size:  # so that the highest is among them, if it is to be refused
                drawn.flat[0] = high
            return drawn.astype(port.dtype)
        return np.asarray(random.standard_normal(shape), port.dtype)


def _shape(port: Port) -> Sequence[Dim]:
    """Sizes as arithmetic of names. Those without a name are one for each axis."""
    return [_size(size, axis) for axis, size in enumerate(port.shape)]


def _size(size: int | str | None, axis: int) -> Dim:
    if isinstance(size, int):
        return size
    try:
        return dim(size or ("batch" if axis == 0 else f"axis_{axis}"))
    except CompileError:
        plain = "".join(c if c.isalnum() else "_" for c in str(size))
        return symbol(f"size_{plain}")
