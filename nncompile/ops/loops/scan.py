"""Loops over time: `scan`, whose body is a graph of its own.

The reverse rule is in `scan_gradient.py`, what passes do with loops in `nncompile.passes.loops`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import tanh
from nncompile.ir.basic import as_value
from nncompile.ir.dims import Dim, Shape, dim, product, same, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import Graph, toposort
from nncompile.ir.op import Backward, Op, Sample, Value, described
from nncompile.ir.precision import computed
from nncompile.ir.types import Array, TupleType, Type, f32, f64, i64
from nncompile.ops.core.axes import axis_of
from nncompile.ops.core.counting import iota
from nncompile.ops.loops.body import Body, Loop, applied, binder, fresh, iterating
from nncompile.ops.loops.scan_gradient import scan_gradients
from nncompile.ops.shape.reshape import moveaxis


class Scan(Op):
    """A loop along the first axis of `elements` sequences (from its end if `reverse`).

    Its arguments are the first values of `carries`, the sequences, and what the body takes from
    outside. The body computes the next carries, and results that are stacked along a first axis in
    the order of time. The results are the last carries and the stacks.
    """

    body: Body
    carries: int
    elements: int
    reverse: bool = False
    moves = True
    mixes = True

    def infer(self, *arguments: Type) -> TupleType:
        formals = [v.type for v in self.body.formals]
        if len(arguments) != len(formals) or not self.elements:
            raise ShapeError(f"a scan of {len(formals)} arguments got {len(arguments)}")
        expected = list(formals)
        length = arguments[self.carries].shape[0] if arguments[self.carries].rank else 0
        for i in range(self.carries, self.carries + self.elements):
            expected[i] = formals[i].with_shape((length, *formals[i].shape))
        for i, (actual, type_) in enumerate(zip(arguments, expected, strict=True)):
            if actual.dtype is not type_.dtype:
                raise DTypeError(f"argument {i} must be {type_}, got {actual}")
            if same_shape(actual.shape, type_.shape) is not True:
                raise ShapeError(f"argument {i} must be {type_}, got {actual}")
        for following, type_ in zip(self.body.results[: self.carries], formals, strict=False):
            if not _fits(following.type, type_):
                raise ShapeError(f"a carry of {type_} becomes {following.type}")
        stacked = [v.type for v in self.body.results[self.carries :]]
        return TupleType(
            (
                *formals[: self.carries],
                *(t.with_shape((length, *t.shape)) for t in stacked),
            )
        )

    def at(self, sizes: Any) -> Self:
        return dataclasses.replace(self, body=self.body.at(sizes))

    def within(self, change: Callable[[Graph], Graph]) -> Op:
        body = self.body.changed(change)
        return self if body == self.body else dataclasses.replace(self, body=body)

    def pullback_by(self, backward: Backward, g: Any, y: Value) -> Sequence[Value | None]:
        return scan_gradients(backward, g, y)

    def numpy(self, *arrays: Array) -> tuple[Array, ...]:
        count = self.carries + self.elements
        carried = list(arrays[: self.carries])
        sequences, free = arrays[self.carries : count], arrays[count:]
        formals = set(self.body.formals)
        order = [v for v in toposort(self.body.results) if v not in formals]
        stacks: list[list[Array]] = [[] for _ in self.body.results[self.carries :]]
        length = len(sequences[0])
        for t in reversed(range(length)) if self.reverse else range(length):
            arguments = (*carried, *(x[t] for x in sequences), *free)
            known: dict[Value, Any] = dict(zip(self.body.formals, arguments, strict=True))
            for v in order:
                known[v] = computed(v.op, v.type, *(known[a] for a in v.args))
            results = [np.asarray(known[v]) for v in self.body.results]
            carried = results[: self.carries]
            for rows, row in zip(stacks, results[self.carries :], strict=True):
                rows.append(row)
        types = [v.type for v in self.body.results[self.carries :]]
        return (
            *carried,
            *(
                np.stack(rows[::-1] if self.reverse else rows)
                if rows
                else np.zeros((0, *t.shape), t.dtype.numpy)
                for rows, t in zip(stacks, types, strict=True)
            ),
        )

    def onnx(self, o: OnnxEmitter, *args: str) -> tuple[str, ...]:
        types = o.type.items
        length = o.types[self.carries].shape[0]
        if sp.sympify(length).is_positive:
            return self._looped(o, args)

        def unchanged(o: OnnxEmitter) -> list[str]:
            rows = types[self.carries :]
            filling = [np.zeros(1, t.dtype.numpy) for t in rows]
            shapes = [o.shape((0, *t.shape[1:])) for t in rows]
            empty = zip(shapes, filling, strict=True)
            return [
                *args[: self.carries],
                *(o.Expand(o.constant(zero), shape) for shape, zero in empty),
            ]

        # onnxruntime refuses a Scan of length zero.
        return o.If(
            o.Equal(o.dim(length), o.scalar(0, i64)),
            then_branch=o.branch("empty", unchanged, types),
            else_branch=o.branch("loop", lambda o: self._looped(o, args), types),
            outputs=len(types),
        )

    def _looped(self, o: OnnxEmitter, args: Sequence[str]) -> tuple[str, ...]:
        count = self.carries + self.elements
        arguments = (*(None for _ in range(count)), *args[count:])
        body = o.subgraph("body", self.body.formals, arguments, self.body.results)
        stacks = len(self.body.results) - self.carries
        kinds = {"scan_input_directions": self.elements, "scan_output_directions": stacks}
        # ONNX has no attributes of no numbers.
        directions: dict[str, Any] = {
            name: [int(self.reverse)] * n for name, n in kinds.items() if n
        }
        names: tuple[str, ...] = o.Scan(
            *args[:count],
            body=body,
            num_scan_inputs=self.elements,
            **directions,
            outputs=len(self.body.results),
        )
        return names

    def torch(self, t: TorchEmitter, *args: str) -> tuple[str, ...]:
        count = self.carries + self.elements
        length = t.types[self.carries].shape[0]
        loop = t.loop(length, args[: self.carries], self.reverse)
        rows = [loop.row(x) for x in args[self.carries : count]]
        arguments = zip(self.body.formals, (*loop.carried, *rows, *args[count:]), strict=True)
        results = loop.lower(dict(arguments), self.body.results)
        types = [v.type for v in self.body.results[self.carries :]]
        return loop.finished(results[: self.carries], results[self.carries :], types)

    def macs(self, result: TupleType, *types: Type) -> Dim:
        each = self.body.graph.macs
        return product((types[self.carries].shape[0], each))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        def summed(total: Value, x: Value) -> Any:
            return total * 0.5 + x, total * x

        def cell(h: Value, x: Value, w: Value) -> Any:
            return tanh(x + h @ w), h

        def counted(n: Value, x: Value) -> Any:
            return n + 1, x * 2.0

        yield _sample(summed, 1, (f32[3], f32["n", 3]))
        yield _sample(summed, 1, (f64[2, "m"], f64["n", 2, "m"]), reverse=True)
        yield _sample(cell, 1, (f32["m", 2], f32["n", "m", 2], f32[2, 2]))
        yield _sample(cell, 1, (f32["m", 2], f32["n", "m", 2], f32[2, 2]), reverse=True)
        yield _sample(counted, 1, (i64[()], f32["n", "m"]))
        yield _sample(lambda x, y: x * y, 0, (f32["n", 2], f32["n", 2]))


def _sample(
    body: Callable[..., Any], carries: int, types: Sequence[Type], reverse: bool = False
) -> Sample:
    """A sample of a body whose binders are its carries, its elements, and what is left."""
    elements = sum(t.shape[:1] == types[carries].shape[:1] for t in types[carries:])
    count = carries + elements
    inner = [t.with_shape(t.shape[1:]) if carries <= i < count else t for i, t in enumerate(types)]
    formals = tuple(binder(fresh("sample"), t) for t in inner)
    output = body(*formals)
    results = output if isinstance(output, tuple) else (output,)
    outer = tuple(binder(fresh("sample"), t) for t in types)
    loop = Loop(
        formals[:carries],
        outer[:carries],
        tuple(results[:carries]),
        formals[carries:count],
        outer[carries:count],
        tuple(results[carries:]),
        types[carries].shape[0],
    )
    return Sample(Scan(loop.closed()[0], carries, elements, reverse), tuple(types))


@suggests_names
def scan(
    body: Callable[..., Any],
    init: Any,
    xs: Any = None,
    *,
    reverse: bool = False,
    axis: int = 0,
    length: Any = None,
) -> Any:
    """A loop: `body(carry…, x…)` gives `(carry…, y…)`, from one row of `xs` to the next.

    `init` is the first carry, or several of them (any number, also none, as a tuple or list); `xs`
    is a value whose rows along `axis` are gone through, from the last if `reverse`, or several of
    them; without any, `length` says how often the body runs. Gives what the body gives: the last
    carries, and each `y` stacked along `axis` in the order of time. Where the body gives one thing
    alone, so does `scan`.

    The body is traced once, so the size of the graph does not depend on the length, which may be
    symbolic or zero. It may use values from outside, and hold further scans. Random numbers drawn
    in it differ from one iteration to the next; those drawn outside are the same in all.

    Raises `ShapeError` where lengths differ or may differ and where a carry changes its shape,
    `DTypeError` where it changes its element type, `ModelError` for a body that gives too little.

    >>> from nncompile.ir.basic import const
    >>> total, sums = scan(lambda c, x: (c + x, c + x), 0.0, const([1.0, 2.0, 3.0]))
    >>> total, sums
    (<item : f64[]>, <item : f64[3]>)
    """
    initial = tuple(as_value(x) for x in _as_tuple(init))
    values = tuple(as_value(x) for x in _as_tuple(xs))
    sequences = tuple(_time_first(x, axis) for x in values)
    count = _length(values, sequences, length)
    carries = tuple(binder(fresh("carry"), x.type) for x in initial)
    rows = tuple(binder(fresh("row"), x.type.with_shape(x.shape[1:])) for x in sequences)
    with iterating() as iteration:
        output = body(*carries, *rows)
    results = [as_value(x) for x in _as_tuple(output)]
    if len(results) < len(carries):
        raise ModelError(
            f"scan: the body returns {len(results)} values for {len(carries)} carries",
            hint="return every carry's next value first, then what is to be stacked",
        )
    following = [
        _next(i, x, carry) for i, (x, carry) in enumerate(zip(results, carries, strict=False))
    ]
    stacked = results[len(carries) :]
    elements: tuple[Value, ...] = rows
    if iteration in set(toposort((*following, *stacked))):
        elements, sequences = (*rows, iteration), (*sequences, iota(count))
    loop = Loop(
        carries,
        initial,
        tuple(following),
        elements,
        sequences,
        tuple(stacked),
        count,
        bool(reverse),
    )
    last, stacks = applied(loop, Scan)
    outputs = (*last, *(moveaxis(y, 0, axis) for y in stacks))
    return outputs if isinstance(output, tuple | list) else outputs[0]


def _as_tuple(x: Any) -> tuple[Any, ...]:
    if x is None:
        return ()
    return tuple(x) if isinstance(x, tuple | list) else (x,)


def _time_first(x: Value, axis: int) -> Value:
    if not x.rank:
        raise ShapeError(
            f"scan: {x.type} has no axis to scan",
            hint="a value that stays the same can be used directly in the body",
        )
    return moveaxis(x, axis_of(axis, x.rank), 0)


def _length(values: Sequence[Value], sequences: Sequence[Value], length: Any) -> Dim:
    """How often the body runs: what all the sequences agree on."""
    sizes: Shape = tuple(x.shape[0] for x in sequences)
    if length is not None:
        sizes = (*sizes, dim(length))
    if not sizes:
        raise ShapeError(
            "scan: the number of iterations is unknown", hint="give sequences, or length=n"
        )
    for size in sizes:
        if same(size, sizes[0]) is not True:
            rows = [(f"sequence {i}", *described(x)) for i, x in enumerate(values)]
            listed = ", ".join(map(str, sizes))
            raise ShapeError(
                f"scan: the lengths must be known to be equal, got {listed}",
                rows=rows,
                hint="give axes of the same size the same name",
            )
    return sizes[0]


def _next(index: int, x: Value, carry: Value) -> Value:
    """The next value of a carry. Raises where it has another type than its first value."""
    if x.type == carry.type or _fits(x.type, carry.type):
        return x
    error: type[CompileError] = ShapeError
    hint = "broadcast_to(init, shape) gives the first value the shape of the others"
    if x.dtype is not carry.dtype:
        error, hint = DTypeError, f"x.astype({carry.dtype}) converts"
    raise error(
        f"scan: carry {index} is {carry.type} at first and {x.type} after an iteration",
        rows=[("next", *described(x))],
        hint=hint,
    )


def _fits(actual: Type, type_: Type) -> bool:
    return actual.dtype is type_.dtype and same_shape(actual.shape, type_.shape) is True
