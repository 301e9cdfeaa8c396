"""What each stored tensor of a file is: trained, a state, or a constant; and which are one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.frontends.onnx.linear import LINEAR
from nncompile.frontends.onnx.naming import (
    FX_NODE,
    is_beside_group_norm,
    is_group_norm,
    is_made_up,
    path_of,
    slot_name,
)
from nncompile.frontends.onnx.tables import table_of
from nncompile.ir.names import matches, unused_name
from nncompile.ir.types import Array

Use = tuple[onnx.NodeProto, int]

_ANY = frozenset(range(64))
_WEIGHTS: dict[str, frozenset[int]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "DeformConv"), frozenset({0, 1, 2, 3, 4})),
    **dict.fromkeys(("MatMul", "Einsum", "FusedMatMul", *LINEAR), _ANY),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), frozenset({1, 2, 3, 5, 6, 7})),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), frozenset({1, 2})),
    **dict.fromkeys(("InstanceNormalization", "BatchNormalization"), frozenset({1, 2})),
    **dict.fromkeys(("RMSNormalization", "SimplifiedLayerNormalization", "PRelu"), frozenset({1})),
    "Gather": frozenset({0}),
    "Attention": _ANY,
}
_STATES: dict[str, frozenset[int]] = {"BatchNormalization": frozenset({3, 4})}
# Through these a weight reaches the operator that it is for.
_PASSING = frozenset(
    [
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Cast",
        "Flatten",
        "Expand",
        "Split",
        "Slice",
        "Concat",
        "Tile",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)
_ADDED = frozenset(["Add", "Sub", "Mul", "Div", "Where", "Pow"])
_BUFFERS = re.compile(
    r"(.*[._/])?(inv_freq|position_ids|(pixel_|image_)?(mean|std)|rel(ative)?_pos(ition)?_index|anchors?)$"
)
_FARTHEST = 500  # tensors that one is arranged to on its way to an operator
_COMPARED = 50  # tensors of one shape, and of the same corners, with each other one
_LEAST_TIED = 16  # elements of tensors that are not equal by chance


@dataclass
class Stored:
    """A tensor that a file stores: its numbers, its uses, and what it is here."""

    name: str
    array: Array
    uses: list[Use] = field(default_factory=list)
    role: str = "constant"  # or "parameter", "state"
    reason: str = ""
    path: str = ""
    integers: Array | None = None  # as the file stores it, where `array` is what they stand for
    is_written: bool = False  # in a node, as its constant
    beside: str = ""  # the stored tensor that is added to its product
    same_as: Stored | None = None  # the tensor that it is one parameter with
    transposed: bool = False  # whether it is the transpose of that
    takers: list[Use] = field(default_factory=list)  # the nodes that take it, whatever they are
    copy_of: str | None = None  # the tensor of the file of which it is what one layer takes
    users: list[Use] = field(default_factory=list)  # the nodes of that layer

    @property
    def is_float(self) -> bool:
        """Whether it could be trained."""
        return self.array.dtype.kind == "f" or self.array.dtype.name == "bfloat16"


def takes_weight(op: str, position: int) -> bool:
    """Whether an operator takes a weight, or a statistic, as that input."""
    return position in _WEIGHTS.get(op, ()) or position in _STATES.get(op, ())


def consumers(graph: onnx.GraphProto, functions: Mapping[Any, Any]) -> dict[str, list[Use]]:
    """The nodes that take each tensor, those of graphs within and of the file's functions too."""
    found: dict[str, list[Use]] = {}
    for node in all_nodes(graph.node):
        function = functions.get((node.domain, node.op_type, node.overload))
        for i, name in enumerate(node.input):
            if function is None:
                found.setdefault(name, []).append((node, i))
            elif i < len(function.input):
                found.setdefault(name, []).extend(_within(function, function.input[i]))
    return found


def _within(function: onnx.FunctionProto, formal: str) -> Iterator[Use]:
    for node in function.node:
        yield from ((node, i) for i, name in enumerate(node.input) if name == formal)


