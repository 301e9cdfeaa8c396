"""A model with another last layer: as many outputs as a new task has."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from nncompile.diagnostics.errors import CompileError, ModelError, did_you_mean, whole_number
from nncompile.diagnostics.locations import recording_locations
from nncompile.ir.broadcasting import Expand, full
from nncompile.ir.dims import Shape
from nncompile.ir.graph import Input, input_of, toposort
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value, described
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ir.types import Type
from nncompile.ops.contraction.einsum import Einsum
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.convolution.convolve import Conv, ConvTranspose
from nncompile.ops.random.generator import random_key, seed_leaf, uniform
from nncompile.ops.shape.reshape import Reshape
from nncompile.program.model import Model, leaves_of

M = TypeVar("M", bound=Model)
PRODUCTS = (Gemm, MatMul, Einsum, Conv, ConvTranspose)
"""The ops that multiply data by a weight."""


@dataclass(frozen=True)
class Head:
    """What was the last layer of an output, and what is. `cut` are the parameters that it had,
    `parameters` those that it has now, `features` is what it is computed of, and `dropped` are
    outputs that went with it."""

    output: str
    op: str
    place: str
    cut: Mapping[str, Type]
    parameters: Mapping[str, Type]
    features: Type
    dropped: tuple[str, ...] = ()

    def __str__(self) -> str:
        old, new = (
            ", ".join(f"{path} {type_}" for path, type_ in types.items())
            for types in (self.cut, self.parameters)
        )
        dropped = f"; without the output {', '.join(self.dropped)}" if self.dropped else ""
        at = f" ({self.place})" if self.place else ""
        return (
            f"the last layer of {self.output} is new: {new} on {self.features}, in the place of "
            f"{self.op} {old}{at}{dropped}"
        )


def with_new_head(model: M, count: int, output: str | None = None) -> tuple[M, Head]:
    """The model with `count` in the place of what its last layer gave, and what was cut: the last
    product with a weight that all of the output goes through. What comes after it, such as a
    softmax, stays. The new weights are uniform within ±1/√in, as torch's, and a bias is 0.

    `output` names the output where there are several. Raises `ModelError` where there is no such
    layer, or where what follows it is made for its number of results.
    """
    whole_number("the size of a new head", count, 1)
    name = output_of(model, output)
    target = model.outputs[name]
    product = _last_product(target)
    if product is None:
        raise ModelError(
            f"no product with a weight is between {name} and all that it is computed of, so there "
            "is no last layer to replace",
            rows=[(name, str(target.type))],
            hint="load_onnx(path, outputs=[TENSOR]) cuts a model anywhere, and Dense makes a head",
        )
    with recording_locations(model.graph.locations):
        return _Replacement(model, name, product, count).result()


def output_of(model: Model, output: str | None) -> str:
    """The output of that name, or the only one of real numbers. Raises `ModelError` where there is
    none, or several."""
    known = {n: v for n, v in model.outputs.items() if v.dtype.is_float and v.rank}
    if output is None and len(known) == 1:
        return next(iter(known))
    rows = [("output", n, str(v.type)) for n, v in model.outputs.items()]
    if output is None:
        raise ModelError(
            f"model {model.name} has {len(known)} outputs of real numbers: say which one is meant",
            rows=rows,
            hint=f"--predict {next(iter(known))}" if known else None,
        )
    if output not in known:
        raise ModelError(
            f"model {model.name} has no output of real numbers {output!r}",
            rows=rows,
            hint=did_you_mean(output, known),
        )
    return output


def _last_product(output: Value) -> Value | None:
    """The last product of data with a weight that all paths from the data to the output go
    through."""
    order = toposort([output])
    data = set(_ways(order))
    return next((v for v in _passed(output, order) if _is_of_weight(v, data)), None)


def _ways(order: Sequence[Value]) -> dict[Value, int]:
    """By how many ways each value that depends on data gets to them."""
    ways: dict[Value, int] = {}
    for v in order:
        if isinstance(v.op, Input) and v.op.kind == "input":
            ways[v] = 1
        elif any(a in ways for a in v.args):
            ways[v] = sum(ways.get(a, 0) for a in v.args)
    return ways


def _passed(output: Value, order: Sequence[Value]) -> Iterator[Value]:
    """The values that all ways from the output to the data go through, the last one first: those of
    which the ways to them times those from them on are all that there are."""
    below = _ways(order)
    above: dict[Value, int] = {output: 1}
    for v in reversed(order):
        if v not in below or v not in above:
            continue
        for a in v.args:
            above[a] = above.get(a, 0) + above[v]
        if above[v] * below[v] == below[output]:
            yield v


def _is_of_weight(v: Value, data: set[Value]) -> bool:
    """Whether it is a product of data and a weight."""
    if not isinstance(v.op, PRODUCTS):
        return False
    first, second = v.args[:2]
    weight = second if first in data else first
    return (first in data) != (second in data) and bool(_parameters([weight], ()))


def _parameters(values: Iterable[Value], known: Iterable[Value]) -> list[Value]:
    """The parameters that the values are made of, other than by way of what is known."""
    found, waiting, seen = [], list(values), set(known)
    while waiting:
        v = waiting.pop()
        if v in seen:
            continue
        seen.add(v)
        if isinstance(v.op, Input) and v.op.kind == "parameter" and v.dtype.is_float:
            found.append(v)
        waiting += v.args
    return found


def _largest(value: Value) -> Value:
    """The largest of the parameters that a value is made of."""
    return max(_parameters([value], ()), key=lambda leaf: math.prod(leaf.shape))


class _Replacement:
    """A layer of `count` results in the place of the product."""

    def __init__(self, model: Model, name: str, product: Value, count: int) -> None:
        self.model, self.name, self.product, self.count = model, name, product, count
        first, second = product.args[:2]
        is_fed = any(input_of(leaf).kind == "input" for leaf in leaves_of([first]))
        self.features, weight = (first, second) if is_fed else (second, first)
        self.weight: Value = _largest(weight)
        # What is added to the results, in the product or after it.
        added = _parameters([*product.args[2:], model.outputs[name]], (product,))
        self.added = [leaf for leaf in dict.fromkeys(added) if leaf is not self.weight]
        self.whole = [weight, *(x for x in product.args[2:] if _parameters([x], ()))]
        others = [v for v in model.outputs.values() if product not in {*toposort([v])}]
        self.shared = leaves_of([self.features, *others, *model.updates.values()])

    def result(self) -> tuple[Any, Head]:
        model, axis = self.model, self._axis()
        size = int(self.weight.shape[axis])
        new = self._leaves(axis, size, self.count)
        product = self._product(new, size, self.count)
        if product is None:
            raise ModelError(
                f"the last layer of {self.name} cannot have {self.count} results",
                rows=[(self.product.op.label, *described(self.product))],
                hint="channels in groups are a multiple of these",
            )
        outputs: dict[str, Value] = {}
        dropped: list[str] = []
        for name, value in model.outputs.items():
            changed = self._changed(value, {**new, self.product: product}, size, self.count)
            if changed is not None:
                outputs[name] = changed
            elif name != self.name:
                dropped.append(name)
        if self.name not in outputs:
            raise ModelError(
                f"what follows the last layer of {self.name} needs its size to be {size}",
                rows=[(self.product.op.label, *described(self.product))],
                hint="load_onnx(path, outputs=[TENSOR]) cuts the model before it",
            )
        stored = [leaf for value in new for leaf in _parameters([value], ())]
        gone = {input_of(leaf).name for leaf in stored if leaf not in self.shared}
        inputs = tuple(v for v in model.graph.inputs if input_of(v).name not in gone)
        initial = {path: value for path, value in model.initial.items() if path not in gone}
        initial |= {input_of(leaf).name: self._start(leaf) for leaf in new.values()}
        changed_model = replace(
            model,
            graph=replace(model.graph, outputs=outputs, inputs=inputs),
            initial=initial,
            predict=tuple(name for name in model.predict if name in outputs) or (self.name,),
            origin=model,
        )
        location = model.graph.locations.location(self.product)
        place = location.scope if location is not None and "/" in location.scope else ""
        cut, made = (
            {input_of(x).name: x.type for x in leaves} for leaves in (stored, new.values())
        )
        features = self.features.type
        return changed_model, Head(
            self.name, self.product.op.label, place, cut, made, features, tuple(dropped)
        )

    def _axis(self) -> int:
        """The axis of the weight that the results have: with more there, there are more of them."""
        # A weight that is quantized by channels is replaced as what it is after that.
        for weight, added in ((self.weight, self.added), (self.whole[0], self.whole[1:])):
            self.weight, self.added = weight, added
            for axis, size in enumerate(self.weight.shape):
                for more in (size + 1, 2 * size):  # of channels in groups, a multiple
                    new = self._leaves(axis, size, more)
                    if self._product(new, size, more) is not None:
                        return axis
        raise ModelError(
            f"the last layer of {self.name} cannot be replaced: it is not known which axis of "
            f"{input_of(_largest(self.weight)).name} its results are",
            rows=[(self.product.op.label, *described(self.product))],
            hint="load_onnx(path, outputs=[TENSOR]) cuts the model before it, and Dense makes a "
            "head",
        )

    def _leaves(self, axis: int, size: int, count: int) -> dict[Value, Value]:
        """The new parameters by the old ones: of the old names, where nothing else is called so."""
        shapes = {self.weight: _with(self.weight.shape, axis, count)}
        for leaf in self.added:
            axes = [i for i, n in enumerate(leaf.shape) if n == size]
            if axes:
                shapes[leaf] = _with(leaf.shape, axes[-1], count)
        taken = {*self.model.whole.leaves, *self.model.outputs}
        new: dict[Value, Value] = {}
        for leaf, shape in shapes.items():
            stored = _largest(leaf)
            path = input_of(stored).name
            if stored in self.shared:
                kind = "weight" if leaf is self.weight else "bias"
                is_free = f"head.{kind}" not in taken
                path = f"head.{kind}" if is_free else unused_name(f"new_head.{kind}", taken)
            taken.add(path)
            new[leaf] = Input(path, Type(leaf.dtype, shape), "parameter")()
        return new

    def _product(self, new: Mapping[Value, Value], size: int, count: int) -> Value | None:
        return self._changed(self.product, {**new, self.features: self.features}, size, count)

    def _changed(
        self, value: Value, known: Mapping[Value, Value], size: int, count: int
    ) -> Value | None:
        """A value of other parameters; None where it cannot be made of them, or is not of `count`
        where it was of `size`."""

        def make(v: Value, args: list[Value]) -> Value:
            op = v.op
            if isinstance(op, Reshape | Expand) and args[0].type != v.args[0].type:
                shape = tuple(count if n == size else n for n in op.shape)
                return replace(op, shape=shape).rebuild(*args)
            return rebuilt(v, args)

        try:
            (found,) = transformed([value], make, known)
        except CompileError:
            return None
        if found is value:
            return value
        pairs = list(zip(value.shape, found.shape, strict=False))
        changed = [(a, b) for a, b in pairs if a != b]
        fits = found.rank == value.rank and all(pair == (size, count) for pair in changed)
        return found if fits and (changed or size == count or not value.rank) else None

    def _start(self, leaf: Value) -> Value:
        if leaf.rank < 2:
            return full(leaf.shape, 0, leaf.dtype)
        path = input_of(leaf).name
        limit = 1 / math.sqrt(max(1, math.prod(leaf.shape) // self.count))
        key = random_key(path, seed_leaf())
        return uniform(key, leaf.shape, -limit, limit, leaf.dtype)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])
