"""`Adapted`: a layer that computes with statistics of data, which are state of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any, ClassVar, Self

import numpy as np

from dsl.building import active, building
from dsl.initializers import constant
from dsl.layers.base import Layer
from dsl.layers.preprocessing.statistics import Statistics, blocks_of, chunks_of
from nncompile.diagnostics.errors import FeedError, ModelError, ShapeError, warn, whole_number
from nncompile.ir.dims import same
from nncompile.ir.graph import Input, input_of
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type, dtype_of
from nncompile.ops import reshape


class Adapted(Layer, ABC):
    """A layer with statistics of data: `adapt(data)` computes them, in float64, before the model is
    made. In the model they are states: not trained, saved with the checkpoints, written into every
    export.

    `axis` is that of the features, which have statistics of their own, or several such axes; with
    None all numbers have the same. Examples are along axis 0; data of that one axis are one
    feature.
    """

    axis: int | tuple[int, ...] | None = field(default=-1, kw_only=True)

    names: ClassVar[tuple[str, ...]] = ()
    _learned: ClassVar[Mapping[str, Array] | None] = None
    _in_models: ClassVar[bool] = False

    def adapt(self, data: Any) -> Self:
        """Computes the statistics of the data, in place of earlier ones, and returns the layer.

        The data are an array, a list, a column or a table of numbers with the examples along the
        first axis, or an iterator of such, which is read once. NaN, None and NA are missing, and
        left out. Raises `FeedError` for data that are not numbers, hold infinities, or lack what
        is computed of them, `ShapeError` where they have no such axis.
        """
        label, statistics = type(self).__name__, self._statistics()
        sizes: tuple[int, ...] | None = None
        for block in blocks_of(label, data):
            kept = self._kept(block.ndim)
            chunk_sizes = tuple(block.shape[axis] for axis in kept)
            if sizes is not None and chunk_sizes != sizes:
                raise ShapeError(
                    f"{label} is adapted to chunks of {_counted(sizes)} "
                    f"and of {_counted(chunk_sizes)}"
                )
            sizes = chunk_sizes
            features = np.moveaxis(block, kept, range(block.ndim - len(kept), block.ndim))
            statistics.add(self._prepared(features.reshape(-1, int(np.prod(chunk_sizes)))))
        if sizes is None:
            raise FeedError(f"{label} cannot be adapted: the data have no examples")
        return self.restore(self._finished(statistics, sizes))

    @property
    def statistics(self) -> dict[str, Array]:
        """A copy of the statistics by name, which `restore` takes. Raises `ModelError` where the
        layer was not adapted."""
        return {name: np.array(self._statistic(name)) for name in self.names}

    def restore(self, statistics: Mapping[str, Any]) -> Self:
        """Takes over the statistics of a layer of this class, and returns the layer. Raises
        `ModelError` for others."""
        label = type(self).__name__
        if not isinstance(statistics, Mapping) or set(statistics) != set(self.names):
            raise ModelError(
                f"the statistics of {label} are {', '.join(self.names)}, got "
                f"{', '.join(statistics) if isinstance(statistics, Mapping) else statistics!r}"
            )
        new = {name: np.array(x) for name, x in statistics.items()}
        if self._in_models and not self._equals(new):
            warn(f"{label} is adapted again: models that use it keep the statistics of before")
        object.__setattr__(self, "_learned", new)
        return self

    def transform(self, data: Any) -> Array:
        """What the layer makes of an array, computed in numpy: for `adapt` of the next layer."""
        return computed(self, data)

    @abstractmethod
    def _statistics(self) -> Statistics:
        """A new collector of the data."""

    def _prepared(self, block: Array) -> Array:
        """The numbers of a block as they are collected: without infinities."""
        infinite = np.argwhere(np.isinf(block)) if block.dtype.kind == "f" else np.empty(0)
        if len(infinite):
            raise FeedError(
                f"the data that {type(self).__name__} is adapted to hold {len(infinite):,} "
                f"infinities, the first in feature {infinite[0][1]}",
                hint="x[np.isinf(x)] = np.nan makes them missing",
            )
        return block

    @abstractmethod
    def _finished(self, statistics: Any, sizes: tuple[int, ...]) -> Mapping[str, Array]:
        """The statistics by name, of features of these sizes."""

    def _equals(self, new: Mapping[str, Array]) -> bool:
        old = self._learned
        return old is not None and all(np.array_equal(old[name], x) for name, x in new.items())

    def _statistic(self, name: str) -> Array:
        """One of the statistics. Raises `ModelError` where the layer was not adapted."""
        if self._learned is None:
            label = type(self).__name__
            raise ModelError(
                f"{label} has no statistics yet",
                hint="adapt it to the training data before the model is made: "
                f"scale = {label}(...); scale.adapt(data)".replace("scale", label.lower()),
            )
        return self._learned[name]

    def _kept(self, rank: int) -> list[int]:
        """The axes of the features of data of that rank."""
        if self.axis is None:
            return []
        given = self.axis if isinstance(self.axis, tuple | list) else (self.axis,)
        axes = [whole_number(f"the axis of {type(self).__name__}", axis) for axis in given]
        if any(not -rank <= axis < rank for axis in axes):
            raise ShapeError(f"{type(self).__name__}: data of {rank} axes have no axis {self.axis}")
        kept = sorted({axis % rank for axis in axes})
        if kept[:1] == [0] and (rank > 1 or len(axes) > 1 or axes[0] == 0):
            raise ShapeError(
                f"{type(self).__name__}: axis 0 is that of the examples, not of the features",
                hint="axis=None for one feature",
            )
        return [axis for axis in kept if axis]

    def _declared(self, name: str, x: Value, dtype: DType | None = None) -> Value:
        """The statistic as a state of the model, of x's element type."""
        return self._as_state(name, self._statistic(name), dtype or x.dtype)

    def _as_state(self, name: str, array: Array, dtype: DType) -> Value:
        if active(type(self).__name__).is_of_a_model:
            object.__setattr__(self, "_in_models", True)
        return self.state(name, array.shape, constant(array), dtype)

    def _beside(self, name: str, x: Value) -> Value:
        """The statistic as a state that fits beside x: a number for each feature."""
        kept = self._features(name, x)
        value = self._declared(name, x)
        trailing = kept == list(range(x.rank - len(kept), x.rank))
        shape = [x.shape[axis] if axis in kept else 1 for axis in range(x.rank)]
        return value if trailing else reshape(value, shape)

    def _features(self, name: str, x: Value, sizes: tuple[int, ...] | None = None) -> list[int]:
        """The axes of x that are its features. Raises `ShapeError` where they have other sizes than
        those of the data that the layer was adapted to."""
        expected = self._statistic(name).shape if sizes is None else sizes
        if x.rank == 0:
            raise ShapeError(f"{type(self).__name__} needs examples along axis 0, x is {x.type}")
        kept = self._kept(x.rank)
        x_sizes = [x.shape[axis] for axis in kept]
        if len(x_sizes) != len(expected) or not all(
            same(a, b) is True for a, b in zip(x_sizes, expected, strict=True)
        ):
            raise ShapeError(
                f"{type(self).__name__} was adapted to data of {_counted(expected)}, x is {x.type}"
            )
        return kept


