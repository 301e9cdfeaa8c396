"""Lowers a graph to the source of a TorchScript `forward`, a statement a node."""

from __future__ import annotations

import keyword
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import Any

import sympy as sp

from nncompile.backends.torchscript.carriers import CARRIERS, carrier
from nncompile.backends.torchscript.emitter import Emitter
from nncompile.backends.torchscript.rules import native
from nncompile.backends.torchscript.sizes import MEASURED, Origin, is_measurable, origins
from nncompile.backends.torchscript.writing import Block, Line, Names, quoted, written
from nncompile.ir.gc_pause import without_collection
from nncompile.ir.graph import Graph, Input, input_of
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type


class Check(Flag):
    """What a method makes sure of before it computes anything."""

    NOTHING = 0
    DTYPES = auto()
    SHAPES = auto()  # ranks and sizes
    EXAMPLES = auto()  # that no input is empty
    INPUTS = DTYPES | SHAPES
    BATCH = INPUTS | EXAMPLES


@dataclass(frozen=True)
class Lowered:
    """The source of a method, and the constants that it takes from the module."""

    source: str
    constants: dict[str, Array]


@without_collection
def lower(
    graph: Graph,
    name: str = "forward",
    writes: Mapping[str, str] | None = None,
    places: Mapping[str, str] | None = None,
    copied: Collection[str] = (),
    constants: dict[str, Array] | None = None,
    scans: bool = False,
    checked: Check = Check.NOTHING,
    autograd: bool = False,
    detached: bool = False,
) -> Lowered:
    """The graph as source: a method that takes its inputs in order and returns its outputs by
    name, with parameters and states as attributes of the module under their paths.

    `writes` names outputs that are not returned but written to the attribute of a path, all of
    them after everything is computed, without a graph of torch's own (`no_grad`). `places` are the
    attributes of paths that have another name in the module than their own. Outputs that are
    `copied` share no memory with what they are computed from. `constants` are those of methods
    that the module has already, and `scans` is the emitter's. The method refuses inputs that are
    not as `checked` says. With `autograd` torch can differentiate the outputs: what is written
    takes the place of a tensor, and does not change it. `detached` ones are computed in `no_grad`,
    as they are where anything is written otherwise.
    """
    graph = native(graph)
    names = Names()
    places, writes = places or {}, writes or {}
    inputs = {
        name: names.claim(name)
        for name, leaf in graph.leaves.items()
        if input_of(leaf).kind == "input"
    }
    texts = {
        name: inputs.get(name) or attribute_text(places.get(name, name)) for name in graph.leaves
    }
    sizes = origins({texts[name]: leaf.shape for name, leaf in graph.leaves.items()})
    t = Emitter(next(iter(texts.values()), None), sizes, constants=constants, scans=scans)
    _check_inputs(t, graph, inputs, checked, sizes)
    results = _emitted(t, graph, texts)
    final = {name: _as_declared(t, results[v], v) for name, v in graph.outputs.items()}
    final |= {name: t.method(final[name], "clone") for name in copied}
    no_grad = detached or bool(writes and not autograd)
    if writes or no_grad:
        # An expression would be computed when others are written already: it gets a name first.
        final = {n: t.named(x, "result") for n, x in final.items()}
    for n, path in writes.items():
        t.effect(_assignment(places.get(path, path), final[n], autograd))
    body = [Block("with torch.no_grad(): ...", t.statements)] if no_grad else t.statements
    outputs = {n: text for n, text in final.items() if n not in writes}
    returned = [Line(f"return {table(outputs)}")] if outputs or not writes else []
    arguments = ", ".join(["self", *(f"{text}: Tensor" for text in inputs.values())])
    head = f"def {name}({arguments}) -> {'Dict[str, Tensor]' if returned else 'None'}: ..."
    leaves = (f"{input_of(leaf).kind} {n}: {leaf.type}" for n, leaf in graph.leaves.items())
    method = Block(head, [*body, *returned], [*graph.doc.splitlines(), *leaves])
    return Lowered(written([method], t.results, names), t.constants)


def _assignment(path: str, text: str, autograd: bool) -> str:
    place = attribute_text(path)
    return f"{place} = {text}.detach()" if autograd else f"{place}.copy_({text})"