def reached(name: str, by: Mapping[str, list[Use]]) -> list[Use]:
    """The operators that a tensor gets to, through those that only arrange it."""
    found: list[Use] = []
    seen, waiting = {name}, [name]
    while waiting and len(seen) < _FARTHEST:
        for node, i in by.get(waiting.pop(), ()):
            if node.op_type in _PASSING and (i == 0 or node.op_type == "Concat"):
                fresh = [o for o in node.output if o not in seen]
                seen.update(fresh)
                waiting += fresh
            elif node.op_type == "Loop" and i >= 2:
                waiting += _carried(node, i, seen)
            else:
                found.append((node, i))
    return found


def added_to(uses: Sequence[Use], by: Mapping[str, list[Use]], names: Collection[str]) -> str:
    """The stored tensor that is added to the only product with a weight."""
    if len(uses) != 1 or uses[0][0].op_type != "MatMul":
        return ""
    made = uses[0][0].output[:1]
    sums = [node for name in made for node, _ in by.get(name, ()) if node.op_type == "Add"]
    return next((x for node in sums[:1] for x in node.input if x in names), "")


def _carried(node: onnx.NodeProto, i: int, seen: set[str]) -> list[str]:
    """What a loop's body calls a tensor that goes into it."""
    for attribute in node.attribute:
        if attribute.name == "body" and i < len(attribute.g.input):
            name = attribute.g.input[i].name
            if name not in seen:
                seen.add(name)
                return [name]
    return []


def _kept_apart(stored: Stored) -> str:
    """What exporters say of a tensor: "parameter", "buffer", or nothing."""
    plain = re.sub(r"\W", "_", stored.name)
    for node, _ in stored.uses:
        for entry in node.metadata_props:
            if entry.key == FX_NODE and f"%b_{plain}" in entry.value:
                return "buffer"
            if entry.key == FX_NODE and f"%p_{plain}" in entry.value:
                return "parameter"
    return ""


def _assign_by_itself(stored: Sequence[Stored]) -> None:
    # Of products with a weight that has one result; of others, one number is a constant.
    biases = {s.beside for s in stored if s.array.ndim and s.array.shape[-1] == 1}
    for s in stored:
        s.role, s.reason = _role(s, s.name in biases)
    parameters = [s for s in stored if s.role == "parameter"]
    if all(s.is_written for s in parameters):
        return
    for s in parameters:  # of a file that stores its weights apart from what it writes in nodes
        if s.is_written and (not _in_slots(s) or _is_plain(s)):
            s.role, s.reason = "constant", "written in a node, as no weight of the file is"


def _in_slots(s: Stored) -> bool:
    return any(i in _WEIGHTS.get(n.op_type, ()) for n, i in s.uses)


def _is_plain(s: Stored) -> bool:
    """Whether it only makes an operator of one that has a scale and a shift."""
    return _is_uniform(s.array) and all(n.op_type == "InstanceNormalization" for n, _ in s.uses)


def _is_told(use: Use) -> bool:
    """Whether the exporter says of a node which tensors are parameters."""
    return any(entry.key == FX_NODE for entry in use[0].metadata_props)


def assign(stored: Sequence[Stored], trainable: str | Sequence[str]) -> None:
    """Gives each tensor its role: by the user's patterns, by what the exporter says, by the
    operators that it gets to."""
    _assign_by_itself(stored)
    if trainable == "auto":
        return
    patterns = (trainable,) if isinstance(trainable, str) else trainable
    for s in stored:
        if s.role != "state":
            wanted = s.is_float and matches(s.path, patterns)
            s.role, s.reason = ("parameter", "") if wanted else ("constant", "not in trainable")
    for pattern in patterns:
        if not any(s.is_float and matches(s.path, pattern) for s in stored):
            names = [s.path for s in stored if s.is_float]
            raise ModelError(
                f"trainable={pattern!r} matches no stored tensor",
                hint=did_you_mean(pattern, names),
            )


def are_statistics(uses: Sequence[Use]) -> bool:
    """Whether what is used so is a running statistic of batch normalizations, and nothing else."""
    return bool(uses) and all(i in _STATES.get(n.op_type, ()) for n, i in uses)


