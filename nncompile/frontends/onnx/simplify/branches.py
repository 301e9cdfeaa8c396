"""Conditions that are known: the branch that is taken stands for the node."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import onnx

from nncompile.frontends.onnx.simplify.rules import rule
from nncompile.frontends.onnx.simplify.work import Item, Work, rename_inputs


@rule("If")
def known_branch(work: Work, item: Item) -> bool:
    """The branch that is always taken."""
    condition = work.constant(item.inputs[0])
    if condition is None or condition.size != 1:
        return False
    branch: Any = item.attribute("then_branch" if condition.item() else "else_branch")
    if branch is None or branch.sparse_initializer:
        return False
    results = [output.name for output in branch.output]
    given = dict(zip(results, item.proto.output, strict=False))
    work.remove(item)
    names = {tensor.name: work.unused(tensor.name) for tensor in branch.initializer}
    for name in (name for node in branch.node for name in node.output if name):
        names[name] = given.get(name) or work.unused(name)
    for tensor in branch.initializer:
        stored = deepcopy(tensor)
        stored.name = names[tensor.name]
        work.tensors[stored.name] = stored
    nodes = [_renamed(node, names) for node in branch.node]
    # What comes from elsewhere, or is several results, is copied.
    for name, output in zip(results, item.proto.output, strict=False):
        source = names.get(name, name)
        if output and source != output:
            nodes.append(onnx.helper.make_node("Identity", [source], [output]))
    work.insert(item, [Item(node) for node in nodes])
    return True


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = deepcopy(node)
    for name, new in names.items():
        rename_inputs(copy, name, new)
    copy.output[:] = [names.get(name, name) for name in copy.output]
    return copy
