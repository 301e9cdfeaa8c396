"""Functions of arrays in every backend: numpy's meaning of the graph, onnxruntime, TorchScript."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type, f64
from tests.backends import script_of, session, valid_model
from tests.leaves import leaf
from tests.op_checks import in_double
from tests.tolerances import assert_close


class Everywhere:
    """A function of values of those types, built once and run on arrays of any sizes."""

    def __init__(self, function: Callable[..., Any], *types: Type) -> None:
        leaves = tuple(leaf(f"x{i}", t) for i, t in enumerate(types))
        given = function(*leaves)
        self.results: tuple[Value, ...] = given if isinstance(given, tuple) else (given,)
        named = {f"y{i}": y for i, y in enumerate(self.results)}
        self.graph = Graph("everywhere", named, leaves)
        self.run = session(valid_model(self.graph))
        self.script = script_of(self.graph) if importlib.util.find_spec("torch") else None

    def __call__(self, *arrays: Any) -> Any:
        """The result, or a tuple of several, which all backends agree on; in f32 onnxruntime and
        TorchScript are compared with numpy in double."""
        feeds = {
            x.op.name: np.asarray(a, x.dtype.numpy)  # type: ignore[attr-defined]
            for x, a in zip(self.graph.inputs, arrays, strict=True)
        }
        expected = in_double(self.graph, feeds)
        actual = self.run(feeds, expected)
        self._compare("onnxruntime", actual, expected)
        if self.script is not None:
            self._compare("TorchScript", self.script(feeds), expected)
        found = tuple(expected[f"y{i}"] for i in range(len(self.results)))
        return found if len(found) > 1 else found[0]

    def _compare(self, what: str, actual: dict[str, Array], expected: dict[str, Array]) -> None:
        for (name, array), y in zip(actual.items(), self.results, strict=True):
            assert array.dtype == y.dtype.numpy, f"{what}: {array.dtype}, not {y.dtype}"
            assert_close(array, expected[name], y.dtype.name, f"{what} {name}")


def check_numpy(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    types: tuple[Type, ...],
    *cases: tuple[Any, ...],
) -> None:
    """The function is numpy's in every backend, for each of several tuples of arrays."""
    everywhere = Everywhere(function, *types)
    for arrays in cases:
        found = everywhere(*arrays)
        with np.errstate(all="ignore"):
            expected = reference(*arrays)
        many = isinstance(found, tuple)
        pairs = zip(found, expected, strict=True) if many else [(found, expected)]
        for (got, wanted), y in zip(pairs, everywhere.results, strict=True):
            assert_close(got, wanted, y.dtype.name, "numpy")


def integers(
    shape: tuple[int, ...], dtype: DType = f64, seed: int = 0, *, low: int = 0, high: int
) -> Array:
    """Whole numbers from `low` up to `high`, or truth values; few, so that some are equal."""
    rng = np.random.default_rng(seed)
    if dtype.is_bool:
        low, high = 0, 2
    elif dtype.is_integer and not dtype.is_signed:
        low = max(low, 0)
    return rng.integers(low, high, shape).astype(dtype.numpy)


def normal_or_integers(shape: tuple[int, ...], dtype: DType = f64, *, high: int) -> Array:
    """Normal numbers of a real type, whole numbers from 0 up to `high` of another."""
    if dtype.is_float:
        return np.random.default_rng(0).normal(size=shape).astype(dtype.numpy)
    return integers(shape, dtype, high=high)


def uniform(*shape: int, seed: int = 0) -> Array:
    """Numbers from −1 to 1."""
    return np.random.default_rng(seed).uniform(-1, 1, shape)
