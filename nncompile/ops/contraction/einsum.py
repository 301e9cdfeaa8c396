"""Sums of products in index notation, and what is short for one."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, multiply, where
from nncompile.ir.basic import as_value, cast
from nncompile.ir.dims import Dim, Shape, is_one, product, same
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64, i32, i64, u32
from nncompile.ops.contraction.lowering import long_product, matrix_products
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.contraction.operands import element_type, promoted
from nncompile.ops.core.axes import axis_of
from nncompile.ops.core.counting import iota
from nncompile.ops.core.long_sums import PRODUCTS, total, whole_total
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import reshape, squeeze, transpose


def _grouped(
    o: OnnxEmitter,
    x: str,
    letters: str,
    batch: Sequence[str],
    groups: Sequence[Sequence[str]],
    sizes: Mapping[str, Dim],
) -> str:
    """`x` with the batch first and each group behind it as one axis."""
    x = _permuted(o, x, letters, [*batch, *(i for group in groups for i in group)])
    if all(len(group) == 1 for group in groups):
        return x
    merged = [product(sizes[i] for i in group) for group in groups]
    return o.Reshape(x, o.shape([*(sizes[i] for i in batch), *merged]), allowzero=1)


class Einsum(Op):
    """Two tensors multiplied along equal letters and summed over those that `output` lacks.

    No letter stands twice in one tensor, and each in two of `left`, `right` and `output`, so the
    gradients are sums of the same kind; `einsum` brings every notation into this form.
    """

    left: str
    right: str
    output: str

    def infer(self, a: Type, b: Type) -> Type:
        dtype = element_type(a, b)
        sizes = _sizes((self.left, self.right), (a.shape, b.shape))
        return Type(dtype, tuple(sizes[letter] for letter in self.output))

    def pullback(self, g: Value, y: Value, a: Value, b: Value) -> Sequence[Value | None]:
        if not y.dtype.is_float:
            return (None, None)
        return (
            Einsum(self.output, self.right, self.left)(g, b),
            Einsum(self.left, self.output, self.right)(a, g),
        )

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        terms = list(zip(row_axes, (self.left, self.right), strict=True))
        letters = {text[axis] for axis, text in terms if axis is not None}
        if len(letters) != 1:
            return None
        (letter,) = letters
        if any(axis is None and letter in text for axis, text in terms):
            return None
        return self.output.index(letter) if letter in self.output else None

    def numpy(self, a: Array, b: Array) -> Array:
        return np.asarray(np.einsum(f"{self.left},{self.right}->{self.output}", a, b))

    def onnx(self, o: OnnxEmitter, a: str, b: str) -> str:
        """Transposed and regrouped, it is one batched matrix product, which is faster than the
        runtime's Einsum; without rows and columns it is a product of elements and a sum."""
        sizes = _sizes((self.left, self.right), tuple(t.shape for t in o.types))
        inner = [x for x in self.left if x not in self.output]
        batch = [x for x in self.left if x in self.right and x in self.output]
        rows = [x for x in self.left if x not in self.right]
        columns = [x for x in self.right if x not in self.left]
        if not inner or (batch and not rows and not columns):
            return self._elementwise(o, a, b, inner, sizes)
        left = _grouped(o, a, self.left, batch, (rows, inner), sizes)
        right = _grouped(o, b, self.right, batch, (inner, columns), sizes)
        merged = [product(sizes[i] for i in group) for group in (rows, inner, columns)]
        y = self._multiplied(o, left, right, [sizes[i] for i in batch], merged)
        order = [*batch, *rows, *columns]
        if len(rows) != 1 or len(columns) != 1:
            y = o.Reshape(y, o.shape([sizes[i] for i in order]), allowzero=1)
        return _permuted(o, y, "".join(order), list(self.output))

    def _elementwise(
        self, o: OnnxEmitter, a: str, b: str, inner: list[str], sizes: Mapping[str, Dim]
    ) -> str:
        """The product of the elements, summed over the axes `inner`."""
        order = [*self.output, *inner]
        y = o.Mul(_aligned(o, a, self.left, order), _aligned(o, b, self.right, order))
        if not inner:
            return y
        type_ = Type(o.type.dtype, tuple(sizes[i] for i in order))
        add = total if o.type.dtype.is_float else whole_total
        return add(o, y, type_, range(len(self.output), len(order)))

    def _multiplied(
        self, o: OnnxEmitter, a: str, b: str, batch: list[Dim], merged: list[Dim]
    ) -> str:
        """The products of stacks of matrices of so many rows, elements to sum, and columns."""
        rows, inner, columns = merged
        left, right = (Type(o.type.dtype, (*batch, *x)) for x in ((rows, inner), (inner, columns)))

        def few(o: OnnxEmitter) -> str:
            return matrix_products(o, a, b, merged, bool(batch))

        def many(o: OnnxEmitter) -> str:
            return long_product(o, a, b, left, right)

        if o.type.dtype is not f32:
            return few(o)
        result = left.with_shape((*batch, rows, columns))
        return o.by_size(inner, PRODUCTS, few, many, result)

    def torch(self, t: TorchEmitter, a: str, b: str) -> str:
        equation = f'"{self.left},{self.right}->{self.output}"'
        if t.type.dtype is not f32:
            return t.wrapped(t.call("torch.einsum", equation, [a, b]), t.type.dtype)
        sizes = _sizes((self.left, self.right), tuple(x.shape for x in t.types))
        inner = product(size for x, size in sizes.items() if x not in self.output)
        single = f"torch.einsum({equation}, [{a}, {b}])"
        double = f"torch.einsum({equation}, [{a}.double(), {b}.double()]).float()"
        return t.by_size(inner, PRODUCTS, single, double, "einsum")

    def macs(self, result: Type, *types: Type) -> Dim:
        sizes = _sizes((self.left, self.right), tuple(t.shape for t in types))
        return product(sizes.values()) if sizes.keys() - set(self.output) else 0

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls("ij", "jk", "ik"), (f32["n", "k"], f32["k", 3]))
        yield Sample(cls("bhqd", "bhkd", "bhqk"), (f32["b", 2, "q", 3], f32["b", 2, "k", 3]))
        yield Sample(cls("abc", "cbd", "da"), (f32["n", 2, 3], f32[3, 2, "m"]))
        yield Sample(cls("abcd", "ce", "bdea"), (f32[2, 3, "n", 2], f32["n", 2]))
        yield Sample(cls("bi", "bi", "b"), (f32["n", 3], f32["n", 3]))
        yield Sample(cls("i", "j", "ji"), (f32["n"], f32["m"]))
        yield Sample(cls("ij", "ij", "ij"), (f32["n", 2], f32["n", 2]))
        yield Sample(cls("ij", "ij", ""), (f32["n", 2], f32["n", 2]))
        yield Sample(cls("", "ij", "ji"), (f32[()], f32["n", 2]))
        yield Sample(cls("", "", ""), (f64[()], f64[()]))
        yield Sample(cls("ij", "j", "i"), (i64["n", "k"], i64["k"]), integers=(-9, 9))
        yield Sample(cls("ij", "kj", "ki"), (i32["n", "k"], i32[2, "k"]), integers=(-9, 9))
        yield Sample(cls("ij", "kj", "ik"), (u32["n", "k"], u32[2, "k"]), integers=(0, 2**32))


