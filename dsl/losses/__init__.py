"""Losses: how far predictions are from targets, a mean over the batch unless `reduction` says
"sum" or "none"; weighted and masked by `weight` and `mask`.

Conventions are torch's; where one differs, the loss says so.
"""

from dsl.losses.binary import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    binary_focal_loss,
    hinge,
    perceptron_loss,
)
from dsl.losses.classes import (
    cross_entropy,
    focal_loss,
    kl_divergence,
    multiclass_hinge,
    negative_log_likelihood,
)
from dsl.losses.ctc import ctc_loss
from dsl.losses.margins import (
    hinge_embedding_loss,
    margin_ranking_loss,
    multilabel_margin_loss,
    multilabel_soft_margin_loss,
    soft_margin_loss,
)
from dsl.losses.pairs import (
    contrastive_loss,
    cosine_distance,
    cosine_embedding_loss,
    cosine_similarity,
    info_nce,
    triplet_loss,
)
from dsl.losses.regression import (
    gaussian_nll,
    huber,
    log_cosh,
    mae,
    mean_absolute_error,
    mean_squared_error,
    mse,
    poisson_loss,
    quantile_loss,
)

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "binary_focal_loss",
    "contrastive_loss",
    "cosine_distance",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "ctc_loss",
    "focal_loss",
    "gaussian_nll",
    "hinge",
    "hinge_embedding_loss",
    "huber",
    "info_nce",
    "kl_divergence",
    "log_cosh",
    "mae",
    "margin_ranking_loss",
    "mean_absolute_error",
    "mean_squared_error",
    "mse",
    "multiclass_hinge",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "negative_log_likelihood",
    "perceptron_loss",
    "poisson_loss",
    "quantile_loss",
    "soft_margin_loss",
    "triplet_loss",
]
