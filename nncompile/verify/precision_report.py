"""What a file of fewer bits has lost: its metrics and predictions beside those of float32, its
size, and the layers that are furthest from theirs."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.backends.onnx import to_model
from nncompile.compiler.adapters import Trained, has_numbers
from nncompile.compiler.export import export
from nncompile.compiler.inference_files import batches_given, batches_of, examples_in
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.tables import columns
from nncompile.ir.graph import Graph, Input, input_of
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import Array, is_real
from nncompile.program.metric_aggregation import accumulation
from nncompile.program.model import Model, leaves_of
from nncompile.program.recipe import Recipe
from nncompile.runtime import Session, load_state
from nncompile.runtime.feeds import describe
from nncompile.runtime.quantization import LayerError, apart, layer_errors
from nncompile.train.sums import Sums

WORST = 5  # layers that are shown


@dataclass(frozen=True)
class PrecisionReport:
    """What a file has lost: of each metric its value in float32 and in the file; of each predicted
    tensor the largest difference, relative to its largest finite element, and infinite where one of
    the two is no finite number; the share of examples whose largest score is at the same place
    (None where there are no scores); the bytes of both files; and the errors of the layers, the
    largest first."""

    metrics: Mapping[str, tuple[float, float]]
    differences: Mapping[str, float]
    agreement: float | None
    sizes: tuple[int, int]
    layers: tuple[LayerError, ...]

    @property
    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        names = ("float32", "file")
        return {
            "metrics": {n: dict(zip(names, pair, strict=True)) for n, pair in self.metrics.items()},
            "differences": dict(self.differences),
            "agreement": self.agreement,
            "bytes": dict(zip(names, self.sizes, strict=True)),
            "layers": [
                {"layer": x.path, "operator": x.operator, "decibels": x.decibels}
                for x in self.layers
            ],
        }

    def __str__(self) -> str:
        rows = [("", "float32", "file", "difference")]
        rows += [
            (name, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}")
            for name, (before, after) in self.metrics.items()
        ]
        before, after = self.sizes
        rows.append(("bytes", f"{before:,}", f"{after:,}", f"{after / before - 1:+.0%}"))
        lines = [columns(rows, (1, 2, 3))]
        for name, difference in self.differences.items():
            lines.append(
                f"{name} differs by up to {difference:.2%} of its largest element"
                if difference < np.inf
                else f"{name} is NaN or infinite where it is not in float32, or the other way round"
            )
        if self.agreement is not None:
            lines.append(f"the largest score is at the same place in {self.agreement:.2%}")
        if self.layers:
            worst = [(x.path, x.operator, f"{x.decibels:.1f} dB") for x in self.layers[:WORST]]
            lines += ["the layers furthest from float32:", columns(worst, (2,))]
        return "\n".join(lines)


@suggests_names
def precision_report(
    source: Model | Recipe | Trained,
    path: str | os.PathLike[str],
    data: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    params: Mapping[str, Any] | str | os.PathLike[str] | None = None,
) -> PrecisionReport:
    """Compares a file that `export` wrote with another precision to the float32 model, on data: the
    arrays of all inputs by name, or several such batches. The weights are those of a trainer, of an
    ONNX file that was loaded, or `params`, which must be those of the file.

    Metrics are computed of what a file predicts; those that follow from something else are left
    out, and so are all where the data lack an input of theirs. Raises `FeedError` for data that do
    not fit, `ModelError` for a source without weights."""
    if isinstance(source, Trained):
        params = source.state if params is None else params
        source = source.recipe
    model = source.model if isinstance(source, Recipe) else source
    if params is None and not has_numbers(model):
        raise ModelError(
            f"the file is compared with the weights of {model.name}, which are not given",
            hint="precision_report(trainer, path, data), or params=trainer.state",
        )
    several = batches_given(data)
    names = set(model.inference().leaves) | set[str]().union(*several)
    batches = batches_of(model, names, several)
    if not batches:
        raise FeedError("no batch to compare the files on")
    with tempfile.TemporaryDirectory() as directory:
        exact = Path(directory) / "float32.onnx"
        export(model, exact, params=params)
        predictions = [_predictions(file, batches) for file in (exact, Path(path))]
        _check_alike(path, *(found[0] for found in predictions))
        sizes = exact.stat().st_size, Path(path).stat().st_size
        fed = {port.name for port in Session(exact).inputs}
        cut = [{n: x for n, x in batch.items() if n in fed} for batch in batches]
        errors = layer_errors(exact, Path(path), cut)
    state = params or {}
    if not isinstance(state, Mapping):
        state = load_state(state)[0]
    before, after = (_metrics(model, batches, found, state) for found in predictions)
    pairs = {name: (x, after[name]) for name, x in before.items()}
    return PrecisionReport(pairs, *_compared(*predictions), sizes, tuple(errors))


def _predictions(file: Path, batches: list[dict[str, Array]]) -> list[dict[str, Array]]:
    session = Session(file)
    names = [port.name for port in session.inputs]
    return [session.run({n: batch[n] for n in names if n in batch}) for batch in batches]


def _check_alike(
    path: str | os.PathLike[str], exact: Mapping[str, Array], found: Mapping[str, Array]
) -> None:
    """Raises `ModelError` where a file does not predict what the model does."""
    for name, x in exact.items():
        if name not in found or found[name].shape != x.shape:
            given = [(n, describe(y.dtype, y.shape)) for n, y in found.items()]
            raise ModelError(
                f"{path} is of another model: it does not predict {name!r} as "
                f"{describe(x.dtype, x.shape)}",
                rows=[("output", *row) for row in given],
            )


def _metrics(
    model: Model,
    batches: list[dict[str, Array]],
    predictions: list[dict[str, Array]],
    state: Mapping[str, Any],
) -> dict[str, float]:
    """The metrics over all batches that follow from the predictions and from what is given."""
    plain = model.inference((*model.metrics, *model.tables))
    plan = accumulation(plain.outputs, model.examples)
    leaves = {v: Input(name, v.type, "input")() for name, v in model.inference().outputs.items()}
    named = {**plain.outputs, **plan.extra}
    values = dict(zip(named, replace(list(named.values()), leaves), strict=True))
    given = {**state, **batches[0], **predictions[0]}.keys()
    known = {name for name, v in values.items() if _names([v]) <= given}
    followed = {n for n in known if _names([values[n]]) & predictions[0].keys()}
    parts = {n: part for n, part in plan.parts.items() if n in known}
    results = {n: v for n, v in plan.results.items() if n in followed & model.metrics.keys()}
    results = {n: v for n, v in results.items() if n in parts or _names([v]) <= parts.keys()}
    if not results:
        return {}
    graph = Graph("metrics", {name: values[name] for name in parts})
    session = Session(to_model(graph))
    sums = Sums(dataclasses.replace(plan, parts=parts, results=results), model.inputs)
    for batch, found in zip(batches, predictions, strict=True):
        feeds = {**state, **batch, **found}
        outputs = session.run({name: feeds[name] for name in graph.leaves})
        sums.add(batch, outputs, examples_in(model, batch))
    return {name: float(x) for name, x in sums.results().items()}


def _names(values: Iterable[Value]) -> set[str]:
    return {input_of(leaf).name for leaf in leaves_of(values)}


def _compared(
    exact: list[dict[str, Array]], found: list[dict[str, Array]]
) -> tuple[dict[str, float], float | None]:
    """The largest relative difference of each prediction, and the share of equal largest places in
    the first that has scores."""
    differences: dict[str, float] = {}
    agreement: float | None = None
    for name, first in exact[0].items():
        if not is_real(first.dtype):
            continue
        pairs = [(a[name].astype(np.float64), b[name]) for a, b in zip(exact, found, strict=True)]
        largest = max(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a, _ in pairs)
        most = max(float(apart(a, b).max(initial=0)) for a, b in pairs)
        differences[name] = most / largest if largest else most
        if agreement is None and first.ndim > 1 and first.shape[-1] > 1:
            same = [(a.argmax(-1) == b.argmax(-1)).ravel() for a, b in pairs]
            agreement = float(np.concatenate(same).mean())
    return differences, agreement
