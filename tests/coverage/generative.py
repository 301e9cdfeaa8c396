"""Rows: systems of several parts, each with a small training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dsl
from dsl import f32, i64, model
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from tests.coverage.checks import System

SYSTEMS = "Generative and advanced"


def _autoencoder(noise: float = 0.0) -> Model:
    @model
    def net(x: Any = f32["batch", 6]) -> dict[str, Any]:
        seen = x >> dsl.GaussianNoise(noise) if noise else x
        code = seen >> dsl.Dense(2, dsl.tanh, name="code")
        return {"code": code, "loss": dsl.mse(code >> dsl.Dense(6, name="decoder"), x)}

    return net  # type: ignore[no-any-return]


def _variational() -> Model:
    @model
    def net(x: Any = f32["batch", 6]) -> dict[str, Any]:
        mean, spread = x >> dsl.Dense(2, name="mean"), x >> dsl.Dense(2, name="log_variance")
        code = mean + dsl.exp(spread / 2) * dsl.random_normal((x.shape[0], 2))
        logits = code >> dsl.Dense(6, name="decoder")
        surprise = dsl.binary_cross_entropy_with_logits(logits, dsl.sigmoid(4 * x))
        divergence = dsl.mean(0.5 * (dsl.exp(spread) + mean**2 - 1 - spread))
        return {"loss": surprise + divergence, "divergence": divergence}

    return net  # type: ignore[no-any-return]


def _adversarial() -> Model:
    """Two losses: one of the judge, and one of what it judges."""

    @model
    def net(real: Any = f32["batch", 4]) -> dict[str, Any]:
        code = dsl.random_normal((real.shape[0], 2))
        fake = code >> dsl.Sequential(dsl.Dense(5, dsl.tanh), dsl.Dense(4), name="gen")
        judge = dsl.Sequential(dsl.Dense(5, dsl.leaky_relu), dsl.Dense(1), name="disc")
        of_real, of_fake = judge(real), judge(fake)
        loss = dsl.binary_cross_entropy_with_logits
        judged = loss(of_real, dsl.ones_like(of_real)) + loss(of_fake, dsl.zeros_like(of_fake))
        return {"disc_loss": judged, "gen_loss": loss(of_fake, dsl.ones_like(of_fake))}

    return net  # type: ignore[no-any-return]


def _both(net: Model) -> Recipe:
    each = [
        dsl.minimize(
            f"{part}_loss", params=f"{part}.*", optimizer=dsl.adam(0.01, betas=(0.5, 0.999))
        )
        for part in ("disc", "gen")
    ]
    return dsl.training(net, updates=each, average=dsl.ema(0.9, params="gen.*"), batch_size=8)


def _diffusion() -> Model:
    @model
    def net(x: Any = f32["batch", 4]) -> dict[str, Any]:
        time = dsl.random_uniform((x.shape[0],))[:, None]
        noise = dsl.random_normal(x.shape)
        near, far = dsl.cos(1.5 * time), dsl.sin(1.5 * time)
        seen = dsl.concatenate([x * near + noise * far, time], axis=1)
        v = seen >> dsl.Dense(8, dsl.silu, name="hidden") >> dsl.Dense(4, name="out")
        return {"loss": dsl.mse(v, noise * near - x * far)}

    return net  # type: ignore[no-any-return]


def _text(layer: Callable[[Any], Any]) -> Model:
    """The next token of each."""

    @model
    def net(text: Any = i64["batch", "time"]) -> dict[str, Any]:
        hidden = layer(text[:, :-1] >> dsl.Embedding(5, 4, name="table"))
        logits = hidden >> dsl.Dense(5, name="head")
        return {"loss": dsl.cross_entropy(logits, text[:, 1:])}

    return net  # type: ignore[no-any-return]


def _transformer() -> Model:
    # Without biases: that of the keys has the gradient 0, of which Adam makes steps of rounding.
    return _text(lambda x: x >> dsl.TransformerEncoderLayer(2, 6, is_causal=True, bias=False))


def _lstm() -> Model:
    return _text(lambda x: x >> dsl.LSTM(4, return_sequences=True))


def _mixture() -> Model:
    @model
    def net(x: Any = f32["batch", 3], y: Any = f32["batch", 3]) -> dict[str, Any]:
        experts = dsl.MixtureOfExperts(
            3, top_k=2, hidden_size=4, activation=dsl.tanh, name="experts"
        )
        answer = experts(x)
        return {"loss": dsl.mse(answer, y), "answer": answer}

    return net  # type: ignore[no-any-return]


def _ode() -> Model:
    """Euler's rule over the times that are given, the same layer at each."""

    @model
    def net(
        start: Any = f32["batch", 2], time: Any = f32["time"], path: Any = f32["time", "batch", 2]
    ) -> dict[str, Any]:
        hidden, change = dsl.Dense(4, dsl.tanh, name="hidden"), dsl.Dense(2, name="change")

        def advance(state: Any, pause: Any) -> Any:
            following = state + pause * change(hidden(state))
            return following, following

        return {"loss": dsl.mse(dsl.scan(advance, start, time)[1], path)}

    return net  # type: ignore[no-any-return]


def _siamese() -> Model:
    @model
    def net(x: Any = f32["batch", 4], partner: Any = f32["batch", 4]) -> dict[str, Any]:
        encoder = dsl.Sequential(dsl.Dense(6, dsl.tanh), dsl.Dense(3), name="encoder")
        return {"loss": dsl.info_nce(encoder(x), encoder(partner), temperature=0.5)}

    return net  # type: ignore[no-any-return]


def _multi_task() -> Model:
    @model
    def net(
        x: Any = f32["batch", 4], label: Any = i64["batch"], amount: Any = f32["batch"]
    ) -> dict[str, Any]:
        trunk = x >> dsl.Dense(6, dsl.tanh, name="trunk")
        kind = dsl.cross_entropy(trunk >> dsl.Dense(3, name="kind"), label)
        much = dsl.mse((trunk >> dsl.Dense(1, name="amount"))[:, 0], amount)
        return {"loss": kind + 0.5 * much, "kind_loss": kind, "amount_loss": much}

    return net  # type: ignore[no-any-return]


def _adam(net: Model) -> Recipe:
    return dsl.training(net, optimizer=dsl.adam(0.01), batch_size=8)


def _sgd(net: Model) -> Recipe:
    return dsl.training(net, optimizer=dsl.sgd(0.1), batch_size=8)


def _system(
    name: str, build: Callable[[], Model], example: str, train: Any = _adam, **options: Any
) -> System:
    """The model while training, with its gradients, and ten steps of it."""
    return System(name, SYSTEMS, build, lambda: train(build()), training=True,
                  example=f"examples/{example}.py", **options)  # fmt: skip


ROWS = (
    _system("autoencoder", _autoencoder, "autoencoder"),
    _system("denoising autoencoder", lambda: _autoencoder(0.3), "denoising_autoencoder"),
    _system("VAE", _variational, "vae"),
    _system("GAN", _adversarial, "gan", _both),
    _system("denoising diffusion", _diffusion, "diffusion"),
    _system("autoregressive text, transformer", _transformer, "char_gpt"),
    _system("autoregressive text, LSTM", _lstm, "char_lstm"),
    _system("mixture of experts", _mixture, "mixture"),
    _system("neural ODE by scan", _ode, "neural_ode"),
    _system("Siamese, contrastive", _siamese, "siamese", _sgd),
    _system("multi-task", _multi_task, "multi_task"),
)
