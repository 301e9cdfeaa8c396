"""The methods of a value, which are numpy's; each calls the function of its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from nncompile.ir.dims import Dim
from nncompile.ir.dispatch import method
from nncompile.ir.types import Axes


class ArrayMethods:
    """numpy's methods of arrays."""

    __slots__ = ()

    @method("sum")
    def sum(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """The sum of the elements."""

    @method("mean")
    def mean(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """The mean of the elements."""

    @method("max")
    def max(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """The greatest element; NaN where one is."""

    @method("min")
    def min(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """The least element; NaN where one is."""

    @method("prod")
    def prod(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """The product of the elements."""

    @method("var")
    def var(self, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Self:
        """The variance: the sum of squared distances from the mean, by n − `ddof`."""

    @method("std")
    def std(self, axis: Axes = None, ddof: int = 0, keepdims: bool = False) -> Self:
        """The standard deviation, the root of the variance."""

    @method("median")
    def median(self, axis: Axes = None, keepdims: bool = False) -> Self:
        """The median; of an even number of elements the mean of both in the middle."""

    @method("quantile")
    def quantile(
        self, q: Any, axis: Axes = None, method: str = "linear", keepdims: bool = False
    ) -> Self:
        """The element that a share `q` of the elements is below."""

    @method("kthvalue")
    def kthvalue(self, k: Any, axis: int = -1, keepdims: bool = False) -> tuple[Self, Self]:
        """The k-th least element, counted from 1, and its index."""

    @method("argmax")
    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Self:
        """The index of the greatest element, the first of equal ones."""

    @method("argmin")
    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Self:
        """The index of the least element, the first of equal ones."""

    @method("cumsum")
    def cumsum(
        self, axis: int | None = None, exclusive: bool = False, reverse: bool = False
    ) -> Self:
        """The running sum."""

    @method("cumprod")
    def cumprod(
        self, axis: int | None = None, exclusive: bool = False, reverse: bool = False
    ) -> Self:
        """The running product."""

    @method("cummax")
    def cummax(self, axis: int | None = None) -> tuple[Self, Self]:
        """The running maximum, and its indices."""

    @method("cummin")
    def cummin(self, axis: int | None = None) -> tuple[Self, Self]:
        """The running minimum, and its indices."""

    @method("logcumsumexp")
    def logcumsumexp(self, axis: int | None = None) -> Self:
        """The logarithm of the running sum of exponentials."""

    @method("searchsorted")
    def searchsorted(self, v: Any, side: str = "left") -> Self:
        """Where `v` would stand among these elements, which are in order."""

    @method("scatter")
    def scatter(self, indices: Any, updates: Any, axis: int = 0, reduction: str = "none") -> Self:
        """The value with `updates` at the places `indices` along an axis."""

    @method("nonzero")
    def nonzero(self) -> tuple[Self, ...]:
        """The indices of the elements that are not zero, one vector for each axis."""

    @method("argwhere")
    def argwhere(self) -> Self:
        """The indices of the elements that are not zero, one row each."""

    @method("masked_select")
    def masked_select(self, mask: Any) -> Self:
        """The elements where the mask is true, as a vector."""

    @method("diff")
    def diff(self, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Self:
        """The differences of neighbours, `n` times."""

    @method("roll")
    def roll(self, shift: Any, axis: int | Sequence[int] | None = None) -> Self:
        """The elements moved along the axes; those that leave come back at the other end."""

    @method("rot90")
    def rot90(self, k: int = 1, axes: Sequence[int] = (0, 1)) -> Self:
        """Turned by 90°, `k` times, in the plane of two axes."""

    @method("tril")
    def tril(self, k: Any = 0) -> Self:
        """The lower triangle of matrices, with zeros above diagonal `k`."""

    @method("triu")
    def triu(self, k: Any = 0) -> Self:
        """The upper triangle of matrices, with zeros below diagonal `k`."""

    @method("diag")
    def diag(self, k: Any = 0) -> Self:
        """The matrix of that diagonal, or the diagonal of that matrix."""

    @method("diagonal")
    def diagonal(self, offset: Any = 0, axis1: int = 0, axis2: int = 1) -> Self:
        """The diagonals of matrices along two axes."""

    @method("trace")
    def trace(self, offset: Any = 0, axis1: int = 0, axis2: int = 1) -> Self:
        """The sums of the diagonals."""

    @method("reshape")
    def reshape(self, shape: Any, *more: Any) -> Self:
        """The same elements in another shape."""

    @method("transpose")
    def transpose(self, axes: int | Sequence[int] | None = None, *more: int) -> Self:
        """The axes in another order; reversed by default."""

    @method("squeeze")
    def squeeze(self, axis: int | Sequence[int] | None = None) -> Self:
        """Without axes of size 1."""

    @method("flatten")
    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Self:
        """Neighbouring axes as one."""

    @method("cast")
    def astype(self, dtype: Any) -> Self:
        """The elements as another type."""

    @method("clip")
    def clip(self, min: Any = None, max: Any = None) -> Self:
        """The elements, bounded from below and above."""

    @property
    @method("transpose")
    def T(self) -> Self:
        """The transpose: all axes reversed."""

    @property
    @method("size")
    def size(self) -> Dim:
        """The number of elements, a dimension."""
