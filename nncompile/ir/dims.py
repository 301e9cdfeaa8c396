"""Symbolic dimensions: an int, or a sympy expression over non-negative integer symbols.

Comparing two dimensions has three answers: equal, different, and unknown.
"""

from __future__ import annotations

import ast
import keyword
import operator
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, TypeAlias

import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.ir.size_arithmetic import FloorDiv, computed

Dim: TypeAlias = int | sp.Expr
Shape: TypeAlias = tuple[Dim, ...]


def _unfloor(x: sp.Expr) -> sp.Expr:
    """sympy turns (s-1)//2 into floor(s/2 - 1/2); this turns it back."""
    return FloorDiv(*sp.fraction(sp.together(x)))


_ARITHMETIC = (sp.Integer, sp.Add, sp.Mul, FloorDiv, sp.Mod, sp.Max, sp.Min)
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: lambda a, b: FloorDiv(sp.sympify(a), sp.sympify(b)),
    ast.Mod: operator.mod,
}


_LONGEST = 1000  # characters of a size in text
_parser_lock = threading.Lock()  # Python 3.11 counts the depth of all its parsers in one place


def _parse(text: str) -> Dim:
    if text.isidentifier() and not keyword.iskeyword(text):
        return symbol(text)
    error = ShapeError(
        f"{text!r} is not a dimension",
        hint='write a name or arithmetic of names, such as "batch" or "4*h"',
    )

    def walk(node: ast.expr) -> Any:
        match node:
            case ast.Name(id=name):
                return symbol(name)
            case ast.Constant(value=int(value)):
                return value
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](walk(left), walk(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -walk(operand)
            case ast.Call(func=ast.Name(id="Min" | "Max" as name), args=args, keywords=[]) if args:
                return getattr(sp, name)(*map(walk, args))
        raise error

    if len(text) > _LONGEST:
        raise error
    try:
        with _parser_lock:
            tree = ast.parse(text.strip(), mode="eval")
        return dim(walk(tree.body))
    except ShapeError:
        raise
    except (SyntaxError, ZeroDivisionError, ValueError, RecursionError, MemoryError):
        raise error from None  # files of others have any text here


@cache
def symbol(name: str) -> sp.Symbol:
    """The dimension called `name`; equal names are equal dimensions."""
    return sp.Symbol(name, integer=True, nonnegative=True)


_MOST_PARTS = 1000  # of a size: what doubles again and again ends here
_HIGHEST = 64  # power of a size


@lru_cache(maxsize=4096)  # equal sizes are asked about again and again
def _is_arithmetic(x: sp.Expr) -> bool:
    """Whether it is made of integers, their sums, products and whole quotients. Raises
    `ShapeError` for one of very many parts."""
    for count, part in enumerate(sp.preorder_traversal(x)):
        is_high = part.is_Pow and part.exp.is_Integer and part.exp > _HIGHEST
        if count == _MOST_PARTS or is_high or (part.is_Integer and abs(part.p) >= 1 << 63):
            raise ShapeError(
                "a size is an expression too long to compute with: it has more than "
                f"{_MOST_PARTS:,} parts, a power above {_HIGHEST} or a number beyond 64 bits"
            )
        if not (
            isinstance(part, _ARITHMETIC)
            or (part.is_Symbol and part.is_integer)
            or (part.is_Pow and part.exp.is_Integer and part.exp > 0)
        ):
            return False
    return True


def dim(x: Any) -> Dim:
    """A dimension from an int, a name, arithmetic in text, or a sympy expression.

    Raises `ShapeError` for what is not integer arithmetic.

    >>> dim("2*batch"), dim(3), dim((symbol("s") + 1) // 2)
    (2*batch, 3, (s + 1)//2)
    """
    if isinstance(x, bool):
        raise ShapeError(f"a size must be an integer, got {x!r}")
    if isinstance(x, int):
        return x
    if isinstance(x, str):
        return _parse(x)
    if isinstance(x, sp.Expr):
        if x.is_Symbol and x.is_integer:  # most are
            return x
        if x.has(sp.floor):
            if x.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
                raise ShapeError(f"a size is divided by zero: {x}")
            x = x.replace(sp.floor, _unfloor)
        if not _is_arithmetic(x):
            raise ShapeError(
                f"a size must be an integer, got {x}",
                hint='name sizes by strings, such as "n", and divide them by //',
            )
        return int(x) if x.is_Integer else x
    if hasattr(x, "__index__"):
        return int(x.__index__())
    hint = 'an open size has a name: f32["batch", 3]' if x is None or x is ... else None
    raise ShapeError(f"a size must be an integer or a name, got {x!r}", hint=hint)


def same(a: Dim, b: Dim) -> bool | None:
    """Whether two dimensions are equal: True, False, or None where that depends on the sizes."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if a == b:
        return True
    difference = sp.expand(sp.sympify(a) - sp.sympify(b))
    if difference.is_zero:
        return True
    if difference.is_positive or difference.is_negative:
        return False
    return None


def is_same(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are the same expression when they are multiplied out: a quick look,
    which does not ask what is known of their sizes."""
    return bool(a == b or sp.expand(sp.sympify(a) - sp.sympify(b)) == 0)


def same_where_enough(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are equal where slices find as much as they ask for: Min(3, n) and 3
    are. Whether they do is for a node to check, which `Reshape` does."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    difference = sp.sympify(a) - sp.sympify(b)
    limits = {m: m.args[0] for m in difference.atoms(sp.Min) if m.args[0].is_Integer}
    return bool(sp.expand(difference.xreplace(limits)).is_zero)


def same_shape(a: Shape, b: Shape) -> bool | None:
    """Whether two shapes are equal, axis by axis: True, False or None (unknown)."""
    if a == b:  # most are, as they are written
        return True
    if len(a) != len(b):
        return False
    comparisons = [same(x, y) for x, y in zip(a, b, strict=True)]
    if all(comparisons):
        return True
    return False if False in comparisons else None


def is_one(d: Dim) -> bool:
    """Whether the size is the number one (a name may come to be one, but is not)."""
    return bool(d == 1)


CLIPPED = (
    'a slice takes at most what is there: x[:3] has 3 elements if the axis is declared "n + 3"'
)
"""The hint about a size of a slice that should be a number."""


def is_clipped(d: Dim) -> bool:
    """Whether the size is that of a slice of an axis that may have less than is asked for."""
    return isinstance(d, sp.Expr) and not d.is_Symbol and d.has(sp.Min)


def is_one_of(d: Dim, size: Dim) -> bool:
    """Whether `d` is the size of `x[:1]` along an axis of that size: one where there is any
    element, so that it repeats to it."""
    if not isinstance(d, sp.Min) or 1 not in d.args:
        return False
    return same(d.func(*(a for a in d.args if a != 1)), size) is True


def broadcast(*shapes: Shape) -> Shape:
    """The common shape by numpy's rule. Raises `ShapeError` where axes differ, or where it is
    unknown whether they do."""
    if shapes and shapes.count(shapes[0]) == len(shapes):  # most are
        return shapes[0]
    return _common(shapes)


@lru_cache(maxsize=4096)
def _common(shapes: tuple[Shape, ...]) -> Shape:
    rank = max((len(s) for s in shapes), default=0)
    result: list[Dim] = []
    for axis in range(-rank, 0):
        size: Dim = 1
        for shape in shapes:
            if -axis > len(shape) or is_one(shape[axis]):
                continue
            if is_one(size):
                size = shape[axis]
                continue
            is_same = same(size, shape[axis])
            if is_same is False:
                raise ShapeError(f"sizes {size} ≠ {shape[axis]} on axis {axis} do not broadcast")
            if is_same is None:
                error = ShapeError(
                    f"cannot tell whether {size} = {shape[axis]} on axis {axis}",
                    hint=CLIPPED
                    if is_clipped(size) or is_clipped(shape[axis])
                    else "give both axes the same name, or write one size in terms of the other",
                )
                error.undecided, error.repeats = (size, shape[axis]), True
                raise error
        result.append(size)
    return tuple(result)


def broadcasts_to(shape: Shape, target: Shape) -> bool:
    """Whether a tensor of that shape is known to repeat to `target` by numpy's rule."""
    try:
        return same_shape(broadcast(shape, target), target) is True
    except ShapeError:
        return False


def product(dims: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    return _product(tuple(dims))


@lru_cache(maxsize=4096)
def _product(dims: Shape) -> Dim:
    total: Dim = 1
    for d in dims:
        total = total * d
    return dim(total)


@lru_cache(maxsize=4096)
def _written(size: sp.Expr) -> str:
    return str(size)


def text_of(size: Dim) -> str:
    """The size as it is printed, `2*batch`; sympy takes long for it, so that it is kept."""
    return _written(size) if isinstance(size, sp.Expr) else str(size)


def grouped(size: Dim) -> str:
    """A number as 1,234,567; a symbolic size as its expression."""
    return f"{size:,}" if isinstance(size, int) else text_of(size)


def with_axis(shape: Shape, axis: int, *sizes: Dim) -> Shape:
    """The shape with these sizes in place of that of the axis, counted from the front."""
    return (*shape[:axis], *sizes, *shape[axis + 1 :])


def floordiv(a: Dim, b: Dim) -> Dim:
    """`a // b` as a dimension."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    return dim(FloorDiv(sp.sympify(a), sp.sympify(b)))


def symbols(dims: Iterable[Dim]) -> set[sp.Symbol]:
    """The names that the dimensions depend on."""
    names: set[sp.Symbol] = set()
    for d in dims:
        if not isinstance(d, int):
            names |= d.free_symbols
    return names


def substitute(d: Dim, bindings: Mapping[sp.Symbol, Dim]) -> Dim:
    """The dimension with sizes in place of names."""
    if isinstance(d, int):
        return d
    if isinstance(d, sp.Symbol):  # most are
        return dim(bindings[d]) if d in bindings else d
    number = computed(d, bindings)
    if number is not None:
        return number
    return dim(d.xreplace({s: sp.sympify(size) for s, size in bindings.items()}))


def solve(declared: Sequence[Shape], actual: Sequence[tuple[int, ...]]) -> dict[sp.Symbol, int]:
    """The sizes of names, from the shapes of the data.

    A name may stand in arithmetic: `4*h` = 28 gives h = 7. Names that the shapes do not
    determine are left out. Raises `ShapeError` where the shapes contradict each other.
    """
    bindings: dict[sp.Symbol, int] = {}
    pending = [
        (d, n)
        for shape, sizes in zip(declared, actual, strict=True)
        for d, n in zip(shape, sizes, strict=True)
    ]
    while True:
        left = [(d, n) for d, n in pending if not _settle(d, n, bindings)]
        if len(left) == len(pending):
            return bindings
        pending = left


def _settle(d: Dim, n: int, bindings: dict[sp.Symbol, int]) -> bool:
    """Whether `d` = n is done with: checked, or solved for its one unknown name."""
    known = substitute(d, bindings)
    if isinstance(known, int):
        if known != n:
            raise ShapeError(f"expected size {known}{f' for {d}' if d != known else ''}, got {n}")
        return True
    if isinstance(known, sp.Symbol):
        bindings[known] = n
        return True
    unknown = sorted(known.free_symbols, key=str)
    if len(unknown) > 1 or not known.is_polynomial(*unknown):
        return False
    (name,) = unknown
    roots = [r for r in sp.roots(known - n, name) if r.is_Integer and r >= 0]
    if len(roots) == 1:
        bindings[name] = int(roots[0])
    elif not roots:
        raise ShapeError(f"no size of {name} makes {d} = {n}")
    return len(roots) == 1
