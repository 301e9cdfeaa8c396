"""From the nodes of a file to values: each by its entry, by the body that ONNX defines it by, or as
a function of the file."""

from __future__ import annotations

import functools
import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import Location, located, user_location
from nncompile.frontends.onnx.checking import check_kinds, check_node, check_size
from nncompile.frontends.onnx.functions import body_of, fits_body
from nncompile.frontends.onnx.known import evaluated
from nncompile.frontends.onnx.refusals import Refusal, Refused, unfit
from nncompile.frontends.onnx.registry import ENTRIES, Node, attributes_of, schema_of
from nncompile.frontends.onnx.tensors import Tensor, array_of
from nncompile.ir.basic import Constant, cast
from nncompile.ir.dims import product
from nncompile.ir.graph import toposort
from nncompile.ir.interpreter import constant_value
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type
from nncompile.ops.random.generator import dropout, random_key, seed_leaf, step_leaf

_FOLDED = 1 << 24  # elements of all large results that are computed while importing
_SMALL = 1 << 10  # elements of a result that is computed whatever was computed before
_DEEPEST = 64  # functions and graphs within each other
_MOST_NODES = 50_000  # nodes of functions and loops, as often as they are imported

Environment = dict[str, Any]
"""The tensors by name: a `Tensor`, a list of them (a sequence), None (an optional of nothing), or
the `Refusal` of the node that would have made it."""


