"""Which nodes of a session on CUDA compute with data on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx
import onnxruntime as ort

from nncompile.backends.onnx.protos import graphs_within, opset_of
from nncompile.diagnostics.errors import ModelWarning, ProviderError, warn
from nncompile.runtime.cuda.graphs import Known
from nncompile.runtime.cuda.kernels import CUDA

RECORD = "session.record_ep_graph_assignment_info"
"""The option of a session that has it know where its nodes are computed."""
_LISTED = 5


class PlacementWarning(ModelWarning):
    """Nodes of a model on CUDA that are computed on the CPU: what they need travels there, and
    their results back, in each run."""


@dataclass(frozen=True)
class HostNode:
    """A node that is computed on the CPU: its name, its operator, the element types of its inputs,
    and the user's line, where the model says it."""

    name: str
    operator: str
    types: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        line = f" at {self.source}" if self.source else ""
        return f"{self.operator}({', '.join(self.types)}){line}"


def predicted(model: onnx.ModelProto) -> list[HostNode]:
    """The nodes of a model that compute with data, more than single numbers, and that onnxruntime
    would leave to the CPU, by the table of kernels. The types of the model must be known: see
    `onnx.shape_inference`."""
    return [_described(known, node) for known, node, on_host in _located(model) if on_host]


def reported(model: onnx.ModelProto, session: ort.InferenceSession) -> list[HostNode] | None:
    """Those nodes as the session says it, which was made with `RECORD`; None where this onnxruntime
    does not tell."""
    told = getattr(session, "get_provider_graph_assignment_info", None)
    if told is None:
        return None
    on_cpu = {x.name for group in told() if group.ep_name != CUDA for x in group.get_nodes()}
    return [_described(known, node) for known, node, _ in _located(model) if node.name in on_cpu]


def tell(nodes: Sequence[HostNode], name: str, strict: bool) -> None:
    """Warns of nodes on the CPU in a model of that name; raises `ProviderError` if `strict`."""
    if not nodes:
        return
    several = len(nodes) > 1
    message = (
        f"{name} has {len(nodes)} {'nodes that compute' if several else 'node that computes'} on "
        f"the CPU, where onnxruntime's provider 'cuda' lacks {'kernels' if several else 'a kernel'}"
        ": data travel there and back in each run"
    )
    if strict:
        raise ProviderError(
            message,
            rows=[(f"{x.operator}({', '.join(x.types)})", x.source or x.name) for x in nodes],
            hint="write it in other operations or element types, such as floats for integers; or "
            "leave strict_device (--strict-device) out",
        )
    first = "; ".join(dict.fromkeys(map(str, nodes[:_LISTED])))
    more = f"; and {len(nodes) - _LISTED} more" if len(nodes) > _LISTED else ""
    warn(f"{message}: {first}{more}", PlacementWarning)


def _located(model: onnx.ModelProto) -> Iterator[tuple[Known, onnx.NodeProto, bool]]:
    """The nodes of a model and of the graphs within it that compute with data, and whether the
    table has them on the CPU."""
    yield from _located_in(model.graph, opset_of(model), None)


def _located_in(
    graph: onnx.GraphProto, opset: int, outer: Known | None
) -> Iterator[tuple[Known, onnx.NodeProto, bool]]:
    known = Known.of(graph, opset, outer)
    for node, on_host, _ in known.placed():
        if known.is_data(node) and not known.is_of_numbers(node):
            yield known, node, on_host
        for inner in graphs_within(node):
            yield from _located_in(inner, opset, known)


def _described(known: Known, node: onnx.NodeProto) -> HostNode:
    types = (known.types.get(name) for name in node.input if name)
    places = (x.value for x in node.metadata_props if x.key == "source")
    return HostNode(
        node.name,
        node.op_type,
        tuple("?" if t is None else t.short for t in types),
        next(places, ""),
    )
