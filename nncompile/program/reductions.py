"""How what several processes compute of their rows of a batch becomes that of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from nncompile.ir.basic import size_value
from nncompile.ir.graph import input_of
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.program.gradient_accumulation import weighing
from nncompile.program.linear_terms import linear_terms
from nncompile.program.metric_aggregation import (
    Accumulation,
    follows_from_parts,
    is_contraction,
    is_mean,
    is_sum,
    weight_of,
)
from nncompile.program.model import Model
from nncompile.program.updated_state import Forms

Kind = Literal["sum", "mean", "max", "change", "concatenate"]

Present = Callable[[Sequence[Value]], Forms]

METADATA_KEY = "nncompile.reduce"
"""The key of the metadata of the halves of a step: JSON, how their tensors are reduced."""

# Of the half in one file, which several processes cannot reduce within.
_LATER = (
    "it sees what an earlier update of the same step makes of the rows of one process; "
    "nncompile train --workers reduces between the two updates"
)


@dataclass(frozen=True)
class Reduction:
    """How a tensor follows from those of the processes: as their `sum`; as their `mean`, which is
    Σ w·x / Σ w where `weight` names the tensor w, and an x of no weight counts nothing; as their
    `max`; by the sum of the `change`s, s + Σ (x − s), of a state s; or of all rows (`concatenate`),
    in the order of the processes."""

    kind: Kind
    weight: str | None = None

    @property
    def described(self) -> dict[str, str]:
        """As JSON has it."""
        weight = {} if self.weight is None else {"weight": self.weight}
        return {"reduce": self.kind, **weight}


SUM = Reduction("sum")


class Place(NamedTuple):
    """Where a tensor lies in a vector: its name, its first element there, and its shape."""

    name: str
    first: int
    shape: tuple[int, ...]


@dataclass
class Reductions:
    """Those of the outputs of the gradient half of a step, by name. `weights` are outputs that it
    has for them, in both of their `Forms`, `gradients` the order in which gradients are made: those
    of the last layers first. `irreducible` are the losses and rules that cannot be reduced, and
    why; `later` those that can be once what earlier updates of the step take is reduced; `flat` the
    gradients that lie in each of some vectors."""

    model: Model
    by_name: dict[str, Reduction] = field(default_factory=dict)
    weights: dict[str, Value] = field(default_factory=dict)
    weights_in_turn: dict[str, Value] = field(default_factory=dict)
    gradients: list[str] = field(default_factory=list)
    irreducible: dict[str, str] = field(default_factory=dict)
    later: list[str] = field(default_factory=list)
    flat: Mapping[str, Sequence[Place]] = field(default_factory=dict)

    def add_gradients(self, loss: str, gradients: Mapping[str, Value], present: Present) -> None:
        """The gradients of a loss, by path, as they are handed over; at the `present` state."""
        if not follows_from_parts(self.model.outputs[loss], self.model.examples):
            self.irreducible[loss] = (
                "it is neither a mean nor a sum over the examples; write a masked mean as "
                "ratio(total, count)"
            )
        reduction = self._of_output(loss, present)
        names = [input_of(leaf).name for leaf in gradients.values()]
        self.by_name |= dict.fromkeys(names, reduction)
        self.gradients += reversed(names)

    def add_weights(self, leaves: Iterable[Value]) -> None:
        """What batches weigh, as it is handed over."""
        self.by_name |= dict.fromkeys((input_of(leaf).name for leaf in leaves), SUM)

    def add_output(self, name: str, output: str) -> None:
        """A tensor that is an output of the model."""
        self.by_name[name] = self._of_output(output)

    def add_statistic(self, path: str, value: Value) -> None:
        """The next value of a state that follows the batch, such as a running mean."""
        name = f"{path}.next"
        if not value.dtype.is_float:
            self.by_name[name] = Reduction("max")
        elif is_sum(value, self.model.examples):
            self._add_sum(name, path, value)
        else:
            self.by_name[name] = self._mean(path, self._examples())

    def add_rule(self, name: str, path: str, value: Value) -> None:
        """What a rule makes of a parameter or state, as it is handed over by that name."""
        if is_contraction(value, self.model.examples):
            self._add_sum(name, path, value)
        elif is_mean(value, self.model.examples):
            self.by_name[name] = self._mean(path, weight_of(value, self.model.examples))
        else:
            self.irreducible[path] = "its rule is neither a mean nor a sum over the examples"

    def _add_sum(self, name: str, path: str, value: Value) -> None:
        """A sum over the examples, by itself or added to what it is the next value of."""
        found = linear_terms(value, self.model.examples)
        if not found.rest:
            self.by_name[name] = SUM
        elif found.is_beside(path):
            self.by_name[name] = Reduction("change")
        else:
            self.irreducible[path] = "its rule adds a sum over the examples to something else"

    def add_later(self, name: str) -> None:
        """A loss or rule that sees what an earlier update of the same step made of a batch."""
        self.later.append(name)

    def add_metrics(self, metrics: Iterable[str], sums: Accumulation) -> None:
        """The metrics, and the parts that they consist of. A metric of several parts is computed of
        these, unless it is a mean or a sum itself."""
        for name, part in sums.parts.items():
            if part.kind == "pooled":
                self.by_name[name] = Reduction("concatenate")
            elif part.kind == "total" or is_sum(part.value, self.model.examples):
                self.by_name[name] = self._sum
            else:
                count = self._examples() if part.count is None else size_value(part.count, f32)
                self.by_name[name] = self._mean(name, count)

    def described(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of these tensors, as JSON has it."""
        present = set(names)
        about: dict[str, Any] = {
            "tensors": {n: r.described for n, r in self.by_name.items() if n in present},
            "gradients": [n for n in self.gradients if n in present],
        }
        flat = {n: [x._asdict() for x in places] for n, places in self.flat.items() if n in present}
        about |= {"flat": flat} if flat else {}
        irreducible = dict.fromkeys(self.later, _LATER) | self.irreducible
        return about | ({"irreducible": irreducible} if irreducible else {})

    def _of_output(self, output: str, present: Present | None = None) -> Reduction:
        adds_up, weight = weighing(self.model, output)
        if adds_up:
            return self._sum
        if weight is not None and present is not None:
            (whole,), (in_turn,) = present([weight])
            return self._mean(output, whole, in_turn)
        return self._mean(output, weight)

    @property
    def _sum(self) -> Reduction:
        """How a sum is reduced: of a batch that is not cut, each process has it all."""
        return Reduction("mean") if self.model.examples is None else SUM

    def _examples(self) -> Value | None:
        examples = self.model.examples
        return None if examples is None else size_value(examples, f32)

    def _mean(self, owner: str, weight: Value | None, in_turn: Value | None = None) -> Reduction:
        """A mean of that weight, which is an output of the owner's name where it is none yet."""
        if weight is None:
            return Reduction("mean")
        in_turn = weight if in_turn is None else in_turn
        for name, known in self.weights_in_turn.items():
            if known is in_turn:
                return Reduction("mean", name)
        name = f"{owner}.batch_weight"
        self.weights[name], self.weights_in_turn[name] = weight, in_turn
        self.by_name[name] = SUM
        return Reduction("mean", name)
