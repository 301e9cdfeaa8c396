"""What every op gets for free: its type rule, gradients and lowerings are checked against each
other on its samples, and on random variations of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec

import pytest

from nncompile.ir.op import Op
from tests import op_checks, op_types
from tests.op_types import Case

CASES = [
    case
    for op_type in op_types.registered_ops()
    for case in (*op_types.cases_of(op_type), *op_types.varied_cases_of(op_type))
]
# Differences are taken in double, where these are the cases above.
TYPED = [case for op_type in op_types.registered_ops() for case in op_types.typed_cases_of(op_type)]
TYPED_NAMES = {case.name for case in TYPED}

QUICK = 2  # cases of each op in `make quick`


def each(cases: list[Case]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of all these, of which the first few of each op are not slow."""
    before: Counter[type[Op]] = Counter()
    chosen = []
    for case in cases:
        op_type = type(case.sample.op)
        marks = [pytest.mark.slow] if before[op_type] >= QUICK else []
        chosen.append(pytest.param(case, id=case.name, marks=marks))
        before[op_type] += 1
    return lambda test: pytest.mark.choosing(pytest.mark.parametrize("case", chosen)(test))


@pytest.mark.choosing
@pytest.mark.parametrize("op_type", op_types.registered_ops(), ids=lambda op_type: op_type.__name__)
def test_has_samples(op_type: type[Op]) -> None:
    op_checks.check_samples(op_type)


@each(CASES + TYPED)
def test_op(case: Case) -> None:
    op_checks.check_type(case)
    op_checks.check_interned(case)
    if op_checks.has_gradients(case) and case.name not in TYPED_NAMES:
        op_checks.check_gradients(case)
    op_checks.check_onnx(case)
    if op_checks.is_differentiable(case):
        op_checks.check_gradient_onnx(case)
    if find_spec("torch"):
        op_checks.check_torch(case)
