"""What ops are handed to lower themselves: `o.MatMul(a, b)` emits a node and gives its name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import onnx
import sympy as sp
from onnx import helper

from nncompile.backends.onnx import older
from nncompile.backends.onnx.formulas import OnnxFormulas
from nncompile.backends.onnx.fusions import Fusions
from nncompile.backends.onnx.kernels import (
    ELEMENT_TYPES,
    HALF_KERNELS,
    carriers_of,
    signature_of,
)
from nncompile.backends.onnx.native.functions import Functions, constant_nodes
from nncompile.backends.onnx.native.program import Lowered, elementwise_program
from nncompile.backends.onnx.nodes import Call
from nncompile.backends.onnx.sizes import Sizes
from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.locations import Location, LocationTable
from nncompile.ir.dims import Dim, Shape, substitute, symbols, text_of
from nncompile.ir.emitters import Names, OnnxEmitter
from nncompile.ir.graph import Item, toposort
from nncompile.ir.native import DOMAIN, Native
from nncompile.ir.op import Value
from nncompile.ir.precision import widened
from nncompile.ir.types import AnyType, DType, TupleType, Type, component_types, i64
from nncompile.ops.loops.outlined import Elementwise
from nncompile.passes.mixed_precision import PRODUCTS


class Emitter(Fusions, Sizes):
    """Lowers values to one ONNX graph.

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
        parent: Self | None = None,
        conditional: bool = False,
        bounds: dict[Dim, int] | None = None,
        sizes: Mapping[sp.Symbol, int] | None = None,
        functions: Functions | None = None,
        halves: bool = False,
        threads: int = 0,
    ) -> None:
        super().__init__(opset, parent, conditional)
        # Of native kernels; None where files are to have none of them.
        self.functions: Functions | None = parent.functions if parent else functions
        # Whether sums of products of 16 bits are for kernels of 16 bits.
        self.halves: bool = parent.halves if parent else halves
        # Of the processor that the file is for; none where it is for any device.
        self.threads: int = parent.threads if parent else threads
        # In a function, the sizes that its model's inputs have.
        self._outer_sizes: frozenset[sp.Symbol] = parent._outer_sizes if parent else frozenset()
        self.bounds: dict[Dim, int] | None = parent.bounds if parent else bounds
        self.expected: Mapping[sp.Symbol, int] = parent.expected if parent else sizes or {}
        self.locations: LocationTable = parent.locations if parent else LocationTable()
        self.types: tuple[Any, ...] = ()
        self.type: Any = None
        self._in_gradient = False  # all that is lowered here is of a gradient

    @property
    def is_backward(self) -> bool:
        """Whether what is being lowered is of a gradient."""
        return self._in_gradient or (self._location is not None and self._location.backward)

    def bind_leaf(self, name: str, type_: Type) -> None:
        """Says of which type a leaf is, or what makes sizes; they may be taken from its shape."""
        self._declare(name, type_)
        self._unknown.append(name)
        if type_ == Type(i64):
            self._unknown_integer = self._unknown_integer or name
        self.bind_sizes(name, type_)

    def lower(self, value: Value, args: Sequence[Any], location: Location | None) -> Any:
        """The names of the result of one node of the graph."""
        if isinstance(value.op, Item) and not _is_empty(value.type):
            return self._item(value, args[0][value.op.index])  # of results that may be very many
        types = tuple([a.type for a in value.args])
        self._location = location
        label = value.op.label
        self._stem = f"{location.scope}/{label}" if location and location.scope else label
        self._declare(args, types)
        narrow = self.halves and isinstance(value.op, PRODUCTS)
        wide = None if narrow else widened(value)
        if value.args and not value.op.makes and _is_empty(value.type):
            names = self._empty_result(value.type)
        elif wide is None:
            self.types, self.type = types, value.type
            names = self._called(value, args)
            if names is None:
                names = value.op.onnx(self, *args)
        else:
            self.types, self.type = wide.types, wide.type
            names = wide.op.onnx(self, *self._recast(tuple(args), types, wide.types))
            names = self._recast(names, wide.type, value.type)
        if value.op.makes:
            self._late.update(value.op.makes)
            for type_, name in zip(*_listed(value.type, names), strict=True):
                self.bind_leaf(name, type_)
        if isinstance(value.type, Type) and not self.parent:
            self._shaped.setdefault(value.shape, names)
        return names

    def _called(self, value: Value, args: Sequence[str]) -> Any:
        """The results of a call of the native kernel for an op; None where there is none, or where
        the op's lowering needs a size that its arguments do not have."""
        op, types = value.op, self.types
        kernel = op.native(*types) if self.functions and isinstance(op, Native) else None
        if self.functions is None or kernel is None:
            return None
        inner = Emitter(self.opset, bounds=self.bounds, sizes=self.expected)
        inner._in_gradient = self.is_backward
        inner._outer_sizes = self._bounded()
        inputs = inner.formals(op.label, types)
        inner.types, inner.type = types, value.type
        if isinstance(op, Elementwise):
            kernel.attributes.update(elementwise_program(op, self._body_of(op)))
        try:
            results = op.onnx(inner, *inputs)
        except BackendError:
            return None
        component_names = _listed(value.type, results)
        graph = inner._graph(op.label, [], component_names[1], component_names[0])
        constants = constant_nodes(inner.constants)
        outputs = [info.name for info in graph.output]
        name = self.functions.name(kernel, inputs, [*constants, *graph.node], outputs)
        if name is None:
            return None
        call = Call(name, tuple(args), kernel.attributes, DOMAIN, len(outputs))
        names = self._emit(call)
        self._declare(names, TupleType(component_names[0]))
        return names if isinstance(value.type, TupleType) else names[0]

    def formals(self, label: str, types: Sequence[Type], sized: bool = True) -> list[str]:
        """Names for the arguments of a function, whose sizes are known by them if `sized`."""
        self._stem = label
        names = [f"{label}/{i}" for i in range(len(types))]
        for name, type_ in zip(names, types, strict=True):
            self.reserve(name)
            self._declare(name, type_)
            if sized:
                self.bind_leaf(name, type_)
        return names

    @property
    def element_types(self) -> Mapping[str, DType]:
        """Those of the names, as far as they are known."""
        return self._dtypes

    def _body_of(self, op: Elementwise) -> Lowered:
        """The nodes of what one group is computed by."""
        inner = Emitter(self.opset)
        formals = op.body.formals
        inputs = inner.formals("value", [v.type for v in formals], sized=False)
        names: dict[Value, Any] = dict(zip(formals, inputs, strict=True))
        inner.lower_all(toposort(op.body.results), names)
        results = [names[v] for v in op.body.results]
        return Lowered(inputs, inner.nodes, inner.constants, results, inner.element_types)

    def _item(self, value: Value, name: str) -> str:
        """One result of a node with several."""
        self._declare(name, value.type)
        if not self.parent:
            self._shaped.setdefault(value.shape, name)
        return name

    def _empty_result(self, type_: Any) -> Any:
        """A result without elements, or several, whatever the op is. onnxruntime 1.23 takes a
        constant without elements for ones and for zeros, removes what multiplies by it or adds it,
        and gives no result then."""
        if isinstance(type_, TupleType):
            return tuple(map(self._empty_result, type_.items))
        empty = self.constant(np.zeros(0, type_.dtype.numpy))
        return self.Reshape(empty, self.shape(type_.shape), allowzero=1)

    def _declare(self, names: Any, types: Any) -> None:
        """Records the element types of values that no node produces."""
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
        with self.locations.following() as site:  # errors name the user's line
            for v in values:
                if v not in names:
                    site.node = v
                    args = [names[a] for a in v.args]
                    names[v] = self.lower(v, args, self.locations.location(v))

    def _operator(self, call: Call) -> tuple[str, ...]:
        """Emits a node, with casts round it where onnxruntime has no kernel for its types."""
        if call.domain:
            return self._emit(call)
        if self.opset <= older.LAST:
            if call.op_type in older.BITWISE:
                dtype = next(self._dtypes[x] for x in call.inputs)
                return (older.bit_by_bit(self, call.op_type, dtype, *call.inputs),)
            call = older.older_call(self, call)
        signature = signature_of(call.op_type, self.opset)
        dtypes = [self._dtypes.get(name) for name in call.inputs]
        reduction = str(call.attributes.get("reduction", "none")) if call.attributes else "none"
        has_halves = self.halves and call.op_type in HALF_KERNELS
        carriers = carriers_of(signature, reduction, tuple(dtypes), has_halves)
        if not carriers:
            names = self._emit(call)
            self._dtypes.update(signature.results(names, dtypes, call.attributes))
            return names
        changes = [carriers.get(v) for v in signature.variables(len(call.inputs))]
        wide = [c.carry(self, x) if c else x for c, x in zip(changes, call.inputs, strict=True)]
        names = self._emit(call._replace(inputs=tuple(wide)))
        self._dtypes.update(
            signature.results(names, [self._dtypes.get(x) for x in wide], call.attributes)
        )
        changes = [carriers.get(v) for v in signature.result_variables(call.outputs)]
        return tuple(c.back(self, x) if c else x for c, x in zip(changes, names, strict=True))

    def subgraph(
        self,
        name: str,
        formals: Sequence[Value],
        arguments: Sequence[str | None],
        results: Sequence[Value],
    ) -> onnx.GraphProto:
        """A graph within a node, for an attribute of it: its inputs are the formals for which
        `arguments` names no value outside."""
        inner = Emitter(self.opset, self)
        inner._location, inner._stem = self._location, self._stem
        names: dict[Value, Any] = {}
        inputs = []
        for v, known in zip(formals, arguments, strict=True):
            names[v] = known if known is not None else inner._fresh(f"{self._stem}/{name}")
            if known is None:
                inner._inside.add(names[v])
                inner._unknown.append(names[v])
                inputs.append(value_info(names[v], v.type))
        inner.lower_all(toposort(results), names)
        inner._location, inner._stem = self._location, self._stem
        return inner._graph(name, inputs, [names[v] for v in results], [v.type for v in results])

    def branch(
        self,
        name: str,
        lowered: Callable[[OnnxEmitter], Sequence[str]],
        types: Sequence[Type | DType],
    ) -> onnx.GraphProto:
        """A graph within a node that runs or not: `lowered` emits it and gives its results, of
        these types, or of these element types where the shapes follow from the nodes."""
        inner = Emitter(self.opset, self, conditional=True)
        inner._location, inner._stem = self._location, self._stem
        inner.types, inner.type = self.types, self.type
        return inner._graph(name, [], lowered(inner), types)

    def usual(self, size: Dim) -> int | None:
        """The size in batches that are expected; None where that is not known."""
        expected = substitute(size, self.expected)
        return expected if isinstance(expected, int) else None

    def expects(self, size: Dim, limit: int) -> bool:
        """Whether the file is for batches in which the size is up to the limit. Where there are
        `bounds`, that is entered there."""
        usual = self.usual(size)
        if usual is None or usual > limit:
            return False
        self._enter_bound(size, limit)
        return True

    def _enter_bound(self, size: Dim, limit: int) -> None:
        if self.bounds is not None and not isinstance(size, int):
            self.bounds[size] = min(limit, self.bounds.get(size, limit))

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

        Sizes that are `expected` are those. Where there are `bounds`, other sizes that the inputs
        have are taken to be small, and up to what size `few` was chosen is entered there; what
        `many` emits is right for all sizes.
        """
        if self.expects(size, limit):
            return few(self)
        if self.usual(size) is not None:
            return many(self)
        if self.bounds is not None and symbols([size]) <= self._bounded():
            self._enter_bound(size, limit)
            return few(self)
        types = component_types(type_)

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
        value: Names = result
        return value

    def _bounded(self) -> frozenset[sp.Symbol]:
        """The sizes that are known before the model runs."""
        return self._outer_sizes | (self._sizes.keys() - self._late)

    def _graph(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        results: Sequence[str],
        types: Sequence[Type | DType],
    ) -> onnx.GraphProto:
        outputs: list[str] = []
        produced = {result for node in self.nodes for result in node.output}
        for result in results:
            if result not in produced or result in outputs:  # what comes from elsewhere is copied
                (result,) = self._added(Call("Identity", (result,), {}))
            outputs.append(result)
        infos = [value_info(result, type_) for result, type_ in zip(outputs, types, strict=True)]
        return helper.make_graph(self.nodes, name, inputs, infos)

    def formula(self, body: sp.Expr, args: Sequence[str]) -> str:
        """An elementwise expression, one node for each operation."""
        return OnnxFormulas(self).lower(body, args, self.types)


def _is_empty(type_: Any) -> bool:
    """Whether a result, or each of several, is known to have no elements."""
    if isinstance(type_, Type):
        return 0 in type_.shape
    return all(0 in t.shape for t in type_.items)


def _listed(type_: AnyType, names: Any) -> tuple[tuple[Type, ...], tuple[str, ...]]:
    """The types and the names of the results of a node, one or several."""
    return (type_.items, names) if isinstance(type_, TupleType) else ((type_,), (names,))


def value_info(name: str, type_: Type | DType) -> onnx.ValueInfoProto:
    """An input or output with the user's own names of dimensions; of an element type alone, of any
    shape."""
    if isinstance(type_, DType):
        return helper.make_tensor_value_info(name, ELEMENT_TYPES[type_.name], None)
    info = onnx.ValueInfoProto(name=name)
    info.MergeFromString(_type_proto(type_.dtype.name, type_.shape))
    return info


@functools.lru_cache(maxsize=4096)
def _type_proto(dtype: str, shape: Shape) -> bytes:
    """What the information on a value says of its type."""
    sizes = [d if isinstance(d, int) else text_of(d) for d in shape]
    info = helper.make_tensor_value_info("", ELEMENT_TYPES[dtype], sizes)
    return bytes(onnx.ValueInfoProto(type=info.type).SerializeToString())
