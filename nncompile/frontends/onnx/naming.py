"""What the tensors of a file are called: paths of words, as those of a model written here."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

import onnx

# What exporters call a tensor that they made up.
_MADE_UP = re.compile(
    r"(onnx::\w+|val_\d+|_?v_\d+|const(ant)?_?(fold_opt)?_*\d*|[WRB]\d*__\d+|\d+|coefficient\d*"
    r"|initializer_?\d*|tensor_?\d*|new_shape.*)$",
    re.IGNORECASE,
)
# What other frameworks add to the name of a weight.
_TAILS = re.compile(r"(/(ReadVariableOp|resource|Read|Cast(_\d+)?|split|merged_input))*(:\d+)?$")
_SCOPES = "pkg.torch.onnx.name_scopes"
FX_NODE = "pkg.torch.onnx.fx_node"


def clean(name: str) -> str:
    """The name as a path: words with dots between them."""
    plain = _TAILS.sub("", name)
    plain = re.sub(r"[^\w.\-]+", ".", plain.replace("::", "."))
    return re.sub(r"\.{2,}", ".", plain).strip(".")


def is_made_up(name: str) -> bool:
    """Whether a name says nothing of what the tensor is."""
    return _MADE_UP.fullmatch(name) is not None


def scope_of(node: onnx.NodeProto) -> str:
    """The layer that a node was written in, as its exporter says it."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(scopes, list) and len(scopes) > 1:
                return clean(str(scopes[-2]))
    parts = [p for p in re.split(r"[/]", node.name) if p]
    return clean(".".join(parts[:-1])) if len(parts) > 1 else ""


def is_group_norm(node: onnx.NodeProto) -> bool:
    """Whether it is a part of a group normalization, as torch's newer exporter says it."""
    return any(
        entry.key == FX_NODE and re.search(r"\baten\.(native_)?group_norm\b", entry.value)
        for entry in node.metadata_props
    )


def is_beside_group_norm(uses: Sequence[tuple[onnx.NodeProto, int]]) -> bool:
    """Whether a tensor is none of the weights of group normalizations, but what their nodes need:
    a shape, and a scale and a shift of the groups that are ones and zeros."""
    return bool(uses) and all(
        node.op_type not in ("Mul", "Add") and is_group_norm(node) for node, _ in uses
    )


def slot_name(node: onnx.NodeProto, index: int) -> str:
    """What a weight is called by the operator that takes it."""
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return {1: "weight_input", 2: "weight_state", 3: "bias", 7: "peepholes"}.get(
            index, "weight"
        )
    if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
        return "bias" if index == 2 else "weight"
    if node.op_type.endswith("Normalization"):
        return {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}.get(index, "weight")
    return "bias" if node.op_type in ("Add", "Sub") else "weight"


def path_of(name: str, uses: Sequence[tuple[onnx.NodeProto, int]], beside: str = "") -> str:
    """The path of a stored tensor: its own name, or where that is made up, that of the layer it is
    used in, or of the bias `beside` it."""
    name = re.sub(r"_quantized$", "", name)
    if not is_made_up(name):
        return clean(name) or "weight"
    if is_beside_group_norm(uses):
        return clean(name)
    stem, dot, last = clean(beside).rpartition(".")
    if dot and last == "bias" and not is_made_up(beside):
        return f"{stem}.weight"
    for node, index in uses:
        scope = scope_of(node)
        if scope:
            return f"{scope}.{slot_name(node, index)}"
    for node, index in uses:
        own = clean(node.name)
        if own and not re.fullmatch(r"(node_)?\w*?_?\d*", node.name):
            return f"{own}.{slot_name(node, index)}"
    if uses:
        node, index = uses[0]
        return f"{clean(node.name) or node.op_type.lower()}.{slot_name(node, index)}"
    return clean(name) or "weight"
