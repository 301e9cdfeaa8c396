"""Groups of parameters with learning rates of their own, and rates that cannot be set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError, UnknownNameError
from nncompile.optim import (
    adam,
    adjustable,
    cosine,
    muon,
    plateau,
    rprop,
    sgd,
)
from nncompile.program.rate_groups import rate_groups
from nncompile.program.recipe import assign, minimize, training
from nncompile.train import (
    Trainer,
)
from tests.small_models import assert_same, averaging, data, perceptron, trainer
from tests.test_rates_set import GROUPS, of


def test_recipes_that_do_not_ask_keep_their_step() -> None:
    ours = of(GROUPS)
    step, state = ours.compiled, ours.state
    assert ours.learning_rate == {"*.bias": 0.1, "hidden.*": 0.01, "*": 0.02}
    ours.learning_rate = ours.learning_rate
    ours.set_learning_rate(None)
    assert ours.compiled is step and ours.state.keys() == state.keys()
    ours.set_learning_rate(1e-3, "hidden.*")
    assert ours.state.keys() - state.keys() == {"training.adjustable.hidden.rate"}
    assert ours.declared is step


def test_groups_have_rates_of_their_own() -> None:
    """One that is at 0 stays, the others go on as they would have."""
    whole, ours = of(GROUPS), of(GROUPS)
    ours.set_learning_rate(0, "hidden.*")
    assert ours.learning_rate == {"*.bias": 0.1, "hidden.*": 0.0, "*": 0.02}
    before = ours.params
    for each in (whole, ours):
        each.fit([data(16)], steps=1)
    moved = [p for p, x in ours.params.items() if not np.array_equal(x, before[p])]
    assert moved == ["hidden.bias", "out.weight"]
    assert_same({p: whole.params[p] for p in moved}, {p: ours.params[p] for p in moved})
    ours.learning_rate = {"hidden.*": None, "*": 0.5}
    assert ours.learning_rate == {"*.bias": 0.1, "hidden.*": 0.01, "*": 0.5}
    ours.learning_rate = 0.25
    assert set(ours.learning_rate.values()) == {0.25}  # type: ignore[union-attr]
    ours.set_learning_rate(0.125, "loss")
    assert set(ours.learning_rate.values()) == {0.125}  # type: ignore[union-attr]


def test_labels_tell_groups_apart() -> None:
    def labels(*updates: Any) -> list[str]:
        return list(rate_groups(training(perceptron(), updates=updates)))

    one, other = minimize("loss", "hidden.*"), minimize("loss", "out.*", optimizer=adam())
    assert labels(one) == ["loss"]
    assert labels(one, other) == ["hidden.*", "out.*"]
    assert labels(one, one) == ["hidden.*", "hidden.* 1"]
    assert labels(one, minimize("bias", optimizer=GROUPS)) == [
        *("loss", "bias *.bias", "bias hidden.*", "bias *")
    ]
    assert labels(minimize(optimizer=muon(0.1, others=sgd(0.2)))) == ["loss", "loss others"]
    assert labels(minimize(optimizer=muon(0.1))) == ["loss"]


def test_losses_and_optimizers_within_others_have_rates_of_their_own() -> None:
    updates = [
        minimize("loss", "hidden.*", optimizer=muon(0.1, others=sgd(0.2))),
        minimize("bias", "out.*", optimizer=adam(plateau(0.3))),
    ]
    ours = Trainer(training(perceptron(), updates=updates))
    assert ours.learning_rate == pytest.approx({"loss": 0.1, "loss others": 0.2, "bias": 0.3})
    ours.learning_rate = {"loss": 0.0, "loss others": 0.0, "bias": 0.0}
    before = ours.params
    ours.fit(data(), epochs=1)
    assert_same(ours.params, before)
    ours.set_learning_rate(0.01, "loss others")
    ours.fit(data(), epochs=1)
    moved = [p for p, x in ours.params.items() if not np.array_equal(x, before[p])]
    assert moved == ["hidden.bias"]


def test_two_losses_with_equal_rates_have_two() -> None:
    updates = [minimize("loss", optimizer=sgd(adjustable(0.1)))]
    updates += [minimize("bias", optimizer=sgd(adjustable(0.1)))]
    ours = Trainer(training(perceptron(), updates=updates))
    ours.set_learning_rate(0.5, "bias")
    assert ours.learning_rate == {"loss": 0.1, "bias": 0.5}
    assert ours.state["training.adjustable.bias.rate"] == 0.5
    several = {"hidden.*": sgd(adjustable(0.1)), "*": sgd(adjustable(0.2))}
    with pytest.raises(ModelError, match=r"same state(.|\n)*adjustable\(0.1, name="):
        of(several)
    named = {"hidden.*": sgd(adjustable(0.1, name="low")), "*": sgd(adjustable(0.2))}
    assert {"training.low.rate", "training.adjustable.rate"} <= of(named).state.keys()


@pytest.mark.parametrize(
    ("rate", "group", "words"),
    [
        (-1e-3, None, "must not be negative, got -0.001"),
        (float("nan"), None, "must not be negative, got nan"),
        (float("inf"), None, "must be finite, got inf"),
        ("0.1", None, "must be a number, got '0.1'"),
        (True, None, "must be a number, got True"),
        ([0.1], None, "must be a number"),
        (cosine(0.1, steps=3), None, "must be a number"),
        (0.1, "hiden.*", r"no group 'hiden.\*'(.|\n)*hidden.\*(.|\n)*did you mean 'hidden.\*'"),
        (0.1, 3, "no group 3"),
        ({"hidden.*": 0.1, "out": 0.1}, None, "no group 'out'"),
        ({"hidden.*": 0.1, "*": -1}, None, "must not be negative"),
        ({"*": 0.1}, "*", "either a group, or rates by group"),
    ],
)
def test_rates_that_are_none_change_nothing(rate: Any, group: Any, words: str) -> None:
    ours = of(GROUPS)
    with pytest.raises(ModelError, match=words):
        ours.set_learning_rate(rate, group)
    assert ours.compiled is ours.declared


def test_recipes_without_a_rate_that_can_be_set() -> None:
    rule = Trainer(training(averaging(), updates=assign("w", 1.0)))
    with pytest.raises(ModelError, match="no learning rate: no update follows a gradient"):
        rule.learning_rate = 0.1
    ours = of({"hidden.*": rprop(0.01), "*": sgd(0.1)})
    with pytest.raises(ModelError, match=r"rate of rprop must be a number(.|\n)*adapt themselves"):
        ours.learning_rate = 0.1
    ours.set_learning_rate(0.2, "*")
    assert ours.learning_rate == {"hidden.*": 0.01, "*": 0.2}
    with pytest.raises(ModelError, match="adjustable within adjustable"):
        adjustable(adjustable(0.1))
    with pytest.raises(
        ModelError, match=r"plateau must be a number or a schedule(.|\n)*adjustable"
    ):
        plateau(adjustable(0.1))


def test_other_names_of_the_rate_say_how_it_is_set() -> None:
    ours = trainer()
    for name in ("lr", "optimizer", "rate"):
        with pytest.raises(UnknownNameError, match=r"trainer.learning_rate = 1e-4"):
            setattr(ours, name, 3)
    for name in ("lr", "set_lr", "param_groups", "optimizer"):
        with pytest.raises(AttributeError, match=r"trainer\.learning_rate"):
            getattr(ours, name)
