"""The table of a model: its layers with what they give, hold and cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import sympy as sp

from nncompile.diagnostics.errors import ShapeError, did_you_mean, whole_number
from nncompile.diagnostics.tables import columns, html_table
from nncompile.ir.dims import Dim, dim, grouped, product, substitute, symbols
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import component_types
from nncompile.program.outline import Block, outline

DEPTH = 3  # of layers within layers that are listed
LONGEST = 24  # characters of an expression of sizes in a cell
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_HEADER = ("layer", "output", "parameters", "MACs")
_RIGHT = (2, 3)


class Summary(str):
    """A text that a prompt shows as it is printed, and a notebook as a table."""

    html: str

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return self.html


def summary(
    graph: Graph,
    classes: Mapping[str, str],
    examples: Dim | None,
    hidden: Collection[str] = (),
    depth: int = DEPTH,
    sizes: Mapping[str, int] | None = None,
) -> Summary:
    """A line for each layer, and for each function that is called outside of layers: the type of
    its result, the numbers in the parameters and states that it is the first to use, and the
    multiply-accumulates of one example (`Op.macs`); then the totals. `examples` is the size along
    which the data are cut; without it the costs are those of one call. Layers within layers stand
    below them, `depth` levels of them. `sizes` are numbers for names of sizes.

    Raises `ShapeError` for a size that no input has.
    """
    known = _known(graph, sizes or {})
    cut = isinstance(examples, sp.Symbol)
    single = {**known, examples: 1} if cut else known
    rows: list[tuple[str, ...]] = [
        (name, _type(leaf, known), "", "") for name, leaf in graph.of_kind("input").items()
    ]
    for block in outline(graph, classes, hidden):
        for level, inner in block.walk():
            if level < depth and (level == 0 or inner.kind == "layer"):
                macs = substitute(inner.macs, single)
                rows.append(
                    (
                        "  " * level + _title(inner),
                        _types(inner, known),
                        _held(inner),
                        _cost(macs) if macs != 0 else "",
                    )
                )
    totals = _totals(graph, hidden, substitute(graph.macs, single), cut)
    text = Summary(f"{graph.name}\n{_ruled(rows)}\n\n{columns(totals)}\n")
    text.html = (
        f"{html_table([_HEADER, *rows], _RIGHT, caption=graph.name)}{html_table(totals, header=0)}"
    )
    return text


def memory(count: float) -> str:
    """A number of bytes in the largest unit of which it is at least one."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:,.1f} {_UNITS[unit]}" if unit else f"{count:,.0f} bytes"


def elements(leaves: Iterable[Value]) -> Dim:
    """How many numbers the leaves hold."""
    return dim(sum(product(leaf.shape) for leaf in leaves))


def _title(block: Block) -> str:
    return f"{block.name} ({block.label})" if block.label else block.name


def _known(graph: Graph, sizes: Mapping[str, int]) -> dict[sp.Symbol, int]:
    shapes = [v.shape for v in graph.of_kind("input").values()]
    names = {str(s): s for s in symbols(d for shape in shapes for d in shape)}
    for name, size in sizes.items():
        if name not in names:
            raise ShapeError(
                f"no input of model {graph.name} has a size {name!r}",
                hint=did_you_mean(name, names),
            )
        whole_number(name, size, 0)
    return {names[name]: size for name, size in sizes.items()}


def _type(v: Value, known: Mapping[sp.Symbol, Dim]) -> str:
    types = component_types(v.type)
    return ", ".join(str(t.with_shape(tuple(substitute(d, known) for d in t.shape))) for t in types)


def _types(block: Block, known: Mapping[sp.Symbol, Dim]) -> str:
    types = list(dict.fromkeys(_type(v, known) for v in block.results))
    return ", ".join(types[:2]) + (", …" if len(types) > 2 else "")


def _cost(macs: Dim) -> str:
    """The number; of a long expression only what it is made of."""
    text = grouped(macs)
    return text if len(text) <= LONGEST else f"of {', '.join(sorted(map(str, symbols([macs]))))}"


def _held(block: Block) -> str:
    count = elements(block.parameters.values())
    return grouped(count) if count != 0 else "shared" if block.shares else ""


def _ruled(rows: Sequence[tuple[str, ...]]) -> str:
    lines = columns([_HEADER, *rows], _RIGHT).split("\n")
    lines.insert(1, "─" * max(map(len, lines)))
    return "\n".join(lines)


def _totals(
    graph: Graph, hidden: Collection[str], macs: Dim, single: bool
) -> list[tuple[str, ...]]:
    """The rows below the table."""
    rows: list[tuple[str, ...]] = []
    for kind, title in (("parameter", "parameters"), ("state", "state")):
        leaves = [v for name, v in graph.of_kind(kind).items() if name not in hidden]
        if leaves or kind == "parameter":
            count = elements(leaves)
            size = sum(v.dtype.numpy.itemsize * elements([v]) for v in leaves)
            tensors = f"in {len(leaves)} tensor{'s' * (len(leaves) != 1)}"
            rows.append((title, f"{grouped(count)} {tensors}, {memory(float(size))}"))
    rows.append(("MACs", f"{grouped(macs)} {'for each example' if single else 'in a call'}"))
    open_sizes = sorted(map(str, symbols([macs])))
    if open_sizes:
        rows.append(("", f"summary({', '.join(f'{name}=…' for name in open_sizes)}) counts them"))
    return rows