def _permuted(o: OnnxEmitter, x: str, letters: str, order: list[str]) -> str:
    permutation = [letters.index(i) for i in order]
    return x if permutation == [*range(len(order))] else o.Transpose(x, perm=permutation)


def _aligned(o: OnnxEmitter, x: str, letters: str, order: list[str]) -> str:
    """`x` with its axes in that order, and axes of size one for letters that it lacks."""
    x = _permuted(o, x, letters, [i for i in order if i in letters])
    missing = [n for n, i in enumerate(order) if i not in letters]
    return o.Unsqueeze(x, o.ints(missing)) if missing else x


def _sizes(terms: Sequence[str], shapes: Sequence[Shape], prefix: str = "") -> dict[str, Dim]:
    """The size of every letter. Raises `ShapeError` where a letter has two."""
    sizes: dict[str, Dim] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape):
            raise ShapeError(
                f"{term!r} has {len(term)} letters, but the tensor has rank {len(shape)}"
            )
        for letter, size in zip(term, shape, strict=True):
            known = sizes.setdefault(letter, size)
            is_same = same(known, size)
            if is_same is False:
                raise ShapeError(f"{prefix}index {letter} has sizes {known} ≠ {size}")
            if is_same is None:
                error = ShapeError(
                    f"{prefix}cannot tell whether the sizes {known} and {size} of index {letter} "
                    "are equal",
                    hint="give both axes the same name, or write one size in terms of the other",
                )
                error.undecided = known, size
                raise error
    return sizes


