"""The training loop: a recipe and data in, a trained state out; bitwise reproducible, and
resumable from any step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import (
    CheckpointError,
    FeedError,
    ModelError,
    TrainingError,
    did_you_mean,
    seed_number,
    whole_number,
)
from nncompile.diagnostics.hints import SuggestsNames, suggests_names
from nncompile.ir.types import Array
from nncompile.program.model import RANDOM_STATE
from nncompile.program.recipe import Recipe, minimize
from nncompile.runtime.checkpoint import check_state, load_state, save_state
from nncompile.runtime.providers import Provider
from nncompile.train.data import Batch, Data, Feeder
from nncompile.train.divergence import diverged
from nncompile.train.evaluation import Evaluation, ports_of
from nncompile.train.events import Callback, History, Watchers
from nncompile.train.locate import NonFinite, locate_nonfinite
from nncompile.train.sums import Sums
from nncompile.train.transfer import Renaming, Transfer, transfer

_POSITION = "nncompile.position"


# By the names of torch's and Keras's methods, what does the same here.
FOREIGN_METHODS = {
    **dict.fromkeys(("train", "learn", "train_step", "run"), "trainer.fit(data) trains"),
    **dict.fromkeys(("fit_generator", "train_on_batch"), "use trainer.fit([batch, ...])"),
    **dict.fromkeys(("test", "test_step", "validate", "score"), "trainer.evaluate(data)"),
    **dict.fromkeys(("forward", "predict_on_batch", "predict_step"), "trainer.predict(inputs)"),
    **dict.fromkeys(
        ("eval", "no_grad"), "predict and evaluate already run in inference mode: leave it out"
    ),
    **dict.fromkeys(("zero_grad", "backward"), "fit does that at each step: leave it out"),
    **dict.fromkeys(("to", "cuda", "cpu", "device"), 'Trainer(recipe, providers="cuda")'),
    **dict.fromkeys(("save_weights", "save_model", "save_checkpoint"), "trainer.save(path)"),
    **dict.fromkeys(
        ("load_weights", "load_checkpoint"), "trainer.load(path), or load_params(path) by name"
    ),
    **dict.fromkeys(("state_dict", "get_weights", "parameters", "weights"), "trainer.params"),
    **dict.fromkeys(("load_state_dict", "set_weights"), "trainer.set_params({path: array})"),
    "compile": "Trainer(training(model, optimizer=adam(1e-3)))",
    "history": "fit returns it: history = trainer.fit(data)",
    "optimizer": "trainer.recipe holds it, its slots are in trainer.state",
    "summary": "nncompile show FILE prints the model",
}


@dataclass
class _Epoch:
    """The epoch under way: how many came before it, the step it began with, and what its metrics
    are computed of, over the batches so far."""

    number: int
    start: int
    sums: Sums

    def position(self) -> dict[str, Any]:
        """What a file holds of it."""
        return {"number": self.number, "start": self.start, **self.sums.stored()}


class Trainer(SuggestsNames):
    """Trains the model of a recipe on execution `providers`, with `threads` for each operator.

    `seed` (the recipe's by default) determines initial weights, the order of examples and random
    ops: the same seed, data and runtime give the same bits. `without` switches passes off.
    """

    foreign_names = FOREIGN_METHODS

    @suggests_names
    def __init__(
        self,
        recipe: Recipe,
        providers: Provider | Sequence[Provider] = "cpu",
        seed: int | None = None,
        threads: int | None = None,
        without: Collection[str] = (),
    ) -> None:
        self.compiled = compile_step(recipe, without)
        self.recipe = recipe
        self.model = recipe.model
        self.providers = providers
        self.threads = threads
        self.seed = recipe.seed if seed is None else seed_number(seed)
        first = self.compiled.source.initial(self.seed)
        self._runner = self.compiled.runner(first, providers, threads)
        self._losses = [u.loss for u in recipe.updates if isinstance(u, minimize)]
        self._evaluation = Evaluation(self.compiled, providers, threads)
        self._earlier = 0  # steps made before the runner's first
        self._progress = self._new_epoch(0, 0)
        self._stopping = False

    @property
    def step(self) -> int:
        """The number of steps made."""
        # From the runner's own count, so that an interrupt cannot come between the two.
        return self._earlier + self._runner.steps

    @property
    def epoch(self) -> int:
        """The number of complete epochs."""
        return self._progress.number

    @property
    def state(self) -> dict[str, Array]:
        """A copy of the whole state: parameters, slots, running statistics, step and seed."""
        return self._runner.state()

    @property
    def params(self) -> dict[str, Array]:
        """A copy of the parameters by path."""
        state = self.state
        return {path: state[path] for path in self.model.parameters}

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Goes on with these values of parameters or other state; the rest stays as it is. With
        another `step`, a new epoch begins. Raises `ModelError` for an unknown path, `FeedError`
        for another type."""
        state = self.state
        for path in params:
            if path not in state:
                raise ModelError(
                    f"model {self.model.name} has no parameter {path!r}",
                    rows=[(name, str(x.dtype), str(list(x.shape))) for name, x in state.items()],
                )
        self._runner.load({**state, **params})
        if "step" in params:
            self._earlier = int(params["step"]) - self._runner.steps
            self._progress = self._new_epoch(self.epoch, self.step)

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
            state = source.state
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
        averages = self.compiled.source.averages
        if name is None and len(averages) == 1:
            (name,) = averages
        if name is None and averages:
            raise ModelError(
                f"the recipe keeps {len(averages)} averages of the weights: {', '.join(averages)}",
                hint=f"say which: averaged({next(iter(averages))!r})",
            )
        if name is None or name not in averages:
            raise ModelError(
                "the recipe keeps no average of the weights"
                if name is None
                else f"the recipe keeps no average {name!r} of the weights",
                hint=did_you_mean(name, averages)
                if averages
                else "training(..., average=ema(0.999)) keeps one",
            )
        state = self.state
        # An average of numbers of 16 bits is kept in f32.
        return state | {
            path: state[slot].astype(state[path].dtype) for path, slot in averages[name].items()
        }

    @suggests_names
    def fit(
        self,
        data: Data,
        epochs: int | None = None,
        steps: int | None = None,
        validation_data: Data | None = None,
        callbacks: Callback | Iterable[Callback] = (),
        batch_size: int | None = None,
        shuffle: bool = True,
    ) -> History:
        """Trains for so many more epochs or steps, whichever ends first, and returns each epoch's
        metrics (see `History`). An epoch that was interrupted is finished first, and counts as one.

        Without either number, training goes on to the end that the recipe sets, or for one epoch
        where it sets none. A dict of arrays is shuffled for each epoch; a smaller last batch is
        trained on too. `validation_data` are evaluated after each epoch.

        Raises `FeedError` for data that do not fit or hold NaN, `TrainingError` where a loss is
        not finite. After an interrupt (Ctrl-C) the state is that of the last whole step; after a
        `TrainingError`, also one that a callback raises after a step, it is that of the step
        before, which is made again where the training goes on.
        """
        ports = ports_of(self.model, self._runner.session)
        size = self.recipe.batch_size if batch_size is None else batch_size
        feeder = Feeder(data, self.model, ports, size, self.compiled.sizes)
        check = None
        if validation_data is not None:
            check = self._evaluation.feeder(validation_data, batch_size)
        watchers = Watchers.of(self, callbacks)
        last_epoch, last_step = self._ends(epochs, steps)
        history = History()
        latest: Batch = {}
        self._stopping = False
        while self.epoch < last_epoch and self.step < last_step and not self._stopping:
            progress = self._progress
            order = (self.seed, self.epoch) if shuffle else None
            completed = True
            for examples in feeder.epoch(order, skip=self.step - progress.start):
                if self.step >= last_step or self._stopping:
                    completed = False
                    break
                self._advance(examples, feeder, watchers)
                latest = examples
            if self.step == progress.start:
                raise FeedError(
                    f"no batch for epoch {self.epoch + 1}",
                    hint="a generator can be read only once: pass a list of batches, or a function "
                    "that returns them anew",
                )
            means = progress.sums.results()
            if check is not None:
                validated = self._evaluation.metrics(check, self.state)
                means |= {f"val_{name}": validated[name] for name in self.model.metrics}
            history.epochs.append(means)
            number = self.epoch + 1
            if completed:  # in one assignment, between whose parts no interrupt can come
                self._progress = self._new_epoch(number, self.step)
            watchers.tell("epoch", number, means, latest)
        watchers.tell("end", self.epoch, history.last, latest)
        return history

    def locate(self, batch: Batch, outputs: Sequence[str] = ()) -> NonFinite | None:
        """Where the last step, on `batch` and undone or not, first made a number that is not
        finite; None where it made none, on the way to `outputs` (all metrics and the whole next
        state by default). See `nncompile.train.locate.locate_nonfinite`."""
        return locate_nonfinite(self.compiled.step, {**self._runner.before(), **batch}, outputs)

    def stop(self) -> None:
        """Ends the running `fit` after the present step; for callbacks."""
        self._stopping = True

    @suggests_names
    def evaluate(
        self, data: Data, batch_size: int | None = None, params: Mapping[str, Any] | None = None
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
        feeder = self._evaluation.feeder(data, batch_size)
        return self._evaluation.metrics(feeder, {**self.state, **(params or {})})

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
        return self._evaluation.predict(inputs, batch_size, {**self.state, **(params or {})})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the whole state and the position in the data as one `.safetensors` file, whole
        or not at all; training that goes on from it gives the same bits. Raises `FileError`."""
        position = {"seed": self.seed, "epoch": self._progress.position()}
        text = json.dumps(position)
        metadata = {"nncompile.model": self.model.name, _POSITION: text}
        return save_state(path, self.state, metadata)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a file that `save` wrote, or from an exported step's initial state. Raises
        `CheckpointError` for a truncated file or one of another model, `FileError` where there is
        none; the state is then as it was."""
        tensors, metadata = load_state(path)
        check_state(tensors, self.compiled.source.state, path)
        step = int(tensors["step"])
        position: dict[str, Any] = {"seed": tensors["seed"], "epoch": {"start": step}}
        try:
            position |= json.loads(metadata.get(_POSITION, "{}"))
            seed, epoch = int(position["seed"]), self._new_epoch(**position["epoch"])
        except (ValueError, TypeError):
            raise CheckpointError(
                f"the position in {os.fspath(path)} cannot be read",
                rows=[("got", metadata[_POSITION][:200])],
            ) from None
        self._runner.load(tensors)
        self._earlier = step - self._runner.steps
        self.seed, self._progress = seed, epoch

    def _ends(self, epochs: int | None, steps: int | None) -> tuple[float, float]:
        """The epoch and the step at which this training ends."""
        for label, count in (("epochs", epochs), ("steps", steps)):
            if count is not None:
                whole_number(label, count, 0)
        if epochs is None and steps is None:
            if self.recipe.epochs is None and self.recipe.steps is None:
                return self.epoch + 1, math.inf
            return self.recipe.epochs or math.inf, self.recipe.steps or math.inf
        last_epoch = math.inf if epochs is None else self.epoch + epochs
        return last_epoch, math.inf if steps is None else self.step + steps

    def _advance(self, batch: Batch, feeder: Feeder, watchers: Watchers) -> None:
        """One step, reported to the watchers; it is undone where one of them raises
        `TrainingError`."""
        sums = self._progress.sums
        mark = sums.mark() if watchers.by_kind["step"] else None
        metrics = self._stepped(batch, feeder)
        try:
            watchers.tell("step", self.epoch + 1, metrics, batch)
        except TrainingError:
            if self._runner.undo() and mark is not None:
                sums.restore(mark)
            raise

    def _stepped(self, batch: Batch, feeder: Feeder) -> dict[str, float]:
        """One step; its metrics, which are added to the totals of the epoch."""
        self._runner.step(batch)
        outputs = self._runner.metrics()
        metrics = {name: float(outputs[name]) for name in self.model.metrics}
        for name in self._losses:
            if not math.isfinite(metrics[name]):
                infinite = feeder.infinite()
                origin = None if infinite else self.locate(batch, (name,))
                moment = f"step {self.step} (epoch {self.epoch + 1})"
                loss = f"{name} is {metrics[name]}"
                error = diverged(loss, moment, feeder.searched_data, infinite, origin)
                self._runner.undo()
                raise error
        self._progress.sums.add(batch, {**outputs, **metrics}, feeder.examples(batch))
        return metrics

    def _new_epoch(self, number: int = 0, start: int = 0, **sums: Any) -> _Epoch:
        """An epoch with what its metrics are computed of so far. Raises `TypeError` for
        anything else."""
        plan = self.compiled.source.accumulation
        return _Epoch(number, start, Sums.restored(plan, self.model.inputs, **sums))
