"""Gradients: graph in, graph out, of any order.

What is differentiated is made stable first: the gradient of a naive spelling such as log(1 + eˣ)
overflows where the spelling itself does, and cannot be repaired afterwards.

Reverse mode, as in A. Griewank and A. Walther, "Evaluating Derivatives" (2008), chapter 3; forward
mode is reverse mode twice (J. Townsend, "A new trick for calculating Jacobian vector products",
2017).
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nncompile.autodiff.masks import Mask, mask_of
from nncompile.diagnostics.errors import CompileError, GradientError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import current_locations
from nncompile.elementwise.map import mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import as_value, const
from nncompile.ir.broadcasting import broadcast_to, ones_like, zeros_like
from nncompile.ir.dims import product, same_shape
from nncompile.ir.graph import Graph, Input, Item, toposort
from nncompile.ir.op import Value, apply, described
from nncompile.ir.transform import dependent, rebuilt, replace, transformed
from nncompile.ir.types import TupleType, Type
from nncompile.ops.core.annotations import GradientAnchor
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import reshape
from nncompile.passes.stabilise import stabilise


@suggests_names
def grad(y: Value, wrt: Any) -> Any:
    """The gradient of the scalar `y` at `wrt`, as new values of the same graph.

    `wrt` is a value, or a sequence or dict of values, leaves or intermediate; the result has the
    same structure and the types of `wrt`, zeros where `y` does not depend on it. Raises
    `GradientError` where `y` is not a real scalar, or an op on the way has no gradient.
    """
    _check_real("result", y)
    if y.shape != ():
        raise GradientError(
            f"grad needs a scalar, got {y.type}",
            rows=[("result", *described(y))],
            hint="take the mean or the sum first, or use vjp or jacobian",
        )
    return vjp(y, wrt, ones_like(y))


@suggests_names
def vjp(outputs: Any, inputs: Any, cotangents: Any) -> Any:
    """Vector times Jacobian: Σ cotangent·∂output/∂input at each of `inputs`.

    `outputs` and `cotangents` are values or equally long sequences of them, of the same shapes;
    `inputs` is a value, sequence or dict, and so is the result.
    """
    ys, vs = _sequence(outputs), _sequence(cotangents)
    if len(ys) != len(vs):
        raise GradientError(f"{len(vs)} cotangents for {len(ys)} outputs")
    seeds: dict[Value, Value] = {}
    for y, v in zip(ys, vs, strict=True):
        _check_real("output", y)
        gradient = _like(v, y, "cotangent")
        seeds[y] = seeds[y] + gradient if y in seeds else gradient
    xs = _sequence(inputs)
    for x in xs:
        _check_real("input", x)
    return _structured(inputs, _Differentiation(list(seeds), xs).gradients([seeds])[0])


@suggests_names
def jvp(outputs: Any, inputs: Any, tangents: Any) -> Any:
    """Jacobian times vector: Σ ∂output/∂input·tangent at each of `outputs`.

    `inputs` and `tangents` are values or equally long sequences of them, of the same shapes. The
    vjp is linear in its cotangent; its own vjp, taken there, is the jvp.
    """
    ys, xs, ts = _sequence(outputs), _sequence(inputs), _sequence(tangents)
    if len(xs) != len(ts):
        raise GradientError(f"{len(ts)} tangents for {len(xs)} inputs")
    for y in ys:
        _check_real("output", y)
    formal = [apply(Input(f"cotangent {next(_fresh)}", y.type)) for y in ys]
    pulled = vjp(ys, xs, formal)
    pushed = vjp(pulled, formal, [_like(t, x, "tangent") for t, x in zip(ts, xs, strict=True)])
    zeros = {v: zeros_like(v) for v in formal}
    return _structured(outputs, replace(pushed, zeros))


@suggests_names
def hvp(y: Value, wrt: Any, vector: Any) -> Any:
    """Hessian of the scalar `y` times a vector, in the structure of `wrt`: the gradient of
    ⟨gradient, vector⟩ (B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994)."""
    xs, vs = _sequence(wrt), _sequence(vector)
    if len(xs) != len(vs):
        raise GradientError(f"{len(vs)} vectors for {len(xs)} inputs")
    gradients = grad(y, xs)
    return _structured(
        wrt, vjp(gradients, xs, [_like(v, x, "vector") for v, x in zip(vs, xs, strict=True)])
    )


@suggests_names
def jacobian(y: Value, x: Value) -> Value:
    """All gradients of `y` at `x`: shape `y.shape + x.shape`, one pass backwards for each element
    of `y`, whose shape must therefore be of numbers (`ShapeError` otherwise)."""
    _check_real("output", y)
    count = product(y.shape)
    if not isinstance(count, int):
        raise ShapeError(
            f"the Jacobian of {y.type} has a symbolic number of rows",
            hint="give the sizes as numbers, or use vjp or jvp with a vector",
        )
    if not count:
        return broadcast_to(const(0, x.dtype), (*y.shape, *x.shape))
    elements = [reshape(y, (count,))[i] for i in range(count)]
    differentiation = _Differentiation(elements, [x])
    gradients = differentiation.gradients([{element: ones_like(element)} for element in elements])
    rows = [reshape(gradient, (1, *x.shape)) for (gradient,) in gradients]
    return reshape(concatenate(rows, axis=0), (*y.shape, *x.shape))


_fresh = itertools.count()


class _Differentiation:
    """Values in stable form, in which the values that they are differentiated at are held."""

    def __init__(self, outputs: Sequence[Value], wrt: Sequence[Value]) -> None:
        inner = {x for x in wrt if x.args}
        anchors: dict[Value, Value] = {}  # by the value that it replaces

        def hold(v: Value, args: list[Value]) -> Value:
            new = rebuilt(v, args)
            if v in inner:
                new = anchors[v] = GradientAnchor()(new)
            return new

        values = transformed(outputs, hold) if inner else list(outputs)
        by_index = {str(i): v for i, v in enumerate((*values, *anchors.values()))}
        graph = stabilise(Graph("differentiated", by_index))
        final = list(graph.outputs.values())
        self.stable = dict(zip(outputs, final, strict=False))
        self.anchors = dict(zip(anchors, final[len(values) :], strict=True))
        self.wrt = [self.anchors.get(x, x) for x in wrt]

    def gradients(self, seeds: Sequence[Mapping[Value, Value]]) -> list[list[Value]]:
        """The gradients with respect to `wrt`, for each of several weightings of the outputs."""
        gradients: list[list[Value]] = []
        for weights in seeds:
            start: dict[Value, Value] = {}
            for y, gradient in weights.items():
                v = self.stable[y]
                start[v] = _sum(start[v], gradient) if v in start else gradient
            gradients.append(_backward(start, self.wrt))
        if not self.anchors:
            return gradients
        originals = {new: old for old, new in self.anchors.items()}
        flat = [gradient for row in gradients for gradient in row]
        flat = replace(flat, originals)
        rows = iter(flat)
        return [[next(rows) for _ in row] for row in gradients]


class _Reverse:
    """Reverse mode, as ops are handed it (see `Backward`)."""

    def __call__(self, seeds: Mapping[Value, Value], wrt: Sequence[Value]) -> list[Value]:
        return _backward(seeds, wrt)

    def mask_of(self, g: Value) -> Mask | None:
        return mask_of(g)


_REVERSE = _Reverse()


def _backward(seeds: Mapping[Value, Value], wrt: Sequence[Value]) -> list[Value]:
    locations = current_locations()
    order = toposort(seeds)
    towards = dependent(order, wrt)
    gradients: dict[Value, Value] = dict(seeds)
    of_items: dict[Value, dict[int, Value]] = {}
    for v in reversed(order):
        if v not in towards or not v.args:
            continue
        g = (
            _tuple_gradient(v.type, of_items.get(v))
            if isinstance(v.type, TupleType)
            else gradients.get(v)
        )
        if g is None:
            continue
        if isinstance(v.op, Item):
            # An item gives its gradient to the tuple's table; the op gets all of them at once.
            of_items.setdefault(v.args[0], {})[v.op.index] = g
            continue
        with locations.located(v, backward=True):
            _add_pulled_back(v, g, towards, gradients)
    return [gradients[x] if x in gradients else zeros_like(x) for x in wrt]


def _tuple_gradient(type_: TupleType, gradients: Mapping[int, Value] | None) -> Any:
    """The gradients at all results of a tuple, None where one has none; None where no result
    has."""
    return tuple(gradients.get(i) for i in range(len(type_.items))) if gradients else None


def _add_pulled_back(
    v: Value, g: Any, towards: Collection[Value], gradients: dict[Value, Value]
) -> None:
    """Adds what an op makes of the gradient at its result to those at its arguments."""
    for x, gx in zip(v.args, v.op.pullback_by(_REVERSE, g, v), strict=True):
        if gx is None or x not in towards:
            continue
        _check_gradient(v, x, gx)
        gradients[x] = _sum(gradients[x], gx) if x in gradients else gx


def _sum(a: Value, b: Value) -> Value:
    """Two gradients of one type together."""
    return mapped(placeholder(0) + placeholder(1), (a, b))


def _check_gradient(v: Value, x: Value, gradient: Value) -> None:
    if gradient.dtype is not x.dtype or same_shape(gradient.shape, x.shape) is not True:
        raise CompileError(
            f"the gradient of op {type(v.op).__name__} is wrong: for {x.type} it is {gradient.type}"
        )


def _check_real(role: str, x: Any) -> None:
    if not isinstance(x, Value):
        raise GradientError(
            f"gradients are taken of values with respect to values, got {x!r}",
            hint="a value is an input, a parameter, or computed from them",
        )
    if not isinstance(x.type, Type) or not x.dtype.is_float:
        raise GradientError(
            f"no gradient of or with respect to {x.type}, which is not real",
            rows=[(role, *described(x))],
            hint="x.astype(f32) converts integers",
        )


def _like(array_like: Any, x: Value, role: str) -> Value:
    v = as_value(array_like, x)
    if v.dtype is not x.dtype or same_shape(v.shape, x.shape) is not True:
        raise GradientError(
            f"the {role} must be {x.type}, got {v.type}",
            rows=[("for", *described(x)), (role, *described(v))],
        )
    return v


def _sequence(x: Any) -> list[Any]:
    if isinstance(x, Mapping):
        return list(x.values())
    return list(x) if isinstance(x, Sequence) and not isinstance(x, str) else [x]


def _structured(like: Any, results: list[Value]) -> Any:
    if isinstance(like, Mapping):
        return dict(zip(like, results, strict=True))
    return results if isinstance(like, Sequence) and not isinstance(like, str) else results[0]
