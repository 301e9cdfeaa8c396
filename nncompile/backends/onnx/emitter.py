"""What ops are handed to lower themselves: `o.MatMul(a, b)` emits a node and gives its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx
import sympy as sp
from onnx import TensorProto, helper, numpy_helper

from nncompile.backends.onnx.formulas import OnnxFormulas
from nncompile.backends.onnx.kernels import ELEMENT_TYPES, carriers_of, signature_of
from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.locations import Location, LocationTable
from nncompile.ir.dims import Dim, FloorDiv, Shape, substitute, symbols
from nncompile.ir.emitters import Names, OnnxEmitter, OnnxOperator
from nncompile.ir.graph import toposort
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.precision import widened
from nncompile.ir.types import (
    AnyType,
    Array,
    DType,
    TupleType,
    Type,
    dtype_of,
    f64,
    i64,
    is_float32,
)

Made = tuple[str, Mapping[str, Any], tuple[str, ...]]
"""The operator that gave a name, its attributes and its inputs."""

# Transpositions before them stay before them.
_FENCES = frozenset(("Reshape", "MatMul", "Gemm", "Conv", "Scan", "If", "Shape", "Size"))


class Emitter:
    """Collects the nodes and constants of one ONNX graph.

    Every ONNX operator is a method: inputs are names ("" leaves an optional one out), attributes
    are keywords, and `outputs=n` gives a tuple of names. Equal nodes are emitted once, so the
    forward and the backward pass share what both need. `types` and `type` are those of the
    arguments and the result of the op that is being lowered.

    A graph within a node has an emitter of its own with the outer one as `parent`: it sees what is
    known there, and not the other way round. What needs nothing from inside is emitted outside,
    unless the graph is one that may not run (`conditional`).
    """

    def __init__(
        self,
        opset: int,
        parent: Emitter | None = None,
        conditional: bool = False,
        bounds: dict[Dim, int] | None = None,
        sizes: Mapping[sp.Symbol, int] | None = None,
    ) -> None:
        self.opset = opset
        self.parent = parent
        self.conditional = conditional
        self.bounds: dict[Dim, int] | None = parent.bounds if parent else bounds
        self.expected: Mapping[sp.Symbol, int] = parent.expected if parent else sizes or {}
        self.locations: LocationTable = parent.locations if parent else LocationTable()
        self.nodes: list[onnx.NodeProto] = []
        # Those of a graph within are the outer one's.
        self.constants: dict[str, Array] = parent.constants if parent else {}
        # Weights of one element of float64.
        self.numbers: set[str] = parent.numbers if parent else set()
        self.types: tuple[Any, ...] = ()
        self.type: Any = None
        self._memo: dict[Any, tuple[str, ...]] = {}
        # Names within must not shadow those outside, so there is one set of them.
        self._taken: set[str] = parent._taken if parent else set()
        # By stem the first number that may be free: those below it need no second look.
        self._next_numbers: dict[str, int] = parent._next_numbers if parent else {}
        self._inside: set[str] = set()  # names that only this graph knows
        # What a transposition made, or may be moved behind by onnxruntime.
        self._turned: set[str] = parent._turned if parent else set()
        self._sizes: dict[sp.Symbol, Callable[[], str]] = parent._sizes if parent else {}
        self._late: set[sp.Symbol] = parent._late if parent else set()  # of these what nodes make
        self._vectors: dict[Dim, str] = {}
        self._shaped: dict[Shape, str] = {}  # a value of that shape, for shapes of more axes
        # What no runtime knows before the model runs.
        self._unknown: list[str] = list(parent._unknown) if parent else []
        self._made: dict[str, Made] = parent._made if parent else {}
        self._dtypes: dict[str, DType] = parent._dtypes if parent else {}
        self._site: Location | None = None
        self._stem = ""

    # What the lowering of a graph calls.

    def reserve(self, name: str) -> None:
        """Keeps a name that the user gave from being made up for something else."""
        self._taken.add(name)

    def bind_leaf(self, name: str, type_: Type) -> None:
        """Says of which type a leaf is, or what makes sizes; they may be taken from its shape."""
        self._declare(name, type_)
        self._unknown.append(name)
        shape = type_.shape
        if len(shape) == 1:
            self._vectors.setdefault(shape[0], name)
        self._shaped.setdefault(shape, name)
        for axis, size in enumerate(shape):
            free = [] if isinstance(size, int) else list(size.free_symbols)
            if len(free) != 1:
                continue
            constant, linear = sp.sympify(size).as_independent(*free, as_Add=True)
            factor = linear.as_coefficient(free[0])
            if factor is not None and factor.is_Integer and factor > 0:  # factor·n + constant
                found = partial(self._solved, name, axis, int(constant), int(factor))
                self._sizes.setdefault(free[0], found)

    def _solved(self, name: str, axis: int, constant: int, factor: int) -> str:
        """The n of an axis whose size is factor·n + constant, as a vector of one i64."""
        size: str = self.Shape(name, start=axis, end=axis + 1)
        size = self.Sub(size, self.ints([constant])) if constant else size
        return self.Div(size, self.ints([factor])) if factor != 1 else size

    def lower(self, value: Value, args: Sequence[Any], location: Location | None) -> Any:
        """The names of the result of one node of the graph."""
        given = tuple(a.type for a in value.args)
        self._site = location
        self._stem = (
            f"{location.scope}/{value.op.label}" if location and location.scope else value.op.label
        )
        self._declare(args, given)
        wide = widened(value)
        if value.args and not value.op.makes and _is_empty(value.type):
            names = self._nothing(value.type)
        elif wide is None:
            self.types, self.type = given, value.type
            names = value.op.onnx(self, *args)
        else:
            self.types, self.type = wide.types, wide.type
            names = wide.op.onnx(self, *self._recast(tuple(args), given, wide.types))
            names = self._recast(names, wide.type, value.type)
        if value.op.makes:
            self._late.update(value.op.makes)
            for type_, name in zip(*_listed(value.type, names), strict=True):
                self.bind_leaf(name, type_)
        if isinstance(value.type, Type) and not self.parent:
            self._shaped.setdefault(value.shape, names)
        return names

    def _nothing(self, type_: Any) -> Any:
        """A result without elements, or several, whatever the op is. onnxruntime 1.23 takes a
        constant without elements for ones and for zeros, removes what multiplies by it or adds it,
        and gives no result then."""
        if isinstance(type_, TupleType):
            return tuple(map(self._nothing, type_.items))
        nothing = self.constant(np.zeros(0, type_.dtype.numpy))
        return self.Reshape(nothing, self.shape(type_.shape), allowzero=1)

    def _declare(self, names: Any, types: Any) -> None:
        """Says of which element type values are that no node made."""
        if isinstance(names, str):
            self._dtypes.setdefault(names, types.dtype)
        else:
            for name, type_ in zip(names, getattr(types, "items", types), strict=True):
                self._declare(name, type_)

    def _recast(self, names: Any, source: Any, target: Any) -> Any:
        """Values as other element types, where these differ."""
        if isinstance(names, str):
            return names if source.dtype is target.dtype else self.cast(names, target.dtype)
        pairs = (getattr(t, "items", t) for t in (source, target))
        return tuple(map(self._recast, names, *pairs))

    def lower_all(self, values: Sequence[Value], names: dict[Value, Any]) -> None:
        """Adds to `names` those of nodes in order, where those of the leaves are known."""
        for v in values:
            if v not in names:
                with self.locations.located(v):  # errors are told at the user's line
                    args = [names[a] for a in v.args]
                    names[v] = self.lower(v, args, self.locations.location(v))

    # What ops call.

    def __getattr__(self, op_type: str) -> OnnxOperator:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)

        def emit(
            *inputs: str, outputs: int | None = None, domain: str = "", **attributes: Any
        ) -> Any:
            names = self._carried(op_type, domain, inputs, outputs or 1, attributes)
            return names[0] if outputs is None else names

        return emit

    def _carried(
        self,
        op_type: str,
        domain: str,
        inputs: tuple[str, ...],
        outputs: int,
        attributes: Mapping[str, Any],
    ) -> tuple[str, ...]:
        """Emits a node, with casts round it where onnxruntime has no kernel for its types."""
        if domain:
            return self._emit(op_type, domain, inputs, outputs, attributes)
        signature = signature_of(op_type, self.opset)
        given = [self._dtypes.get(name) for name in inputs]
        reduction = str(attributes.get("reduction", "none")).replace("none", "")
        carriers = carriers_of(signature, reduction, tuple(given))
        if not carriers:
            names = self._emit(op_type, domain, inputs, outputs, attributes)
            self._dtypes.update(signature.results(names, given, attributes))
            return names
        changes = [carriers.get(v) for v in signature.variables(len(inputs))]
        wide = [c.carry(self, x) if c else x for c, x in zip(changes, inputs, strict=True)]
        names = self._emit(op_type, domain, tuple(wide), outputs, attributes)
        self._dtypes.update(
            signature.results(names, [self._dtypes.get(x) for x in wide], attributes)
        )
        back = [carriers.get(v) for v in signature.made(outputs)]
        return tuple(c.back(self, x) if c else x for c, x in zip(back, names, strict=True))

    def _emit(
        self,
        op_type: str,
        domain: str,
        inputs: tuple[str, ...],
        outputs: int,
        attributes: Mapping[str, Any],
    ) -> tuple[str, ...]:
        if any(isinstance(x, onnx.GraphProto) for x in attributes.values()):
            # No two are equal, for names within are unique; and they may use any name of here.
            return self._added(op_type, domain, inputs, outputs, attributes)
        if self.parent and not self.conditional and self._inside.isdisjoint(inputs):
            with self._at_parent() as parent:
                return parent._emit(op_type, domain, inputs, outputs, attributes)
        key = (op_type, domain, inputs, outputs, repr(sorted(attributes.items())))
        if key in self._memo:
            return self._memo[key]
        names = self._added(op_type, domain, inputs, outputs, attributes)
        self._memo[key] = names
        return names

    def _added(
        self,
        op_type: str,
        domain: str,
        inputs: tuple[str, ...],
        outputs: int,
        attributes: Mapping[str, Any],
    ) -> tuple[str, ...]:
        names = tuple(self._fresh(self._stem or op_type) for _ in range(outputs))
        node = helper.make_node(op_type, inputs, names, names[0], domain=domain, **attributes)
        if self._site is not None:
            helper.set_metadata_props(node, {"source": self._site.place, "scope": self._site.scope})
        self.nodes.append(node)
        self._made.update(dict.fromkeys(names, (op_type, attributes, inputs)))
        self._inside.update(names)
        if op_type == "Transpose" or (
            op_type not in _FENCES and not self._turned.isdisjoint(inputs)
        ):
            self._turned.update(names)
        if any(isinstance(x, onnx.GraphProto) for x in attributes.values()):
            self._unknown.append(names[0])  # runtimes do not compute loops beforehand
        return names

    @contextmanager
    def _at_parent(self) -> Iterator[Emitter]:
        """The outer emitter, at the line that is being lowered here."""
        parent = self.parent
        assert parent is not None
        before = parent._site, parent._stem
        parent._site, parent._stem = self._site, self._stem
        try:
            yield parent
        finally:
            parent._site, parent._stem = before

    def subgraph(
        self,
        name: str,
        formals: Sequence[Value],
        given: Sequence[str | None],
        results: Sequence[Value],
    ) -> onnx.GraphProto:
        """A graph within a node, for an attribute of it: its inputs are the formals for which no
        name of a value outside is `given`."""
        inner = Emitter(self.opset, self)
        inner._site, inner._stem = self._site, self._stem
        names: dict[Value, Any] = {}
        inputs = []
        for v, known in zip(formals, given, strict=True):
            names[v] = known if known is not None else inner._fresh(f"{self._stem}/{name}")
            if known is None:
                inner._inside.add(names[v])
                inner._unknown.append(names[v])
                inputs.append(value_info(names[v], v.type))
        inner.lower_all(toposort(results), names)
        inner._site, inner._stem = self._site, self._stem
        return inner._graph(name, inputs, [names[v] for v in results], [v.type for v in results])

    def branch(
        self, name: str, lowered: Callable[[OnnxEmitter], Sequence[str]], types: Sequence[Type]
    ) -> onnx.GraphProto:
        """A graph within a node that runs or not: `lowered` emits it and gives its results."""
        inner = Emitter(self.opset, self, conditional=True)
        inner._site, inner._stem = self._site, self._stem
        inner.types, inner.type = self.types, self.type
        return inner._graph(name, [], lowered(inner), types)

    def by_size(
        self,
        size: Dim,
        limit: int,
        few: Callable[[OnnxEmitter], Names],
        many: Callable[[OnnxEmitter], Names],
        type_: Type | TupleType,
    ) -> Names:
        """What `few` emits where the size is up to the limit, and `many` where it is above; both,
        and a choice that is made at run time, where only data tell. They give a name, or for a
        tuple type a tuple of names.

        Sizes that are `expected` are those. Where there are `bounds`, sizes that the inputs have
        are taken to be small, and how small they must be is entered there.
        """
        expected = substitute(size, self.expected)
        if isinstance(expected, int):
            return few(self) if expected <= limit else many(self)
        given = self._sizes.keys() - self._late
        if self.bounds is not None and symbols([size]) <= given:
            self.bounds[size] = min(limit, self.bounds.get(size, limit))
            return few(self)
        types = type_.items if isinstance(type_, TupleType) else (type_,)

        def branch(name: str, emit: Callable[[OnnxEmitter], Names]) -> onnx.GraphProto:
            return self.branch(
                name, lambda o: x if isinstance(x := emit(o), tuple) else (x,), types
            )

        names = self.If(
            self.LessOrEqual(self.dim(size), self.scalar(limit, i64)),
            then_branch=branch("few", few),
            else_branch=branch("many", many),
            outputs=len(types),
        )
        result: Any = names if isinstance(type_, TupleType) else names[0]
        chosen: Names = result
        return chosen

    def _graph(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        results: Sequence[str],
        types: Sequence[Type],
    ) -> onnx.GraphProto:
        outputs: list[str] = []
        made = {out for node in self.nodes for out in node.output}
        for out in results:
            if out not in made or out in outputs:  # what comes from elsewhere is copied
                (out,) = self._added("Identity", "", (out,), 1, {})
            outputs.append(out)
        infos = [value_info(out, type_) for out, type_ in zip(outputs, types, strict=True)]
        return helper.make_graph(self.nodes, name, inputs, infos)

    def _fresh(self, stem: str) -> str:
        number = max(len(self.nodes), self._next_numbers.get(stem, 0))
        while (name := f"{stem}_{number}") in self._taken:
            number += 1
        self._taken.add(name)
        self._next_numbers[stem] = number + 1
        return name

    def once(self, key: Any, emit: Callable[[], str]) -> str:
        """What `emit` gives the first time in this graph that it is asked for under that key: for
        nodes with graphs within, no two of which are equal by themselves."""
        if key not in self._memo:
            self._memo[key] = (emit(),)
        return self._memo[key][0]

    def apart(self, x: str, *operators: str, static: bool = False) -> str:
        """`x`, which runtimes may not join with what made it if that is one of `operators`: then
        behind a reshaping to its own shape, which costs nothing and is not seen through; also of
        a `static` shape if asked for, and behind what transpositions are moved through."""
        operator, *_ = self._made.get(x, ("", {}, ()))
        is_moved = static and "Transpose" in operators and x in self._turned
        if operator not in operators and not is_moved:
            return x
        shape = self.Shape(x)
        if static and self._unknown:
            shape = self.Add(shape, self._late_zero())
        return self.Reshape(x, shape)

    def unpadded(self, x: str) -> str:
        """What was padded, where `x` is that; else `x`."""
        operator, _, inputs = self._made.get(x, ("", {}, ()))
        return inputs[0] if operator == "Pad" else x

    def moves_first(self, x: str) -> bool:
        """Whether a transposition made `x` in which the first axis is not the first."""
        operator, attributes, _ = self._made.get(x, ("", {}, ()))
        return operator == "Transpose" and attributes["perm"][0] != 0

    def constant(self, array: Any) -> str:
        """The name of a constant; equal ones are one."""
        if self.parent:
            return self.parent.constant(array)
        array = np.asarray(array)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._memo:
            name = self._fresh_constant(array)
            self.constants[name] = array
            self._dtypes[name] = dtype_of(array.dtype)
            self._memo[key] = (name,)
        return self._memo[key][0]

    def _fresh_constant(self, array: Array) -> str:
        text = str(array.tolist()).replace(" ", "")
        stem = text if len(text) <= 20 else f"constant_{len(self.constants)}"
        name = unused_name(stem, self._taken, ":", 1)
        self._taken.add(name)
        return name

    def scalar(self, number: Any, dtype: DType) -> str:
        """A scalar constant."""
        return self.constant(np.asarray(number, dtype.numpy))

    def factor(self, name: str, divides: bool = False) -> str:
        """What something is multiplied or divided by, as it is to be written.

        A constant number beside a matrix product onnxruntime makes an attribute of the product, and
        attributes are float32, also where the matrices are float64. From a number that is no
        float32, 0 times the size of an input is therefore taken, which is known when the model
        runs. (Added to it, a number below float32's would be taken for 0.) Where there is no input
        it is the size of what a loop goes by or has made; what depends on neither is computed
        before such attributes are made.
        """
        number = self.constants.get(name)
        if name not in self.numbers:
            if number is None or number.dtype != np.float64 or number.size != 1:
                return name
            if is_float32(1 / number.item() if divides and number.any() else number.item()):
                return name
        return self._known_late(name)

    def addend(self, name: str) -> str:
        """What is added to something or taken from it, as it is to be written: a constant number of
        float64 that float32 has as 0 onnxruntime takes for 0, and drops the sum."""
        number = self.constants.get(name)
        if number is None or number.dtype != np.float64 or number.size != 1:
            return name
        is_lost = number.any() and not number.astype(np.float32).any()
        return self._known_late(name) if is_lost else name

    def _known_late(self, name: str) -> str:
        """A number of float64 that no runtime knows before the model runs."""
        if not self._unknown:
            return name
        return self.Sub(name, self.cast(self._late_zero(), f64))

    def _late_zero(self) -> str:
        """0 of i64, which no runtime knows before the model runs."""
        return self.Mul(self.Size(self._unknown[0]), self.scalar(0, i64))

    def ints(self, numbers: Sequence[int]) -> str:
        """A constant vector of i64: axes, shapes, starts …"""
        return self.constant(np.asarray(list(numbers), np.int64).reshape(len(numbers)))

    def cast(self, x: str, dtype: DType) -> str:
        """`x` as another element type."""
        # Of a transposition, a cast to real numbers and a product, onnxruntime makes one node, and
        # ends the process over it where the first axis was moved; of float64 it has no such kernel.
        if dtype is f64 or (dtype.is_float and self.moves_first(x)):
            x = self.apart(x, "Transpose")
        return self.Cast(x, to=ELEMENT_TYPES[dtype.name])

    def formula(self, body: sp.Expr, args: Sequence[str]) -> str:
        """An elementwise expression, one node for each operation."""
        return OnnxFormulas(self).lower(body, args, self.types)

    def dim(self, size: Dim) -> str:
        """A dimension as a scalar, i64."""
        if isinstance(size, int):
            return self.scalar(size, i64)
        if self.parent:
            with self._at_parent() as parent:
                return parent.dim(size)
        if size in self._vectors:  # of a vector, the number of elements is the size
            return self.Size(self._vectors[size])
        return self.Reshape(self._vector(size), self.ints([]))

    def shape(self, sizes: Sequence[Dim]) -> str:
        """A shape as a vector of i64: that of a value which has it, else put together."""
        if all(isinstance(d, int) for d in sizes):
            return self.ints([int(d) for d in sizes])
        if self.parent:
            with self._at_parent() as parent:
                return parent.shape(sizes)
        if len(sizes) > 1 and (like := self._shaped.get(tuple(sizes))):
            return self.Shape(like)
        pieces: list[str] = []
        numbers: list[int] = []
        for size in sizes:
            if isinstance(size, int):
                numbers.append(size)
                continue
            if numbers:
                pieces.append(self.ints(numbers))
                numbers = []
            pieces.append(self._vector(size))
        if numbers:
            pieces.append(self.ints(numbers))
        return pieces[0] if len(pieces) == 1 else self.Concat(*pieces, axis=0)

    def _vector(self, size: Dim) -> str:
        """A dimension as a vector of one i64."""
        size = sp.sympify(size)
        if size.is_Integer:
            return self.ints([int(size)])
        if size.is_Symbol:
            if size not in self._sizes:
                raise BackendError(
                    f"the size {size} cannot be determined from the shapes of the inputs",
                    hint=f'give an input an axis called "{size}"',
                )
            return self._sizes[size]()
        parts = [self._vector(a) for a in size.args]
        if size.is_Add or size.is_Mul:
            emit = self.Add if size.is_Add else self.Mul
            total = parts[0]
            for part in parts[1:]:
                total = emit(total, part)
            return total
        if isinstance(size, FloorDiv):
            # ONNX divides integers towards zero.
            below = None if size.args[0].is_nonnegative else self.Mod(*parts)
            return self.Div(parts[0] if below is None else self.Sub(parts[0], below), parts[1])
        if size.is_Pow and size.args[1].is_Integer and size.args[1] > 0:
            total = parts[0]
            for _ in range(int(size.args[1]) - 1):
                total = self.Mul(total, parts[0])
            return total
        if isinstance(size, sp.Mod):
            return self.Mod(*parts)
        if isinstance(size, sp.Max | sp.Min):
            return (self.Max if isinstance(size, sp.Max) else self.Min)(*parts)
        raise BackendError(f"the size {size} has no lowering to ONNX")

    def initializers(self) -> list[TensorProto]:
        """The constants emitted so far, as tensors of the graph."""
        return [numpy_helper.from_array(a, name) for name, a in self.constants.items()]


def _is_empty(type_: Any) -> bool:
    """Whether a result, or each of several, is known to have no elements."""
    return all(0 in t.shape for t in getattr(type_, "items", (type_,)))


def _listed(type_: AnyType, names: Any) -> tuple[tuple[Type, ...], tuple[str, ...]]:
    """The types and the names of the results of a node, one or several."""
    return (type_.items, names) if isinstance(type_, TupleType) else ((type_,), (names,))


def value_info(name: str, type_: Type) -> onnx.ValueInfoProto:
    """An input or output with the user's own names of dimensions."""
    sizes = [d if isinstance(d, int) else str(d) for d in type_.shape]
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[type_.dtype.name], sizes)
