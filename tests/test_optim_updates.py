"""Updates of single parameters against torch's: of any rank, up and down, and Muon's; and those
that are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ModelError
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import f64, i64
from nncompile.optim import Optimizer, adafactor, adamax, asgd, muon, rprop, sgd
from nncompile.optim.muon import orthogonalised
from nncompile.program.composition import compose
from nncompile.program.recipe import training
from tests.small_models import perceptron

STEPS = 24

DIRECT: dict[str, tuple[Optimizer, Any]] = {
    "adafactor": (adafactor(0.1), lambda o, p, **k: o.Adafactor(p, 0.1, **k)),
    "adamax": (adamax(0.1), lambda o, p, **k: o.Adamax(p, 0.1, **k)),
    "asgd": (asgd(0.1, 0.1, 0.6, 5), lambda o, p, **k: o.ASGD(p, 0.1, 0.1, 0.6, 5, **k)),
    "rprop": (rprop(0.1), lambda o, p, **k: o.Rprop(p, 0.1, **k)),
    "dampening": (
        sgd(0.1, 0.9, dampening=0.5),
        lambda o, p, **k: o.SGD(p, 0.1, 0.9, dampening=0.5, **k),
    ),
    "nesterov": (
        sgd(0.1, 0.9, nesterov=True, weight_decay=0.1),
        lambda o, p, **k: o.SGD(p, 0.1, 0.9, nesterov=True, weight_decay=0.1, **k),
    ),
}


@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 4), (3, 1), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("name", DIRECT)
def test_parameters_of_any_rank_are_those_of_torch(
    torch: Any, name: str, shape: tuple[int, ...]
) -> None:
    """Parameter and slots, up and down, after steps of gradients that are zero now and then."""
    torch.set_default_dtype(torch.float64)  # which torch keeps its rates in
    try:
        _compare(torch, *DIRECT[name], shape)
    finally:
        torch.set_default_dtype(torch.float32)


def _compare(torch: Any, ours: Optimizer, make: Any, shape: tuple[int, ...]) -> None:
    w, g, step = Input("w", f64[shape])(), Input("g", f64[shape])(), Input("step", i64[()])()
    first = ours.initial(w)
    leaves = {name: Input(f"slot {name}", x.type)() for name, x in first.items()}
    w_next, slots_next = ours.update(w, g, leaves, step)
    for maximize in (False, True):
        random = np.random.default_rng(3)
        now = random.normal(size=shape)
        slots = dict(zip(first, evaluate(list(first.values()), {"w": now}), strict=True))
        theirs = torch.nn.Parameter(torch.from_numpy(np.array(now)))
        optimizer = make(torch.optim, [theirs], maximize=maximize)
        for i in range(STEPS):
            gradient = random.normal(size=shape) * random.integers(0, 2, size=shape)
            up = -gradient if maximize else gradient
            feeds = {"w": now, "g": up, "step": np.asarray(i)}
            feeds |= {f"slot {name}": x for name, x in slots.items()}
            now, *new = evaluate([w_next, *slots_next.values()], feeds)
            slots = dict(zip(slots_next, new, strict=True))
            theirs.grad = torch.from_numpy(np.array(gradient))
            optimizer.step()
        np.testing.assert_allclose(now, theirs.detach().numpy(), 1e-10, 1e-12)
        for name, x in optimizer.state[theirs].items():
            if name in slots:
                np.testing.assert_allclose(slots[name], x.numpy(), 1e-10, 1e-12, err_msg=name)


def test_muon_is_that_of_torch(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the precision of the iteration, which is taken from here."""
    from torch.optim import _muon

    def iteration(g: Any, coefficients: Any, steps: int, epsilon: float) -> Any:
        value = orthogonalised(Input("g", f64[tuple(g.shape)])(), steps, epsilon, coefficients)
        return torch.from_numpy(evaluate(value, {"g": g.numpy()}))

    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", iteration)
    random = np.random.default_rng(3)
    for adjust in ("original", "match_rms_adamw"):
        for nesterov in (True, False):
            ours = muon(0.1, momentum=0.9, nesterov=nesterov, adjust_lr_fn=adjust)
            start = random.normal(size=(4, 6))
            theirs = torch.nn.Parameter(torch.from_numpy(start.T.copy()))  # [out, in]
            options: Any = {"momentum": 0.9, "nesterov": nesterov, "adjust_lr_fn": adjust}
            optimizer = torch.optim.Muon([theirs], 0.1, **options)
            w, u = start, np.zeros((4, 6))
            leaves = [Input(n, f64[4, 6])() for n in ("w", "g", "u")]
            step = Input("step", i64[()], "state")()
            w_next, slots = ours.update(leaves[0], leaves[1], {"u": leaves[2]}, step)
            for i in range(STEPS):
                g = random.normal(size=(4, 6))
                feeds = {"w": w, "g": g, "u": u, "step": np.asarray(i)}
                w, u = evaluate([w_next, slots["u"]], feeds)
                theirs.grad = torch.from_numpy(g.T.copy())
                optimizer.step()
            np.testing.assert_allclose(w, theirs.detach().numpy().T, 1e-9, 1e-9)


class Momentum(Optimizer):
    """One whose update is what `gives` makes of the parameter and the gradient."""

    gives: Any = None

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m",)

    def update(self, w: Value, g: Value, slots: Mapping[str, Value], step: Value) -> Any:
        return self.gives(w, g)


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        (lambda w, g: w - g, "update of Momentum must return the next parameter and a dict"),
        (lambda w, g: (w, {}), "the next value of each slot: m, got none"),
        (lambda w, g: (w, {"v": g}), "the next value of each slot: m, got v"),
        (lambda w, g: (w, {"m": g.sum()}), "slot m that update of Momentum returns has the wrong"),
        (lambda w, g: (w.astype(f64), {"m": g}), "parameter that update of Momentum returns has"),
    ],
)
def test_an_update_of_another_form_is_told(gives: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        compose(training(perceptron(), optimizer=Momentum(gives=gives)))