class Importer:
    """Imports the nodes of one file. `refusals` are those that could not be."""

    def __init__(
        self, model: onnx.ModelProto, file: str, directory: str = "", training: bool = True
    ) -> None:
        self.file = file
        self.directory = directory
        self.training = training
        self.is_ours = model.producer_name == "nncompile"
        self.opsets = {_domain(o.domain): o.version for o in model.opset_import}
        self.functions = {(_domain(f.domain), f.name, f.overload): f for f in model.functions}
        self._made = {name for node in model.graph.node for name in node.output}
        self._taken = {name for node in all_nodes(model.graph.node) for name in node.input}
        self._taken |= {output.name for output in model.graph.output}
        self.refusals: list[Refusal] = []
        self.updates: dict[str, Value] = {}  # of states, by path
        self.notes: dict[str, list[str]] = {}
        self.layers: dict[str, str] = {}  # the class of each without weights, by path
        self.depth = 0
        self._count = 0
        self._opened = 0  # nodes within nodes
        self._computed = 0.0  # elements of large results
        self._around: dict[str, Any] | None = None  # attributes of the function that is imported
        self._salts = 0
        self.draws = False  # whether a node draws random numbers

    def note(self, kind: str, text: str) -> None:
        """Adds a line to the report."""
        lines = self.notes.setdefault(kind, [])
        if text not in lines:
            lines.append(text)

    def is_taken(self, name: str) -> bool:
        """Whether a node of the file takes the tensor, or it is a result; in a function, any is."""
        return bool(name) and (self._around is not None or name in self._taken)

    def dropout(self, x: Value, rate: float) -> Value:
        """The next dropout of the file, a layer of it."""
        self._salts += 1
        location = user_location()
        if location is not None:
            self.layers[location.scope.replace("/", ".")] = "Dropout"
        return dropout(x, rate, f"{self.file} {self._salts}")

    def random_key(self, op: str, seed: float | None) -> Value:
        """What the next node of the file that draws numbers draws from."""
        self._salts += 1
        self.draws = True
        self.note(
            "assumptions",
            f"{op}: its numbers follow from the seed and the step of the training; an exported "
            "model has them fixed",
        )
        return random_key(f"{self.file} {self._salts} {seed}", seed_leaf(), step_leaf())

    def graph(
        self, graph: onnx.GraphProto, outer: Environment, inputs: Mapping[str, Any],
        attributes: Mapping[str, Any] | None = None, opsets: Mapping[str, int] | None = None,
    ) -> list[Any]:  # fmt: skip
        """The results of a graph within a node, which sees the tensors around it."""
        environment = {**outer, **inputs}
        for tensor in graph.initializer:
            environment[tensor.name] = Tensor.of_numbers(array_of(tensor, self.directory))
        around = self._around if attributes is None else dict(attributes)
        self._within(graph.node, environment, around, opsets or self.opsets)
        return [self.fetched(environment, output.name) for output in graph.output]

    def _within(
        self, nodes: Sequence[onnx.NodeProto], environment: Environment,
        attributes: dict[str, Any] | None, opsets: Mapping[str, int],
    ) -> None:  # fmt: skip
        """Imports the nodes of a graph or a function within a node."""
        if self.depth == _DEEPEST:
            raise Refused(f"functions and graphs lie more than {_DEEPEST} within each other")
        self._opened += len(nodes)
        if self._opened > _MOST_NODES:  # functions that call others twice, again and again
            if self._opened > _MOST_NODES + len(nodes):
                raise Poisoned  # said before
            raise Refused(f"functions and loops have more than {_MOST_NODES:,} nodes")
        around = self._around
        self.depth += 1
        self.nodes(nodes, environment, attributes, opsets)
        self.depth -= 1
        self._around = around

    def fetched(self, environment: Environment, name: str) -> Any:
        """A tensor by name. Raises `Poisoned` where its node was refused."""
        found = environment.get(name, _MISSING)
        if found is _MISSING:
            if name in self._made:
                raise Refused(f"{name!r} is made by a later node, or by a circle of nodes")
            raise Refused(f"no node makes {name!r}")
        if isinstance(found, Refusal):
            raise Poisoned
        return found

    def nodes(
        self, nodes: Iterable[onnx.NodeProto], environment: Environment,
        attributes: dict[str, Any] | None, opsets: Mapping[str, int],
    ) -> None:  # fmt: skip
        """Imports nodes in their order; what they make is put into the environment. `attributes`
        are those of the function that they are of, None where they are of none."""
        for proto in nodes:
            self._count += 1
            self._around = attributes
            label = proto.name or (proto.output[0] if proto.output else proto.op_type)
            scope = label.strip("/")
            with located(Location(self.file, self._count, scope, proto.op_type)):
                try:
                    results = self._imported(proto, environment, attributes, opsets)
                except Poisoned:
                    results = [_POISON] * len(proto.output)
                except Exception as error:  # becomes the refusal of this node; see `_reason`
                    refusal = self._refusal(proto, environment, opsets, error)
                    self.refusals.append(refusal)
                    results = [refusal] * len(proto.output)
            for name, result in zip(proto.output, results, strict=False):
                if name:
                    if isinstance(result, Tensor) and not result.name:
                        result.name = name
                    environment[name] = result

    def _refusal(
        self, proto: onnx.NodeProto, environment: Environment, opsets: Mapping[str, int],
        error: Exception,
    ) -> Refusal:  # fmt: skip
        domain = _domain(proto.domain)
        opset = opsets.get(domain, 1)
        schema = schema_of(proto.op_type, domain, opset)
        dtypes = []
        for name in proto.input:
            found = environment.get(name)
            dtypes.append(str(found.type) if isinstance(found, Tensor) else "")
        op = f"{domain}.{proto.op_type}" if domain else proto.op_type
        version = schema.since_version if schema is not None else opset
        label = proto.name or (proto.output[0] if proto.output else "")
        needs = error.needs if isinstance(error, Refused) else None
        return Refusal(
            op,
            version,
            tuple(d for d in dtypes if d),
            label,
            _reason(error, proto),
            needs,
            None if isinstance(error, Refused) else error,
            is_fault=not isinstance(error, (Refused, CompileError, *_UNFIT)),
        )

    def _imported(
        self, proto: onnx.NodeProto, environment: Environment,
        attributes: dict[str, Any] | None, opsets: Mapping[str, int],
    ) -> Sequence[Any]:  # fmt: skip
        domain = _domain(proto.domain)
        inputs = [self.fetched(environment, n) if n else None for n in proto.input]
        function = self.functions.get((domain, proto.op_type, proto.overload))
        if function is not None:
            return self._call(function, proto, inputs, attributes)
        if domain not in opsets:
            raise Refused(f"the file imports no version of the domain {domain or 'ai.onnx'!r}")
        opset = opsets[domain]
        schema = schema_of(proto.op_type, domain, opset)
        if schema is None and not domain and onnx.defs.has(proto.op_type):
            raise Refused(f"there is no such operator in opset {opset}")
        check_node(proto, schema)
        check_kinds(inputs, schema)
        values = attributes_of(proto, schema, attributes)
        node = Node(proto, domain, opset, schema, inputs, values, (self, environment), opsets)
        known = evaluated(node) if _plain(inputs) else None
        if known is not None:
            return [known]
        entry = ENTRIES.get((domain, proto.op_type))
        if entry is not None:
            bound = _bound_types(node)
            arguments = self._arguments(node, entry)
            if not _takes(entry.function, len(arguments)):
                raise Refused(f"the operator does not have {len(inputs)} inputs")
            return self._results(node, entry.function(node, *arguments), bound)
        if schema is None:
            raise Refused(f"the domain {domain!r} has no such operator here" if domain else
                          f"there is no such operator in opset {opset}")  # fmt: skip
        if not fits_body(schema):
            raise Refused(_without_counterpart(proto.op_type))
        body = body_of(schema, proto, values, [None if t is None else t.type for t in inputs])
        if body is None:
            raise Refused("this operator has no counterpart")
        return self._call(body, proto, inputs, attributes, values, node)

    def _call(
        self, function: onnx.FunctionProto, proto: onnx.NodeProto, inputs: Sequence[Any],
        outer: dict[str, Any] | None, values: dict[str, Any] | None = None,
        node: Node | None = None,
    ) -> Sequence[Any]:  # fmt: skip
        """The results of a function: its nodes in an environment of their own."""
        given = values if values is not None else attributes_of(proto, None, outer)
        for default in function.attribute_proto:
            if default.name not in given:
                given |= attributes_of(onnx.NodeProto(attribute=[default]), None, {})
        environment: Environment = dict(zip(function.input, inputs, strict=False))
        environment |= dict.fromkeys(function.input[len(inputs) :])
        opsets = {_domain(o.domain): o.version for o in function.opset_import}
        before = len(self.refusals)
        self._within(function.node, environment, given, {**self.opsets, **opsets})
        if len(self.refusals) > before and node is not None:
            first = self.refusals[before]
            del self.refusals[before:]
            raise Refused(f"of its body: {first.op}: {first.reason}", first.needs)
        names = function.output[: len(proto.output)]
        return [self.fetched(environment, n) if o else None
                for n, o in zip(names, proto.output, strict=False)]  # fmt: skip

    def _arguments(self, node: Node, entry: Any) -> list[Any]:
        if entry.raw:
            return list(node.inputs)
        arguments: list[Any] = []
        for i, tensor in enumerate(node.inputs):
            if tensor is None:
                arguments.append(None)
            elif i in entry.known:
                arguments.append(node.known(i))
            elif not isinstance(tensor, Tensor):
                raise Refused("a sequence or an optional stands for a tensor")
            else:
                arguments.append(tensor.value)
        return arguments

    def _results(self, node: Node, results: Any, bound: dict[str, DType]) -> list[Any]:
        """What an entry returns, as tensors of the element types that ONNX says."""
        several = results if isinstance(results, tuple) else (results,)
        foldable = _all_numbers(node)
        finished: list[Any] = []
        for i, x in enumerate(several):
            if isinstance(x, Value):
                check_size(x.type)
                dtype = bound.get(_output_letter(node, i))
                x = x if dtype is None or x.dtype is dtype else cast(x, dtype)
                x = self._folded(x) if foldable else Tensor.of(x)
            finished.append(x)
        return finished

    def _folded(self, value: Value) -> Tensor:
        """A value of constants alone, computed where neither it nor what it is made of is large,
        and not too much was computed for the file before."""
        own = product(value.shape)
        made = [v for v in toposort([value]) if not isinstance(v.op, Constant)]
        count = sum(map(_elements, made))
        if count > _SMALL and self._computed + count > _FOLDED:
            return Tensor.of(value)
        array: Array | None = constant_value(value)
        if array is None or array.dtype != value.dtype.numpy:
            return Tensor.of(value)
        self._computed += count if count > _SMALL else 0
        # A large one is computed again where it is run, rather than stored.
        make = None if isinstance(own, int) and own <= _SMALL else lambda: value
        return Tensor(Type(value.dtype, array.shape), np.asarray(array), make)


