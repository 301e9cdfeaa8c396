"""What losses refuse, and their messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, i64
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.types import Type, boolean
from tests.leaves import leaf

P, LABEL = f32["batch", 3], i64["batch"]


@pytest.mark.parametrize(
    ("use", "types", "error", "message"),
    [
        (lambda p, m: dsl.mse(p, p, mask=m), (P, boolean["n"]), ShapeError, "the mask does not"),
        (lambda p, m: dsl.mse(p, p, mask=m), (P, f32["batch"]), DTypeError, "must be boolean"),
        (lambda p, w: dsl.mse(p, p, weight=w), (P, f32["batch", 4]), ShapeError, "the weight does"),
        (
            lambda p, t: dsl.cross_entropy(p, t, class_weight=np.ones(4)),
            (P, LABEL), ShapeError, "one number for each class",
        ),
        (
            lambda p, t: dsl.cross_entropy(p, t, label_smoothing=1.5),
            (P, LABEL), ModelError, r"label_smoothing must be a number from 0 to 1, got 1\.5",
        ),
        (lambda p, t: dsl.quantile_loss(p, t, 2), (P, P), ModelError, "quantile must be a "
        "number from"),
        (dsl.focal_loss, (P, f32["batch"]), DTypeError, "class indices must be integers"),
        (lambda p, t: dsl.focal_loss(p, t, gamma=0.5), (P, LABEL), ModelError, "gamma must be 0 "
        "or"),
        (lambda p, t: dsl.multiclass_hinge(p, t, p=3), (P, LABEL), ModelError, "1 or 2"),
        (dsl.kl_divergence, (P, LABEL), ShapeError, "different shapes"),
        (dsl.gaussian_nll, (P, P, f32["batch"]), ShapeError, "target and variance have different"),
        (dsl.triplet_loss, (LABEL, P, P), DTypeError, "anchor must be floating-point, got i64"),
        (dsl.info_nce, (f32["n"], f32["n"]), ShapeError, "must be matrices"),
        (lambda q, k: dsl.info_nce(q, k, 0), (P, P), ModelError, "temperature must be positive"),
        (dsl.contrastive_loss, (P, P, P), ShapeError, "one number per pair"),
        (dsl.margin_ranking_loss, (P, P, f32["batch"]), ShapeError, "x2 and target have different"),
        (dsl.soft_margin_loss, (P, f32["batch"]), ShapeError, "different shapes"),
        (dsl.multilabel_margin_loss, (P, P), DTypeError, "class indices must be integers"),
        (dsl.multilabel_margin_loss, (P, LABEL), ShapeError, "the labels do not fit"),
        (dsl.multilabel_margin_loss, (P, i64["n", 2]), ShapeError, "the labels do not fit"),
        (dsl.multilabel_margin_loss, (LABEL, LABEL), DTypeError, "must be floating-point, got i64"),
        (
            lambda p: dsl.multilabel_margin_loss(np.zeros((2, 3)), [[3], [0]]),
            (P,), ModelError, "the labels of multilabel_margin_loss must be from -1 to 2",
        ),
        (
            lambda p, t: dsl.multilabel_soft_margin_loss(p, t, class_weight=np.ones(2)),
            (P, P), ShapeError, "one number for each class",
        ),
        (
            lambda p, t: dsl.triplet_loss(p, t, t, distance_function=lambda x, y: x > y),
            (P, P), DTypeError, "must return floating-point values",
        ),
    ],
)  # fmt: skip
def test_what_losses_refuse(
    use: Any, types: tuple[Type, ...], error: type[CompileError], message: str
) -> None:
    with pytest.raises(error, match=message):
        use(*(leaf(f"x{i}", t) for i, t in enumerate(types)))
