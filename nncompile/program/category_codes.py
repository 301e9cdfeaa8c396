"""Categories, such as words, and their integer codes: what a program needs that feeds a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError, FileError, ModelError
from nncompile.diagnostics.hints import suggests_options
from nncompile.ir.types import Array, check_unmasked

Category = str | int

METADATA_KEY = "nncompile.vocabularies"
"""The key under which an ONNX file holds the categories of its inputs, as JSON."""


@suggests_options
@dataclass(frozen=True)
class CategoryCodes:
    """The integer code of each of the `categories`, text or integers, and of all others.

    With `unknown`, 0 is the code of what is missing or none of them, and they count from 1;
    without it they count from 0, and others are an error. Raises `ModelError` for what is neither
    text nor an integer, and for one that stands there twice.

    >>> codes = CategoryCodes(("red", "green"))
    >>> codes.encode(["green", "blue", None, "red"])
    array([2, 0, 0, 1])
    >>> codes.decode([2, 0])
    ['green', None]
    """

    categories: tuple[Category, ...]
    unknown: bool = True

    def __post_init__(self) -> None:
        for category in self.categories:
            if isinstance(category, bool) or not isinstance(category, str | int):
                raise ModelError(f"a category must be text or an integer, got {category!r}")
        twice = [c for c, count in Counter(self.categories).items() if count > 1]
        if twice:
            raise ModelError(f"the category {twice[0]!r} is listed twice")

    def __len__(self) -> int:
        """The number of codes, that of what is unknown included: the rows of an `Embedding`."""
        return len(self.categories) + self.unknown

    @cached_property
    def _codes(self) -> dict[Category, int]:
        return {c: i for i, c in enumerate(self.categories, start=int(self.unknown))}

    def encode(self, values: Any) -> Array:
        """The codes i64 of a value, or of an array, list or column of them, of the same shape.

        Whole numbers in floating point are integers here: a column of integers in which some are
        missing. Raises `FeedError` for other floats, and without `unknown` for what is missing or
        none of the categories.
        """
        array = _objects(values)
        flat = array.ravel().tolist()
        other = 0 if self.unknown else -1
        codes = [other if c is None else self._codes.get(c, other) for c in map(_category, flat)]
        if not self.unknown and -1 in codes:
            first = flat[codes.index(-1)]
            raise FeedError(
                f"{first!r} is none of the {len(self.categories)} categories",
                rows=[("categories", ", ".join(map(repr, self.categories[:8])))],
                hint="Vocabulary(unknown=True) has a code for all others",
            )
        return np.array(codes, np.int64).reshape(array.shape)

    def decode(self, codes: Any) -> Any:
        """The categories of codes, as nested lists of their shape; None for what is unknown. Raises
        `FeedError` for a number that is no code."""
        array = np.asarray(codes)
        if array.dtype.kind not in "iu":
            raise FeedError(f"codes are integers, got {array.dtype}")
        if array.size and not (array.min() >= 0 and array.max() < len(self)):
            wrong = array.min() if array.min() < 0 else array.max()
            raise FeedError(f"{wrong} is no code: they count from 0 to {len(self) - 1}")
        table = np.empty(len(self), object)
        table[int(self.unknown) :] = self.categories
        return table[array].tolist() if array.ndim else table[int(array)]


def counted(chunks: Iterable[Any]) -> Counter[Category]:
    """How often each category is in the arrays, lists or columns; what is missing does not
    count."""
    total: Counter[Category] = Counter()
    for chunk in chunks:
        categories = map(_category, _objects(chunk).ravel().tolist())
        total.update(c for c in categories if c is not None)
    return total


def to_json(vocabularies: Mapping[str, CategoryCodes]) -> str:
    """What a file holds of the codes of its inputs."""
    return json.dumps(
        {n: {"categories": v.categories, "unknown": v.unknown} for n, v in vocabularies.items()},
        ensure_ascii=False,
    )


def from_json(text: str, source: str) -> dict[str, CategoryCodes]:
    """The codes that a file `source` holds. Raises `FileError` where they cannot be read."""
    try:
        return {
            str(name): CategoryCodes(tuple(stored["categories"]), bool(stored["unknown"]))
            for name, stored in json.loads(text).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, ModelError) as error:
        raise FileError(f"the vocabularies in {source} cannot be read: {error}") from None


def is_missing(value: Any) -> bool:
    """Whether it stands for nothing: None, NaN, or the mark of pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _objects(values: Any) -> Array:
    """The values as an array of any shape."""
    check_unmasked(values, "a column of categories", FeedError)
    if isinstance(values, str | bytes):
        return np.asarray(values, object)
    try:
        return np.asarray(values, object if isinstance(values, list | tuple) else None)
    except ValueError as error:
        raise FeedError(f"the categories cannot be converted to an array: {error}") from None


def _category(value: Any) -> Category | None:
    """A value of data as a category; None where it is missing."""
    if isinstance(value, str):
        return str(value)
    if is_missing(value):
        return None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return int(value)
    hint = "Discretize() makes codes of measured numbers" if isinstance(value, float) else None
    if isinstance(value, bool | np.bool_):
        hint = "x.astype(np.int64) makes 0 and 1 of truth values"
    raise FeedError(f"a category must be text or an integer, got {value!r}", hint=hint)
