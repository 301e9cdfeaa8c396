"""The gradient of a loop's body, with what depends on no gradient as factors of their own.

Going back through one iteration is linear in the gradients that come in. Its elementwise ops are
written as sums of gradients, each with one factor: `g·tanh'(x)` as `g` times a value that belongs
to the forward pass. Factors of factors are multiplied first, and what the forward pass computed is
not computed again within them (the tanh(x) in 1 − tanh(x)²).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sympy as sp

from nncompile.elementwise.derivative import differentiate
from nncompile.elementwise.lowering import operation_count
from nncompile.elementwise.map import body_of, is_plain, mapped
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import const
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.graph import toposort
from nncompile.ir.op import Value
from nncompile.ir.transform import dependent, rebuilt, transformed
from nncompile.ops.shape.joining import Concat, concatenate


def separated(
    gradients: Sequence[Value], forward: Iterable[Value], cotangents: Iterable[Value]
) -> list[Value]:
    """The gradients, linear in the `cotangents`, with separate factors; `forward` are the values of
    the forward pass."""
    return _Separation(gradients, forward, cotangents).run()


@dataclass(frozen=True)
class _Term:
    """number · factor · gradient."""

    number: sp.Rational
    factor: Value | None
    gradient: Value

    @property
    def scale(self) -> Value | None:
        """number · factor; None for 1."""
        if self.factor is None:
            return None if self.number == 1 else const(float(self.number), self.gradient.dtype)
        return self.factor if self.number == 1 else self.factor * float(self.number)


def _gathered(terms: Iterable[_Term]) -> list[_Term]:
    """The terms, those of one gradient as one: a·g + b·g is (a + b)·g."""
    by_gradient: dict[Value, _Term] = {}
    for term in terms:
        known = by_gradient.get(term.gradient)
        if known is None:
            by_gradient[term.gradient] = term
        elif known.factor is None and term.factor is None:
            by_gradient[term.gradient] = _Term(known.number + term.number, None, term.gradient)
        else:
            unit = const(1, term.gradient.dtype)
            pair = [unit if t.scale is None else t.scale for t in (known, term)]
            total = pair[0] + pair[1]
            by_gradient[term.gradient] = _Term(sp.Integer(1), total, term.gradient)
    return list(by_gradient.values())


class _Separation:
    def __init__(
        self, gradients: Sequence[Value], forward: Iterable[Value], cotangents: Iterable[Value]
    ) -> None:
        self.gradients = gradients
        self.linear = dependent(toposort(gradients), tuple(cotangents))
        self.known = [v for v in toposort(forward) if is_plain(v)]
        self.known.sort(key=lambda v: -operation_count(body_of(v)))
        self.scaled: dict[Value, _Term] = {}

    def run(self) -> list[Value]:
        def make(v: Value, args: list[Value]) -> Value:
            if v not in self.linear:
                return v
            new = rebuilt(v, args)
            self.linear.add(new)
            new = self._of_terms(new) if is_plain(new) else self._joined(new)
            self.linear.add(new)
            return new

        return transformed(self.gradients, make)

    def _of_terms(self, value: Value) -> Value:
        """An elementwise op as a sum of gradients with factors, where it is one."""
        body = body_of(value)
        indices = [i for i, a in enumerate(value.args) if a in self.linear]
        variables = {placeholder(i) for i in indices}
        factors = [differentiate(body, placeholder(i)) for i in indices]
        linear_part = sp.Add(*(f * placeholder(i) for f, i in zip(factors, indices, strict=True)))
        if any(f.free_symbols & variables for f in factors):
            return value
        if body != linear_part and sp.expand(body - linear_part) != 0:
            return value
        terms = _gathered(
            self._term(factor, value.args, value.args[i])
            for factor, i in zip(factors, indices, strict=True)
        )
        new = self._sum(terms)
        if new.type != value.type:
            return value
        if len(terms) == 1 and terms[0].gradient.type == new.type:
            self.scaled[new] = terms[0]
        return new

    def _term(self, factor: sp.Expr, args: Sequence[Value], gradient: Value) -> _Term:
        before = self.scaled.get(gradient, _Term(sp.Integer(1), None, gradient))
        number, rest = factor.as_coeff_Mul()
        if not number.is_Rational:
            number, rest = sp.Integer(1), factor
        value = before.factor
        if rest != 1:
            new = self._forward(mapped(rest, args))
            value = new if value is None else value * new
        return _Term(number * before.number, value, before.gradient)

    def _sum(self, terms: Sequence[_Term]) -> Value:
        body: sp.Expr = sp.Integer(0)
        args: list[Value] = []
        for term in terms:
            product = term.number * placeholder(len(args))
            args.append(term.gradient)
            if term.factor is not None:
                product = product * placeholder(len(args))
                args.append(term.factor)
            body = body + product
        return mapped(body, args)

    def _forward(self, factor: Value) -> Value:
        """The factor with values of the forward pass in place of the same computations."""
        if not is_plain(factor):
            return factor
        body, args = body_of(factor), list(factor.args)
        for v in self.known:
            indices = {a: i for i, a in enumerate(args)}
            if v in indices or any(a not in indices for a in v.args):
                continue
            renamed = {placeholder(i): placeholder(indices[a]) for i, a in enumerate(v.args)}
            part = body_of(v).xreplace(renamed)
            if body.has(part):
                body = body.xreplace({part: placeholder(len(args))})
                args.append(v)
        new = mapped(body, args)
        return new if new.type == factor.type else factor

    def _joined(self, value: Value) -> Value:
        """Gradients with factors, joined: the gradients joined, times the factors joined."""
        if not isinstance(value.op, Concat) or not all(a in self.scaled for a in value.args):
            return value
        terms = [self.scaled[a] for a in value.args]
        if any(t.factor is None for t in terms):
            return value
        scales = [t.scale for t in terms]
        factors = [
            broadcast_to(scale, t.gradient.shape)
            for scale, t in zip(scales, terms, strict=True)
            if scale is not None
        ]
        factor = concatenate(factors, value.op.axis)
        gradient = concatenate([t.gradient for t in terms], value.op.axis)
        new = gradient * factor
        self.linear.add(gradient)
        self.scaled[new] = _Term(sp.Integer(1), factor, gradient)
        return new if new.type == value.type else value
