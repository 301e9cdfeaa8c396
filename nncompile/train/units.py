"""The hidden units of a network: what its elementwise nonlinearities give, found in the graph."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp

from nncompile.diagnostics.locations import LocationTable
from nncompile.elementwise import abs
from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import cast
from nncompile.ir.broadcasting import ones_like
from nncompile.ir.graph import Input, toposort
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.transform import dependent
from nncompile.ir.types import Type, f32
from nncompile.ops.contraction.einsum import Einsum
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.convolution.convolve import Conv, ConvTranspose


@dataclass(frozen=True, eq=False)
class HiddenUnits:
    """The result of a nonlinearity with a unit at each index of `axis`."""

    value: Value
    axis: int
    place: str
    formula: str

    def figures(self) -> dict[str, Value]:
        """`mean`, `variance`, the share of `zeros`, and for each unit whether it is `dead`: the
        nonlinearity has the derivative zero there for all of the batch."""
        x = self.value
        mean = x.mean()
        gradients = [g for g in x.op.pullback(ones_like(x), x, *x.args) if g is not None]
        other_axes = tuple(i for i in range(x.rank) if i != self.axis)
        largest = sum((abs(g) for g in gradients[1:]), start=abs(gradients[0]))
        if other_axes:
            largest = largest.max(other_axes)
        return {
            "mean": mean,
            "variance": ((x - mean) * (x - mean)).mean(),
            "zeros": cast(x == 0, f32).mean(),
            "dead": largest == 0,
        }


def depths(loss: Value) -> dict[Value, int]:
    """How many nodes the longest way from a node to the loss has."""
    distances = {loss: 0}
    for v in reversed(toposort([loss])):
        for a in v.args:
            distances[a] = max(distances.get(a, 0), distances[v] + 1)
    return distances


def hidden_units(loss: Value, locations: LocationTable, model: str) -> dict[str, HiddenUnits]:
    """The hidden units that the loss is computed of, by the path of the layer they are written in
    (numbered where it has several), in the order that the data meet them.

    They are the results of nonlinear functions of one tensor that depends on data and parameters,
    on whose way to the loss further parameters are met. What is within a scan is not among them.
    """
    order = toposort([loss])
    data = _depending(order, "input")
    trained = _depending(order, "parameter")
    mixing = {v for v in order if v in data and any(a in trained - data for a in v.args)}
    before = _ancestors(order, mixing)
    units: dict[str, HiddenUnits] = {}
    for v in order:
        if v in data and v in trained and v in before and _is_nonlinear(v):
            location = locations.location(v)
            scope = location.scope.split("/") if location else []
            path = ".".join(scope[1:] if scope[:1] == [model] else scope) or model
            name = unused_name(path, units)
            assert isinstance(v.op, Map)
            units[name] = HiddenUnits(
                v, _unit_axis(v), location.place if location else "", v.op.expression(["x"])
            )
    return units


def _depending(order: list[Value], kind: str) -> set[Value]:
    """The nodes that depend on leaves of that kind."""
    return dependent(order, [v for v in order if isinstance(v.op, Input) and v.op.kind == kind])


def _ancestors(order: list[Value], targets: set[Value]) -> set[Value]:
    """The nodes that a target is computed of, other than itself."""
    ancestors: set[Value] = set()
    for v in reversed(order):
        if v in ancestors or v in targets:
            ancestors.update(v.args)
    return ancestors


def _is_nonlinear(v: Value) -> bool:
    """Whether the node is a nonlinear function of one tensor, elementwise."""
    if not isinstance(v.op, Map) or v.op.count != 1 or not isinstance(v.type, Type):
        return False
    if not v.dtype.is_float or v.rank == 0 or not v.args[0].dtype.is_float:
        return False
    x = placeholder(0)
    body = v.op.body
    is_line = body.is_polynomial(x) and sp.Poly(body, x).degree() <= 1
    return not is_line and any(g is not None for g in v.op.pullback(ones_like(v), v, *v.args))


def _unit_axis(v: Value) -> int:
    """The axis of channels after a convolution, else the last."""
    waiting, visited = [v], set[Value]()
    while waiting:
        x = waiting.pop()
        if x in visited or (isinstance(x.type, Type) and x.rank != v.rank):
            continue
        visited.add(x)
        if isinstance(x.op, Conv | ConvTranspose):
            return 1
        if isinstance(x.op, Map):
            waiting += x.args
        elif not isinstance(x.op, MatMul | Gemm | Einsum):
            waiting += x.args[:1]  # what is normalised or pooled comes first
    return v.rank - 1