def computed(function: Callable[[Any], Any], data: Any) -> Array:
    """What a layer without trained parameters, or a function of values, makes of an array."""
    array = np.asarray(data)
    with building() as builder:
        leaf = Input("x", Type(dtype_of(array.dtype), array.shape))()
        builder.is_of_a_model = False
        result = function(leaf)
    for path, declared in builder.leaves.items():
        if input_of(declared).kind == "parameter":
            raise ModelError(f"{path} is not trained yet: data cannot be transformed by it")
    states = evaluate(builder.initial, {"seed": np.int64(0), "step": np.int64(0)})
    transformed: Array = evaluate(result, {"x": array, **states})
    return transformed


def adapt_in_order(functions: Iterable[Any], data: Any) -> None:
    """Adapts those of the functions that can be to the data, each to what the ones before make of
    them. Raises `ModelError` where none can be, `FeedError` for an iterator, which several would
    have to read."""
    in_order = list(functions)
    last = max((i for i, f in enumerate(in_order) if hasattr(f, "adapt")), default=-1)
    if last < 0:
        raise ModelError("none of the layers can be adapted to data")
    label = type(in_order[last]).__name__
    if last > 0 and chunks_of(label, data) is data:
        raise FeedError(
            "several layers cannot be adapted to an iterator, which is read once",
            hint="pass the whole array, or adapt one layer after the other",
        )
    x = data
    for i, function in enumerate(in_order[: last + 1]):
        if hasattr(function, "adapt"):
            function.adapt(x)
        if i < last:  # text becomes codes outside of the graph
            x = function.encode(x) if hasattr(function, "encode") else computed(function, x)


def _counted(sizes: tuple[int, ...]) -> str:
    if not sizes:
        return "one feature"
    return f"{' × '.join(map(str, sizes))} feature{'s' if sizes != (1,) else ''}"