def _elements(value: Value) -> float:
    types = getattr(value.type, "items", (value.type,))
    sizes = (product(t.shape) for t in types)
    return sum(size if isinstance(size, int) else math.inf for size in sizes)


class Poisoned(Exception):
    """A tensor that is missing because its node was refused."""


# What Python and numpy raise for axes, ranks, counts and numbers that an operator does not take: an
# index out of range, shapes and lists of other lengths, a division by zero, a number that is too
# large. All other errors are faults of ours, and the message says so.
_UNFIT = (IndexError, ValueError, ZeroDivisionError, OverflowError, MemoryError, RecursionError)
_MISSING = object()
_POISON = Refusal("", 0, (), "", "")


def _reason(error: Exception, node: onnx.NodeProto) -> str:
    if isinstance(error, Refused):
        return error.reason
    if isinstance(error, CompileError):
        return error.problem
    if isinstance(error, _UNFIT):
        return unfit(error, node)
    text = f"{type(error).__name__}: {error}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"a fault of nncompile, in {Path(frame.filename).name}:{frame.lineno}: {text}"


def _without_counterpart(op: str) -> str:
    if op.startswith(("TreeEnsemble", "SVM")):
        kind = "trees" if op.startswith("Tree") else "support vectors"
        return f"a model of {kind} is not trained by gradients"
    if op.startswith(("String", "Regex", "TfIdf")) or op in ("DictVectorizer", "CategoryMapper"):
        return "a graph of texts is not trained by gradients"
    return "this operator has no counterpart"


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


