"""The operators of a value, and what it says to those that take it for an array or a number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

import sympy as sp

from nncompile.diagnostics.errors import FormulaError, ShapeError, UnknownNameError, did_you_mean
from nncompile.ir.array_methods import ArrayMethods
from nncompile.ir.dispatch import TABLE, method, operator, reflected
from nncompile.ir.types import Operand

Result = TypeVar("Result")
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
    "backward": "training(model, minimize=...) trains, grad(y, [x]) is the gradient",
    "numpy": _NO_NUMBERS,
    "item": _NO_NUMBERS,
    "tolist": _NO_NUMBERS,
}


def _no_number(self: Any, *_: Any, **__: Any) -> NoReturn:
    raise FormulaError(
        f"a value has no numbers while the graph is built: {self.type}", hint=_NO_NUMBERS
    )


class Operators(ArrayMethods):
    """Python's operators on values, and what numpy's functions do with them."""

    __slots__ = ()

    type: Any  # that of the value, or of several

    @operator("add")
    def __add__(self, other: Self | Operand) -> Self: ...
    @reflected("add")
    def __radd__(self, other: Self | Operand) -> Self: ...
    @operator("subtract")
    def __sub__(self, other: Self | Operand) -> Self: ...
    @reflected("subtract")
    def __rsub__(self, other: Self | Operand) -> Self: ...
    @operator("multiply")
    def __mul__(self, other: Self | Operand) -> Self: ...
    @reflected("multiply")
    def __rmul__(self, other: Self | Operand) -> Self: ...
    @operator("divide")
    def __truediv__(self, other: Self | Operand) -> Self: ...
    @reflected("divide")
    def __rtruediv__(self, other: Self | Operand) -> Self: ...
    @operator("floor_divide")
    def __floordiv__(self, other: Self | Operand) -> Self: ...
    @reflected("floor_divide")
    def __rfloordiv__(self, other: Self | Operand) -> Self: ...
    @operator("mod")
    def __mod__(self, other: Self | Operand) -> Self: ...
    @reflected("mod")
    def __rmod__(self, other: Self | Operand) -> Self: ...
    @operator("power")
    def __pow__(self, other: Self | Operand) -> Self: ...
    @reflected("power")
    def __rpow__(self, other: Self | Operand) -> Self: ...
    @operator("matmul")
    def __matmul__(self, other: Self | Operand) -> Self: ...
    @reflected("matmul")
    def __rmatmul__(self, other: Self | Operand) -> Self: ...
    @operator("bitwise_and")
    def __and__(self, other: Self | Operand) -> Self: ...
    @reflected("bitwise_and")
    def __rand__(self, other: Self | Operand) -> Self: ...
    @operator("bitwise_or")
    def __or__(self, other: Self | Operand) -> Self: ...
    @reflected("bitwise_or")
    def __ror__(self, other: Self | Operand) -> Self: ...
    @operator("bitwise_xor")
    def __xor__(self, other: Self | Operand) -> Self: ...
    @reflected("bitwise_xor")
    def __rxor__(self, other: Self | Operand) -> Self: ...
    @operator("left_shift")
    def __lshift__(self, other: Self | Operand) -> Self: ...
    @reflected("left_shift")
    def __rlshift__(self, other: Self | Operand) -> Self: ...
    @reflected("right_shift")
    def __rrshift__(self, other: Self | Operand) -> Self: ...
    @operator("less")
    def __lt__(self, other: Self | Operand) -> Self: ...
    @operator("less_equal")
    def __le__(self, other: Self | Operand) -> Self: ...
    @operator("greater")
    def __gt__(self, other: Self | Operand) -> Self: ...
    @operator("greater_equal")
    def __ge__(self, other: Self | Operand) -> Self: ...

    @operator("equal")
    def __eq__(  # type: ignore[override]  # elementwise, as numpy's
        self, other: object
    ) -> Self: ...
    @operator("not_equal")
    def __ne__(  # type: ignore[override]  # elementwise, as numpy's
        self, other: object
    ) -> Self: ...

    @method("negative")
    def __neg__(self) -> Self: ...
    @method("positive")
    def __pos__(self) -> Self: ...
    @method("abs")
    def __abs__(self) -> Self: ...
    @method("invert")
    def __invert__(self) -> Self: ...
    @method("floor")
    def __floor__(self) -> Self: ...
    @method("ceil")
    def __ceil__(self) -> Self: ...
    @method("trunc")
    def __trunc__(self) -> Self: ...
    @method("round")
    def __round__(self, decimals: int | None = 0) -> Self: ...
    @method("getitem")
    def __getitem__(self, key: Any) -> Self: ...

    def __divmod__(self, other: Self | Operand) -> tuple[Self, Self]:
        return TABLE["floor_divide"](self, other), TABLE["mod"](self, other)

    def __rdivmod__(self, other: Self | Operand) -> tuple[Self, Self]:
        return TABLE["floor_divide"](other, self), TABLE["mod"](other, self)

    @overload
    def __rshift__(self, other: Callable[[Self], Result]) -> Result: ...
    @overload
    def __rshift__(self, other: Self | Operand) -> Self: ...
    def __rshift__(self, other: Any) -> Any:
        """`x >> layer` applies the layer; with an integer it shifts bits."""
        if isinstance(other, type):
            raise FormulaError(
                f"{other.__name__} is a class", hint=f"create one: x >> {other.__name__}(...)"
            )
        if callable(other) and not isinstance(other, Operators):
            return other(self)
        return TABLE["right_shift"](self, other)

    def __len__(self) -> int:
        first = self.type.shape[0] if self.type.shape else None
        if not isinstance(first, int):
            raise ShapeError(
                f"len() of {self.type}: the first size is not a number",
                hint="x.shape[0] is the symbolic size, and mixes with values in arithmetic",
            )
        return first

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    __float__ = __int__ = __index__ = __complex__ = __array__ = _no_number

    def _sympy_(self) -> NoReturn:
        raise sp.SympifyError(self)  # so that `dimension * value` is asked of the value

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        # Also what numpy calls for `array + value`; without it, it would build arrays of objects.
        name = _UFUNC_NAMES.get(ufunc.__name__, ufunc.__name__)
        if method != "__call__" or options or name not in TABLE:
            raise FormulaError(
                f"numpy's {ufunc.__name__} does not work on values: {_types(inputs)}",
                hint="nncompile.elementwise and nncompile.ops have functions with numpy's names",
            )
        return TABLE[name](*inputs)

    def __array_function__(self, function: Any, _: Any, args: Any, __: Any) -> NoReturn:
        raise FormulaError(
            f"numpy's {function.__name__} does not work on values: {_types(args)}",
            hint=f"nncompile.ops has functions with numpy's names, such as {function.__name__}",
        )

    if not TYPE_CHECKING:  # or a type checker would take every name for one that is there

        def __getattr__(self, name: str) -> NoReturn:
            # Python and numpy ask for names of their own to see what a thing can do.
            if name.startswith("_"):
                raise AttributeError(name)
            if hasattr(type(self), name):  # a shape or an element type: there are several
                raise UnknownNameError(
                    f"a tuple of values has no {name!r}: {self.type}",
                    hint="items(x) of nncompile.ir.graph gives its values",
                )
            hint = f"{name}(x) is a function" if name in TABLE else _HABITS.get(name)
            methods = [known for known in dir(type(self)) if not known.startswith("_")]
            raise UnknownNameError(
                f"a value has no {name!r}", hint=hint or did_you_mean(name, methods)
            )

    def __bool__(self) -> bool:
        raise FormulaError(
            f"a value has no truth value while the graph is built: {self.type}",
            hint="where(condition, a, b) chooses elementwise; & | ~ combine conditions; "
            "`x is y` asks whether two values are one node",
        )

    def __setitem__(self, *_: Any) -> NoReturn:
        raise FormulaError(
            "a value is immutable",
            hint="x = where(mask, y, x) or x = scatter(x, indices, y) gives a changed copy",
        )

    def __contains__(self, _: Any) -> bool:
        raise FormulaError("`in` needs a truth value", hint="(x == y).max() is elementwise")


def _types(args: Any) -> str:
    return ", ".join(str(x.type) for x in args if isinstance(x, Operators)) or repr(args)