def _role(s: Stored, is_bias: bool = False) -> tuple[str, str]:
    if not s.is_float or not s.array.size:
        return "constant", ""
    if are_statistics(s.uses):
        return "state", ""
    said = _kept_apart(s)
    if said:
        return ("parameter", "") if said == "parameter" else ("constant", "a buffer")
    if _BUFFERS.match(s.name):
        return "constant", "a buffer by its name"
    if is_made_up(s.name) and is_beside_group_norm(s.uses):
        return "constant", "of the groups of a normalization that has weights of the channels"
    is_weight = _in_slots(s)
    if not is_weight or all(n.op_type == "Gather" for n, _ in s.uses):
        table = table_of(s.array)
        if table:
            return "constant", table
    if s.array.ndim and (is_weight or is_bias):
        return "parameter", ""
    if s.array.size == 1:
        return "constant", ""
    if any(n.op_type in _ADDED for n, _ in s.uses):
        return _role_of_added(s)
    ops = sorted({n.op_type for n, _ in s.uses})
    return "constant", f"used by {', '.join(ops)}" if ops else "not used"


def _role_of_added(s: Stored) -> tuple[str, str]:
    if not is_made_up(s.name) or not any(map(_is_told, s.uses)):
        return "parameter", ""
    if all(is_group_norm(n) for n, _ in s.uses):
        return "parameter", ""  # folded with its reshape, which took its name
    return "constant", "a parameter would be named by its exporter"


def name_all(
    stored: Sequence[Stored], prefix: str, renames: Mapping[str, str], used: set[str]
) -> None:
    """Gives each tensor its path. None is the beginning of another: no module holds a tensor and
    layers under one name."""
    for s in stored:
        wanted = renames.get(s.name) or path_of(s.name, s.uses, s.beside)
        path = f"{prefix}.{wanted}" if prefix else wanted
        s.path = unused_name(path, used, "_")
        used.add(s.path)
    layers = {path[:i] for path in used for i, c in enumerate(path) if c == "."}
    for s in stored:
        if s.path in layers and s.name not in renames:
            last = slot_name(*s.uses[0]) if s.uses else "weight"
            s.path = unused_name(f"{s.path}.{last}", used | layers, "_")
            used.add(s.path)
    unknown = set(renames) - {s.name for s in stored}
    if unknown:
        name = sorted(unknown)[0]
        raise ModelError(
            f"renames: the file stores no tensor {name!r}",
            hint=did_you_mean(name, [s.name for s in stored]),
        )


def tie(stored: Sequence[Stored]) -> dict[str, list[str]]:
    """Finds trained tensors that are one: of the same numbers, or the transpose of each other, as
    an embedding that is also the last layer. Uniform ones, as scales at the start, are not."""
    ties: dict[str, list[str]] = {}
    for s in stored:
        again = [n.output[0] for n, _ in s.takers if n.op_type == "Identity"]
        if again and s.role == "parameter":
            ties[s.path] = [s.name, *again]
    first: dict[Any, list[Stored]] = {}
    for s in stored:
        if s.role != "parameter" or s.array.size < _LEAST_TIED or _is_uniform(s.array):
            continue
        # Of tensors that are equal, or each other's transposes, these are.
        corners = s.array.reshape(-1)[[0, -1]].tobytes()
        alike = first.setdefault((s.array.dtype.name, tuple(sorted(s.array.shape)), corners), [])
        for other in alike[:_COMPARED]:
            turned = s.array.ndim == 2 and _equal(other.array, s.array.T)
            if turned or _equal(other.array, s.array):
                s.same_as = other
                s.transposed = turned and not _equal(other.array, s.array)
                name = f"{s.name} transposed" if s.transposed else s.name
                ties.setdefault(other.path, [other.name]).append(name)
                break
        else:
            alike.append(s)
    return ties


def _equal(x: Array, y: Array) -> bool:
    return x.shape == y.shape and bool((x == y).all())


def _is_uniform(x: Array) -> bool:
    flat = x.reshape(-1)
    return bool((flat[:64] == flat[0]).all() and (flat == flat[0]).all())
