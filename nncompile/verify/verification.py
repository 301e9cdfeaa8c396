"""Compares every way to run a model's graphs with numpy in float64."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from nncompile.diagnostics.errors import CompileError, ModelError, seed_number, whole_number
from nncompile.ir.types import Array
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe, minimize
from nncompile.program.step import Step
from nncompile.verify.backends import Backend, Function, all_backends
from nncompile.verify.error_bound import Difference
from nncompile.verify.experiments import Evaluation, Experiment, Steps
from nncompile.verify.gradients import gradient_error
from nncompile.verify.graphs import (
    FORWARD,
    GRADIENTS,
    TRAINING,
    GraphUnderTest,
    inference_of,
    learning_of,
)
from nncompile.verify.inputs import Case, Inputs
from nncompile.verify.locate import FAILURES, first_mismatch
from nncompile.verify.report import (
    DIFFERENCES,
    FLOAT32,
    NONE,
    PASSES,
    Fault,
    Gradients,
    Report,
    counted,
)
from nncompile.verify.steps import STEPS, Trajectory

Arrays = dict[str, Array]

REDRAWS = 8  # of inputs on which a loss is not finite


def verify(
    model: Model | Recipe,
    data: Mapping[str, Array] | None = None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    rounds: int = 2,
    quick: bool = False,
    backends: Sequence[Backend] | None = None,
) -> Report:
    """Compares onnxruntime, at every level of its optimizations and several numbers of threads,
    and TorchScript with numpy in float64 on the graphs of a model.

    These are the inference graph, the outputs in training, the gradient of every trained parameter
    and the state after one and ten steps (of a recipe; a model alone has no gradients). `data`, by
    the names of inputs, tell what numbers the model takes; `sizes` of dimensions, by name, stand in
    for small ones; `rounds` is the number of random inputs, beside zeros, ones, large numbers, and
    other sizes. `quick` leaves these out, and configurations in between. All that is random
    follows from `seed`. See `reference` for what is allowed. Raises `ModelError` for what is
    neither a model nor a recipe, `FeedError` where the model takes none of the inputs.
    """
    if not isinstance(model, Model | Recipe):
        raise ModelError(f"verify takes a model or a recipe, got {type(model).__name__}")
    seed_number(seed)
    whole_number("rounds", rounds, 1)
    start = time.perf_counter()
    compared, skipped = all_backends(quick) if backends is None else (list(backends), [])
    recipe = model if isinstance(model, Recipe) else None
    declared = recipe.model if recipe is not None else model
    assert isinstance(declared, Model)
    size_text = ",".join(f"{name}={size}" for name, size in (sizes or {}).items())
    options = [f"--seed {seed}", *([f"--sizes {size_text}"] if size_text else [])]
    options += ["--quick"] if quick else [f"--rounds {rounds}"]
    report = Report(declared.name, skipped=list(skipped), options=" ".join(options))
    work = _Verification(declared, recipe, report, compared, seed)
    work.run(data, dict(sizes or {}), 1 if quick else rounds, not quick)
    report.seconds = time.perf_counter() - start
    return report


class _Verification:
    def __init__(
        self,
        model: Model,
        recipe: Recipe | None,
        report: Report,
        backends: Sequence[Backend],
        seed: int,
    ) -> None:
        self.model, self.recipe, self.report = model, recipe, report
        self.backends, self.seed = backends, seed
        self.step: Step | None = compose(recipe) if recipe is not None else None
        self._refused: dict[str, dict[str, None]] = {}
        self._faults: dict[tuple[str, ...], Fault] = {}
        self._loaded: dict[tuple[str, int], Function | None] = {}

    def run(
        self, data: Mapping[str, Array] | None, sizes: dict[str, int], rounds: int, edges: bool
    ) -> None:
        state = self.step.initial(self.seed) if self.step is not None else None
        inputs = Inputs(self.model, data, self.seed, state)
        base = inputs.base(sizes)
        graphs_under_test = [
            inference_of(self.model),
            learning_of(self.model, self.recipe, self.step),
        ]
        for row in (PASSES, FLOAT32):
            self.report.cell(row, FORWARD)
        first: Case | None = None
        for number, case in enumerate(inputs.cases(base, rounds, edges)):
            self.report.cases.append(str(case))
            if case.kind == "random" and first is None:
                first = case
            for graph_under_test in graphs_under_test:
                if (
                    graph_under_test is graphs_under_test[0] or 0 not in case.sizes.values()
                ):  # nobody learns of nothing
                    self._compare(Evaluation(graph_under_test, case, self.seed, number))
        assert first is not None  # `base` accepts random inputs
        if self.recipe is not None and self.step is not None:
            self._train(self.step, inputs, base)
            self._differentiate(self.recipe, inputs, base, first)
        self.report.faults.extend(self._faults.values())
        for text, names in self._refused.items():
            self.report.skipped.append(f"{counted(list(names))}: {text}")

    def _compare(self, experiment: Experiment) -> None:
        """Runs one experiment in numpy, after the passes and on each backend."""
        reference, case = experiment.reference, experiment.case
        for d in self._added(FLOAT32, reference.differences(reference.plain), experiment):
            self.report.compared += 1
            self.report.undecided += not d.is_decided
        for d in self._added(PASSES, reference.passes(), experiment):
            if d.mismatches and (PASSES,) not in self._faults:
                place, column = experiment.first_pass(d), experiment.columns[d.output]
                self._faults[(PASSES,)] = Fault([PASSES], column, case, d, place, case.feeds)
        for backend in self.backends:
            function = self._load(backend, experiment.under_test)
            got = None if function is None else self._got(backend, function, experiment)
            if function is None or got is None:
                continue
            differences = self._added(backend.name, reference.differences(got), experiment)
            first = next((d for d in differences if d.mismatches), None)
            if first is None:
                continue
            column = experiment.columns[first.output]
            fault = self._fault((type(backend).__name__, column), backend, column, case)
            if fault is not None:
                fault.difference = first
                fault.feeds, fault.place = experiment.first_mismatch(backend, function, self.seed)

    def _fault(
        self, key: tuple[str, ...], backend: Backend, column: str, case: Case | None
    ) -> Fault | None:
        """A new fault of a backend; None, with the backend added, where another has the same."""
        fault = self._faults.get(key)
        if fault is None:
            fault = self._faults[key] = Fault([backend.name], column, case)
            return fault
        if backend.name not in fault.backends:
            fault.backends.append(backend.name)
        return None

    def _added(
        self, row: str, differences: list[Difference], experiment: Experiment
    ) -> list[Difference]:
        """Enters the differences in the table, and returns them."""
        for d in differences:
            self.report.cell(row, experiment.columns[d.output]).add(d)
        return differences

    def _load(self, backend: Backend, graph_under_test: GraphUnderTest) -> Function | None:
        """The graph in the backend; None, with a note in the table, where it has no lowering."""
        key = (backend.name, id(graph_under_test))
        if key not in self._loaded:
            try:
                self._loaded[key] = backend.load(graph_under_test.lowered)
            except CompileError as error:
                self._loaded[key] = None
                self._failed(backend, graph_under_test, None, error)
        return self._loaded[key]

    def _got(self, backend: Backend, function: Function, experiment: Experiment) -> Arrays | None:
        """What the backend computes; None, with a fault, where it fails."""
        try:
            return experiment.run(function)
        except FAILURES as error:
            self._failed(backend, experiment.under_test, experiment.case, error)
            return None

    def _failed(
        self,
        backend: Backend,
        graph_under_test: GraphUnderTest,
        case: Case | None,
        error: Exception,
    ) -> None:
        message = error.message if isinstance(error, CompileError) else str(error).strip()
        if case is not None and 0 in case.sizes.values():
            # Refusing an empty input is not a wrong number.
            empty = next(name for name, size in case.sizes.items() if size == 0)
            text = f"{empty}=0, refused: {' '.join(message.split())}"
            self._refused.setdefault(text, {})[backend.name] = None
            return
        for column in dict.fromkeys(graph_under_test.column.values()):
            self.report.cell(backend.name, column).note = "FAILS"
        column = next(iter(graph_under_test.column.values()))
        fault = self._fault((type(backend).__name__, message), backend, column, case)
        if fault is not None:
            fault.message = " ".join(message.split("\n")[-1].split())
            if case is not None:
                graph, fault.feeds = graph_under_test.lowered.graph, case.feeds
                fault.place = first_mismatch(graph, backend, case.feeds, self.seed)

    def _train(self, step: Step, inputs: Inputs, base: Any) -> None:
        """Ten steps, by every backend."""
        cases = [inputs.batch(base, i) for i in range(STEPS)]
        batches = [{n: c.feeds[n] for n in self.model.inputs} for c in cases]
        trajectory = Trajectory(step.state_map, step.initial(self.seed), batches)
        first = {**trajectory.start, **batches[0]}
        case = Case(f"{STEPS} random batches", cases[0].sizes, self.seed, first)
        graph_under_test = GraphUnderTest(step.step, dict.fromkeys(step.step.outputs, TRAINING))
        self._compare(Steps(graph_under_test, case, trajectory))

    def _differentiate(self, recipe: Recipe, inputs: Inputs, base: Any, first: Case) -> None:
        """The gradients of every loss against central differences."""
        model = recipe.trained_model
        for update in recipe.updates:
            if not isinstance(update, minimize):
                continue
            trained = update.trained(model, recipe.freeze)
            loss = update.loss_of(model)
            redraws = (inputs.batch(base, STEPS + i) for i in range(REDRAWS))
            gradients = gradient_error(
                model.whole, loss, trained, chain([first], redraws), self.seed
            )
            self.report.gradients[update.loss] = gradients
            self.report.unchecked.extend(gradients.unchecked)
            if gradients.skipped:
                self.report.skipped.append(f"differences of {update.loss} on {gradients.skipped}")
            fault = gradients.fault(update.loss)
            if fault is not None:
                self._faults[(DIFFERENCES, update.loss)] = fault
        self.report.cell(DIFFERENCES, GRADIENTS).note = _noted(list(self.report.gradients.values()))


def _noted(gradients: Sequence[Gradients]) -> str:
    """The table entry for the gradients of several losses: the worst of them."""
    errors = [g.error for g in gradients if g.error is not None]
    size = f"{max(errors):.0e}  " if errors else ""
    if any(g.mismatches for g in gradients):
        return f"{size}MISMATCH"
    if any(g.unchecked for g in gradients):
        return f"declared {NONE}"
    return f"{size}ok" if errors and len(errors) == len(gradients) else NONE
