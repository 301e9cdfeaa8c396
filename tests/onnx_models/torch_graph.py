"""A file rebuilt in torch, of double precision: its outputs as a function of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper

from nncompile.backends.onnx.protos import all_nodes
from nncompile.frontends.onnx.loading import ImportedModel
from nncompile.frontends.onnx.original import Kept
from tests.onnx_models import torch_layers as torch_layers  # fills the table
from tests.onnx_models.torch_layers import Quantized
from tests.onnx_models.torch_nodes import NODES, tensor


class TorchGraph:
    """The file of an imported model. Which of its tensors are which parameter is what the model
    says; all else is read from the file again."""

    def __init__(self, model: ImportedModel, file: Path) -> None:
        assert model.original is not None
        self.proto = onnx.load(file)
        self.kept = model.original.tensors
        self.updated: dict[str, Any] = {}  # statistics after a batch, by their names in the file
        nodes = {n.output[0]: n for n in all_nodes(self.proto.graph.node) if n.output}
        for kept in self.kept:
            for output, i in kept.users:
                nodes[output].input[i] = _own(kept)
        missing = {n.op_type for n in all_nodes(self.proto.graph.node)} - {*NODES, "Loop"}
        if missing:
            raise NotImplementedError(f"torch is not told what {', '.join(sorted(missing))} are")

    def __call__(
        self, weights: Mapping[str, Any], feeds: Mapping[str, Any], batch: bool = False
    ) -> list[Any]:
        """The outputs, of weights and states by path. `batch`: as in training."""
        self.batch = batch
        self.updated = {}
        graph = self.proto.graph
        stored = {t.name: t for t in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                stored[node.output[0]] = node.attribute[0].t
        self.leaves: dict[str, Any] = {}
        for kept in self.kept:
            leaf = weights[kept.path]
            leaf = leaf.T if kept.is_transposed else leaf
            if kept.is_quantized:
                user = next(n for n in graph.node if n.input and n.input[0] == kept.name)
                numbers = [tensor(numpy_helper.to_array(stored[n])) for n in user.input[1:] if n]
                whole = tensor(numpy_helper.to_array(stored[kept.name]))
                zero = numbers[1] if len(numbers) > 1 else torch.zeros((), dtype=whole.dtype)
                leaf = Quantized(leaf, numbers[0], zero)
            self.leaves[_own(kept)] = leaf
        environment = {n: tensor(numpy_helper.to_array(t)) for n, t in stored.items()}
        environment |= {n: tensor(x) for n, x in feeds.items()} | self.leaves
        self._run(graph.node, environment)
        return [environment[o.name] for o in graph.output]

    def _run(self, nodes: Any, environment: dict[str, Any]) -> None:
        for node in nodes:
            if node.output[0] in self.leaves:
                continue
            inputs = [environment[n] if n else None for n in node.input]
            attributes: dict[str, Any] = {
                "op": node.op_type, "outputs": len(node.output), "batch": self.batch,
            }  # fmt: skip
            for attribute in node.attribute:
                value = helper.get_attribute_value(attribute)
                attributes[attribute.name] = value.decode() if isinstance(value, bytes) else value
                if attribute.name == "activations":
                    attributes["activations"] = [x.decode() for x in value]
            if node.op_type == "BatchNormalization":
                names = [*node.input[3:5]]
                attributes["statistics"] = lambda new, names=names: self.updated.update(
                    zip(names, new, strict=True)
                )
            if node.op_type == "Loop":
                results = self._loop(attributes["body"], environment, *inputs)
            elif node.op_type == "Constant":
                del attributes["op"], attributes["outputs"], attributes["batch"]
                results = NODES["Constant"](attributes)
            else:
                results = NODES[node.op_type](attributes, *inputs)
            several = results if isinstance(results, tuple | list) else (results,)
            for name, result in zip(node.output, several, strict=False):
                environment[name] = result

    def _loop(
        self, body: Any, outer: dict[str, Any], count: Any, going: Any, *carried: Any
    ) -> list[Any]:
        states, collected = list(carried), []
        inner = {t.name: tensor(numpy_helper.to_array(t)) for t in body.initializer}
        going = torch.tensor(True) if going is None else going
        i = 0
        while bool(going) and (count is None or i < int(count)):
            names = [x.name for x in body.input]
            given = dict(zip(names, (torch.tensor(i), going, *states), strict=True))
            environment = {**outer, **inner, **given}
            self._run(body.node, environment)
            going, *results = (environment[o.name] for o in body.output)
            states = results[: len(carried)]
            collected.append(results[len(carried) :])
            i += 1
        return [*states, *(torch.stack(parts) for parts in zip(*collected, strict=True))]


def _own(kept: Kept) -> str:
    """A name of its own for a tensor that only one node takes."""
    return f"{kept.name} of {kept.users[0]}" if kept.users else kept.name