@suggests_names
def dot(a: Any, b: Any) -> Value:
    """numpy's `dot`: the last axis of `a` with the last but one of `b`; a number multiplies."""
    a, b = as_value(a), as_value(b)
    if not a.rank or not b.rank:
        result: Value = multiply(a, b)
        return result
    return matmul(a, b) if b.rank <= 2 else tensordot(a, b, ((-1,), (-2,)))


@suggests_names
def outer(a: Any, b: Any) -> Value:
    """Every element of `a` times every element of `b`: `[size of a, size of b]`."""
    a, b = as_value(a), as_value(b)
    column, row = reshape(a, (product(a.shape), 1)), reshape(b, (1, product(b.shape)))
    return multiply(column, row)


@suggests_names
def tensordot(
    a: Any, b: Any, axes: int | tuple[int | Sequence[int], int | Sequence[int]] = 2
) -> Value:
    """Sums of products over pairs of axes: the last `axes` of `a` with the first of `b`, or
    `axes = (axes of a, axes of b)`. The other axes follow in their order."""
    a, b = as_value(a), as_value(b)
    if isinstance(axes, int):
        axes = range(a.rank - axes, a.rank), range(axes)
    pairs = [(x,) if isinstance(x, int) else tuple(x) for x in axes]
    left_axes = [axis_of(i, a.rank, "tensordot: axis") for i in pairs[0]]
    right_axes = [axis_of(i, b.rank, "tensordot: axis") for i in pairs[1]]
    if len(left_axes) != len(right_axes):
        raise ShapeError(f"tensordot: {len(left_axes)} axes cannot pair with {len(right_axes)}")
    left = string.ascii_letters[: a.rank]
    right = list(string.ascii_letters[a.rank : a.rank + b.rank])
    for i, j in zip(left_axes, right_axes, strict=True):
        right[j] = left[i]
    free = [x for x in left if x not in right] + [x for x in right if x not in left]
    return einsum(f"{left},{''.join(right)}->{''.join(free)}", a, b)


