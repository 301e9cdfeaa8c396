"""The TorchScript backend against numpy: its source run as Python, which is fast, or scripted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from nncompile.backends.torchscript import functions, to_script
from nncompile.backends.torchscript.arrays import array_of, tensor_of
from nncompile.backends.torchscript.lowering import lower
from nncompile.backends.torchscript.writing import FUNCTIONS
from nncompile.ir.graph import Graph
from tests.fuzzing.arithmetic import SINGLE
from tests.fuzzing.checks import check_dtypes
from tests.fuzzing.comparison import Mismatch, Reference
from tests.op_types import Feeds

torch.set_num_threads(1)

# What torch does not do for images without rows or columns.
REFUSED = "Input and output sizes should be greater than 0"


def check_source(reference: Reference, graph: Graph) -> None:
    """The source of the module, run by Python, gives what numpy gives in double."""
    _compare("torch", reference, graph, _source(graph))


def computed(graph: Graph, feeds: Feeds) -> Feeds:
    """What the source of the module, run by Python, gives."""
    return _run(_source(graph), graph, feeds)


def _source(graph: Graph) -> Any:
    lowered = lower(graph)
    names: dict[str, Any] = {"torch": torch, "Tensor": torch.Tensor, "Dict": dict}
    names |= {name: getattr(functions, name) for name in FUNCTIONS}
    exec(compile(lowered.source, "<torchscript>", "exec"), names)
    held = {name: tensor_of(a) for name, a in lowered.constants.items()}
    module = SimpleNamespace(**held)
    return lambda *tensors: names["forward"](module, *tensors)


def check_script(reference: Reference, graph: Graph) -> None:
    """The scripted module does, at its first runs and after they have been optimized."""
    script = to_script(graph, {})
    for _ in range(2):
        _compare("TorchScript", reference, graph, script)


def _compare(kind: str, reference: Reference, graph: Graph, function: Any) -> None:
    for i, (sizes, feeds) in enumerate(reference.bindings):
        try:
            results = _run(function, graph, feeds)
        except RuntimeError as error:
            if 0 in sizes.values() and REFUSED in str(error):
                continue
            raise Mismatch(f"{kind} raises", str(error)) from error
        check_dtypes(kind, graph, results)
        reference.compare(kind, i, results, SINGLE)


def _run(function: Any, graph: Graph, feeds: Feeds) -> Feeds:
    tensors = [tensor_of(feeds[n]) for n in graph.leaves]
    with torch.no_grad():
        return {n: array_of(t) for n, t in function(*tensors).items()}
