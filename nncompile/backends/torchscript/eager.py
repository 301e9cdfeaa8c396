"""Graphs as modules of plain Python: what torch.export traces, and autograd differentiates."""

from __future__ import annotations

import functools
import hashlib
import linecache
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._higher_order_ops.scan import scan

from nncompile.backends.torchscript import functions
from nncompile.backends.torchscript.lowering import Check, lower
from nncompile.backends.torchscript.script import hold, weights_of
from nncompile.backends.torchscript.writing import FUNCTIONS
from nncompile.diagnostics.errors import BackendError
from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import declared
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.ops.core.annotations import CustomVjp


class EagerModule(torch.nn.Module):
    """A module whose `forward` is generated source: one that it has in inference (`eval()`), and
    one in training (`train()`).

    It can be copied and pickled: `source` is all that it is made of, beside its tensors.
    """

    def __init__(self, source: Mapping[str, str], unknown: Mapping[str, str]) -> None:
        super().__init__()
        self.source = dict(source)
        self.unknown_gradients = dict(unknown)
        self._functions = {mode: function_of(text) for mode, text in self.source.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in self.__dict__.items() if name != "_functions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._functions = {mode: function_of(text) for mode, text in self.source.items()}

    def forward(self, *args: Any, **inputs: Any) -> dict[str, torch.Tensor]:
        """The outputs by name, of the inputs in order or by name."""
        mode = "train" if self.training and "train" in self.source else "eval"
        outputs: dict[str, torch.Tensor] = self._functions[mode](self, *args, **inputs)
        for name, place in self.unknown_gradients.items():
            if outputs[name].requires_grad:
                outputs[name] = _Unknown.apply(outputs[name], place)
        return outputs


class _Unknown(torch.autograd.Function):
    """The value itself; an error where torch would differentiate it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, place: str) -> torch.Tensor:
        ctx.place = place
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> Any:
        raise BackendError(
            f"autograd does not know the gradient declared at {ctx.place}",
            hint="the training step has it: nncompile compile FILE.py --to torchscript-step",
        )


def to_eager(
    graph: Graph,
    parameters: Mapping[str, Array],
    training: Graph | None = None,
    scans: bool = False,
    places: Mapping[str, str] | None = None,
    checked: Check = Check.NOTHING,
) -> EagerModule:
    """The graph as a module whose parameters and states stand under their own dotted names.

    `training` is computed in place of `graph` after `train()`: its outputs `PATH.next` become the
    values of the states. `scans`, `places` and `checked` are those of `lower`. Raises
    `BackendError` as `to_script` does.
    """
    constants: dict[str, Array] = {}
    source = {
        "eval": lower(
            graph, places=places, constants=constants, scans=scans, checked=checked
        ).source
    }
    graphs = [graph]
    if training is not None:
        writes = {n: n.removesuffix(".next") for n in training.outputs if n not in graph.outputs}
        source["train"] = lower(
            training,
            writes=writes,
            places=places,
            constants=constants,
            scans=scans,
            checked=checked,
            autograd=True,
        ).source
        graphs.append(training)
    unknown: dict[str, str] = {}
    for each in graphs:
        unknown |= _unknown_gradients(each)
    module = EagerModule(source, {n: place for n, place in unknown.items() if n in graph.outputs})
    leaves = {name: leaf for each in graphs for name, leaf in each.leaves.items()}
    for path, (array, trained) in weights_of(leaves, parameters).items():
        hold(module, (places or {}).get(path, path), array, trained)
    for path, array in constants.items():
        hold(module, path, array, False)
    return module


@functools.lru_cache(maxsize=1024)
def function_of(source: str) -> Callable[..., Any]:
    """The function of that source, whose lines tracebacks can show."""
    # It gets into files, which are the same whatever Python's hashes are.
    name = f"<nncompile {hashlib.blake2b(source.encode(), digest_size=8).hexdigest()}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {"torch": torch, "scan": scan}
    scope |= {"Tensor": torch.Tensor, "Dict": dict, "List": list}
    scope |= {name: getattr(functions, name) for name in FUNCTIONS}
    exec(compile(source, name, "exec", optimize=0), scope)  # with its asserts
    function: Callable[..., Any] = scope["forward"]
    return function


def _unknown_gradients(graph: Graph) -> dict[str, str]:
    """The outputs that need a value whose gradient was declared, and the line of that one."""
    places: dict[Value, str] = {}
    for v in graph.nodes:
        location = graph.locations.location(v)
        if _is_declared(v):
            places[v] = location.place if location else v.op.label
        else:
            place = next((places[a] for a in v.args if a in places), None)
            if place is not None:
                places[v] = place
    return {name: places[v] for name, v in graph.outputs.items() if v in places}


def _is_declared(value: Value) -> bool:
    if isinstance(value.op, Map):
        return value.op.derivatives is not None or value.op.body.has(declared)
    return isinstance(value.op, CustomVjp)