@functools.cache
def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether an entry can be called with so many inputs."""
    try:
        inspect.signature(function).bind(None, *[None] * count)
    except TypeError:
        return False
    return True


def _plain(inputs: Sequence[Any]) -> bool:
    return all(x is None or isinstance(x, Tensor) for x in inputs)


def _all_numbers(node: Node) -> bool:
    return all(isinstance(x, Tensor) and x.numbers is not None for x in node.inputs if x)


def _output_letter(node: Node, i: int) -> str:
    """The letter that stands for the element type of a result."""
    formals = node.schema.outputs if node.schema is not None else ()
    formal = formals[min(i, len(formals) - 1)] if formals else None
    return formal.type_str if formal is not None and formal.is_homogeneous else ""


def _bound_types(node: Node) -> dict[str, DType]:
    """The element types that stand for the letters of the operator's schema."""
    bound: dict[str, DType] = {}
    if node.schema is None:
        return bound
    for i, tensor in enumerate(node.inputs):
        if isinstance(tensor, Tensor) and node.schema.inputs:
            formal = node.schema.inputs[min(i, len(node.schema.inputs) - 1)]
            if formal.is_homogeneous and formal.type_str in {
                c.type_param_str for c in node.schema.type_constraints
            }:
                dtype = bound.setdefault(formal.type_str, tensor.type.dtype)
                if dtype is not tensor.type.dtype:
                    raise Refused(f"its inputs are of two types, {dtype} and {tensor.type.dtype}")
    return bound
