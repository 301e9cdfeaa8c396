"""Rows: what is learned how, and what is built of it."""

from __future__ import annotations

from typing import Any

import numpy as np

import dsl
from dsl import f32
from tests.coverage.building import of, of_image
from tests.coverage.checks import System

LEARNING, SCHEDULES = "Learning", "Schedules"
REGULAR, AUGMENT = "Regularization", "Augmentation"
MONITOR, SYSTEMS = "Monitoring", "Generative and advanced"


def _row(section: str, name: str, test: str, agrees: str = "", **options: Any) -> System:
    options = {key: x for key, x in options.items() if x}
    if "example" in options:
        options["example"] = f"examples/{options['example']}.py"
    build = options.pop("build", None)
    return System(name, section, build, agrees=agrees, test=f"tests/test_{test}.py", **options)


LEARNING_ROWS = (
    _row(LEARNING, "reverse mode of any order", "grad", "finite differences"),
    _row(LEARNING, "vector-Jacobian and Jacobian-vector products", "grad", "finite differences"),
    _row(LEARNING, "Hessian-vector products", "grad", "finite differences"),
    _row(LEARNING, "MAML: through an inner step", "examples_learning", example="maml"),
    _row(LEARNING, "batch, stochastic, mini-batch descent", "examples_learning",
         example="batch_sizes"),
    *(
        _row(LEARNING, name, test, agrees)
        for test, agrees, names in (
            ("optim", "torch", (
                "SGD", "momentum", "Nesterov", "AdaGrad", "AdaDelta", "RMSProp", "Adam", "AMSGrad",
                "AdamW", "NAdam", "RAdam", "Muon",
            )),
            ("optim", "its paper", ("Lion", "LAMB")),
            ("initializers", "their variances", (
                "zeros, constant, uniform, normal, truncated normal",
                "Glorot, He, LeCun initializers", "orthogonal initializer",
            )),
            ("recipe_features", "torch", ("parameter groups",)),
            ("recipe", "its parts run one by one", ("several optimizers in one model",)),
            ("recipe_features", "one large batch", ("gradient accumulation",)),
            ("recompute", "the same without", ("recompute (gradient checkpointing)",)),
            ("recipe_features", "unchanged bits", ("freezing by name",)),
            ("recipe_features", "their definition", ("EMA and SWA of weights",)),
        )
        for name in names
    ),
    _row(LEARNING, "transfer learning", "examples_learning", example="transfer"),
    _row(LEARNING, "LoRA", "lora", "its definition", example="lora_digits",
         build=of(lambda x: x >> dsl.lora(dsl.Dense(3), rank=2))),
)  # fmt: skip

SCHEDULE_ROWS = tuple(
    _row(SCHEDULES, name, "schedules", "torch")
    for name in (
        *("constant rate", "step decay", "multi-step decay", "exponential decay"),
        *("polynomial decay", "cosine decay", "warm restarts", "warm-up", "one-cycle", "piecewise"),
        "plateau",
    )
)


def _dropped(name: str, layer: Any, test: str = "augment") -> System:
    build = of_image(lambda x: x >> layer)
    return _row(REGULAR, name, test, "its statistics", build=build, training=True)


REGULAR_ROWS = (
    _dropped("Dropout", dsl.Dropout(0.3), "random"),
    _dropped("SpatialDropout", dsl.SpatialDropout(0.3)),
    _dropped("DropPath", dsl.DropPath(0.3)),
    _dropped("AlphaDropout", dsl.AlphaDropout(0.3)),
    _dropped("GaussianNoise", dsl.GaussianNoise(0.3)),
    _row(REGULAR, "L1 and L2 penalty", "regularizers", "torch"),
    _row(REGULAR, "decoupled weight decay", "optim", "torch"),
    _row(REGULAR, "max-norm", "recipe_features", "its definition"),
    _row(REGULAR, "clipping by value, norm, global norm", "recipe_features", "torch"),
    _row(REGULAR, "gradient noise", "recipe_features", "its statistics"),
    _row(REGULAR, "label noise", "augment", "its statistics"),
    _row(REGULAR, "early stopping, best weights restored", "callbacks", "the best epoch"),
)


def _augmented(name: str, layer: Any) -> System:
    build = of_image(lambda x: x >> layer)
    return _row(AUGMENT, name, "augment", "its statistics", build=build, training=True)


def _mixed(name: str, layer: Any) -> System:
    def build(x: Any, label: Any) -> Any:
        mixed, soft = layer(x, label)
        return dsl.mean(mixed) + dsl.mean(soft)

    types = f32["batch", 2, "height", "width"], f32["batch", 3]
    return _row(AUGMENT, name, "augment", "its statistics", build=of(build, *types), training=True,
                feeds=lambda rng: {"x1": np.eye(3, dtype=np.float32)})  # fmt: skip


AUGMENT_ROWS = (
    _augmented("RandomHorizontalFlip", dsl.RandomHorizontalFlip()),
    _augmented("RandomVerticalFlip", dsl.RandomVerticalFlip()),
    _augmented("RandomCrop", dsl.RandomCrop(1)),
    _augmented("RandomRotation", dsl.RandomRotation(15)),
    _augmented("Cutout", dsl.Cutout(2)),
    _augmented("ColorJitter", dsl.ColorJitter()),
    _mixed("Mixup", dsl.Mixup()),
    _mixed("CutMix", dsl.CutMix()),
    _row(AUGMENT, "token masking", "augment", "its statistics"),
)

MONITOR_ROWS = (
    _row(MONITOR, "training and validation metrics", "train", "sums over all examples"),
    _row(MONITOR, "gradient norms by layer", "monitoring", "numpy"),
    _row(MONITOR, "dead units", "monitoring", "numpy"),
    _row(MONITOR, "vanishing and exploding gradients", "monitoring",
         example="vanishing_gradients"),
    _row(MONITOR, "non-finite locator", "monitoring", "planted infinities"),
    _row(MONITOR, "overfit-one-batch check", "cli", "planted mistakes"),
    _row(MONITOR, "learning-rate finder", "monitoring", "a sweep by hand"),
)  # fmt: skip

SYSTEM_ROWS = tuple(
    _row(SYSTEMS, name, test, example=example)
    for test, systems in (
        ("examples_generative", {
            "autoencoder": "autoencoder", "denoising autoencoder": "denoising_autoencoder",
            "VAE": "vae", "GAN": "gan", "denoising diffusion": "diffusion",
        }),
        ("examples_sequences", {
            "autoregressive text, transformer": "char_gpt",
            "autoregressive text, LSTM": "char_lstm",
            "mixture of experts": "mixture", "neural ODE by scan": "neural_ode",
        }),
        ("examples_learning", {
            "Siamese, contrastive": "siamese", "multi-task": "multi_task",
        }),
    )
    for name, example in systems.items()
)  # fmt: skip

ROWS = (
    *LEARNING_ROWS,
    *SCHEDULE_ROWS,
    *REGULAR_ROWS,
    *AUGMENT_ROWS,
    *MONITOR_ROWS,
    *SYSTEM_ROWS,
)
