"""Bodies as one line of mathematics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp

from nncompile.elementwise.expressions import Head, constant, placeholder

_SUM, _PRODUCT, _POWER, _ATOM = 1, 2, 3, 4
_INFIX = {
    "less": "<",
    "less_equal": "<=",
    "equal": "==",
    "not_equal": "!=",
    "logical_and": "&",
    "logical_or": "|",
    "logical_xor": "^",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
    "left_shift": "<<",
    "right_shift": ">>",
    "int_add": "+",
    "int_subtract": "-",
    "int_multiply": "*",
    "mod": "%",
    "floor_divide": "//",
}
_COMPARISONS = frozenset(("less", "less_equal", "equal", "not_equal"))
_TURNED = {"less": ">", "less_equal": ">="}  # x > 0 rather than 0 < x
_POWERS = frozenset(("power", "int_power"))
_PREFIX = {"logical_not": "~", "invert": "~", "int_negative": "-"}


def text(body: sp.Expr, names: Sequence[str] | Mapping[sp.Symbol, str] = ()) -> str:
    """The body as Python writes it, with `names` for its arguments.

    >>> from nncompile.elementwise.sympy_functions import sigmoid
    >>> text(placeholder(0) * sigmoid(2 * placeholder(1)) / 3, ["a", "b"])
    'a*sigmoid(2*b)/3'
    """
    if not isinstance(names, Mapping):
        names = {placeholder(i): name for i, name in enumerate(names)}
    return _Printer(names).show(body, 0)


class _Printer:
    def __init__(self, names: Mapping[sp.Symbol, str]) -> None:
        self.names = names

    def show(self, x: sp.Expr, outer: int) -> str:
        """`x`, in brackets where it binds weaker than what is around it."""
        text, level = self._show(x)
        return f"({text})" if level < outer else text

    def _show(self, x: sp.Expr) -> tuple[str, int]:
        if x.is_Symbol:
            return self.names.get(x, x.name), _ATOM
        value = constant(x)
        if value is not None:
            return _number(value)
        if isinstance(x, Head):
            return self._head(x)
        return self._sum(x) if x.is_Add else self._product(x)

    def _head(self, x: Head) -> tuple[str, int]:
        name = x.meaning.name
        if name in _INFIX:
            operands, sign = x.args, _INFIX[name]
            is_reversed = name in _TURNED and _is_literal(operands[0])
            if is_reversed or (x.meaning.symmetric and _is_literal(operands[0])):
                operands, sign = operands[::-1], _TURNED.get(name, sign)
            a, b = (self.show(y, _SUM if name in _COMPARISONS else _POWER) for y in operands)
            return f"{a} {sign} {b}", 0
        if name in _POWERS:
            base, exponent = (self.show(y, _ATOM) for y in x.args)
            return f"{base}**{exponent}", _POWER
        if name in _PREFIX:
            return _PREFIX[name] + self.show(x.args[0], _ATOM), _POWER
        return f"{name}({', '.join(self.show(y, 0) for y in x.args)})", _ATOM

    def _sum(self, x: sp.Expr) -> tuple[str, int]:
        terms = sorted(x.args, key=lambda t: (_is_literal(t), _is_negative(t)))
        if _is_negative(terms[0]) and not _is_negative(terms[-1]):
            terms.reverse()
        text = self.show(terms[0], _SUM)
        for term in terms[1:]:
            negative = _is_negative(term)
            text += (
                f" {'-' if negative else '+'} {self.show(-term if negative else term, _PRODUCT)}"
            )
        return text, _SUM

    def _product(self, x: sp.Expr) -> tuple[str, int]:
        coefficient, rest = x.as_coeff_Mul()
        above: list[str] = []
        below: list[str] = []
        for factor in sp.Mul.make_args(rest):
            base, exponent = factor.as_base_exp() if factor.is_Pow else (factor, 1)
            text = self.show(base, _ATOM if abs(exponent) != 1 else _POWER)
            if abs(exponent) != 1:
                text += f"**{abs(exponent)}"
            (above if exponent > 0 else below).append(text)
        sign = "-" if coefficient < 0 else ""
        size = abs(coefficient)
        if size.p == 1 and size.q != 1 and above and len(str(size.q)) < 4:
            below.append(str(size.q))
        elif size != 1 or not above:
            above.insert(0, _number(size)[0])
        text = sign + "*".join(above)
        if below:
            text += "/" + (below[0] if len(below) == 1 else f"({'*'.join(below)})")
        if not rest.is_Mul and coefficient == 1 and not below:
            return text, _POWER
        return text, _PRODUCT if not sign else _SUM


def _is_literal(term: sp.Expr) -> bool:
    return constant(term) is not None


def _is_negative(term: sp.Expr) -> bool:
    return bool(term.as_coeff_Mul()[0].is_negative)


def _number(value: float | sp.Rational) -> tuple[str, int]:
    if isinstance(value, float):
        return str(value), _SUM if value < 0 else _ATOM
    text = str(value.p) if value.q == 1 else f"{float(value):.6g}"
    return text, _SUM if value < 0 else _ATOM
