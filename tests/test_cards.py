"""What every card gets for free: its type rule, gradients and lowerings are checked against each
other on its samples, and on random variations of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from nncompile.ir.graph import Op
from tests import card_checks, cards
from tests.cards import Case

CASES = [
    case
    for card in cards.our_cards()
    for case in (*cards.cases_of(card), *cards.varied_cases_of(card))
]
# In double, where slopes are checked, they are the cases above.
TYPED = [case for card in cards.our_cards() for case in cards.typed_cases_of(card)]
WITH_SLOPES = [case for case in CASES if card_checks.has_slopes(case)]


QUICK = 2  # cases of each card in `make quick`


def each(cases: list[Case]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of all these, of which the first few of each card are not slow."""
    before: Counter[type[Op]] = Counter()
    chosen = []
    for case in cases:
        card = type(case.sample.op)
        marks = [pytest.mark.slow] if before[card] >= QUICK else []
        chosen.append(pytest.param(case, id=case.name, marks=marks))
        before[card] += 1
    return lambda test: pytest.mark.choosing(pytest.mark.parametrize("case", chosen)(test))


@pytest.mark.choosing
@pytest.mark.parametrize("card", cards.our_cards(), ids=lambda card: card.__name__)
def test_has_samples(card: type[Op]) -> None:
    card_checks.check_samples(card)


@each(CASES + TYPED)
def test_type(case: Case) -> None:
    card_checks.check_type(case)


@each(CASES)
def test_interned(case: Case) -> None:
    card_checks.check_interned(case)


@each(CASES + TYPED)
def test_onnx(case: Case) -> None:
    card_checks.check_onnx(case)


@each(CASES + TYPED)
def test_torchscript(case: Case, torchscript: SimpleNamespace) -> None:
    card_checks.check_torch(case, torchscript.to_script, torchscript.torch)


@each(WITH_SLOPES)
def test_slopes(case: Case) -> None:
    card_checks.check_slopes(case)


@each([c for c in (*WITH_SLOPES, *TYPED) if card_checks.is_differentiable(c)])
def test_slopes_onnx(case: Case) -> None:
    card_checks.check_gradient_onnx(case)
