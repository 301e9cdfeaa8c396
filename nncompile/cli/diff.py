"""Shows what differs between two ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nncompile.cli.outcome import FAILED, Outcome
from nncompile.cli.report import LINES
from nncompile.cli.shared import out
from nncompile.diagnostics.tables import columns
from nncompile.frontends.onnx.differences import differences


def diff(
    first: Annotated[Path, typer.Argument(metavar="A.onnx", help="An ONNX model.")],
    second: Annotated[Path, typer.Argument(metavar="B.onnx", help="The model to compare it with.")],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print all lines, not the first of each kind.")
    ] = False,
) -> Outcome:
    """Show what differs between two ONNX files.

    Inputs, outputs, opsets, nodes, and the names, types and numbers of weights: for each weight of
    other numbers, the largest change of an element relative to the largest element. Exit code 1
    where the graphs differ, 0 where only numbers do: then one file can take the place of the other.

    \b
    Example:
      nncompile diff resnet.onnx tuned.onnx
    """
    found = differences(first, second)
    most = None if verbose else LINES
    if found.is_same_graph:
        out.print(f"graph: the same, {found.nodes[0]:,} nodes")
    else:
        out.print(f"graph: {len(found.graph):,} differences, {found.nodes[0]:,} and "
                  f"{found.nodes[1]:,} nodes")  # fmt: skip
        print_first(found.graph, most)
    changed = found.changed
    largest = f", by at most {changed[0].relative:.2g} of the largest element" if changed else ""
    out.print(f"numbers: {len(changed):,} of {found.weights:,} weights differ{largest}")
    rows = [(c.name, c.type, f"{c.relative:.2g}") for c in changed]
    print_first(columns(rows).splitlines(), most)
    if found.about:
        out.print("beside the graph:")
        print_first(found.about, most)
    described = {
        "same_graph": found.is_same_graph,
        "graph": found.graph,
        "weights": found.weights,
        "changed": [vars(change) for change in changed],
        "about": found.about,
        "nodes": list(found.nodes),
    }
    return Outcome(described, 0 if found.is_same_graph else FAILED)


def print_first(lines: list[str], most: int | None) -> None:
    """Prints the first lines, and how many there are beside them."""
    for line in lines[:most]:
        out.print(f"  {line}")
    if most is not None and len(lines) > most:
        out.print(f"  ... {len(lines) - most:,} more: --verbose")
