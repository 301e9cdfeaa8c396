"""The training step as a module of TorchScript that holds the state and changes it in place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch

from nncompile.backends.torchscript.lowering import Check, attribute_text, lower, table
from nncompile.backends.torchscript.naming import loadable
from nncompile.backends.torchscript.script import described, saved, scripted, types_of
from nncompile.backends.torchscript.writing import Block, Line, Names, written
from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import declared, stop_gradient
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import Array
from nncompile.program.initialization import initial_expressions
from nncompile.program.step import Step

OWN = ("forward", "train_step", "evaluate", "get_state", "set_state", "reset", "nncompile", "slots")
"""What a step has beside the parameters and states of its model."""


def to_step(
    step: Step,
    state: Mapping[str, Array],
    optimized: Callable[[str, Graph], Graph],
) -> torch.jit.ScriptModule:
    """The training step as a scripted module that holds `state`: parameters, running statistics,
    `step` and `seed` under their own dotted paths, and what training needs beside them, as the
    moments of an optimizer, within `slots` (a module cannot hold `head.weight` and
    `head.weight.m`).

    `train_step` takes a batch, the inputs of the model in order, changes the state in place and
    returns the metrics as they were before; its gradients are those of the graph, and autograd
    takes no part. `evaluate` gives the metrics of inference, `forward` its predictions. `get_state`
    is a copy of the state by path, `set_state` goes on from one, and `reset` begins anew from a
    seed. All are there after `torch.jit.load` in Python and C++, and saving the module keeps its
    state.

    `optimized(name, graph)` makes the passes. Names that a file cannot have get a `_`, in the
    module and not in the state.
    """
    paths = {"step", "seed", *step.model.parameters, *step.model.states}
    model = step.model
    metrics = {name: step.step.outputs[name] for name in model.metrics}
    following = {name: step.step.outputs[name] for name in step.state_map.values()}
    training = optimized("step", step.step.with_outputs({**metrics, **following}))
    own = {n: v for n, v in step.evaluate.outputs.items() if n in model.outputs}
    evaluation = optimized("evaluate", step.evaluate.with_outputs(own))
    predicting = optimized(model.name, model.inference())
    first = _first(step)
    constants: dict[str, Array] = {}
    places = loadable((p for p in step.state if p in paths), OWN)
    slots = loadable((p for p in step.state if p not in paths), below="slots")
    places |= slots

    def reading(graph: Graph, name: str) -> str:
        copied = sharing(graph)  # of a parameter, which has a gradient, too
        lowered = lower(
            graph,
            name,
            places=places,
            copied=copied,
            constants=constants,
            checked=Check.INPUTS,
            detached=True,
        )
        return lowered.source

    def changing(graph: Graph, name: str, checked: Check = Check.NOTHING) -> str:
        writes = {n: n.removesuffix(".next") for n in graph.outputs if n not in metrics}
        copied = sharing(graph)
        return lower(graph, name, writes, places, copied, constants, checked=checked).source

    sources = [
        reading(predicting, "forward"),
        changing(training, "train_step", checked=Check.BATCH),
        reading(evaluation, "evaluate"),
        changing(first, "_draw"),
        *_access(
            {path: attribute_text(places.get(path, path)) for path in step.state},
            {name.removesuffix(".next") for name in first.outputs},
        ),
    ]
    arrays = {places.get(p, p): (state[p], p in step.parameters) for p in step.state}
    about = described(predicting, "step", {p: x for p, x in places.items() if p not in slots})
    about["batch"] = types_of(training.of_kind("input"))
    about["state"] = list(step.state)
    return scripted(training.name, sources, arrays, constants, about)


def step_to_bytes(
    step: Step, state: Mapping[str, Array], optimized: Callable[[str, Graph], Graph]
) -> bytes:
    """The file of `to_step`, for `torch.jit.load` in Python or C++."""
    return saved(to_step(step, state, optimized))


def sharing(graph: Graph) -> tuple[str, ...]:
    """The outputs that may share memory with a state or parameter: those that are one, or a view
    of one, as far as ops tell. What a formula computes is new."""
    shared: set[Value] = set()
    for v in graph.nodes:
        if not v.args:
            is_shared = getattr(v.op, "kind", "input") != "input"
        else:
            is_shared = not _is_new(v) and any(a in shared for a in v.args)
        if is_shared:
            shared.add(v)
    return tuple(name for name, v in graph.outputs.items() if v in shared)


def _is_new(value: Value) -> bool:
    if not isinstance(value.op, Map):
        return False
    body = value.op.body
    return not body.is_Symbol and body.func not in (stop_gradient, declared)


def _first(step: Step) -> Graph:
    """The first state, as output `PATH.next`, of the leaves `seed` and `step` alone; states that
    begin with zeros are left out."""
    initial = initial_expressions(step.model)
    leaves = {**step.model.parameters, **step.model.states}
    initial_of_leaves = {leaves[path]: value for path, value in initial.items()}
    first = replace(list(step.first.values()), initial_of_leaves)
    values = {**initial, **dict(zip(step.first, first, strict=True))}
    outputs = {f"{path}.next": value for path, value in values.items() if path in step.state}
    return Graph(f"{step.model.name}_first", outputs, (), step.step.locations)


def _access(state: Mapping[str, str], drawn: Collection[str]) -> list[str]:
    """The methods that read, set and begin the state: attributes by path, of which some are drawn
    and the others begin with zeros."""
    own = Block("def _state(self) -> Dict[str, Tensor]: ...", [Line(f"return {table(state)}")])
    zeros = [f"{text}.zero_()" for p, text in state.items() if p not in drawn and p != "seed"]
    set_state = """\
def set_state(self, state: Dict[str, Tensor]) -> None:
    own = self._state()
    for path in state:
        assert path in own, "the module has no state " + path
    for path, x in own.items():
        assert path in state, "the state lacks " + path
        assert state[path].dtype == x.dtype, path + " is of another element type"
        assert state[path].shape == x.shape, path + " is of another shape"
    with torch.no_grad():
        for path, x in own.items():
            x.copy_(state[path])"""
    get_state = """\
def get_state(self) -> Dict[str, Tensor]:
    state = self._state()
    return {path: state[path].detach().clone() for path in state}"""
    lines = map(Line, ["self.seed.fill_(seed)", *zeros])
    reset = Block(
        "def reset(self, seed: int) -> None: ...",
        [
            Line('assert seed >= 0, "a seed is at least 0"'),
            Block("with torch.no_grad(): ...", [*lines]),
            Line("self._draw()"),
        ],
    )
    return [written([own], {}, Names()), set_state, get_state, written([reset], {}, Names())]
