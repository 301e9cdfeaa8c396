"""How a model shows itself: in one line, and as a table."""

from __future__ import annotations

from collections.abc import Mapping

from nncompile.diagnostics.errors import whole_number
from nncompile.ir.dims import Dim
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.program.summary import DEPTH, Summary, elements, grouped, summary


class Presented:
    """What a model has for its readers. Leaves without an initial value, of which random numbers
    are made, are not shown."""

    name: str
    graph: Graph
    initial: Mapping[str, Value]
    layers: Mapping[str, str]

    def summary(self, depth: int = DEPTH, **sizes: int) -> Summary:
        """The model as a table, for `print` or a notebook: a line for each layer with the type of
        its result, its number of parameters and its multiply-accumulates for one example, and the
        totals. `depth` is how many levels of layers within layers are listed. `sizes` are numbers
        for names of sizes, `summary(height=8)`; raises `ShapeError` for a name that no input has.
        """
        whole_number("depth", depth, 1)
        return summary(self.graph, self.layers, self._per_example, self._unset, depth, sizes)

    @property
    def _unset(self) -> list[str]:
        return [name for name in self.graph.of_kind("state") if name not in self.initial]

    @property
    def _per_example(self) -> Dim | None:
        raise NotImplementedError

    def __repr__(self) -> str:
        inputs = (f"{name}: {leaf.type}" for name, leaf in self.graph.of_kind("input").items())
        count = grouped(elements(self.graph.of_kind("parameter").values()))
        outputs = ", ".join(self.graph.outputs)
        return f"<Model {self.name}({', '.join(inputs)}) → {outputs}; {count} parameters>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
