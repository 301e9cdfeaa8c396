"""Mixture of experts: against its definition in torch, its balance, and a router that learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import MixtureOfExperts, adam, f32, f64, i64, mean_squared_error, model, relu, training
from nncompile.diagnostics.errors import DTypeError, ModelError
from nncompile.train import Trainer
from tests.attention_checks import Differentiated, built, in_numpy

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional


def theirs(top_k: int) -> Any:
    """Each token through each of its experts, one by one."""

    def function(x: Any, **p: Any) -> Any:
        p = {name.removeprefix("m."): value for name, value in p.items()}
        rows = []
        for token in x.reshape(-1, x.shape[-1]):
            scores = token @ p["router"]
            best = torch.topk(scores, top_k).indices
            weights = scores.softmax(0)[best] if top_k == 1 else scores[best].softmax(0)
            answers = [
                torch.relu(token @ p["weight"][e] + p["bias"][e, 0]) @ p["output_weight"][e]
                + p["output_bias"][e, 0]
                for e in best
            ]
            rows.append(sum(w * a for w, a in zip(weights, answers, strict=True)))
        return torch.stack(rows).reshape(x.shape)

    return function


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_values_and_gradients_are_those_of_the_definition(top_k: int) -> None:
    layer = MixtureOfExperts(4, top_k=top_k, hidden_size=5, activation=relu, name="m")
    ours = Differentiated(layer, {"x": ("b", "t", 3)})
    for b, t in ((2, 3), (1, 7)):
        ours.assert_is(theirs(top_k), x=np.random.default_rng(t).normal(size=(b, t, 3)))


def test_balance_is_one_where_experts_are_used_alike() -> None:
    layer = MixtureOfExperts(4, top_k=1, name="m")
    loss, parameters = built(layer.balance, x=f64["b", 4])
    assert list(parameters) == ["m.router"]
    even = in_numpy({"y": loss}, {"x": np.eye(4) * 9, "m.router": np.eye(4)})["y"]
    assert even == pytest.approx(1.0)
    uneven = np.tile(np.eye(4)[:1] * 9, (4, 1))
    one = in_numpy({"y": loss}, {"x": uneven, "m.router": np.eye(4)})["y"]
    assert 3.9 < one < 4.0

    def function(x: Any, **p: Any) -> Any:
        scores = x @ p["m.router"]
        used = functional.one_hot(scores.argmax(-1), 4).double().mean(0)
        return 4 * (used * scores.softmax(-1).mean(0)).sum()

    ours = Differentiated(layer.balance, {"x": ("b", 4)})
    ours.assert_is(function, x=np.random.default_rng(1).normal(size=(6, 4)))


def test_experts_share_out_the_work() -> None:
    """Two regions with linear functions of their own: the experts fit both, and all are used."""
    mixture = MixtureOfExperts(4, top_k=2, hidden_size=8, activation=relu)

    @model
    def net(x=f32["batch", 4], target=f32["batch", 4]):
        y, balance = mixture(x), mixture.balance(x)
        error = mean_squared_error(y, target)
        return {"y": y, "error": error, "balance": balance, "loss": error + 0.02 * balance}

    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 4)).astype(np.float32)
    data = {"x": x, "target": np.where(x[:, :1] > 0, x[:, ::-1], -2 * x)}
    trainer = Trainer(training(net, optimizer=adam(1e-2), batch_size=64), threads=1)
    before = trainer.evaluate(data)
    trainer.fit(data, epochs=40)
    after = trainer.evaluate(data)
    assert after["error"] < 0.1 * before["error"]
    assert after["balance"] < 1.3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="top_k=5 is more than the 4 experts"):
        MixtureOfExperts(4, top_k=5)
    with pytest.raises(ModelError, match="top_k of MixtureOfExperts must be at least 1"):
        MixtureOfExperts(4, top_k=0)
    with pytest.raises(DTypeError, match=r"MixtureOfExperts needs floating numbers.*i64\[b, 3\]"):
        built(MixtureOfExperts(4), x=i64["b", 3])


def test_experts_without_biases() -> None:
    @model
    def net(x=f32["n", 4]):  # type: ignore[no-untyped-def]
        return {"y": x >> MixtureOfExperts(3, hidden_size=5, bias=False, name="m")}

    assert set(net.parameters) == {"m.router", "m.weight", "m.output_weight"}