@suggests_names
def einsum(subscripts: str, *operands: Any) -> Value:
    """Sums of products in index notation, all of numpy's: `"ij,jk->ik"`, `"...ij,...jk"`,
    `"ii->i"` (a diagonal), `"ij->"` (a sum), `"i,j,ij->"`. Axes of size one broadcast.

    Several operands are contracted one after the other, next to those that share most letters.
    Raises `ShapeError` for a notation that does not fit the operands.
    """
    if not operands:
        raise ShapeError("einsum: no operands")
    values = promoted(*operands)
    terms, output = _parsed(subscripts, [v.rank for v in values])
    pairs = [_without_repeats(v, t) for v, t in zip(values, terms, strict=True)]
    sizes = [dict(zip(t, v.shape, strict=True)) for v, t in pairs]
    pairs = [_without_ones(v, t, sizes) for v, t in pairs]
    pending = [
        _without_lone_axes(*pairs[i], output, pairs[:i] + pairs[i + 1 :]) for i in range(len(pairs))
    ]
    value, term = pending.pop(0)
    while pending:
        shared = [len(set(term) & set(t)) for _, t in pending]
        other, letters = pending.pop(shared.index(max(shared)))
        used = set(output).union(*(t for _, t in pending))
        result_letters = [i for i in dict.fromkeys(term + letters) if i in used]
        result = "".join(result_letters if pending else output)
        value, term = Einsum(term, letters, result)(value, other), result
    return transpose(value, [term.index(i) for i in output])


def _parsed(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """A term of letters for each operand, and that of the result; the axes that "..." stands for
    get letters that nothing else has."""

    def bad(problem: str) -> ShapeError:
        return ShapeError(
            f"einsum: {problem} in {subscripts!r}",
            hint='write letters for axes, such as "ij,jk->ik" or "...ij,...jk->...ik"',
        )

    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ranks):
        raise bad(f"{len(terms)} terms for {len(ranks)} operands")
    named = [t.replace("...", "", 1) for t in (*terms, result)]
    letters = set("".join(named))
    if not letters <= set(string.ascii_letters):
        raise bad("something that is not a letter")
    free = [x for x in string.ascii_letters if x not in letters]
    counts = []
    for term, name, rank in zip(terms, named, ranks, strict=False):
        counts.append(rank - len(name))
        if counts[-1] < 0 or (counts[-1] and term == name):
            raise bad(f"{term!r} for a tensor of rank {rank}")
    widest = "".join(free[: max(counts)])
    expanded = [
        term.replace("...", widest[len(widest) - count :])
        for term, count in zip(terms, counts, strict=True)
    ]
    if not arrow:
        text = "".join(named[:-1])
        return expanded, widest + "".join(x for x in sorted(letters) if text.count(x) == 1)
    if widest and "..." not in result:
        raise bad('no "..." in the result, although it stands for axes,')
    output = result.replace("...", widest)
    if len(set(output)) != len(output) or not set(output) <= set("".join(expanded)):
        raise bad(f"a result {result!r} that has a letter twice or one that no operand has")
    return expanded, output


def _without_repeats(x: Value, term: str) -> tuple[Value, str]:
    """Axes of one letter as one: the diagonal, as a sum in which all else is zero."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first, last = term.index(letter), term.rindex(letter)
            _sizes([letter * 2], [(x.shape[first], x.shape[last])], "einsum: ")
            indices = [
                reshape(iota(x.shape[i]), [d if j == i else 1 for j, d in enumerate(x.shape)])
                for i in (first, last)
            ]
            x = cast(Sum((last,))(where(equal(*indices), x, 0)), x.dtype)
            term = term[:last] + term[last + 1 :]
    return x, term


def _without_ones(x: Value, term: str, sizes: Sequence[dict[str, Dim]]) -> tuple[Value, str]:
    """Without axes of size one that broadcast to those of another operand."""
    wide = {i for table in sizes for i, size in table.items() if not is_one(size)}
    dropped = [n for n, i in enumerate(term) if is_one(x.shape[n]) and i in wide]
    return squeeze(x, dropped), "".join(i for n, i in enumerate(term) if n not in dropped)


def _without_lone_axes(
    x: Value, term: str, output: str, other_operands: Sequence[tuple[Value, str]]
) -> tuple[Value, str]:
    """Summed over the letters that nothing else has."""
    known = set(output).union(*(t for _, t in other_operands))
    axes = tuple(n for n, i in enumerate(term) if i not in known)
    summed = cast(Sum(axes)(x), x.dtype) if axes else x
    return summed, "".join(i for i in term if i in known)
