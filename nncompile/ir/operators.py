"""The operators and methods of a value: numpy's, each looked up by name in a table that the
formulas and op cards fill, so that the graph needs to know none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import sympy as sp

from nncompile.diagnostics.errors import FormulaError, ShapeError, UnknownNameError, did_you_mean
from nncompile.diagnostics.locations import spoken
from nncompile.ir.dims import Dim

if TYPE_CHECKING:
    from nncompile.ir.graph import Value

_table: dict[str, Callable[..., Any]] = {}
# numpy's names of ufuncs that have another one here.
_UFUNC_NAMES = {"true_divide": "divide", "remainder": "mod", "float_power": "power"}
_NO_NUMBERS = (
    "trainer.predict(...), or evaluate(x, feeds) of nncompile.ir.interpreter, gives its numbers"
)
# What other libraries' methods are called here.
_HABITS = {
    "amax": "x.max(axis)",
    "amin": "x.min(axis)",
    "clamp": "x.clip(low, high)",
    "inverse": "inv(x)",
    "numel": "x.size",
    "view": "x.reshape(...)",
    "permute": "x.transpose(axes)",
    "unsqueeze": "expand_dims(x, axis)",
    "detach": "stop_gradient(x)",
    "float": "x.astype(f32)",
    "half": "x.astype(f16)",
    "bfloat16": "x.astype(bf16)",
    "double": "x.astype(f64)",
    "long": "x.astype(i64)",
    "dim": "x.rank",
    "gather": "take_along_axis(x, indices, axis)",
    "index_select": "take(x, indices, axis)",
    "masked_fill": "where(mask, number, x)",
    "scatter_reduce": "put_along_axis(x, indices, values, axis, reduction='max')",
    "topk": "top_k(x, k)",
    "backward": "training(model, minimize=...) trains, grad(y, [x]) is the slope",
    "numpy": _NO_NUMBERS,
    "item": _NO_NUMBERS,
    "tolist": _NO_NUMBERS,
}


def register(name: str, function: Callable[..., Any]) -> None:
    """Makes `function` what operator or method `name` of a value calls."""
    _table[name] = function


def _binary(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    @spoken()
    def forward(self: Any, other: Any) -> Any:
        return _table[name](self, other)

    @spoken()
    def backward(self: Any, other: Any) -> Any:
        return _table[name](other, self)

    return forward, backward


def _method(name: str) -> Callable[..., Any]:
    @spoken()
    def method(self: Any, *args: Any, **options: Any) -> Any:
        return _table[name](self, *args, **options)

    method.__name__ = name
    method.__doc__ = f"`{name}(self, …)`"
    return method


def _no_number(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise FormulaError(
        f"a value has no numbers while the graph is built: {self.type}", hint=_NO_NUMBERS
    )


class Operators:
    """Python's operators, numpy's methods, and numpy's elementwise functions on values."""

    __slots__ = ()

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
    __floor__ = _method("floor")
    __ceil__ = _method("ceil")
    __trunc__ = _method("trunc")
    __getitem__ = _method("getitem")

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return _table["floor_divide"](self, other), _table["mod"](self, other)

    def __rdivmod__(self, other: Any) -> tuple[Any, Any]:
        return _table["floor_divide"](other, self), _table["mod"](other, self)

    def __rshift__(self, other: Any) -> Any:
        """`x >> layer` applies the layer; with an integer it shifts bits."""
        if isinstance(other, type):
            raise FormulaError(
                f"{other.__name__} is a class", hint=f"make one of it: x >> {other.__name__}(...)"
            )
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
    cumprod = _method("cumprod")
    cummax = _method("cummax")
    cummin = _method("cummin")
    logcumsumexp = _method("logcumsumexp")
    median = _method("median")
    quantile = _method("quantile")
    kthvalue = _method("kthvalue")
    searchsorted = _method("searchsorted")
    scatter = _method("scatter")
    nonzero = _method("nonzero")
    argwhere = _method("argwhere")
    masked_select = _method("masked_select")
    diff = _method("diff")
    roll = _method("roll")
    rot90 = _method("rot90")
    tril = _method("tril")
    triu = _method("triu")
    diag = _method("diag")
    diagonal = _method("diagonal")
    trace = _method("trace")
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

    __float__ = __int__ = __index__ = __complex__ = __array__ = _no_number

    def _sympy_(self) -> NoReturn:
        raise sp.SympifyError(self)  # so that `dimension * value` is asked of the value

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        # Also what numpy calls for `array + value`; without it, it would build arrays of objects.
        name = _UFUNC_NAMES.get(ufunc.__name__, ufunc.__name__)
        if method != "__call__" or options or name not in _table:
            raise FormulaError(
                f"numpy's {ufunc.__name__} does not work on values: {_types(inputs)}",
                hint="nncompile.elementwise and nncompile.ops have functions of numpy's names",
            )
        return _table[name](*inputs)

    def __array_function__(self, function: Any, _: Any, args: Any, __: Any) -> NoReturn:
        raise FormulaError(
            f"numpy's {function.__name__} does not work on values: {_types(args)}",
            hint=f"nncompile.ops has functions of numpy's names, {function.__name__} or the like",
        )

    if not TYPE_CHECKING:  # or a type checker would take every name for one that is there

        def __getattr__(self, name: str) -> NoReturn:
            # Python and numpy ask for names of their own to see what a thing can do.
            if name.startswith("_"):
                raise AttributeError(name)
            if hasattr(type(self), name):  # a shape or an element type: there are several
                raise UnknownNameError(
                    f"these are several values, {self.type}, which have no {name!r} of their own",
                    hint="items(x) of nncompile.ir.graph is each of them",
                )
            hint = f"{name}(x) is a function" if name in _table else _HABITS.get(name)
            methods = [known for known in dir(type(self)) if not known.startswith("_")]
            raise UnknownNameError(
                f"a value has no {name!r}", hint=hint or did_you_mean(name, methods)
            )

    def __bool__(self) -> bool:
        raise FormulaError(
            f"a value has no truth value while the graph is built: {self.type}",  # type: ignore[attr-defined]
            hint="where(condition, a, b) chooses elementwise; & | ~ combine conditions; "
            "`x is y` asks whether two values are one node",
        )

    def __setitem__(self, *_: Any) -> NoReturn:
        raise FormulaError(
            "a value does not change",
            hint="x = where(mask, y, x) or x = scatter(x, places, y) is x with others in place",
        )

    def __contains__(self, _: Any) -> bool:
        raise FormulaError("`in` needs a truth value", hint="(x == y).max() is elementwise")


def _types(args: Any) -> str:
    return ", ".join(str(x.type) for x in args if isinstance(x, Operators)) or repr(args)  # type: ignore[attr-defined]
