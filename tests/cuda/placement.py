"""Where onnxruntime's CUDA provider computes the nodes of every op, gradient and example step: what
needs no GPU, only a provider that loads (see `kernel_table.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nncompile.backends.onnx import to_model
from nncompile.compiler.compile import compile_step
from tests import op_checks
from tests.cuda.device import Placement, placed
from tests.cuda.examples import names, recipe_and_data
from tests.cuda.ops import all_cases


def lines(only: str = "") -> Iterator[str]:
    """The report: the ops together, and each example."""
    yield from _of_ops(only)
    for name in names():
        if only in name:
            try:
                yield f"  {name:24s} {_said(_of_example(name))}"
            except Exception as error:
                yield f"  {name:24s} {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _of_ops(only: str) -> Iterator[str]:
    hosted: Counter[str] = Counter()
    first: dict[str, str] = {}
    graphs, with_some, unforeseen = 0, 0, 0
    for case in all_cases():
        if only not in case.name:
            continue
        made = [case.graph(case.results)]
        if op_checks.is_differentiable(case) and case.sample.order >= 1:
            made.append(op_checks.gradients_of(case)[0])
        for graph in made:
            found = placed(to_model(graph))
            graphs += 1
            with_some += bool(found.on_cpu)
            unforeseen += len(found.unforeseen)
            for kind in set(found.kinds):
                hosted[kind] += 1
                first.setdefault(kind, case.name)
    yield (
        f"{graphs} graphs of ops and gradients, {with_some} with nodes of data on the CPU, "
        f"{unforeseen} nodes that the table of kernels does not have there"
    )
    yield from (f"  {n:4d}  {kind}  first {first[kind]}" for kind, n in hosted.most_common())


def _of_example(name: str) -> Placement:
    recipe, _ = recipe_and_data(name)
    return placed(compile_step(recipe, kernels=False).step_model)


def _said(found: Placement) -> str:
    hosted = ", ".join(f"{n}× {kind}" for kind, n in Counter(found.kinds).most_common()) or "none"
    return (
        f"{found.nodes} nodes, {found.sizes_on_cpu} of sizes on the CPU, {found.copies} copies; "
        f"data on the CPU: {hosted}"
    )
