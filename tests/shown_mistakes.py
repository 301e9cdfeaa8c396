"""Mistakes whose messages are kept under `snapshots/`: each line of theirs is part of one."""

from __future__ import annotations

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.locations import scope
from nncompile.elementwise import exp, log
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64
from nncompile.ops import argmax, concatenate, reshape
from nncompile.ops import sum as total
from nncompile.passes import optimize
from tests.leaves import leaf


def inner_sizes() -> Value:
    image = leaf("image", f32["batch", 28, 28])
    weight = leaf("stem.weight", f32[512, 128], "parameter")
    with scope("digits"), scope("stem"):
        return reshape(image, ("batch", 784)) @ weight


def broadcasting() -> Value:
    return leaf("a", f32["batch", 3]) + leaf("b", f32["batch", 4])


def unknown_sizes() -> Value:
    return leaf("a", f32["batch", 3]) * leaf("b", f32["rows", 3])


def missing_axis() -> Value:
    return total(leaf("a", f32["batch", 3]), axis=2)


def reshape_of_unknown() -> Value:
    return reshape(leaf("a", f32["batch", 3]), (-1, 2))


def truth_of_a_value() -> Value:
    x = leaf("x", f32["batch"])
    return exp(x) if x > 0 else log(x)


def gradient_of_an_integer() -> Value:
    x = leaf("x", f32["batch", 3])
    return grad(argmax(x, 1).sum(), x)


def gradient_of_a_tensor() -> Value:
    x = leaf("x", f32["batch", 3])
    return grad(exp(x), x)


def unequal_pieces() -> Value:
    return concatenate([leaf("a", f32["batch", 3]), leaf("b", f32["batch", 3, 1])], axis=1)


def unknown_pass() -> Graph:
    x = leaf("x", i64["batch"])
    return optimize(Graph("graph", {"y": x + 1}), without=["gems"])


MISTAKES = (
    inner_sizes,
    broadcasting,
    unknown_sizes,
    missing_axis,
    reshape_of_unknown,
    truth_of_a_value,
    gradient_of_an_integer,
    gradient_of_a_tensor,
    unequal_pieces,
    unknown_pass,
)
