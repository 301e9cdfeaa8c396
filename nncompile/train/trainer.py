"""The training loop: a recipe and data in, a trained state out; bitwise reproducible, and
resumable from any step."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nncompile.backends.onnx import OPSET
from nncompile.compiler.compile import CompiledStep, compile_step, compiled_step
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import (
    ModelError,
    seed_number,
)
from nncompile.diagnostics.hints import SuggestsNames, suggests_names
from nncompile.ir.types import Array
from nncompile.program.model import RANDOM_STATE
from nncompile.program.recipe import Recipe
from nncompile.program.weighted_losses import weighted
from nncompile.runtime.buffers import give_back
from nncompile.runtime.checkpoint import load_state
from nncompile.runtime.cuda.pinned import page_locked
from nncompile.runtime.native import Library
from nncompile.runtime.providers import Provider
from nncompile.train.averages import average_of
from nncompile.train.data import PREFETCHED, Batch, Data
from nncompile.train.display import Verbose, displayed
from nncompile.train.epoch import Epoch
from nncompile.train.evaluation import Evaluation, ports_of
from nncompile.train.events import Callback, Fitting
from nncompile.train.fit_data import FitData, check_targets, ends_of
from nncompile.train.foreign_methods import FOREIGN_METHODS, SetBySeed
from nncompile.train.history import History
from nncompile.train.learning_rates import Adjustments, SettableRates
from nncompile.train.locate import NonFinite
from nncompile.train.loop import Loop
from nncompile.train.metrics_every import checked
from nncompile.train.parallel import Parallel, together, told_here
from nncompile.train.progress import Snapshot, load_progress
from nncompile.train.sources.naming import Naming
from nncompile.train.sources.notes import Notes
from nncompile.train.transfer import Renaming, Transfer, transfer
from nncompile.train.watchers import Watchers
from nncompile.train.weights import ClassWeight


class Trainer(SuggestsNames, SetBySeed, SettableRates):
    """Trains the model of a recipe on execution `providers`, with `threads` for each operator.
    What `compile_step` made of the recipe may stand for it: several trainers then share it.

    `seed` (the recipe's by default) determines initial weights, the order of examples and random
    ops: the same seed, data and runtime give the same bits. `without` switches passes off. On the
    CPU, native kernels are used where they are installed, unless `native` is False. A state
    of 16 MB or more is held once there, see `nncompile.runtime.halves`. With `in_place` a step
    writes over slots of the optimizer, which saves up to half of the memory of any state. One that
    fails is not undone then: the state is that after it, and `locate` finds nothing.

    Metrics are read after each step, and on a GPU after each sixteenth (of a state of more than 256
    MB, each), or after `metrics_every` steps, and before anything that depends on them: see
    `nncompile.train.events.Callback`. All steps are in the history and told of all the same.

    With `parallel=mpi()` the processes that run this script train together, each its rows of every
    batch: the numbers are those of one, to rounding. The first of them writes and shows.
    """

    foreign_names = FOREIGN_METHODS

    @suggests_names
    def __init__(
        self,
        recipe: Recipe | CompiledStep,
        providers: Provider | Sequence[Provider] = "cpu",
        seed: int | None = None,
        threads: int | None = None,
        without: Collection[str] = (),
        native: bool | None = None,
        in_place: bool = False,
        parallel: Parallel | None = None,
        metrics_every: int | None = None,
    ) -> None:
        self.native, self.in_place, self.parallel = native, in_place, parallel
        self.metrics_every = checked(metrics_every)
        self.compiled = compiled_step(recipe, without)
        self.recipe = self.compiled.source.recipe
        self._adjustments = Adjustments(self.compiled)
        self.providers = providers
        self.threads = threads
        self.seed = self.recipe.seed if seed is None else seed_number(seed)
        self._notes = Notes()
        self.model = self.recipe.model
        state = self.compiled.source.initial(self.seed)
        self._loop = Loop(self.compiled, self._runner(self.compiled, state))
        self._evaluation = self._evaluating()
        self._fixed = True

    def __reduce__(self) -> Any:
        without = tuple(self.compiled.without)
        first = self.providers, self.seed, self.threads, without, self.native, self.in_place
        options = *first, None, self.metrics_every
        recipe = self.declared.source.recipe
        return _restored, (recipe, options, self.state, self._loop.epoch.position())

    def __repr__(self) -> str:
        place = f"step {self.step:,}, epoch {self.epoch}"
        return f"<Trainer of {self.model.name} at {place}, on {self.providers}>"

    def _evaluating(self) -> Evaluation:
        naming = Naming(self.model, self._notes)
        options = self.providers, self.threads, self._notes, naming
        return Evaluation(self.compiled, *options)

    @property
    def library(self) -> Library | None:
        """The native kernels that its steps call; None where they call none."""
        return self._loop.runner.library

    @property
    def step(self) -> int:
        """The number of steps made."""
        return self._loop.step

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return self._loop.epoch.number

    @property
    def state(self) -> dict[str, Array]:
        """A copy of the whole state: parameters, slots, running statistics, step and seed."""
        return self._loop.runner.state()

    @property
    def params(self) -> dict[str, Array]:
        """A copy of the parameters by path."""
        return self._loop.runner.look(self.model.parameters)

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Goes on with these values of parameters or other state; the rest stays as it is. With
        another `step`, a new epoch begins. Raises `ModelError` for an unknown path, `FeedError`
        for another type."""
        state = self.state
        compiled = self._adjustments.of_state({*state, *params})
        for path in params:
            if path not in compiled.source.state:
                raise ModelError(
                    f"model {self.model.name} has no parameter {path!r}",
                    rows=[(name, str(x.dtype), str(list(x.shape))) for name, x in state.items()],
                )
        self._go_on_with(compiled)
        self._loop.replace({**self.state, **params}, "step" in params)

    def load_params(
        self,
        source: Mapping[str, Any] | Trainer | str | os.PathLike[str],
        strict: bool = False,
        rename: Renaming | None = None,
    ) -> Transfer:
        """Takes over parameters and states of another model by name: of arrays by path, another
        trainer or the file of a checkpoint. What fits is loaded, and the result tells the rest.

        `rename` and `strict` are those of `nncompile.train.transfer.transfer`, and so is what is
        raised. Slots, step and seed stay as they are.
        """
        if isinstance(source, Trainer):
            paths = (*source.model.parameters, *source.model.states)
            state = source._loop.runner.views()
            source = {path: state[path] for path in paths}
        elif not isinstance(source, Mapping):
            source = load_state(source)[0]
        state = self.state
        targets = [p for p in (*self.model.parameters, *self.model.states) if p not in RANDOM_STATE]
        arrays = {p: x for p, x in source.items() if p not in RANDOM_STATE}
        fitting, report = transfer(arrays, {path: state[path] for path in targets}, rename, strict)
        self.set_params(fitting)
        return report

    def averaged(self, name: str | None = None) -> dict[str, Array]:
        """A copy of the state with the averages of that name (see `Average`) in the place of the
        parameters: for `predict`, `evaluate` and `export` as `params`. The name may be left out
        where the recipe keeps one average. Raises `ModelError` where there is no such average."""
        slots = average_of(self.compiled.source.averages, name)
        state = self.state
        # An average of numbers of 16 bits is kept in f32.
        return state | {path: state[slot].astype(state[path].dtype) for path, slot in slots.items()}

    @suggests_names
    def fit(
        self,
        data: Data,
        y: Any = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        validation_data: Data | None = None,
        callbacks: Callback | Iterable[Callback] = (),
        validation_split: float = 0.0,
        batch_size: int | None = None,
        shuffle: bool | int = True,
        class_weight: ClassWeight | None = None,
        sample_weight: Any = None,
        prefetch: int = PREFETCHED,
        verbose: Verbose = None,
    ) -> History:
        """Trains for so many more epochs or steps, whichever ends first, and returns each epoch's
        metrics (see `History`). An epoch that was interrupted is finished first, and counts as one.

        Without either number, training goes on to the end that the recipe sets, or for one epoch
        where it sets none.

        `data` are arrays of all examples (a dict, a table, a tuple in the order of the inputs, a
        file of a table) or batches of them (a list, a loader, a sequence, a function that returns
        them for each epoch). Arrays are shuffled for each epoch unless `shuffle` is False; a
        smaller last batch is trained on too. A number `shuffle` draws each batch that comes from
        the next so many. The targets `y`, where they are apart, are of the inputs that predictions
        do not need. A thread makes batches `prefetch` ahead where Python makes them; 0 does
        without.

        `validation_data` are evaluated after each epoch; or the last examples, of which there are
        `validation_split` of all. `class_weight` weighs the examples by the class (a dict, or
        "balanced"), `sample_weight` each: a mean loss is Σ weight·loss / Σ weight then, for which
        the model gets an input `sample_weight` where it has none.

        How it goes is shown on stderr: in a terminal as a bar, in a notebook as a table, and in a
        file or pipe as a line for each epoch (see `nncompile.train.display.Display`).
        `verbose=0` shows nothing, `verbose=2` a line for each epoch wherever it is.

        Raises `FeedError` for data that do not fit or hold NaN, or that an epoch that was
        interrupted was not begun on (see `begin_epoch`), `ModelError` for a fit within another,
        `TrainingError` where a loss is not finite. After an interrupt (Ctrl-C) the state is that
        of the last whole step; after a `TrainingError`, also one that a callback raises after a
        step, it is that of the step before, which is made again where the training goes on.
        """
        check_targets(y, "fit", "epochs", "steps")
        given = FitData(
            *(data, y, validation_data, validation_split, class_weight, sample_weight),
            *(batch_size, shuffle, prefetch),
        )
        loop = self._loop

        def train() -> History:
            given.check_weights(self.model)
            if given.is_weighted:
                self._weigh_examples()
            ports = ports_of(self.model, loop.runner)
            feeder, held_out = given.feeders(self.compiled, ports, self._evaluation)
            metrics = partial(self._evaluation.metrics, parallel=self.parallel)
            validate = None if held_out is None else partial(metrics, held_out)
            watchers = Watchers(self, told_here(self.parallel, displayed(callbacks, verbose)))
            names = list(self.model.metrics)
            watchers.check_monitored(
                names if held_out is None else [*names, *(f"val_{name}" for name in names)]
            )
            shuffled = shuffle is not False
            ends = ends_of(self.recipe, (self.epoch, self.step), epochs, steps)
            fitting = Fitting(self, feeder, held_out, shuffled, ends)
            with page_locked(self.providers) as place, watchers.during(fitting):
                feeder.gather_into(place)
                seed = self.seed if shuffled else None
                return loop.run(feeder, watchers, fitting.ends, seed, validate)

        with together(self.parallel):
            return loop.alone(train)

    def _weigh_examples(self) -> None:
        """Goes on with losses that weigh the examples."""
        model = weighted(self.model, self.recipe.losses)
        if model is self.model:
            return
        recipe = replace(self.declared.source.recipe, model=model)
        adjustments = Adjustments(compile_step(recipe, self.compiled.without))
        compiled = adjustments.of_state(self.compiled.source.state)
        recipe = compiled.source.recipe
        vars(self).update(recipe=recipe, model=model, compiled=compiled, _adjustments=adjustments)
        self._loop.recompiled(compiled, self._runner(compiled, self.state))
        self._evaluation = self._evaluating()

    def locate(self, batch: Batch, outputs: Sequence[str] = ()) -> NonFinite | None:
        """Where the last step, on `batch` and undone or not, first made a number that is not
        finite; None where it made none, on the way to `outputs` (all metrics and the whole next
        state by default), and where the state before it is gone: with `in_place`, or when a large
        state was saved or evaluated since. See `nncompile.train.locate.locate_nonfinite`."""
        return self._loop.locate(batch, outputs)

    def stop(self) -> None:
        """Ends the running `fit` after the present step; for callbacks."""
        self._loop.stopping = True

    def begin_epoch(self) -> None:
        """Leaves an epoch that was interrupted unfinished: the next `fit` begins a new one, on any
        data. The state stays as it is."""
        self._loop.begin_epoch()

    def batches(self, data: Data, batch_size: int | None = None) -> Iterator[Batch]:
        """The batches that `evaluate` computes the metrics of, by the names of inputs. Raises
        `FeedError` for data that do not fit."""
        yield from self._evaluation.feeder(data, batch_size).epoch()

    @suggests_names
    def evaluate(
        self,
        data: Data,
        y: Any = None,
        *,
        batch_size: int | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Each metric over all examples, computed as after training (no dropout, running
        statistics); tables of totals, such as a confusion matrix, as arrays.

        What is marked as a total, an average or pooled is that of all examples, whatever the
        batches; another metric is the mean of its values for each batch, weighted by examples.
        `params` are other values of parameters or states by path, such as those of `averaged`.
        Raises `FeedError` for data that do not fit, `ModelError` for a model without metrics."""
        if not self.model.metrics and not self.model.tables:
            raise ModelError(
                f"model {self.model.name} has no metrics",
                rows=[("output", name, str(v.type)) for name, v in self.model.outputs.items()],
                hint="a metric is a scalar output, such as a loss or an accuracy",
            )
        check_targets(y, "evaluate", "batch_size")
        feeder = self._evaluation.feeder(data, batch_size, y)
        state = self._loop.runner.views(self.compiled.source.trained_paths)
        return self._evaluation.metrics(feeder, {**state, **(params or {})})

    @suggests_names
    def predict(
        self, inputs: Any, batch_size: int | None = None, params: Mapping[str, Any] | None = None
    ) -> dict[str, Array]:
        """The model's `predict` outputs for a dict of arrays, or for one array where it has one
        input; computed in batches, and put together along the axis of the examples: the first, or
        another that they are the slowest part of. What depends on the other examples of a batch (a
        softmax along the batch) is refused unless one batch holds all. Of no examples there are no
        rows. `params` are other values of parameters or states by path, such as those of
        `averaged`. Raises `FeedError` for data that do not fit, `ModelError` for an output of
        several batches that is not made of theirs (see `joined`)."""
        state = self._loop.runner.views(self.compiled.source.trained_paths)
        state |= params or {}
        return self._evaluation.predict(inputs, batch_size, state)

    @suggests_names
    def export(
        self,
        path: str | os.PathLike[str],
        to: str | None = None,
        params: Mapping[str, Any] | None = None,
        opset: int = OPSET,
        external_data: bool | str | os.PathLike[str] | None = None,
        training_info: bool = False,
        sample: Mapping[str, Any] | None = None,
        precision: str = "f32",
        calibration: Data | None = None,
        skip: Sequence[str] = (),
    ) -> tuple[Path, ...]:
        """Writes what was trained to `path`, as `nncompile.export` does, and returns the files
        written: the model with its weights, or with `to="step"` the step that goes on from here.
        `params` are other values of parameters or states, such as those of `averaged`."""
        state = {**self._loop.runner.views(), **(params or {})}
        how: dict[str, Any] = {"precision": precision, "calibration": calibration, "skip": skip}
        how |= {"opset": opset, "external_data": external_data, "training_info": training_info}
        return export(self.recipe, path, to, state, sample=sample, **how)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the whole state and the position in the data as one `.safetensors` file, whole
        or not at all; training that goes on from it gives the same bits. Raises `FileError`."""
        return self.snapshot(copied=False).write(path)

    def snapshot(self, copied: bool = True) -> Snapshot:
        """What `save` writes, kept in memory: `write(path)` writes it later; before the next step,
        which changes it, where it is not `copied`."""
        self._loop.settle()
        loop = self._loop
        state = self.state if copied else loop.runner.views()
        return Snapshot.of(state, self.compiled.source, self.seed, loop.epoch, loop.callback_states)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a file that `save` wrote, or from an exported step's initial state. Raises
        `CheckpointError` for a truncated file or one of another model, `FileError` where there is
        none; the state is then as it was."""
        saved, compiled = load_progress(path, self._adjustments.of_state)
        self._go_on_with(compiled, saved.state)
        self._loop.load(saved.state, saved.epoch, saved.callbacks)
        self.seed = saved.seed
        del saved
        give_back()


def _restored(
    recipe: Recipe, options: Sequence[Any], state: Mapping[str, Array], position: Mapping[str, Any]
) -> Trainer:
    """A trainer that was pickled: compiled again, it goes on from where that was."""
    trainer = Trainer(recipe, *options)
    trainer._go_on_with(trainer._adjustments.of_state(state), state)
    batches = int(state["step"]) - int(position["start"])
    trainer._loop.load(state, Epoch.of(trainer.compiled, batches=batches, **position))
    return trainer
