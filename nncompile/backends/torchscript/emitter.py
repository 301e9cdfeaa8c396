"""What ops write TorchScript with: `t.matmul(a, b)` emits a statement and gives its result."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import sympy as sp

from nncompile.backends.torchscript.carriers import MASKS, Unsigned, carrier
from nncompile.backends.torchscript.formulas import TorchFormulas
from nncompile.backends.torchscript.looping import Loop, Scanning
from nncompile.backends.torchscript.sizes import MEASURED, Origin, size_text
from nncompile.backends.torchscript.writing import MARK, Line, Result, Statement, Variable
from nncompile.diagnostics.errors import BackendError
from nncompile.elementwise.idioms import recognise
from nncompile.elementwise.lowering import walk
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.dims import Dim, Shape, dim
from nncompile.ir.op import Value
from nncompile.ir.precision import widened
from nncompile.ir.types import DType, TupleType, bf16, dtype_of, u64

INFIX = {
    "torch.add": "+",
    "torch.sub": "-",
    "torch.mul": "*",
    "torch.div": "/",
    "torch.matmul": "@",
    "torch.gt": ">",
    "torch.ge": ">=",
    "torch.lt": "<",
    "torch.le": "<=",
    "torch.eq": "==",
    "torch.ne": "!=",
    "torch.bitwise_and": "&",
    "torch.bitwise_or": "|",
    "torch.bitwise_xor": "^",
}


def _operation(symbol: str) -> Callable[..., ast.expr]:
    """The tree of an operation, of those of its operands."""
    tree = ast.parse(f"a {symbol} b", mode="eval").body
    if isinstance(tree, ast.Compare):
        operators = tree.ops
        return lambda left, right: ast.Compare(left, operators, [right])
    assert isinstance(tree, ast.BinOp)
    operator = tree.op
    return lambda left, right: ast.BinOp(left, operator, right)


def _call(name: str, count: int, options: Sequence[str], x: ast.expr, *args: ast.expr) -> ast.expr:
    """The tree of a call of `x.name`, of `count` arguments and then those of the options."""
    keywords = map(ast.keyword, options, args[count:])
    return ast.Call(ast.Attribute(x, name), [*args[:count]], [*keywords])


def _itself(tree: ast.expr) -> ast.expr:
    return tree


OPERATIONS = {name: _operation(symbol) for name, symbol in INFIX.items()}
# They make tensors from numbers alone: the device of the inputs is passed to them.
FACTORIES = frozenset(
    f"torch.{name}" for name in ("arange", "empty", "eye", "full", "ones", "tensor", "zeros")
)
# Functions that are one pass over memory in torch; the others would be no more exact or faster.
NATIVE = {"gelu": "torch.nn.functional.gelu", "silu": "torch.ops.aten.silu"}
LITERAL = 16  # larger constants are buffers of the module


class Emitter:
    """What ops write TorchScript with. Strings are source: names of results, or expressions.

    Every function of torch is a method: `t.log_softmax(x, dim=1)` emits the call and returns the
    name of its result. Equal calls are emitted once. `types` and `type` are those of the
    arguments and of the result of the node that is being lowered. `constants` are the buffers of
    a module that has methods already. With `scans`, loops are calls of torch's `scan`, which
    torch.export can trace for any number of places in time; TorchScript has `for`.
    """

    types: tuple[Any, ...] = ()
    type: Any = None

    def __init__(
        self,
        device: str | None = None,
        sizes: dict[sp.Symbol, Origin] | None = None,
        outer: Emitter | None = None,
        constants: dict[str, np.ndarray] | None = None,
        scans: bool = False,
    ) -> None:
        self.statements: list[Statement] = []
        self.compositions: dict[Any, Any] = outer.compositions if outer else {}
        self.results: dict[str, Variable] = outer.results if outer else {}
        self.constants: dict[str, np.ndarray] = {} if constants is None else constants
        self.scans = scans
        self.depth: int = outer.depth + 1 if outer else 0
        self._device = device
        self._sizes: dict[sp.Symbol, Origin] = {} if sizes is None else sizes
        # In a loop, what is known outside is known, and not the other way round.
        self._memo: dict[Any, str] = dict(outer._memo) if outer else {}

    def within(self) -> Emitter:
        """An emitter of the body of a loop."""
        return Emitter(self._device, self._sizes, self, self.constants, self.scans)

    def loop(self, length: Dim, initial: Sequence[str], reverse: bool = False) -> Loop:
        """A loop over that many places in time, with variables that start at `initial`."""
        return (Scanning if self.scans else Loop)(self, length, initial, reverse)

    def node(self, value: Value, args: Sequence[Any]) -> Any:
        """The result of a node of the graph, of those of its arguments."""
        result = self._node(value, args)
        if value.op.makes:
            several = isinstance(value.type, TupleType)
            parts = (
                zip(value.type.items, result, strict=True) if several else [(value.type, result)]
            )
            for type_, text in parts:
                self.bind_sizes(text, type_.shape, value.op.makes)
        return result

    def _node(self, value: Value, args: Sequence[Any]) -> Any:
        wide = widened(value)
        types = tuple(a.type for a in value.args)
        if wide is None:
            self.types, self.type = types, value.type
            if not value.op.orders:
                return value.op.torch(self, *args)
            return self._flipped(
                value.op.torch(self, *self._flipped(tuple(args), types)), value.type
            )
        self.types, self.type = wide.types, wide.type
        result = wide.op.torch(self, *self._recast(tuple(args), types, wide.types))
        return self._recast(result, wide.type, value.type)

    def _flipped(self, x: Any, type_: Any) -> Any:
        """What is of uint64 as numbers of int64 in the same order, or back from there."""
        if isinstance(x, tuple):
            return tuple(map(self._flipped, x, getattr(type_, "items", type_)))
        return Unsigned(self).ordered(x) if type_.dtype is u64 else x

    def _recast(self, x: Any, source: Any, target: Any) -> Any:
        """A result, or several, as other element types."""
        sources, targets = (getattr(t, "items", t) for t in (source, target))
        if isinstance(x, tuple):
            return tuple(map(self._recast, x, sources, targets))
        return self.cast(x, sources.dtype, targets.dtype)

    def __getattr__(self, name: str) -> Callable[..., str]:
        if name.startswith("_"):
            raise AttributeError(name)

        def function(*args: Any, **options: Any) -> str:
            return self.call(f"torch.{name}", *args, **options)

        return function

    def emit(self, text: str, hint: str = "value") -> str:
        """The result of an expression."""
        return text if text in self.results else self._emit(text, hint, (text,), _itself)

    def _emit(
        self, text: str, hint: str, parts: Sequence[str], make: Callable[..., ast.expr]
    ) -> str:
        if text not in self._memo:
            token = self._memo[text] = f"{MARK}{len(self.results)}"
            result = Result(hint, self.depth, token=token, text=text, parts=parts, make=make)
            self.results[token] = result
            self.statements.append(result)
        return self._memo[text]

    def variable(self, hint: str) -> str:
        """A name that lines of a loop give values to."""
        token = f"{MARK}{len(self.results)}"
        self.results[token] = Variable(hint, self.depth)
        return token

    def named(self, text: str, hint: str) -> str:
        """The result of an expression with a line of its own, unless it is a name already."""
        if text.isidentifier() and text not in self.results:
            return text
        token = self.emit(text)
        self.keep(token, hint)
        return token

    def keep(self, token: str, hint: str, comment: str = "") -> None:
        """Gives a result a line of its own and the name, unless it has them already."""
        result = self.results[token]
        if not result.kept:
            result.kept, result.hint, result.comment = True, hint or result.hint, comment

    def effect(self, text: str) -> None:
        """A line that has no result, and is written whether anything needs it or not."""
        self.statements.append(Line(text))

    def call(self, function: str, *args: Any, **options: Any) -> str:
        """The result of `function(*args, **options)`; operators are written as such."""
        if function in FACTORIES and self._device:
            options.setdefault("device", self.device)
        module, _, name = function.rpartition(".")
        if function in INFIX and len(args) == 2 and not options:
            left, right = (self.text(x) for x in args)
            text = f"{left} {INFIX[function]} {right}"
            return self._emit(text, name, (left, right), OPERATIONS[function])
        if function == "torch.neg":  # and not `~`, which binds less in TorchScript than in Python
            return self.emit(f"-{self.text(*args)}", name)
        return self.method(module, name, *args, **options)

    def method(self, x: str, name: str, *args: Any, **options: Any) -> str:
        """The result of `x.name(*args, **options)`."""
        texts = [self.text(a) for a in args]
        keywords = {option: self.text(a) for option, a in options.items()}
        make = partial(_call, name, len(texts), tuple(keywords))
        text = f"{x}.{name}({self._arguments(texts, keywords)})"
        return self._emit(text, name, (x, *texts, *keywords.values()), make)

    def in_double(
        self,
        size: Dim,
        limit: int | None,
        function: str,
        tensors: Sequence[str],
        *args: Any,
        **options: Any,
    ) -> str:
        """`function(*tensors, *args, **options)`; of float32 tensors in float64, and rounded, where
        the size is above the limit: torch's sums of products and exponentials lose digits then."""
        if limit is None or (isinstance(size, int) and size <= limit):
            return self.call(function, *tensors, *args, **options)
        rest = [self.text(x) for x in args]
        wide = self._arguments([*(f"{x}.double()" for x in tensors), *rest], options)
        usual = f"{function}({self._arguments([*tensors, *rest], options)})"
        hint = function.rpartition(".")[2]
        return self.by_size(size, limit, usual, f"{function}({wide}).float()", hint)

    def by_size(self, size: Dim, limit: int, few: str, many: str, hint: str) -> str:
        """The first of two expressions where the size is up to the limit, the second above it.
        torch.export, which cannot choose by a size that only data tell, gets the first."""
        if isinstance(size, int) or self.scans:
            return self.emit(many if isinstance(size, int) and size > limit else few, hint)
        return self.emit(f"{few} if {self.dim(size)} <= {limit} else {many}", hint)

    def _arguments(self, texts: Sequence[str], options: Mapping[str, Any]) -> str:
        return ", ".join([*texts, *(f"{k}={self.text(v)}" for k, v in options.items())])

    def text(self, x: Any) -> str:
        """An argument as source: strings are source already, sizes are computed, the rest are
        literals."""
        if isinstance(x, str):
            return x
        if isinstance(x, DType):
            return self.dtype(x)
        if isinstance(x, sp.Expr):
            return self.dim(x)
        if isinstance(x, tuple | list):
            return f"[{', '.join(self.text(item) for item in x)}]"
        if isinstance(x, np.ndarray | np.generic):
            return self.text(x.tolist())
        if isinstance(x, float) and not math.isfinite(x):
            return f'float("{x}")'
        return repr(x)

    @property
    def device(self) -> str:
        """The device of the inputs; None (torch's default) for a graph without any."""
        return self.emit(f"{self._device}.device", "device") if self._device else "None"

    def dtype(self, dtype: DType) -> str:
        """torch's name of the element type that it is carried in."""
        return f"torch.{carrier(dtype).name}"

    def dim(self, size: Dim) -> str:
        """A dimension as an integer. Raises `BackendError` where no input has it."""
        size = dim(size)
        if isinstance(size, int):
            return str(size)
        if size not in self._memo:
            names = sorted(size.free_symbols, key=str)
            texts = {name: self._measured(name, size) for name in names}
            self._memo[size] = self.emit(size_text(size, texts), "size")
        return self._memo[size]

    def _measured(self, name: sp.Symbol, size: Dim) -> str:
        if name not in self._sizes:
            raise BackendError(f"no input has the size {name}, which {size} needs")
        leaf, axis, expression = self._sizes[name]
        measure = self.emit(f"{leaf}.size({axis})", str(name))
        texts = {s: self._measured(s, size) for s in expression.free_symbols - {MEASURED}}
        return self.emit(size_text(expression, texts | {MEASURED: measure}), str(name))

    def bind_sizes(self, text: str, shape: Shape, made: Collection[sp.Symbol]) -> None:
        """Lets sizes that a node made be measured at its result."""
        for axis, size in enumerate(shape):
            if size in made:
                self._sizes.setdefault(size, (text, axis, MEASURED))

    def shape(self, dims: Sequence[Dim]) -> str:
        """A shape as a list of integers."""
        return f"[{', '.join(self.dim(d) for d in dims)}]"

    def item(self, results: str, index: int) -> str:
        """One of the results of a function that gives several."""
        hint = self.results[results].hint if results in self.results else results
        return self.emit(f"{results}[{index}]", f"{hint}_{index}")

    def constant(self, array: np.ndarray) -> str:
        """An array: written out where it is small, otherwise held as a buffer of the module."""
        array = np.asarray(array)
        carried = carrier(dtype_of(array.dtype))
        dtype = carried.name
        if array.dtype != bf16.numpy:  # which has a name in the source, and no array in a module
            array = array.astype(carried.numpy, copy=False)
        if array.size == 0:
            return self.call("torch.zeros", list(array.shape), dtype=f"torch.{dtype}")
        exact = array.dtype != np.float64  # torch.tensor takes real literals through float32
        if array.ndim == 0 and not exact:
            return self.call("torch.full", [], array.item(), dtype=f"torch.{dtype}")
        if array.size <= LITERAL and exact:
            return self.call("torch.tensor", array.tolist(), dtype=f"torch.{dtype}")
        for name, buffer in self.constants.items():
            if buffer is array:
                return f"self.{name}"
        name = f"constant_{len(self.constants) + 1}"
        self.constants[name] = array
        return f"self.{name}"

    def cast(self, x: str, source: DType, target: DType) -> str:
        """`x` as another element type, by C's rule."""
        if source is target:
            return x
        if source is u64 and target.is_float:
            return Unsigned(self).real(x, target)
        if target is u64 and source.is_float:
            return Unsigned(self).of_real(x)
        carried = x if self.dtype(source) == self.dtype(target) else self.method(x, "to", target)
        is_within = source.is_bool or (not source.is_signed and source.bits <= target.bits)
        return carried if is_within else self.wrapped(carried, target)

    def wrapped(self, x: str, dtype: DType) -> str:
        """What arithmetic that is done in a wider type has to keep: the bits that the type has."""
        mask, result = MASKS.get(dtype), self.results.get(x)
        if isinstance(result, Result) and result.make is OPERATIONS["torch.bitwise_and"]:
            mask = None if result.parts[1] == str(mask) else mask
        return x if mask is None else self.call("torch.bitwise_and", x, mask)

    def formula(self, body: sp.Expr, names: Sequence[str]) -> str:
        """An expression of scalars, elementwise; `names` are those of its placeholders."""
        function = NATIVE.get(recognise(body) or "") if len(names) == 1 else None
        if function is not None:
            return self.call(function, *names)
        leaves = {placeholder(i): name for i, name in enumerate(names)}
        dtypes = {placeholder(i): t.dtype for i, t in enumerate(self.types)}
        target = TorchFormulas(self)
        return target.tensor(walk(body, leaves, dtypes, target))
