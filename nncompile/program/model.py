"""A model: named outputs as a function of inputs, parameters and state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from nncompile.diagnostics.errors import DTypeError, FeedError, ModelError, did_you_mean
from nncompile.diagnostics.hints import SuggestsNames, suggests_options
from nncompile.diagnostics.locations import Location, current_scope
from nncompile.ir.basic import as_value, cast
from nncompile.ir.dims import Dim
from nncompile.ir.graph import Graph, Input, input_of, needed, toposort
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import i64
from nncompile.ops.random.generator import random_key, seed_leaf
from nncompile.ops.reduction.totals import SumState
from nncompile.passes.inference import inference
from nncompile.program.category_codes import METADATA_KEY, CategoryCodes, to_json
from nncompile.program.input_sizes import solved_sizes
from nncompile.program.low_rank import LowRank
from nncompile.program.model_checks import check_name, check_same_type
from nncompile.program.pickling import model_bytes, restored_model
from nncompile.program.presentation import Presented

_TRAINED = "Trainer(training(model, optimizer=adam(1e-3)))"


class Outputs(dict[str, Value]):
    """The outputs of a model that was applied to other inputs; those that need an input which was
    not given are known by name, and an access to one of them names the missing inputs."""

    def __init__(self, values: Mapping[str, Value], needs: Mapping[str, Sequence[str]]) -> None:
        super().__init__(values)
        self._needs = needs

    def __missing__(self, name: str) -> Value:
        if name in self._needs:
            raise ModelError(
                f"output {name!r} needs {', '.join(map(repr, self._needs[name]))}, "
                "which was not passed to the model",
                hint=f"pass it by name: model(…, {self._needs[name][0]}=…)",
            )
        raise ModelError(f"the model has no output {name!r}", hint=did_you_mean(name, self))


@suggests_options
@dataclass(frozen=True, eq=False, repr=False)
class Model(Presented, SuggestsNames):
    """Named outputs (`graph`) of the leaves: data ("input"), "parameter"s and "state".

    `initial` gives the first value of each parameter and state, an expression over the leaf
    `seed` (and other parameters); `updates` the next value of states that every step changes
    (running statistics). `predict` names the outputs of the inference model; without it, they are
    those of `predicted`. `vocabularies` are the categories whose codes an input has, by its name.
    `adapters` are low-rank changes of weights, by their paths; `frozen` are patterns of what is not
    trained unless a recipe says otherwise. `origin` is the model that this one was made of.

    A model is a function of its parameters: `model(image=v)` is its outputs for other inputs with
    the same weights, `model(image=v, params={"stem.weight": w})` with others.

    Raises `ModelError` for a parameter without an initial value or of another type than it, for
    updates of unknown states, an unknown name in `predict` and an output named as a leaf.
    """

    name: str
    graph: Graph
    initial: Mapping[str, Value] = field(default_factory=dict)
    updates: Mapping[str, Value] = field(default_factory=dict)
    predict: tuple[str, ...] = ()
    doc: str = ""
    layers: Mapping[str, str] = field(default_factory=dict)  # the class of each by path
    vocabularies: Mapping[str, CategoryCodes] = field(default_factory=dict)
    adapters: Mapping[str, LowRank] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    origin: Model | None = None

    foreign_names: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("fit", "train", "compile"), f"{_TRAINED}.fit(data)"),
        **dict.fromkeys(("evaluate", "eval", "test"), f"{_TRAINED}.evaluate(data)"),
        **dict.fromkeys(("forward", "call", "apply"), "call it: model(x)"),
        **dict.fromkeys(
            ("modules", "children", "named_modules", "get_layer"),
            "model.summary() lists the layers",
        ),
        **dict.fromkeys(
            ("weights", "state_dict", "named_parameters", "trainable_weights", "count_params"),
            "model.parameters are their names and types, trainer.params their numbers",
        ),
        **dict.fromkeys(("load_state_dict", "load_weights"), "trainer.load_params(path)"),
        **dict.fromkeys(("save", "save_weights"), "trainer.save(path); export writes it as ONNX"),
        **dict.fromkeys(("to", "cuda", "cpu"), 'Trainer(recipe, providers="cuda")'),
        "zero_grad": "the trainer does that at each step: leave it out",
    }

    def __post_init__(self) -> None:
        if not self.graph.outputs:
            raise ModelError(f"model {self.name} has no output", hint="return a dict of outputs")
        check_name("a model", self.name)
        for name in self.graph.outputs:
            check_name(f"an output of model {self.name}", name)
        for name, leaf in self.whole.leaves.items():
            check_name(f"a {input_of(leaf).kind} of model {self.name}", name)
        leaves = {**self.parameters, **self.states}
        for path, leaf in leaves.items():
            if path not in self.initial and path not in RANDOM_STATE:
                raise ModelError(
                    f"{input_of(leaf).kind} {path} of model {self.name} has no initial value",
                    rows=[(path, str(leaf.type))],
                )
        for label, values in (("initial value", self.initial), ("update", self.updates)):
            for path, value in values.items():
                if label == "update" and path not in leaves:
                    raise ModelError(
                        f"update of unknown state {path!r}", hint=did_you_mean(path, leaves)
                    )
                if path in leaves:
                    check_same_type(f"{label} of {path}", leaves[path].type, value.type)
        for name in self.predict:
            if name not in self.outputs:
                raise ModelError(
                    f"model {self.name} has no output {name!r} to predict",
                    rows=_rows(self.outputs),
                    hint=did_you_mean(name, self.outputs),
                )
        for name in self.outputs:
            if name in self.whole.leaves:
                raise ModelError(
                    f"output {name!r} has the name of an input or parameter",
                    rows=[(name, str(self.whole.leaves[name].type))],
                    hint="give the output another name",
                )
        if not self.predict:
            object.__setattr__(self, "predict", self.predicted())

    def __reduce__(self) -> Any:
        return restored_model, (Model, model_bytes(self))

    @property
    def outputs(self) -> Mapping[str, Value]:
        """All outputs by name: predictions, losses and metrics."""
        return self.graph.outputs

    @cached_property
    def whole(self) -> Graph:
        """The outputs, and the next value of each state that changes as output `PATH.next`."""
        following = {f"{path}.next": value for path, value in self.updates.items()}
        return self.graph.with_outputs({**self.outputs, **following})

    @cached_property
    def inputs(self) -> dict[str, Value]:
        """The data leaves by name, in the order they were declared."""
        return self.whole.of_kind("input")

    @cached_property
    def parameters(self) -> dict[str, Value]:
        """The trained leaves by path."""
        return self.whole.of_kind("parameter")

    @cached_property
    def states(self) -> dict[str, Value]:
        """The leaves of other state by path: running statistics, `seed` and `step`."""
        return self.whole.of_kind("state")

    @cached_property
    def metrics(self) -> dict[str, Value]:
        """The outputs that are one number: loss, accuracy and the like."""
        return {name: value for name, value in self.outputs.items() if value.rank == 0}

    @cached_property
    def tables(self) -> dict[str, Value]:
        """The outputs of several numbers that are totals over the examples, such as a confusion
        matrix: evaluated as the metrics are."""
        return {
            name: value
            for name, value in self.outputs.items()
            if value.rank and type(value.op) is SumState and value.type.is_static
        }

    @property
    def metadata(self) -> dict[str, str]:
        """What its ONNX files say about it, beside the graph."""
        return {METADATA_KEY: to_json(self.vocabularies)} if self.vocabularies else {}

    @cached_property
    def examples(self) -> Dim | None:
        """The size that data are cut along: the first symbolic one that an input begins with."""
        for leaf in self.inputs.values():
            if leaf.shape and not isinstance(leaf.shape[0], int):
                return leaf.shape[0]
        return None

    @cached_property
    def cut(self) -> tuple[str, ...]:
        """The inputs whose data are cut along `examples`: those that begin with that size."""
        return tuple(n for n, v in self.inputs.items() if v.shape and v.shape[0] == self.examples)

    def predicted(self) -> tuple[str, ...]:
        """The outputs of the inference model where `predict` does not name them: the tensors that
        can be computed without some input that the metrics (outputs of one number) need, such as
        the label. An error for each example, which needs the label as the loss does, is thus not
        among them. Where every tensor that is computed from data needs all that the metrics need,
        as in an autoencoder, they are all tensors; where there is no tensor, all outputs.
        """
        tensors = [n for n, v in self.outputs.items() if v.rank > 0 and n not in self.tables]
        compared = {leaf for name in self.metrics for leaf in self.needs(name)}
        needs = {name: self.needs(name) for name in tensors}
        free = [name for name in tensors if not compared.issubset(needs[name])]
        return tuple((free if any(needs[name] for name in free) else tensors) or self.outputs)

    def needs(self, output: str) -> tuple[str, ...]:
        """The names of the data that an output is computed from."""
        leaves = leaves_of([self.outputs[output]])
        return tuple(name for name, leaf in self.inputs.items() if leaf in leaves)

    def __call__(
        self, *args: Any, params: Mapping[str, Any] | None = None, **inputs: Any
    ) -> Outputs:
        """The outputs for other inputs (by position in the order declared, or by name), with the
        same parameters except those in `params`.

        Names of sizes are solved from the inputs: a model of `f32["batch", 3]` takes
        `f32[2*n, 3]`. `params` may name any parameter or state: other weights (EMA, a target
        network, an inner step). Outputs that need an input which is not given are left out.

        Each application within another model draws random numbers of its own: other dropouts and
        crops than every other one, the same whenever the program runs with the same seed, and in a
        loop others in each iteration. `params` may name `seed` as well: applications that are given
        one seed draw the same. Outside of a model, where nothing counts them, applications draw
        what the model itself does.

        Raises `FeedError` for an unknown input or one given twice, `ModelError` for an unknown
        parameter, `ShapeError` or `DTypeError` where a type does not fit.
        """
        operands = self._operands(args, inputs)
        sizes = solved_sizes(
            {name: (self.inputs[name].shape, value.shape) for name, value in operands.items()}
        )
        new: dict[Value, Value] = {self.inputs[name]: value for name, value in operands.items()}
        applied = _applied.get()
        leaves = {**self.parameters, **self.states}
        if applied:
            new |= {
                leaves[path]: value for path, value in applied.updates.items() if path in leaves
            }
            if "seed" in leaves:
                new[leaves["seed"]] = applied.seed_of(self.name)
        new |= self._replaced(leaves, {} if params is None else params)
        needs = {name: [n for n in self.needs(name) if n not in operands] for name in self.outputs}
        chosen = {name: value for name, value in self.outputs.items() if not needs[name]}
        updates = {
            path: value
            for path, value in self.updates.items()
            if all(leaf in new for leaf in leaves_of([value]) if input_of(leaf).kind == "input")
        }
        values = replace([*chosen.values(), *updates.values()], new, sizes, self._applied_at)
        if applied:
            applied.models.append(self)
            applied.updates.update(zip(updates, values[len(chosen) :], strict=True))
        return Outputs(
            dict(zip(chosen, values, strict=False)), {n: m for n, m in needs.items() if m}
        )

    def _applied_at(self, value: Value) -> Location | None:
        """Where a node of it was written, as one of the model that applies it."""
        location = self.graph.locations.location(value)
        return None if location is None else location.within(current_scope(), self.name)

    def _replaced(
        self, leaves: Mapping[str, Value], params: Mapping[str, Any]
    ) -> dict[Value, Value]:
        """The values that take the place of parameters and states."""
        if not isinstance(params, Mapping):
            raise ModelError(
                f"params must be a dict of values by path, got {type(params).__name__}",
                hint=f"params={{{next(iter(leaves), 'weight')!r}: value}}",
            )
        new: dict[Value, Value] = {}
        for path, x in params.items():
            if path not in leaves:
                raise ModelError(
                    f"model {self.name} has no parameter {path!r}",
                    rows=_rows(leaves),
                    hint=did_you_mean(path, leaves),
                )
            value = as_value(x, leaves[path])
            check_same_type(f"parameter {path}", leaves[path].type, value.type)
            new[leaves[path]] = value
        return new

    def _operands(self, args: Sequence[Any], inputs: Mapping[str, Any]) -> dict[str, Value]:
        names = list(self.inputs)
        if len(args) > len(names):
            raise FeedError(
                f"model {self.name} takes {len(names)} inputs, {len(args)} were given",
                rows=_rows(self.inputs),
            )
        placed = dict(zip(names, args, strict=False))
        for name in inputs:
            if name not in self.inputs:
                raise FeedError(
                    f"model {self.name} has no input {name!r}",
                    rows=_rows(self.inputs),
                    hint=did_you_mean(name, self.inputs),
                )
            if name in placed:
                raise FeedError(f"input {name!r} of model {self.name} is given twice")
        operands: dict[str, Value] = {}
        for name, x in {**placed, **inputs}.items():
            value = as_value(x, self.inputs[name])
            if value.dtype is not self.inputs[name].dtype:
                raise DTypeError(
                    f"input {name!r} of model {self.name} has the wrong element type",
                    rows=[("expected", str(self.inputs[name].type)), ("got", str(value.type))],
                    hint=f"cast it: x.astype({self.inputs[name].dtype})",
                )
            operands[name] = value
        return operands

    def inference(self, outputs: Sequence[str] | None = None) -> Graph:
        """The outputs (those of `predict` unless others are named) as they are computed after
        training: without dropout, with running statistics. Its inputs are the data they need, of
        which some may only tell a size."""
        names = self.predict if outputs is None else tuple(outputs)
        for name in names:
            if name not in self.outputs:
                raise ModelError(
                    f"model {self.name} has no output {name!r}",
                    rows=_rows(self.outputs),
                    hint=did_you_mean(name, self.outputs),
                )
        chosen = {name: self.outputs[name] for name in names}
        plain = Graph(self.name, chosen, (), self.graph.locations, self.doc or self.graph.doc)
        plain = inference(plain)
        ordered = needed(plain.outputs.values(), self.graph.leaves.values())
        return Graph(plain.name, plain.outputs, ordered, plain.locations, plain.doc)

    @cached_property
    def prediction_digests(self) -> dict[str, str]:
        """Of each output of the inference model, what tells it from others that are computed in
        another way, of inputs and parameters of these names; the same in every process."""
        return {name: value.digest.hex() for name, value in self.inference().outputs.items()}


RANDOM_STATE = frozenset({"seed", "step"})


@dataclass
class Applications:
    """The models that were applied within a block, and what their states become: each
    application sees the states that the one before it left."""

    models: list[Model] = field(default_factory=list)
    updates: dict[str, Value] = field(default_factory=dict)
    scope: str = field(default_factory=current_scope)  # the block's own
    _counts: Counter[str] = field(default_factory=Counter)

    def seed_of(self, name: str) -> Value:
        """What the next application of a model of that name draws from in place of the seed: it
        follows from the layer that applies it, and from how often that has."""
        caller = f"{current_scope().removeprefix(self.scope)} {name}"
        self._counts[caller] += 1
        return cast(random_key(f"{caller} {self._counts[caller]}", seed_leaf()), i64)


_applied: ContextVar[Applications | None] = ContextVar("applied", default=None)


@contextmanager
def applications() -> Iterator[Applications]:
    """Collects the models that are applied in the block, for a model that is built of them and
    owns their initial values and updates."""
    collected = Applications()
    token = _applied.set(collected)
    try:
        yield collected
    finally:
        _applied.reset(token)


def leaves_of(values: Any) -> set[Value]:
    """The leaves that the values need."""
    return {v for v in toposort(values) if isinstance(v.op, Input)}


def _rows(values: Mapping[str, Value]) -> list[tuple[str, ...]]:
    return [(name, str(value.type)) for name, value in values.items()]
