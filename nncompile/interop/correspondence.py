"""Which tensor of a torch module is which parameter of a model.

A linear layer of torch multiplies by the transpose of its weight, attention keeps the weights of
query, key and value in one tensor, PReLU calls its slope a weight. All else of `dsl` has torch's
names and layouts already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nncompile.diagnostics.errors import ModelError, Row, did_you_mean
from nncompile.elementwise.map import Map
from nncompile.interop.torch_names import COUNTER, Source, canonical, joined
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.loops.scan import Scan
from nncompile.program.model import RANDOM_STATE, Model

Shapes = Mapping[str, tuple[int, ...]]
Layers = dict[str, dict[str, str]]  # by the name of a layer: whole names by those within it


@dataclass(frozen=True)
class TensorPart:
    """Where a parameter is among torch's tensors: the name, and which of so many equal parts of
    the rows; `transposed` where the axes are in the other order."""

    name: str
    index: int
    count: int
    transposed: bool

    def to_parameter(self, tensor: Array, type_: Type) -> Array:
        """The parameter, of the tensor of that name."""
        rows = tensor.shape[0] // self.count if tensor.ndim else 0
        x = tensor if self.count == 1 else tensor[self.index * rows : (self.index + 1) * rows]
        x = x.T if self.transposed else x
        # torch keeps a single number, as the slope of a PReLU, in a vector.
        return x.reshape(()) if type_.shape == () and x.size == 1 else x

    def from_parameter(self, x: Array) -> Array:
        """That part of the tensor of that name."""
        return x.T if self.transposed else x

    def shape(self, type_: Type) -> tuple[int, ...]:
        """The shape of the whole tensor."""
        shape = tuple(int(size) for size in type_.shape)
        shape = shape[::-1] if self.transposed else shape
        return (shape[0] * self.count, *shape[1:]) if self.count > 1 else shape


def tensor_parts(
    model: Model, shapes: Shapes, names: Mapping[str, str] | None = None
) -> dict[str, TensorPart]:
    """Where each parameter and state of the model is among torch's tensors, whose shapes are given
    by name.

    `names` says which layer of torch is which of the model, `{"fc1": "stem"}`, or names tensors
    one by one. Without it, names that are all equal are taken as such; otherwise the layers are
    taken to follow each other in both in one order, that of definition there and of first use
    here. Raises `ModelError` for what is missing, what is unexpected, and shapes that do not fit.
    """
    types = torch_types(model)
    sources = canonical(shapes)
    if names:
        sources = _renamed(sources, names, types)
    if not names and not types.keys() <= sources.keys():
        matched = _in_order(_layers(types), _layers(sources), sources)
    else:
        matched = {path: sources[path] for path in types if path in sources}
    missing = [path for path in types if path not in matched]
    if missing:
        raise ModelError(
            f"the state dict has nothing for {', '.join(missing)}",
            rows=_listed(shapes),
            hint='names={"its layer": "layer of the model"} says which is which',
        )
    turned = transposed_paths(model)
    parts = {path: TensorPart(*source, path in turned) for path, source in matched.items()}
    used_names = {part.name for part in parts.values()}
    extra = [name for name in shapes if name not in used_names and not name.endswith(COUNTER)]
    if extra:
        raise ModelError(
            f"the state dict has {', '.join(extra)}, which model {model.name} does not have",
            rows=[(path, str(type_)) for path, type_ in types.items()],
            hint='leave them out, or name the layer they belong to: names={"its layer": "layer"}',
        )
    for path, part in parts.items():
        expected, got = part.shape(types[path]), tuple(shapes[part.name])
        if expected != got and not (expected == () and got == (1,)):
            raise ModelError(
                f"{part.name!r} of the state dict does not fit {path!r}",
                rows=[("expected", _size(expected)), ("got", _size(got))],
            )
    return parts


def torch_types(model: Model) -> dict[str, Type]:
    """The types of the parameters and states that torch has, too, in order of first use."""
    leaves = {**model.parameters, **model.states}
    return {p: leaves[p].type for p in model.initial if p in leaves and p not in RANDOM_STATE}


def transposed_paths(model: Model) -> set[str]:
    """The matrices that torch keeps transposed: `weight`s (`weight_ih_l0`, …) by which the model
    multiplies from the right, in a loop or out of it."""
    paths = _multiplied_from_right(model.whole.nodes, {})
    leaves = model.parameters
    return {
        path
        for path in paths
        if path.rpartition(".")[2].startswith("weight") and leaves[path].rank == 2
    }


def _multiplied_from_right(nodes: Iterable[Value], outer: Mapping[Value, set[str]]) -> set[str]:
    """The paths of the parameters that the nodes multiply by from the right, where `outer` values
    hold those of these paths."""
    weights, paths = dict(outer), set[str]()
    for v in nodes:
        if isinstance(v.op, Input) and v.op.kind == "parameter":
            weights[v] = {v.op.name}
        elif isinstance(v.op, Map):  # a weight to which something is added
            operands = [weights[a] for a in v.args if a in weights and a.type == v.type]
            if operands:
                weights[v] = set().union(*operands)
        elif isinstance(v.op, MatMul):
            paths |= weights.get(v.args[1], set())
        elif isinstance(v.op, Scan):
            bindings = zip(v.op.body.formals, v.args, strict=True)
            inside = {formal: weights[a] for formal, a in bindings if a in weights}
            paths |= _multiplied_from_right(v.op.body.graph.nodes, inside)
    return paths


def _renamed(
    sources: Mapping[str, Source], names: Mapping[str, str], types: Mapping[str, Type]
) -> dict[str, Source]:
    """The tensors by the names that the user says they have in the model."""
    for theirs, ours in names.items():
        for name, candidates, side in (
            (theirs, sources, "the state dict"),
            (ours, types, "the model"),
        ):
            if not any(_is_within(x, name) for x in candidates):
                layers = {x.rpartition(".")[0] or x for x in candidates}
                raise ModelError(
                    f"names: {side} has no layer or tensor {name!r}",
                    hint=did_you_mean(name, layers),
                )
    renamed = {}
    for name, source in sources.items():
        layer = max((n for n in names if _is_within(name, n)), key=len, default=None)
        new = name if layer is None else names[layer] + name[len(layer) :]
        owner, _, last = new.rpartition(".")
        slope = joined(owner, "slope")
        renamed[slope if last == "weight" and new not in types and slope in types else new] = source
    return renamed


def _is_within(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def _layers(names: Iterable[str]) -> Layers:
    """The names by layer: attention and the layers of transformers are one each, as they do not
    have their parts in one order."""
    names = list(names)
    wholes = {n.removesuffix(".query.weight") for n in names if n.endswith(".query.weight")}
    wholes |= {"" for n in names if n == "query.weight"}
    blocks = {w.rpartition("attention")[0].rstrip(".") for w in wholes if _ends(w, "attention")}
    wholes |= {b for b in blocks if joined(b, "feed.hidden.weight") in names}
    layers: Layers = {}
    for name in names:
        owners = [w for w in wholes if not w or _is_within(name, w)]
        owner = min(owners, key=len) if owners else name.rpartition(".")[0]
        inner = name[len(owner) :].lstrip(".")
        layers.setdefault(owner, {})[inner] = name
    return layers


def _ends(name: str, last: str) -> bool:
    return name.rpartition(".")[2] == last


def _in_order(ours: Layers, theirs: Layers, sources: Mapping[str, Source]) -> dict[str, Source]:
    """The layers of both one after another."""
    rows = [
        (str(i + 1), *(_layer(layers, i) for layers in (ours, theirs)))
        for i in range(max(len(ours), len(theirs)))
    ]
    hint = 'names={"its layer": "layer of the model"} says which is which'
    if len(ours) != len(theirs):
        raise ModelError(
            f"the model has {len(ours)} layers with weights, the state dict has {len(theirs)}",
            rows=[("", "model", "state dict"), *rows],
            hint=hint,
        )
    matched: dict[str, Source] = {}
    for (our_layer, our_paths), (their_layer, names) in zip(
        ours.items(), theirs.items(), strict=True
    ):
        names = {k: name for k, name in names.items() if k in our_paths or not k.endswith(COUNTER)}
        if our_paths.keys() == {"slope"} and names.keys() == {"weight"}:
            names = {"slope": names["weight"]}
        elif len(our_paths) == len(names) == 1:  # a table by any name
            names = dict(zip(our_paths, names.values(), strict=True))
        if our_paths.keys() != names.keys():
            raise ModelError(
                f"layer {our_layer!r} of the model and {their_layer!r} of the state dict differ",
                rows=[("model", ", ".join(our_paths)), ("state dict", ", ".join(names))],
                hint=hint,
            )
        matched |= {path: sources[names[inner]] for inner, path in our_paths.items()}
    return matched


def _layer(layers: Layers, index: int) -> str:
    if index >= len(layers):
        return "-"
    name, inner = list(layers.items())[index]
    return f"{name or '(itself)'}: {', '.join(inner)}"


def _listed(shapes: Shapes) -> list[Row]:
    return [(name, _size(tuple(shape))) for name, shape in shapes.items()]


def _size(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
