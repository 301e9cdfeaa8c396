"""The operators and methods of a value: numpy's, each looked up by name in a table that the
formulas and op cards fill, so that the graph needs to know none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nncompile.dims import Dim
from nncompile.errors import FormulaError, ShapeError

if TYPE_CHECKING:
    from nncompile.graph import Value

_table: dict[str, Callable[..., Any]] = {}


def register(name: str, function: Callable[..., Any]) -> None:
    """Makes `function` what operator or method `name` of a value calls."""
    _table[name] = function


def operation(name: str) -> Callable[..., Any]:
    """The function registered under that name."""
    return _table[name]


def _binary(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(self: Any, other: Any) -> Any:
        return _table[name](self, other)

    def backward(self: Any, other: Any) -> Any:
        return _table[name](other, self)

    return forward, backward


def _method(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **options: Any) -> Any:
        return _table[name](self, *args, **options)

    method.__name__ = name
    method.__doc__ = f"`{name}(self, …)`"
    return method


class Operators:
    """Python's operators and numpy's methods on values."""

    __slots__ = ()
    __array_ufunc__ = None  # or numpy would build arrays of objects

    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("subtract")
    __mul__, __rmul__ = _binary("multiply")
    __truediv__, __rtruediv__ = _binary("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide")
    __mod__, __rmod__ = _binary("mod")
    __pow__, __rpow__ = _binary("power")
    __matmul__, __rmatmul__ = _binary("matmul")
    __and__, __rand__ = _binary("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor")
    __lshift__, __rlshift__ = _binary("left_shift")
    _shifted, __rrshift__ = _binary("right_shift")
    __lt__, _ = _binary("less")
    __le__, _ = _binary("less_equal")
    __gt__, _ = _binary("greater")
    __ge__, _ = _binary("greater_equal")
    __eq__, _ = _binary("equal")
    __ne__, _ = _binary("not_equal")
    del _

    __neg__ = _method("negative")
    __pos__ = _method("positive")
    __abs__ = _method("abs")
    __invert__ = _method("invert")
    __round__ = _method("round")
    __getitem__ = _method("getitem")

    def __rshift__(self, other: Any) -> Any:
        """`x >> layer` applies the layer; with an integer it shifts bits."""
        if callable(other) and not isinstance(other, Operators):
            return other(self)
        return self._shifted(other)

    sum = _method("sum")
    mean = _method("mean")
    max = _method("max")
    min = _method("min")
    prod = _method("prod")
    var = _method("var")
    std = _method("std")
    argmax = _method("argmax")
    argmin = _method("argmin")
    cumsum = _method("cumsum")
    reshape = _method("reshape")
    transpose = _method("transpose")
    squeeze = _method("squeeze")
    flatten = _method("flatten")
    astype = _method("cast")
    clip = _method("clip")

    @property
    def T(self) -> Value:
        """The transpose: all axes reversed."""
        return _table["transpose"](self)  # type: ignore[no-any-return]

    @property
    def size(self) -> Dim:
        """The number of elements, a dimension."""
        return _table["size"](self)

    def __len__(self) -> int:
        first = self.shape[0] if self.shape else None  # type: ignore[attr-defined]
        if not isinstance(first, int):
            raise ShapeError(
                f"len() of {self.type}: the first size is not a number",  # type: ignore[attr-defined]
                hint="x.shape[0] is the symbolic size, and mixes with values in arithmetic",
            )
        return first

    def __iter__(self) -> Iterator[Value]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        raise FormulaError(
            f"a value has no truth value while the graph is built: {self.type}",  # type: ignore[attr-defined]
            hint="where(condition, a, b) chooses elementwise; & | ~ combine conditions; "
            "`x is y` asks whether two values are one node",
        )

    def __contains__(self, _: Any) -> bool:
        raise FormulaError("`in` needs a truth value", hint="(x == y).max() is elementwise")
