"""`Vocabulary`: text and its codes, of which a model sees the codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar, Self

from dsl.building import active
from dsl.layers.base import Layer
from dsl.layers.preprocessing.statistics import chunks_of
from nncompile.diagnostics.errors import DTypeError, FeedError, ModelError, warn, whole_number
from nncompile.elementwise import where
from nncompile.ir.basic import as_value
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.ops.core.assertions import in_range
from nncompile.program.category_codes import Category, CategoryCodes, counted


class Vocabulary(Layer):
    """The codes of categories (words, names, numbers of products), of which the model has integers:
    text stays outside. `encode` makes the codes that the model is fed, `decode` goes back.

    The categories are those given, in their order; or those of the data that it is adapted to, the
    most frequent first (of equally frequent ones the first in order): `max_size` of them at most,
    each there `min_count` times at least. 0 is the code of what is missing and of all others;
    without `unknown` there is no such code, and `encode` refuses them: for labels.

    In a model, `codes >> vocabulary` are the codes, with 0 in the place of what is none, and the
    vocabulary travels in the ONNX files of that model, under the name of the input:
    `nncompile.vocabularies(path)["color"].encode(["red"])`.

    Raises `DTypeError` for an x that is not of integers, `ModelError` where it was not adapted.

    >>> colors = Vocabulary().adapt(["red", "blue", None, "red"])
    >>> colors.encode(["blue", "green", "red"]), len(colors)
    (array([2, 0, 1]), 3)
    """

    categories: Sequence[Category] | None = None
    unknown: bool = field(default=True, kw_only=True)
    max_size: int | None = field(default=None, kw_only=True)
    min_count: int = field(default=1, kw_only=True)

    _codes: ClassVar[CategoryCodes | None] = None
    _in_models: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.max_size is not None:
            whole_number("max_size of Vocabulary", self.max_size, 1)
        whole_number("min_count of Vocabulary", self.min_count, 1)
        if self.categories is None:
            return
        if isinstance(self.categories, str) or not isinstance(self.categories, Sequence):
            raise ModelError(
                f"the categories of a Vocabulary are a list, got {self.categories!r}",
                hint='Vocabulary(["red", "green"]); Vocabulary().adapt(column) finds them',
            )
        object.__setattr__(self, "_codes", CategoryCodes(tuple(self.categories), self.unknown))

    def adapt(self, data: Any) -> Self:
        """Takes the categories of an array, a list or a column, or of an iterator of such, in place
        of earlier ones, and returns the layer. None, NaN and NA are missing. Raises `FeedError` for
        what is neither text nor an integer, and where there is no category."""
        if self.categories is not None:
            raise ModelError(
                "this Vocabulary has its categories already",
                hint="Vocabulary() takes those of the data that it is adapted to",
            )
        counts = counted(chunks_of("a Vocabulary", data))
        frequent = [c for c, count in counts.items() if count >= self.min_count]
        if not frequent:
            raise FeedError("a Vocabulary cannot be adapted: the data have no category")
        if len(set(map(type, frequent))) > 1:
            text = next(c for c in frequent if isinstance(c, str))
            number = next(c for c in frequent if not isinstance(c, str))
            raise FeedError(f"categories are text or integers, not both: {text!r} and {number!r}")
        in_order = sorted(frequent, key=lambda c: (-counts[c], c))
        codes = CategoryCodes(tuple(in_order[: self.max_size]), self.unknown)
        if self._in_models and codes != self._codes:
            warn("Vocabulary is adapted again: models that use it keep the categories of before")
        object.__setattr__(self, "_codes", codes)
        return self

    @property
    def codes(self) -> CategoryCodes:
        """The categories and their codes. Raises `ModelError` where there are none yet."""
        if self._codes is None:
            raise ModelError(
                "this Vocabulary has no categories yet",
                hint="adapt it to the training data before the model is made: "
                "colors = Vocabulary(); colors.adapt(column)",
            )
        return self._codes

    def __len__(self) -> int:
        """The number of codes: the rows of an `Embedding`, the categories of a `OneHot`."""
        return len(self.codes)

    def encode(self, values: Any) -> Array:
        """The codes i64 of categories; see `CategoryCodes.encode`."""
        return self.codes.encode(values)

    def decode(self, codes: Any) -> Any:
        """The categories of codes; see `CategoryCodes.decode`."""
        return self.codes.decode(codes)

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        if not x.dtype.is_integer:
            raise DTypeError(
                f"Vocabulary takes integer codes, x is {x.type}",
                hint='declare the input as i64["batch"], and feed vocabulary.encode(column)',
            )
        codes = self.codes
        builder = active("Vocabulary")
        name = str(x.op.name) if isinstance(x.op, Input) else builder.path_of(self)
        builder.vocabularies[name] = codes
        if builder.is_of_a_model:
            object.__setattr__(self, "_in_models", True)
        if not codes.unknown:
            hint = "vocabulary.encode(column) makes codes of categories"
            return in_range(x, 0, len(codes) - 1, "the codes of Vocabulary are", hint)
        known: Value = where((x >= 0) & (x < len(codes)), x, 0)
        return known


__all__ = ["Vocabulary"]
