"""What recipes do to gradients and parameters: maximizing, noise, bounds on norms, groups."""

from __future__ import annotations

import numpy as np
import pytest

from dsl import f32, tanh
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph
from nncompile.ir.types import f64
from nncompile.optim import adam, adamw, sgd
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import maximize, minimize, training
from nncompile.train import Trainer
from tests.leaves import leaf
from tests.small_models import data, perceptron
from tests.step_checks import state_after
from tests.tolerances import assert_close


def test_up_the_gradient_is_down_that_of_the_negative() -> None:
    w, x = leaf("w", f32[3], "parameter"), leaf("x", f32["n", 3])
    reward = (tanh(x @ w)).mean()
    start = {"w": full((3,), 0.1)}
    net = Model("m", Graph("m", {"reward": reward, "loss": -reward}, (x, w)), start)
    up = compose(training(net, updates=[maximize(optimizer=adam(0.1))]))
    down = compose(training(net, updates=minimize(optimizer=adam(0.1))))
    batch = {"x": data(8)["x"][:, :3]}
    one, other = (state_after(s, s.initial(0), batch) for s in (up, down))
    np.testing.assert_allclose(one["w"], other["w"], 1e-6)
    assert one["w"][0] != 0.1


def test_noise_has_its_variance_and_its_decay() -> None:
    w, x = leaf("w", f64[20_000], "parameter"), leaf("x", f64[()])
    net = Model("m", Graph("m", {"loss": (x * w).sum()}, (x, w)), {"w": full((20_000,), 0.0, f64)})
    step = compose(training(net, optimizer=sgd(1.0), noise=0.3))
    state = step.initial(0)
    drawn = []
    for t in range(3):
        before = state["w"]
        state = state_after(step, state, {"x": np.zeros(())})
        drawn.append(before - state["w"])
        assert drawn[-1].var() == pytest.approx(0.3 / (1 + t) ** 0.55, rel=0.05)
        assert abs(drawn[-1].mean()) < 4 * (0.3 / 20_000) ** 0.5
    assert abs(np.corrcoef(drawn[0], drawn[1])[0, 1]) < 0.04


def test_the_norm_of_what_enters_a_unit_is_held() -> None:
    free = Trainer(training(perceptron(), optimizer=sgd(0.5)))
    held = Trainer(training(perceptron(), optimizer=sgd(0.5), max_norm=0.7))
    for trainer in (free, held):
        trainer.fit([data(16)], epochs=1)
    for path in ("hidden.weight", "out.weight"):
        norms = np.linalg.norm(free.params[path], axis=0)
        assert (norms > 0.7).any()
        expected = free.params[path] * np.minimum(1, 0.7 / norms)
        assert_close(held.params[path], expected, "float32", path)
    assert_close(held.params["hidden.bias"], free.params["hidden.bias"], "float32")


def test_groups_of_parameters_have_rates_decays_and_rules_of_their_own() -> None:
    torch = pytest.importorskip("torch")
    groups = {
        "*.bias": sgd(0.05),
        "hidden.*": adamw(0.01, weight_decay=0.2),
        "*": adamw(0.02, weight_decay=0.0),
    }
    trainer = Trainer(training(perceptron(), optimizer=groups))
    p = {path: torch.nn.Parameter(torch.from_numpy(x)) for path, x in trainer.params.items()}
    several = [
        torch.optim.SGD([p["hidden.bias"]], 0.05),
        torch.optim.AdamW(
            [
                {"params": [p["hidden.weight"]], "lr": 0.01, "weight_decay": 0.2},
                {"params": [p["out.weight"]], "lr": 0.02, "weight_decay": 0.0},
            ]
        ),
    ]
    for i in range(10):
        batch = data(16, i)
        trainer.fit([batch], epochs=1)
        x, target = (torch.from_numpy(batch[name]) for name in ("x", "target"))
        hidden = torch.tanh(x @ p["hidden.weight"] + p["hidden.bias"])
        loss = ((hidden @ p["out.weight"] - target) ** 2).mean()
        for optimizer in several:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in several:
            optimizer.step()
    for path, x in trainer.params.items():
        assert_close(x, p[path].detach().numpy(), "float32", path)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (("*.bais", "*"), r"'\*\.bais' matches no parameter of model(.|\n)*mean '\*\.bias'"),
        (("hiden.*", "*"), r"'hiden\.\*'(.|\n)*out\.weight(.|\n)*did you mean 'hidden"),
        (("*", "*.bias"), r"'\*\.bias' is never used: '\*'(.|\n)*put '\*\.bias' first"),
        (("*", "[ho]*"), r"'\[ho\]\*' is never used: '\*'(.|\n)*put '\[ho\]\*' first"),
        (
            ("*.weight", "*.bias", "hidden.*"),
            r"'hidden\.\*' is never used: '\*\.weight' and '\*\.bias', which come first, match all",
        ),
    ],
)
def test_groups_of_no_parameters_are_told(groups: tuple[str, ...], words: str) -> None:
    optimizers = {pattern: sgd(0.1 * i) for i, pattern in enumerate(groups)}
    with pytest.raises(ModelError, match=words):
        training(perceptron(), optimizer=optimizers)


def test_groups_may_overlap_be_frozen_and_leave_nothing_over() -> None:
    rates = {"hidden.*": sgd(0.1), "*.weight": sgd(0.2), "*": sgd(0.3)}
    assert training(perceptron(), optimizer=rates, freeze="hidden.*").freeze == ("hidden.*",)
    update = training(perceptron(), optimizer=rates).updates[0]
    assert update.optimizer_of("hidden.weight").lr == 0.1
    assert update.optimizer_of("out.weight").lr == 0.2
