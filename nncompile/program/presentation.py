"""How a model shows itself: in one line, and as a table."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.diagnostics.files import write_atomically
from nncompile.ir.dims import Dim, grouped
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.program.picture import picture
from nncompile.program.summary import DEPTH, Summary, elements, summary


class Presented(ABC):
    """A model in one line, as a table and as a picture. Leaves without an initial value, from which
    random numbers are drawn, are not shown."""

    name: str
    graph: Graph
    initial: Mapping[str, Value]
    layers: Mapping[str, str]

    @property
    @abstractmethod
    def examples(self) -> Dim | None:
        """The size that data are cut along; None where there is no such size."""

    def summary(self, depth: int = DEPTH, **sizes: int) -> Summary:
        """The model as a table, for `print` or a notebook: a line for each layer with the type of
        its result, its number of parameters and its multiply-accumulates for one example, and the
        totals. `depth` is how many levels of layers within layers are listed. `sizes` are numbers
        for names of sizes, `summary(height=8)`; raises `ShapeError` for a name that no input has.
        """
        whole_number("depth", depth, 1)
        return summary(self.graph, self.layers, self.examples, self._unset, depth, sizes)

    def plot(self, path: str | os.PathLike[str] = "model.svg") -> Path:
        """Draws the model to an .svg file, which a browser shows: layers and functions as boxes,
        with the types of what flows between them. A box opens where it is clicked. The picture
        needs nothing else, and follows the reader's choice of light or dark.

        Raises `ModelError` for another suffix, `FileError` where the file cannot be written.
        """
        if Path(path).suffix.lower() != ".svg":
            raise ModelError(
                f"a model is drawn to an .svg file, got {os.fspath(path)!r}",
                hint=f"plot({Path(path).with_suffix('.svg').as_posix()!r})",
            )
        return write_atomically(path, self.picture().encode())

    def picture(self, prefix: str = "nn") -> str:
        """The picture that `plot` draws, as text to put into a page. `prefix` begins the names of
        its parts, which must be others for each picture of a page."""
        return picture(self.graph, self.layers, self._unset, prefix)

    @property
    def _unset(self) -> list[str]:
        return [name for name in self.graph.of_kind("state") if name not in self.initial]

    def __repr__(self) -> str:
        inputs = (f"{name}: {leaf.type}" for name, leaf in self.graph.of_kind("input").items())
        count = grouped(elements(self.graph.of_kind("parameter").values()))
        outputs = ", ".join(self.graph.outputs)
        return f"<Model {self.name}({', '.join(inputs)}) → {outputs}; {count} parameters>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
