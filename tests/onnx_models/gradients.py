"""Gradients of a file's weights: in double and as onnxruntime runs them, against torch's of the
same file rebuilt there, and against finite differences of the file itself."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.autodiff.grad import grad
from nncompile.compiler.export import export
from nncompile.frontends.onnx.loading import ImportedModel
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ops.reduction.sums import sum as total
from nncompile.optim import sgd
from nncompile.program.initialization import initial_values
from nncompile.program.recipe import training
from nncompile.runtime import Session
from nncompile.verify.finite_differences import derivative_error
from tests.onnx_models.doubled import Doubled
from tests.onnx_models.examples import Case

TOLERANCE = 1e-5  # of the largest element
ROUNDED = 1e-2  # where the weights are of 16 bits
Arrays = dict[str, Any]


@dataclass
class Gradients:
    """The largest differences found: of each tensor's largest element in double, of the largest of
    all as onnxruntime runs them, of derivatives along directions; and of statistics after a batch.
    None where there was nothing to compare with, and `missing` says why."""

    in_double: float | None = None
    as_run: float | None = None
    along: float | None = None
    statistics: float | None = None
    worst: str = ""  # the parameter that is furthest off
    by: str = ""  # what computed the differences, or why there are none
    missing: list[str] = field(default_factory=list)


def compared(
    model: ImportedModel, file: Path, case: Case, directory: Path, seed: int = 0
) -> Gradients:
    """The gradients of a random sum of the outputs, compared in every way that there is."""
    checked = _Checked(model, file, case, np.random.default_rng(seed))
    result = Gradients()
    if find_spec("torch"):
        try:
            exact = checked.by_torch(result)
            checked.as_run(result, exact, directory)
        except NotImplementedError as error:
            result.missing.append(str(error))
    else:
        result.missing.append("torch is not installed")
    checked.by_differences(result)
    return result


class _Checked:
    """A model at a point: its weights, and inputs of which the file accepts the sizes."""

    def __init__(
        self, model: ImportedModel, file: Path, case: Case, random: np.random.Generator
    ) -> None:
        self.model, self.file, self.case, self.random = model, file, case, random
        self.weights = dict(initial_values(model, 0))
        self.floats = [n for n, v in model.outputs.items() if v.dtype.is_float]
        shapes = dict(zip(model.predict, (x.shape for x in case.expected), strict=True))
        self.factors: Arrays = {n: random.standard_normal(shapes[n]) for n in self.floats}
        self.point: Arrays = {
            **{"step": np.int64(0), "seed": np.int64(0), **self.weights, **case.feeds},
            **{_factor(n): x for n, x in self.factors.items()},
        }
        self.inference = model.inference(model.predict)

    @property
    def modes(self) -> dict[bool, Graph]:
        """The graph in use, and where it is another, as in training: but for random numbers."""
        drops = "Dropout" in self.model.layers.values()
        return {False: self.inference} | ({True: self.model.graph} if self.trains(drops) else {})

    def trains(self, drops: bool) -> bool:
        return bool(self.model.updates) and not drops

    def loss(self, graph: Graph) -> tuple[Value, list[Value]]:
        """A sum of the outputs, each element times a number that is given."""
        factors = [Input(_factor(n), graph.outputs[n].type)() for n in self.floats]
        terms = [total(graph.outputs[n] * f) for n, f in zip(self.floats, factors, strict=True)]
        loss = terms[0]
        for term in terms[1:]:
            loss = loss + term
        return loss, factors

    def gradients(self, graph: Graph) -> Arrays:
        """In double, by the interpreter."""
        loss, _ = self.loss(graph)
        leaves = self.model.parameters
        found = dict(zip(leaves, grad(loss, list(leaves.values())), strict=True))
        derived = Graph("gradients", found, tuple(self.model.inputs.values()))
        return dict(evaluate(derived, self.point, np.float64))

    def by_torch(self, result: Gradients) -> Arrays:
        """Compares gradients and statistics with those of torch, and returns those in training."""
        torch = importlib.import_module("torch")
        module = importlib.import_module("tests.onnx_models.torch_graph")
        rebuilt = module.TorchGraph(self.model, self.file)
        parameters = self.model.parameters
        worst = 0.0
        exact: Arrays = {}
        for batch, graph in self.modes.items():
            leaves = {
                path: torch.tensor(x, dtype=torch.float64).requires_grad_(path in parameters)
                for path, x in self.weights.items()
            }
            outputs = dict(
                zip(self.model.predict, rebuilt(leaves, self.case.feeds, batch), strict=True)
            )
            sum((outputs[n] * torch.tensor(f)).sum() for n, f in self.factors.items()).backward()
            exact = {
                path: np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
                for path, leaf in leaves.items()
                if path in parameters
            }
            largest = _largest(exact)
            for path, found in self.gradients(graph).items():
                # What is 0 but for rounding has no digits to compare.
                scale = max(float(np.abs(exact[path]).max(initial=0)), 1e-9 * largest)
                error = _difference(found, exact[path]) / scale if scale else 0.0
                if not error <= worst:
                    worst, result.worst = error, path
        result.in_double = worst
        if True in self.modes:
            self._statistics(result, rebuilt.updated)
        return exact

    def _statistics(self, result: Gradients, updated: Mapping[str, Any]) -> None:
        """Compares running statistics after a batch."""
        graph = Graph("statistics", dict(self.model.updates), tuple(self.model.inputs.values()))
        found = evaluate(graph, self.point, np.float64)
        assert self.model.original is not None
        result.statistics = max(
            _difference(found[kept.path], updated[kept.name].numpy())
            / max(float(updated[kept.name].abs().max()), 1e-30)
            for kept in self.model.original.tensors
            if kept.path in found
        )

    def as_run(self, result: Gradients, exact: Arrays, directory: Path) -> None:
        """Compares the exported half of a training step, in single, as onnxruntime runs it."""
        model = self.model
        loss, factors = self.loss(model.graph)
        graph = dataclasses.replace(
            model.graph,
            outputs={**model.outputs, "its loss": loss},
            inputs=(*model.inputs.values(), *factors),
        )
        net = dataclasses.replace(model, graph=graph, origin=model)
        recipe = training(net, minimize="its loss", optimizer=sgd(1.0))
        session = Session(export(recipe, directory / "gradient.onnx", "gradient")[-1], threads=1)
        given = {p.name: np.asarray(self.point[p.name], p.dtype) for p in session.inputs}
        found = session.run(given)
        largest = _largest(exact)
        errors = [_difference(found[f"{path}.grad"], x) for path, x in exact.items()]
        result.as_run = max(errors) / largest if largest else 0.0

    def by_differences(self, result: Gradients) -> None:
        """Compares derivatives along a direction of each parameter with differences of the file in
        double, where something computes it as exactly as that; else with those of the imported
        graph, whose numbers are the file's."""
        gradients = self.gradients(self.inference)
        try:
            for function, by in self.in_double():
                error = self._worst(function, gradients)
                if result.along is None or error < result.along:
                    result.along, result.by = error, by
                if error <= TOLERANCE:
                    return
        except NotImplementedError as error:
            result.by = str(error)

    def _worst(self, function: Callable[[Arrays], float], gradients: Arrays) -> float:
        worst = 0.0
        for path, gradient in gradients.items():
            direction = _unit(self.random.standard_normal(gradient.shape)) + _unit(gradient)
            start = np.asarray(self.weights[path], np.float64)

            def along(h: float, path: str = path, start: Any = start, to: Any = direction) -> float:
                return function({**self.weights, path: start + h * to})

            derivative = float(np.sum(gradient * direction))
            error = derivative_error(along, derivative, abs(derivative))
            worst = error if not error <= worst else worst
        return worst

    def in_double(self) -> Iterator[tuple[Callable[[Arrays], float], str]]:
        """Functions of the weights that give the sum of the outputs, and what computes them. Raises
        `NotImplementedError` where differences tell nothing."""
        assert self.model.original is not None
        doubled = Doubled(self.file, self.model.original.tensors)
        if doubled.agrees(self.weights, self.case):
            places = [self.model.predict.index(n) for n in self.floats]

            def of_file(weights: Arrays) -> float:
                found = doubled(weights, self.case.feeds)
                pairs = zip(places, self.factors.values(), strict=True)
                return float(sum(np.sum(found[i] * f) for i, f in pairs))

            yield of_file, doubled.by
        loss, _ = self.loss(self.inference)
        graph = Graph("loss", {"loss": loss}, tuple(self.model.inputs.values()))

        def of_graph(weights: Arrays) -> float:
            return float(evaluate(graph, {**self.point, **weights}, np.float64)["loss"])

        yield of_graph, "the imported graph"


def _factor(name: str) -> str:
    return f"factor of {name}"


def _unit(x: Any) -> Any:
    length = float(np.linalg.norm(x))
    return x / length if length else x


def _largest(arrays: Arrays) -> float:
    return max((float(np.abs(x).max(initial=0)) for x in arrays.values()), default=0.0)


def _difference(x: Any, y: Any) -> float:
    return float(np.abs(np.asarray(x, np.float64) - y).max(initial=0))
