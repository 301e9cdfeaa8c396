"""What a sweep tries next: a list of combinations, or what Optuna proposes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nncompile.cli.trials import Trial
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.extras import extra
from nncompile.program.option_values import written
from nncompile.program.search_space import Range, Settings, Space, label
from nncompile.train.directions import Mode


class Proposals(Protocol):
    """Where the trials of a sweep come from; `count` is how many there are to be."""

    count: int

    def next(self) -> Settings | None:
        """The next combination; None where there is no other."""

    def should_prune(self, settings: Settings, epoch: int, value: float) -> bool:
        """Whether a trial with this value in this epoch is to end."""

    def tell(self, trial: Trial) -> None:
        """Takes a result into account."""


class Listed:
    """Combinations that are known beforehand, without those that are done."""

    def __init__(self, combinations: Iterable[Settings], count: int, done: Iterable[Trial]) -> None:
        chosen = list(itertools.islice(combinations, count))
        known = {label(trial.settings) for trial in done}
        self.count = len(chosen)
        self._left = iter([x for x in chosen if label(x) not in known])

    def next(self) -> Settings | None:
        """The next combination."""
        return next(self._left, None)

    def should_prune(self, settings: Settings, epoch: int, value: float) -> bool:
        """Never."""
        return False

    def tell(self, trial: Trial) -> None:
        """Nothing follows from a result."""


class Optuna:
    """What Optuna's tree-structured Parzen estimator proposes, of the results so far; trials that
    are worse than the median at the same epoch are pruned. Raises `ModelError` without Optuna."""

    def __init__(
        self, space: Mapping[str, Space], count: int, mode: Mode, seed: int, done: Sequence[Trial]
    ) -> None:
        hint = "pip install 'nncompile[optuna]'; or --random N, which needs nothing"
        self._optuna = extra("optuna", "optuna", "sweep --trials", hint, ModelError)
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self.count = count
        self._space = space
        self._distributions = {name: self._distribution(x) for name, x in space.items()}
        self._study = self._optuna.create_study(
            direction="maximize" if mode == "max" else "minimize",
            sampler=self._optuna.samplers.TPESampler(seed=seed + len(done)),
            pruner=self._optuna.pruners.MedianPruner(n_warmup_steps=2),
        )
        self._asked: dict[str, Any] = {}
        self._left = count - len(done)
        for trial in done:
            self._study.add_trial(self._known(trial))

    def next(self) -> Settings | None:
        """The next combination, other than those that run at the moment."""
        if self._left <= 0:
            return None
        self._left -= 1
        asked = self._study.ask(self._distributions)
        settings = {name: self._value(name, x) for name, x in asked.params.items()}
        self._asked[label(settings)] = asked
        return settings

    def should_prune(self, settings: Settings, epoch: int, value: float) -> bool:
        """Whether it is worse than the median of the others at this epoch."""
        asked = self._asked[label(settings)]
        asked.report(value, epoch)
        return bool(asked.should_prune())

    def tell(self, trial: Trial) -> None:
        """Takes the best value of a trial into account, or that it failed."""
        asked = self._asked.pop(label(trial.settings), None)
        if asked is not None:
            states = self._optuna.trial.TrialState
            if trial.state == "pruned":
                self._study.tell(asked, state=states.PRUNED)
            elif trial.state == "finished" and trial.value is not None:
                self._study.tell(asked, trial.value)
            else:
                self._study.tell(asked, state=states.FAIL)

    def _distribution(self, space: Space) -> Any:
        distributions = self._optuna.distributions
        if not isinstance(space, Range):
            return distributions.CategoricalDistribution([written(x) for x in space])
        if isinstance(space.low, int):
            return distributions.IntDistribution(space.low, space.high, log=space.log)
        return distributions.FloatDistribution(space.low, space.high, log=space.log)

    def _value(self, name: str, proposed: Any) -> Any:
        space = self._space[name]
        if isinstance(space, Range):
            return space.rounded(proposed)
        return next(x for x in space if written(x) == proposed)

    def _known(self, trial: Trial) -> Any:
        params = {
            name: trial.settings[name]
            if isinstance(space, Range)
            else written(trial.settings[name])
            for name, space in self._space.items()
        }
        return self._optuna.trial.create_trial(
            params=params, distributions=self._distributions, value=trial.value
        )