def _emitted(t: Emitter, graph: Graph, texts: Mapping[str, str]) -> dict[Value, Any]:
    """The results of all nodes as statements; `texts` are the leaves."""
    results: dict[Value, Any] = {}
    for name, leaf in graph.leaves.items():
        text, carried = texts[name], leaf.dtype in CARRIERS
        results[leaf] = t.method(text, "to", carrier(leaf.dtype)) if carried else text
    outputs = {v: name for name, v in reversed(list(graph.outputs.items()))}
    for v in graph.nodes:
        if v in results:
            continue
        with graph.locations.located(v):  # errors name the user's line
            results[v] = t.node(v, [results[a] for a in v.args])
        if v.args or v in outputs:
            _keep(t, results[v], outputs.get(v), v, graph)
    return results


def _check_inputs(
    t: Emitter,
    graph: Graph,
    inputs: Mapping[str, str],
    checked: Check,
    sizes: Mapping[sp.Symbol, Origin],
) -> None:
    """Has the method refuse inputs that are not as `checked` says."""
    entries = [(name, text, graph.leaves[name].type) for name, text in inputs.items()]
    for entry in entries:  # ranks first, as sizes may be measured at any input
        _check_rank(t, *entry, checked)
    for entry in entries:
        _check_sizes(t, *entry, checked, sizes)


def _check_rank(t: Emitter, name: str, text: str, type_: Type, checked: Check) -> None:
    """Has the method refuse an input of another element type or rank."""
    if Check.DTYPES in checked:
        kind = quoted(f"input '{name}' is {type_}, got another element type")
        t.effect(f"assert {text}.dtype == torch.{type_.dtype.name}, {kind}")
    if Check.SHAPES in checked:
        t.effect(f"assert {text}.dim() == {type_.rank}, {_other_shape(name, text, type_)}")


def _check_sizes(
    t: Emitter,
    name: str,
    text: str,
    type_: Type,
    checked: Check,
    sizes: Mapping[sp.Symbol, Origin],
) -> None:
    """Has the method refuse an input of other sizes, as far as the inputs tell them, and one that
    is empty."""
    if Check.SHAPES in checked:
        for axis, size in enumerate(type_.shape):
            measured_here = sizes.get(size) == (text, axis, MEASURED)
            if not measured_here and is_measurable(size, sizes):
                equal = f"{text}.size({axis}) == {t.dim(size)}"
                t.effect(f"assert {equal}, {_other_shape(name, text, type_)}")
    if Check.EXAMPLES in checked and type_.rank:
        empty = quoted(f"input '{name}' is empty: a training step needs at least one example")
        t.effect(f"assert {text}.numel() > 0, {empty}")


def _other_shape(name: str, text: str, type_: Type) -> str:
    got = quoted(f"input '{name}' is {type_}, got the shape ")
    return f"{got} + str(list({text}.shape))"


def attribute_text(path: str) -> str:
    """The attribute of the module under a dotted path: `self.stem.weight`; components that are
    not names in Python are looked up by text."""
    text = "self"
    for part in path.split("."):
        plain = part.isascii() and part.isidentifier() and not keyword.iskeyword(part)
        text = f"{text}.{part}" if plain else f"getattr({text}, {quoted(part)})"
    return text


def table(texts: Mapping[str, str]) -> str:
    """Expressions by name as a dict of the source."""
    return f"{{{', '.join(f'{quoted(name)}: {text}' for name, text in texts.items())}}}"


def _keep(t: Emitter, result: Any, output: str | None, v: Value, graph: Graph) -> None:
    """Gives a node's result its own line, named after the output, the parameter, the layer or
    what computes it."""
    for i, text in enumerate(result if isinstance(result, tuple) else (result,)):
        variable = t.results.get(text)
        if variable is None:
            continue
        stem = _stem(v, graph) or variable.hint
        t.keep(text, f"{stem}_{i}" if isinstance(result, tuple) else stem, _comment(v, graph))
        if output is not None:
            variable.hint = output


def _stem(v: Value, graph: Graph) -> str:
    """The path of the node's parameter, or else of the layer that it was written in."""
    for leaf in v.args:
        if isinstance(leaf.op, Input) and leaf.op.kind == "parameter" and "." in leaf.op.name:
            return leaf.op.name.rpartition(".")[0]
    location = graph.locations.location(v)
    if location is None:
        return ""
    root, _, path = location.scope.partition("/")  # the model's own name adds nothing
    return path if root == graph.name else location.scope


def _comment(v: Value, graph: Graph) -> str:
    """The user's line: `digits.py:22  stem`."""
    location = graph.locations.location(v)
    return f"{location.place}  {location.scope}".rstrip() if location else ""


def _as_declared(t: Emitter, text: str, v: Value) -> str:
    """An output in its declared type."""
    return t.method(text, "to", f"torch.{v.dtype.name}") if v.dtype in CARRIERS else text
