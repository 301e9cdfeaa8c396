"""What a model that has no loss is to learn: a loss of one of its outputs and a label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dsl.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_distance,
    cross_entropy,
    focal_loss,
    hinge,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_squared_error,
    multiclass_hinge,
    negative_log_likelihood,
    poisson_loss,
)
from dsl.metrics import accuracy, binary_accuracy
from nncompile.diagnostics.errors import FeedError, ModelError, did_you_mean
from nncompile.diagnostics.locations import recording_locations, scope
from nncompile.elementwise import log, maximum
from nncompile.ir.dims import Shape
from nncompile.ir.graph import Input
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type, i64
from nncompile.ops import squeeze
from nncompile.ops.reduction.softmax import Softmax
from nncompile.program.model import RANDOM_STATE, Model

_CLASSES: dict[str, Callable[..., Value]] = {
    "cross_entropy": cross_entropy,
    "focal_loss": focal_loss,
    "multiclass_hinge": multiclass_hinge,
    "negative_log_likelihood": negative_log_likelihood,
}
_OF_LOGITS = ("cross_entropy", "focal_loss")
_THRESHOLDS = {"binary_cross_entropy": 0.5, "binary_cross_entropy_with_logits": 0.0}
_BINARY: dict[str, Callable[..., Value]] = {
    "binary_cross_entropy": binary_cross_entropy,
    "binary_cross_entropy_with_logits": binary_cross_entropy_with_logits,
    "hinge": hinge,
}
_NUMBERS: dict[str, Callable[..., Value]] = {
    "mean_squared_error": mean_squared_error,
    "mse": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
    "mae": mean_absolute_error,
    "huber": huber,
    "log_cosh": log_cosh,
    "poisson_loss": poisson_loss,
    "cosine_distance": cosine_distance,
}
LOSSES = {**_CLASSES, **_BINARY, **_NUMBERS}
"""The losses of a prediction and a label by name."""


@dataclass(frozen=True)
class Objective:
    """The model with a loss: the names of its `loss` and `metrics`, and what was taken for what."""

    model: Model
    loss: str
    metrics: tuple[str, ...]
    notes: tuple[str, ...]


def check_loss(name: str) -> None:
    """Raises `ModelError` where there is no loss of that name."""
    if name not in LOSSES:
        raise ModelError(
            f"there is no loss {name!r} of a prediction and a label",
            rows=[("losses", ", ".join(LOSSES))],
            hint=did_you_mean(name, LOSSES)
            or "any other is written in Python: loss(model(x)[OUTPUT], label)",
        )


def with_loss(
    model: Model, loss: str, output: str, label: str, labels: Array, probabilities: bool = False
) -> Objective:
    """The model with an input `label`, of the type that these labels of all examples have, and with
    the loss of the output and the label; of classes, with the accuracy, too.

    An output that is a softmax has a loss of its logits: of what the softmax is made of, or where
    the output holds `probabilities` in another way, of their logarithms. Raises `FeedError` where
    the labels do not fit the output, `ModelError` where the label is called as something else.
    """
    check_loss(loss)
    if label in {*model.whole.leaves, *model.outputs, *RANDOM_STATE}:
        raise ModelError(
            f"the label {label!r} is called as something else in model {model.name}",
            rows=[("inputs", ", ".join(model.inputs)), ("outputs", ", ".join(model.outputs))],
            hint="give the array of labels another name",
        )
    prediction = model.outputs[output]
    notes: list[str] = []
    with recording_locations(model.graph.locations), scope(model.name):
        if loss in _CLASSES:
            type_, axis = _of_classes(output, prediction.type, label, labels)
            leaf = Input(label, type_)()
            scores = prediction
            if loss in _OF_LOGITS:
                scores, note = _logits(output, prediction, axis, probabilities)
                notes += [note] if note else []
            added = {"loss": _CLASSES[loss](scores, leaf, axis=axis)}
            added["accuracy"] = accuracy(prediction, leaf, axis=axis)
        else:
            type_ = _of_numbers(output, prediction.type, label, labels, loss)
            leaf = Input(label, type_)()
            if type_.rank < prediction.rank:
                prediction = squeeze(prediction, -1)
            added = {"loss": LOSSES[loss](prediction, leaf)}
            if loss in _THRESHOLDS:
                threshold = _THRESHOLDS[loss]
                added["accuracy"] = binary_accuracy(prediction, leaf, threshold=threshold)
    taken = {*model.whole.leaves, *model.outputs, label}
    names = {name: unused_name(name, taken) for name in added}
    outputs = {**model.outputs, **{names[name]: value for name, value in added.items()}}
    graph = replace(model.graph, outputs=outputs, inputs=(*model.inputs.values(), leaf))
    changed = replace(model, graph=graph, origin=model)
    return Objective(changed, names.pop("loss"), tuple(names.values()), tuple(notes))


def _logits(
    output: str, prediction: Value, axis: int, probabilities: bool
) -> tuple[Value, str | None]:
    """What a softmax is taken of, and a word about it."""
    value = prediction
    while not isinstance(value.op, Softmax) and len(value.args) == 1 and value.op.moves:
        value = value.args[0]
    if isinstance(value.op, Softmax) and value.type == prediction.type and value.op.axis == axis:
        return value.args[0], f"{output} is a softmax: the loss is of its logits"
    if probabilities:
        small = 1e-7 if prediction.dtype.numpy.itemsize > 2 else 1e-4
        text = f"{output} holds probabilities: the loss is of their logarithms"
        return log(maximum(prediction, small)), text
    return prediction, None


def _of_classes(output: str, type_: Type, label: str, labels: Array) -> tuple[Type, int]:
    """The type of labels of classes, and the axis of the classes in the output: the last one or
    that of channels, whichever fits."""
    rank = type_.rank
    axes = list(dict.fromkeys((rank - 1, 1))) if rank > 1 else []
    for axis in axes:
        shape = (*type_.shape[:axis], *type_.shape[axis + 1 :])
        if labels.dtype.kind in "iub" and _fits(labels.shape, shape):
            _check_range(output, type_, axis, label, labels)
            return Type(i64, shape), axis
    if labels.dtype.kind == "f" and rank > 1 and _fits(labels.shape, type_.shape):
        summed = [axis for axis in axes if np.allclose(labels.sum(axis), 1, atol=1e-3)]
        if summed:
            return type_, summed[0]
    raise _unfitting(output, type_, label, labels, "classes: whole numbers, or probabilities")


def _check_range(output: str, type_: Type, axis: int, label: str, labels: Array) -> None:
    classes = type_.shape[axis]
    least, greatest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if least < 0 or (isinstance(classes, int) and greatest >= classes):
        raise FeedError(
            f"the labels {label!r} are from {least} to {greatest}, the output {output!r} has "
            f"{classes} classes: 0 to {classes - 1}",
            rows=[(output, str(type_)), (label, f"{labels.dtype}{list(labels.shape)}")],
            hint="classes are counted from 0"
            if least < 0
            else f"--head {greatest + 1} makes a last layer of {greatest + 1} classes",
        )


def _of_numbers(output: str, type_: Type, label: str, labels: Array, loss: str) -> Type:
    """The type of labels that are numbers as the output is."""
    if labels.dtype.kind in "iufb" and _fits(labels.shape, type_.shape):
        return type_
    if type_.rank > 1 and type_.shape[-1] == 1 and _fits(labels.shape, type_.shape[:-1]):
        return Type(type_.dtype, type_.shape[:-1])
    raise _unfitting(output, type_, label, labels, f"numbers of its shape, which {loss} compares")


def _fits(actual: tuple[int, ...], shape: Shape) -> bool:
    return len(actual) == len(shape) and all(
        n == size or not isinstance(n, int) for n, size in zip(shape, actual, strict=True)
    )


def _unfitting(output: str, type_: Type, label: str, labels: Array, wanted: str) -> FeedError:
    hint = None
    if type_.rank == 2 and labels.ndim == 2 and labels.shape[1] == 1:
        hint = "an axis of one class: labels[:, 0] leaves it out"
    elif type_.rank == 2 and labels.ndim == 1 and labels.dtype.kind in "iub":
        hint = "--loss cross_entropy compares classes"
    elif labels.dtype.kind == "f" and wanted.startswith("classes") and (labels % 1 == 0).all():
        hint = "class numbers are whole numbers: labels.astype(int)"
    elif labels.dtype.kind not in "iufb":
        hint = "words are encoded as numbers: numpy.unique(labels, return_inverse=True)"
    return FeedError(
        f"the labels {label!r} do not fit the output {output!r}: it wants {wanted}",
        rows=[
            (output, str(type_)),
            (label, f"{labels.dtype}{list(labels.shape)}"),
        ],
        hint=hint,
    )
